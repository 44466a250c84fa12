#!/bin/sh
# Changes the program in one place after the other and runs the tests: a change that none of them
# notices survives. The rooms are those of docs/mutants.md, which lists what survived and why.
# Needs cargo-mutants (cargo install cargo-mutants --locked). It builds and tests each of more than a
# thousand mutants anew, which takes ten hours and more: take a share of it, or a file.
#
#     scripts/mutants.sh --list                               what there is to try
#     scripts/mutants.sh --shard 3/40                         a fortieth of it
#     scripts/mutants.sh --re 'new_dir|place_new' -- --lib    what these functions are made of, with
#                                                             the tests that come after the two hyphens
#     FILES=src/key/sweep.rs scripts/mutants.sh               another file, or several with blanks between
#
# What survived is in mutants.out/missed.txt afterwards.
set -euf
cd "$(dirname "$0")/.."
: "${FILES:=src/key.rs src/key/** src/exchange/rpc.rs src/store.rs src/store/** src/agent/wire.rs src/provision.rs src/provision/**}"
for glob in $FILES; do
    # They go in front, as what was typed may end in arguments for the tests.
    set -- --file "$glob" "$@"
done
exec cargo mutants "$@"
