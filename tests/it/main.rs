//! One test binary: one link, and one harness.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod architecture;
mod interop;
mod support;
mod vectors;
mod wire;
