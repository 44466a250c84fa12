#!/usr/bin/env python3
"""Holds the promises of SECURITY.md against the results of `cargo test`.

    scripts/prove.sh runs the tests and then this.

The table under "What is protected" is the list: each row names its tests by file, by room or by
script. A row without a test that ran is a failure, so that a renamed file cannot make a promise
empty. Standard library only.
"""

import re
import shutil
import subprocess
import sys

LONG = {
    "scripts/sweep.py": ["python3", "scripts/sweep.py", "--all"],
    "just miri": ["just", "miri"],
}


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


def judge(cell, tests, long):
    """Says in a word whether the tests of a row hold, and how many there were."""
    count, bad, skipped = 0, [], []
    for words, reference in re.findall(r"([^`]*)`([^`]+)`", cell):
        if reference in LONG:
            if not long or not shutil.which(LONG[reference][0]):
                skipped.append(reference)
            elif subprocess.run(LONG[reference]).returncode:
                bad.append(reference)
            continue
        chosen = meant(reference, words, tests)
        if chosen is None:
            continue
        if not chosen:
            bad.append(f"{reference} has no test")
        count += len(chosen)
        bad += [name for _, name, passed in chosen if not passed]
    if bad:
        return f"FAILED: {', '.join(bad)}"
    if not count:
        return "FAILED: no test"
    passed = "1 test passed" if count == 1 else f"{count} tests passed"
    return passed + (f"; not run: {', '.join(skipped)}" if skipped else "")


def main():
    tests, long = results(sys.argv[1]), "--long" in sys.argv[2:]
    failed = 0
    print("| promise | test | result |\n|---|---|---|")
    for promise, cell in promises():
        result = judge(cell, tests, long)
        failed += result.startswith("FAILED")
        print(f"| {promise} | {cell} | {result} |")
    broken = [name for _, name, passed in tests if not passed]
    print(f"\n{len(tests)} tests, {len(broken)} failed; {failed} promises without their proof")
    sys.exit(1 if failed or broken or not tests else 0)


if __name__ == "__main__":
    main()
