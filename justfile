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
    scripts/miri.sh

fmt:
    cargo fmt

# The key files and signatures that Python's cryptography is tested with; fetched, not kept.
vectors:
    cargo build
    python3 scripts/vectors.py

# Searches for hostile input, so many seconds at each door; needs nightly and cargo-fuzz.
fuzz seconds="60":
    scripts/fuzz.sh {{seconds}}

# Each promise of SECURITY.md with its tests and their result; --long takes hours.
prove *ARGS:
    scripts/prove.sh {{ARGS}}
