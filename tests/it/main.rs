//! One test binary: one link, and one harness.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod architecture;
mod bad_input;
mod commands;
mod raw;
mod second_factor;
mod support;
mod terminal;
