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

# The module with unsafe code, under the interpreter that finds undefined behaviour.
miri:
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --lib --no-default-features secret::locked

fmt:
    cargo fmt
