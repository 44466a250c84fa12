#!/usr/bin/env bash
# Runs what SECURITY.md names as the test of each promise, and prints promise, tests, result.
#
#     scripts/prove.sh [--long]
#
# --long takes hours, and wants what it runs (strace, nightly with miri and cargo-fuzz; what is not
# there is said to be not run, and how to get it): every point of docs/sweep.md, miri, the fuzzers for
# ten minutes each, every command in every manner at every fault, every answer cut at every byte, the
# vectors that are downloaded, two builds from scratch; and prints what README.md has its figures from.
# What passed of them is not run again until the program, its tests or the script change; with target/proved
# deleted it is.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v python3 >/dev/null || { echo "scripts/prove.sh needs python3" >&2; exit 1; }
log=$(mktemp)
DERIKEY_LEFT_OUT=$(mktemp)
export DERIKEY_LEFT_OUT
trap 'rm -f "$log" "$DERIKEY_LEFT_OUT"' EXIT
# Most tests wait for somebody most of the time. With one thread, what a child says would come
# between the name of a test and its result.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((2 * $(nproc)))}"
# --no-fail-fast: a promise that is broken does not hide the others.
ended=0
CARGO_TERM_COLOR=never cargo test --locked --no-fail-fast 2>&1 | tee "$log" || ended=$?
python3 scripts/prove.py "$log" "$ended" "$@"
