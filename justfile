# What CI runs, for your own machine: just check

check:
    bash .ci/run

test:
    cargo test

# The module with unsafe code, under the interpreter that finds undefined behaviour.
miri:
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --lib --no-default-features secret::locked

fmt:
    cargo fmt

# The key files and signatures that Python's cryptography is tested with; fetched, not kept.
vectors:
    cargo build
    python3 scripts/vectors.py
