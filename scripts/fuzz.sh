#!/bin/sh
# Searches for hostile input, so many seconds at each door (fuzz/README.md says what is fed to whom),
# as many at a time as there are processors. Needs nightly and cargo-fuzz. A find is under
# fuzz/artifacts, and what each said under target/fuzz.
#
#     scripts/fuzz.sh [SECONDS [AT_A_TIME]]       60 where none are named; AT_A_TIME may be set in the environment
set -eu
cd "$(dirname "$0")/.."
cargo +nightly fuzz build
targets=$(cargo +nightly fuzz list)
mkdir -p target/fuzz
export SECONDS_EACH="${1:-60}"
echo "$targets" | xargs -P "${2:-${AT_A_TIME:-$(nproc)}}" -I TARGET sh -c '
    # What LeakSanitizer takes for leaks are threads of an agent on their way out.
    case TARGET in agent) leaks=0 ;; *) leaks=1 ;; esac
    mkdir -p fuzz/corpus/TARGET
    if cargo +nightly fuzz run TARGET fuzz/corpus/TARGET tests/data/corpus/TARGET -- \
        "-max_total_time=$SECONDS_EACH" -timeout=20 -max_len=8192 -detect_leaks=$leaks \
        -verbosity=0 -print_final_stats=1 >target/fuzz/TARGET.log 2>&1
    then
        echo "TARGET: $(sed -n "s/^stat::number_of_executed_units: *//p" target/fuzz/TARGET.log) runs, no find"
    else
        tail -n 40 target/fuzz/TARGET.log
        echo "TARGET: a find, or it did not run"
        exit 1
    fi'
