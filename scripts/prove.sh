#!/bin/sh
# Runs what SECURITY.md names as the test of each promise, and prints promise, tests, result.
#
#     scripts/prove.sh [--long]
#
# --long also runs what takes long: every point of docs/sweep.md, and miri.
set -eu
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# --no-fail-fast: a promise that is broken does not hide the others.
cargo test --locked --no-fail-fast >"$log" 2>&1 || echo "some test failed; the table says which promise it was for" >&2
exec python3 scripts/prove.py "$log" "$@"
