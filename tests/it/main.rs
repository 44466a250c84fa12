//! One test binary: one link, and one harness.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod architecture;
mod concurrency;
mod faults;
mod hostile;
mod kills;
mod scene;
mod support;
