# What CI runs, for your own machine: just check

check:
    bash .ci/run

test:
    cargo test

# The agent beside a bare echo, the bare signature and ssh-agent; `just bench --test` takes seconds.
bench *ARGS:
    cargo bench --bench agent -- {{ARGS}}

# What a key costs, a finished request, a call; and whole processes beside openssl and Python.
bench-keys:
    cargo bench --bench keys
    cargo bench --bench paths

peers *ARGS:
    benches/peers.sh {{ARGS}}

# The bill of materials: target/derikey.cdx.json.
sbom *ARGS:
    python3 scripts/sbom.py {{ARGS}}

# Two builds from scratch, compared; `just reproduce --quick` optimizes little.
reproduce *ARGS:
    scripts/reproduce.sh {{ARGS}}

# The module with unsafe code, under the interpreter that finds undefined behaviour.
miri:
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --lib --no-default-features secret::locked

fmt:
    cargo fmt

# The key files and signatures that Python's cryptography is tested with; fetched, not kept.
vectors:
    cargo build
    python3 scripts/vectors.py

# Searches for hostile input, so many seconds at each door; needs nightly and cargo-fuzz.
fuzz seconds="60":
    #!/usr/bin/env bash
    set -euo pipefail
    for target in $(cargo +nightly fuzz list); do
        mkdir -p "fuzz/corpus/$target"
        cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "tests/data/corpus/$target" -- \
            -max_total_time={{seconds}} -timeout=20 -max_len=8192
    done
