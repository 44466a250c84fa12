#!/bin/sh
# Runs what SECURITY.md names as the test of each promise, and prints promise, tests, result.
#
#     scripts/prove.sh [--long]
#
# --long takes hours, and wants what it runs (strace, nightly with miri and cargo-fuzz; what is not
# there is said to be not run): every point of docs/sweep.md, miri, the fuzzers for a minute each,
# every command in every manner, the vectors that are downloaded, two builds from scratch; and prints
# what README.md has its figures from.
set -eu
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# --no-fail-fast: a promise that is broken does not hide the others.
cargo test --locked --no-fail-fast >"$log" 2>&1 || echo "some test failed; the table says which promise it was for" >&2
exec python3 scripts/prove.py "$log" "$@"
