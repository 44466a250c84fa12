# What CI runs, for your own machine: just check

check:
    bash .ci/run

test:
    cargo test

fmt:
    cargo fmt
