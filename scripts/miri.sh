#!/bin/sh
# The module with unsafe code, under the interpreter that finds undefined behaviour. Needs nightly
# with miri; takes minutes.
set -eu
cd "$(dirname "$0")/.."
MIRIFLAGS=-Zmiri-disable-isolation exec cargo +nightly miri test --lib --no-default-features secret::locked
