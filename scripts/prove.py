#!/usr/bin/env python3
"""Holds the promises of SECURITY.md against the results of `cargo test`.

    scripts/prove.sh runs the tests and then this:  scripts/prove.py LOG EXIT [--long]

LOG is what they printed, EXIT how they ended; the file that DERIKEY_LEFT_OUT names has a line for
each thing that a test left out, as this machine cannot have it: the row that names the test says so.

The table under "What is protected" is the list: each row names its tests by file, by room or by
script. A row without a test that ran is a failure, so that a renamed file cannot make a promise
empty; so is a script that is named and not known here, and one known here that no row names.
What passed of the long ones is kept under target/proved, by the sources that it was run on: a run
that was interrupted goes on where it was, and what is older than any change of theirs is run anew.
Standard library only.
"""

import hashlib
import os
import re
import subprocess
import sys
import textwrap
import time

TOML = ("python3 -c 'import tomllib'", "Python 3.11 or newer")
# What a row may name beside tests: the command, one that says whether this machine can run it, and
# what to install where it cannot.
QUICK = {
    "cargo deny": (
        "cargo deny check bans licenses sources",
        "cargo deny --version",
        "cargo install --locked cargo-deny",
    ),
    "scripts/exceptions.py": ("python3 scripts/exceptions.py", *TOML),
}
LONG = {
    "scripts/sweep.py": ("cargo build --locked && python3 scripts/sweep.py --all", "strace --version", "install strace"),
    "scripts/miri.sh": (
        "scripts/miri.sh",
        "cargo +nightly miri --version",
        "rustup toolchain install nightly --component miri,rust-src",
    ),
    "scripts/fuzz.sh": (
        "scripts/fuzz.sh 600",
        "cargo +nightly fuzz --version",
        "rustup toolchain install nightly && cargo install --locked cargo-fuzz",
    ),
    "scripts/vectors.py": (
        "cargo build --locked && python3 scripts/vectors.py",
        "python3 -m pip --version",
        "install pip for python3",
    ),
    "scripts/reproduce.sh": ("scripts/reproduce.sh", "readelf --version", "install binutils"),
    "scripts/sbom.py": ("cargo build --locked --release && python3 scripts/sbom.py --check", *TOML),
    "scripts/startup-guard.sh": (
        "cargo build --locked --release && bash scripts/startup-guard.sh",
        "bash --version",
        "install bash",
    ),
    "cargo audit": (
        "cargo audit && cargo deny check advisories",
        "cargo audit --version && cargo deny --version",
        "cargo install --locked cargo-audit cargo-deny",
    ),
    "EVERY_BYTE=1": ("EVERY_BYTE=1 cargo test --locked --test it cuts::", "true", ""),
    "EVERY_MANNER=1": ("EVERY_MANNER=1 cargo test --locked --test it every_command::", "true", ""),
}
# What decides, beside a script's own text, whether it was run on what is here.
PACKAGE = ["Cargo.toml", "Cargo.lock", ".cargo"]
PROGRAM = ["src", *PACKAGE]
SOURCES = {
    # The rooms that have a door.
    "scripts/fuzz.sh": [
        *("src/lib.rs", "src/error.rs", "src/agent*", "src/exchange*", "src/fleet*", "src/key*", "src/secret*"),
        *("src/signer*", "src/store*", "src/cli/config.rs", "tests/it/hostile_input*", "tests/data/corpus", "fuzz"),
        *PACKAGE,
    ],
    "EVERY_BYTE=1": ["tests", *PROGRAM],
    "EVERY_MANNER=1": ["tests", *PROGRAM],
}
# What may end otherwise on the same sources.
ANEW = {"cargo audit"}
# What README.md has its figures from; they are printed and not judged, as machines differ.
FIGURES = ["scripts/figures.sh"]


def results(path):
    """Every test that ran (the binary it is in, its name, whether it passed), and what each binary said last."""
    binary, found, closing = "", [], []
    with open(path, errors="replace") as log:
        for line in log:
            if running := re.match(r"\s+Running (?:unittests )?(\S+)|\s+(Doc-tests) ", line):
                binary = running.group(1) or running.group(2)
            # One that is ignored needs what is not here, and proves nothing.
            elif test := re.match(r"test (.+?)(?: - should panic)? \.\.\. (ok|FAILED)", line):
                found.append((binary, test.group(1), test.group(2) == "ok"))
            elif line.startswith("test result: "):
                closing.append(line.rstrip())
    return found, closing


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


class LeftOut:
    """What tests left out, by the name of the test, or of its file where that is all that is known."""

    def __init__(self, path):
        self.reasons = {}
        with open(path or os.devnull, errors="replace") as lines:
            for name, _, what in (line.rstrip("\n").partition("\t") for line in lines):
                self.reasons.setdefault(name, []).append(what)

    def of(self, test):
        binary, name, _ = test
        return self.reasons.get(name, []) if binary.startswith("tests/it") else []

    def all(self):
        return [what for reasons in self.reasons.values() for what in reasons]

    def of_files(self, tests):
        files = {name.split("::")[0] + "::" for binary, name, _ in tests if binary.startswith("tests/it")}
        return [what for file in sorted(files) for what in self.reasons.get(file, [])]


class Kept:
    """Which of the long scripts passed on these sources, and when."""

    @staticmethod
    def digest(paths):
        listed = subprocess.run(
            ["git", "ls-files", "-z", "-co", "--exclude-standard", "--", *paths], capture_output=True, check=True
        )
        digest = hashlib.sha256()
        for name in sorted(set(listed.stdout.split(b"\0")) - {b""}):
            Kept.add(digest, os.fsdecode(name))
        return digest

    @staticmethod
    def add(digest, path):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                digest.update(f"{path}\0{hashlib.sha256(file.read()).hexdigest()}\n".encode())

    def file(self, name, command):
        digest = self.digest(SOURCES.get(name, PROGRAM))
        digest.update(command.encode())
        for word in command.split():
            self.add(digest, word)
        place = re.sub(r"\W+", "-", name).strip("-")
        return os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "proved", f"{place}-{digest.hexdigest()[:16]}")

    def when(self, name, command):
        try:
            with open(self.file(name, command)) as file:
                return file.read().strip()
        except FileNotFoundError:
            return None

    def keep(self, name, command):
        path = self.file(name, command)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            print(time.strftime("%Y-%m-%d %H:%M"), file=file)


class Scripts:
    """Runs what rows name beside tests, each once, and shows on standard error how far it is."""

    def __init__(self, long):
        self.known = {**QUICK, **LONG}
        self.long, self.kept, self.ended, self.earlier = long, Kept(), {}, {}

    def run(self, name):
        """Says whether it passed, or why it was not run."""
        if name not in self.ended:
            self.ended[name] = self.long_one(name) if name in LONG else self.passed(*self.known[name])
        return self.ended[name]

    def long_one(self, name):
        if not self.long:
            return "--long"
        command = LONG[name][0]
        if name in ANEW:
            return self.passed(*LONG[name])
        if when := self.kept.when(name, command):
            self.earlier[name] = when
            return True
        ended = self.passed(*LONG[name])
        if ended is True:
            self.kept.keep(name, command)
        return ended

    @staticmethod
    def passed(command, able, cure):
        """Runs it and says whether it passed, or what it needs where this machine cannot run it."""
        if subprocess.run(able, shell=True, capture_output=True).returncode != 0:
            return cure
        begun = time.monotonic()
        print(f"== {command}", file=sys.stderr, flush=True)
        code = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode
        print(f"== exit {code} after {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        return code == 0


def short(reasons):
    """What is left out, each once and in a few words that end no cell of a table."""
    # What follows a colon is detail.
    words = [textwrap.shorten(what.split(": ")[0].replace("|", "/"), 90, placeholder="...") for what in reasons]
    return ", ".join(dict.fromkeys(words))


def judge(cell, tests, scripts, left_out):
    """Says in a word whether the tests of a row hold, and how many there were."""
    chosen_all, bad, passed, skipped = [], [], [], []
    for words, reference in re.findall(r"([^`]*)`([^`]+)`", cell):
        if reference in scripts.known:
            ended = scripts.run(reference)
            if isinstance(ended, str):
                skipped.append(f"{reference} not run ({ended})")
            elif ended:
                when = scripts.earlier.get(reference)
                passed.append(f"{reference} (at {when})" if when else reference)
            else:
                bad.append(reference)
            continue
        chosen = meant(reference, words, tests)
        if chosen is None:
            # A document is no test.
            if not reference.startswith("docs/"):
                bad.append(f"{reference} is not known")
            continue
        if not chosen:
            bad.append(f"{reference} has no test")
        chosen_all += chosen
        bad += [name for _, name, passed in chosen if not passed]
    if bad:
        return f"FAILED: {', '.join(bad)}"
    count, partly = len(chosen_all), sum(bool(left_out.of(test)) for test in chosen_all)
    said = [f"{count} test{'s' * (count != 1)} passed{f', {partly} of them in part' * bool(partly)}"] if count else []
    said += [f"{', '.join(passed)} passed"] if passed else []
    said += skipped
    reasons = [what for test in chosen_all for what in left_out.of(test)] + left_out.of_files(chosen_all)
    said += [f"left out: {short(reasons)}"] if reasons else []
    return "; ".join(said) or "FAILED: no test"


def main():
    log, ended, *flags = sys.argv[1:]
    (tests, closing), long = results(log), "--long" in flags
    scripts, left_out = Scripts(long), LeftOut(os.environ.get("DERIKEY_LEFT_OUT"))
    rows = [(promise, cell, judge(cell, tests, scripts, left_out)) for promise, cell in promises()]
    print("| promise | test | result |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    failed = sum(result.startswith("FAILED") for *_, result in rows)
    broken = [name for _, name, passed in tests if not passed]
    partly = len(left_out.reasons)
    # Once more, as whoever reads a long log reads its end.
    print("", *closing, sep="\n")
    print(f"{len(tests)} tests, {len(broken)} failed, {partly} left something out; {failed} promises without their proof")
    # Some of it by tests that no row names.
    if partly:
        print(f"left out: {short(left_out.all())}")
    # A binary that dies takes results along that nobody misses.
    died = int(ended) != 0 and not broken
    if died:
        print(f"cargo test ended with exit code {ended}, and no test says why")
    unnamed = [name for name in scripts.known if name not in scripts.ended]
    if unnamed:
        print(f"no promise names {', '.join(unnamed)}")
    not_run = [f"{name} ({why})" for name, why in scripts.ended.items() if isinstance(why, str)]
    if not_run:
        print(f"{len(not_run)} of {len(scripts.ended)} scripts not run: {', '.join(not_run)}")
    sys.stdout.flush()
    measured = [subprocess.run(command, shell=True).returncode == 0 for command in FIGURES if long]
    sys.exit(1 if failed or broken or died or unnamed or not tests or not all(measured) else 0)


if __name__ == "__main__":
    main()
