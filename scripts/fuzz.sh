#!/bin/sh
# Searches for hostile input, so many seconds at each door (fuzz/README.md says what is fed to whom).
# Needs nightly and cargo-fuzz; ends at the first find, which is then under fuzz/artifacts.
#
#     scripts/fuzz.sh [SECONDS]       60 where none are named
set -eu
cd "$(dirname "$0")/.."
for target in $(cargo +nightly fuzz list); do
    # What LeakSanitizer takes for leaks are threads of an agent on their way out.
    case $target in agent) leaks=0 ;; *) leaks=1 ;; esac
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "tests/data/corpus/$target" -- \
        -max_total_time="${1:-60}" -timeout=20 -max_len=8192 -detect_leaks=$leaks -verbosity=0 -print_final_stats=1
done
