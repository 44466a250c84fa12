#!/usr/bin/env python3
"""Holds the promises of SECURITY.md against the results of `cargo test`.

    scripts/prove.sh runs the tests and then this.

The table under "What is protected" is the list: each row names its tests by file, by room or by
script. A row without a test that ran is a failure, so that a renamed file cannot make a promise
empty; so is a script that is named and not known here. Standard library only.
"""

import re
import subprocess
import sys
import time

# What a row may name beside tests: the command, and one that says whether this machine can run it.
QUICK = {
    "cargo deny": ("cargo deny check bans licenses sources", "cargo deny --version"),
    "scripts/exceptions.py": ("python3 scripts/exceptions.py", "python3 -c 'import tomllib'"),
}
LONG = {
    "scripts/sweep.py": ("python3 scripts/sweep.py --all", "strace --version"),
    "scripts/miri.sh": ("scripts/miri.sh", "cargo +nightly miri --version"),
    "scripts/fuzz.sh": ("scripts/fuzz.sh 60", "cargo +nightly fuzz --version"),
    "scripts/vectors.py": ("python3 scripts/vectors.py", "python3 -m pip --version"),
    "scripts/reproduce.sh": ("scripts/reproduce.sh", "readelf --version"),
    "scripts/sbom.py": (
        "cargo build --locked --release && python3 scripts/sbom.py --check",
        "python3 -c 'import tomllib'",
    ),
    "EVERY_MANNER=1": ("EVERY_MANNER=1 cargo test --locked --test it every_command", "true"),
}
# What README.md has its figures from; they are printed and not judged, as machines differ.
FIGURES = ["benches/peers.sh", "cargo bench --locked --bench agent", "python3 benches/scale.py"]


def results(path):
    """Every test that ran: the binary it is in, its name, whether it passed."""
    binary, found = "", []
    with open(path, errors="replace") as log:
        for line in log:
            if running := re.match(r"\s+Running (?:unittests )?(\S+)|\s+(Doc-tests) ", line):
                binary = running.group(1) or running.group(2)
            # One that is ignored needs what is not here, and proves nothing.
            elif test := re.match(r"test (.+?)(?: - should panic)? \.\.\. (ok|FAILED)", line):
                found.append((binary, test.group(1), test.group(2) == "ok"))
    return found


def meant(reference, words, tests):
    """The tests that a reference in the table stands for."""
    if module := re.fullmatch(r"tests/it/(\w+)\.rs", reference):
        return [t for t in tests if t[0].startswith("tests/it") and t[1].startswith(module.group(1) + "::")]
    if file := re.fullmatch(r"tests/(\w+)\.rs", reference):
        return [t for t in tests if t[0] == f"tests/{file.group(1)}.rs"]
    room = reference.removesuffix(".rs").replace("/", "::")
    if "doc tests of" in words:
        return [t for t in tests if t[0] == "Doc-tests" and t[1].startswith(f"src/{reference}")]
    if "unit tests of" in words:
        return [t for t in tests if t[0] == "src/lib.rs" and t[1].startswith(room + "::")]
    return None


def promises():
    with open("SECURITY.md") as text:
        table = text.read().split("## What is protected", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip().strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [(" | ".join(cells[:-1]).strip(), cells[-1].strip()) for cells in rows[1:]]


class Scripts:
    """Runs what rows name beside tests, each once, and shows on standard error how far it is."""

    def __init__(self, long):
        self.known = {**QUICK, **LONG}
        self.long, self.ended = long, {}

    def run(self, name):
        """Says whether it passed; nothing where it was not run."""
        if name not in self.ended:
            command, able = self.known[name]
            wanted = self.long or name in QUICK
            self.ended[name] = self.passed(command) if wanted and self.can(able) else None
        return self.ended[name]

    @staticmethod
    def can(able):
        return subprocess.run(able, shell=True, capture_output=True).returncode == 0

    @staticmethod
    def passed(command):
        begun = time.monotonic()
        print(f"== {command}", file=sys.stderr, flush=True)
        code = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode
        print(f"== exit {code} after {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        return code == 0


def judge(cell, tests, scripts):
    """Says in a word whether the tests of a row hold, and how many there were."""
    count, bad, passed, skipped = 0, [], [], []
    for words, reference in re.findall(r"([^`]*)`([^`]+)`", cell):
        if reference in scripts.known:
            ended = scripts.run(reference)
            {True: passed, False: bad, None: skipped}[ended].append(reference)
            continue
        chosen = meant(reference, words, tests)
        if chosen is None:
            # A document is no test.
            if not reference.startswith("docs/"):
                bad.append(f"{reference} is not known")
            continue
        if not chosen:
            bad.append(f"{reference} has no test")
        count += len(chosen)
        bad += [name for _, name, passed in chosen if not passed]
    if bad:
        return f"FAILED: {', '.join(bad)}"
    said = [f"{count} test{'s' * (count != 1)} passed"] if count else []
    said += [f"{', '.join(names)} {end}" for names, end in ((passed, "passed"), (skipped, "not run")) if names]
    return "; ".join(said) or "FAILED: no test"


def main():
    tests, long = results(sys.argv[1]), "--long" in sys.argv[2:]
    scripts = Scripts(long)
    rows = [(promise, cell, judge(cell, tests, scripts)) for promise, cell in promises()]
    print("| promise | test | result |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    failed = sum(result.startswith("FAILED") for *_, result in rows)
    broken = [name for _, name, passed in tests if not passed]
    print(f"\n{len(tests)} tests, {len(broken)} failed; {failed} promises without their proof", flush=True)
    measured = [subprocess.run(command, shell=True).returncode == 0 for command in FIGURES if long]
    sys.exit(1 if failed or broken or not tests or not all(measured) else 0)


if __name__ == "__main__":
    main()
