#!/bin/sh
# Whole processes side by side: derikey, openssl, Python's cryptography. Prints one table.
#
#     benches/peers.sh [--rounds N] [--quick]
set -eu
cd "$(dirname "$0")/.."
cargo build --locked --release
exec python3 benches/peers.py "$@"
