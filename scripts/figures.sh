#!/bin/sh
# Prints what README.md has its figures from: every benchmark that makes a table, one after the other.
#
#     scripts/figures.sh >docs/figures.md     a quarter of an hour, with nothing else going on
set -eu
cd "$(dirname "$0")/.."
cargo build --locked --release >&2
echo "# Figures"
echo
echo "The run of $(date -u +%F) on $(nproc) virtual processors ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort -u | head -1)),"
echo "commit $(git rev-parse --short HEAD). \`scripts/figures.sh\` makes this file; README.md quotes rows of it as they stand. The machine"
echo "is shared and noisy: ratios last, times do not."
section() {
    printf '\n## \140%s\140\n\n' "$*"
    # What is printed beside the tables is for whoever watches. Not by tee, which would empty a file there.
    "$@" | awk '{ print | "cat >&2"; fflush("cat >&2") }
        /^\|/ { if (said && !table) print ""; said = table = 1; print; next } { table = 0 } /^[0-9]/ { said = 1; print }'
}
section benches/peers.sh
section cargo bench --locked --bench signing
section cargo bench --locked --bench agent
section python3 benches/scale.py
