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
mod hardening;
mod leaks;
mod store_files;
mod support;
