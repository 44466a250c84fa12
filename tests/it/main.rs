//! One test binary: one link, and one harness.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod abandon;
mod agent;
mod agent_clock;
mod agent_forgeries;
mod agent_memory;
mod architecture;
mod bad_input;
mod commands;
mod concurrency;
mod cuts;
mod derivations;
mod drifted;
mod every_command;
mod examples;
mod faults;
mod fleet;
mod grace;
mod hardening;
mod health;
mod hostile;
mod hostile_input;
mod inheritance;
mod interop;
mod interop_matrix;
mod kills;
mod lagging;
mod leaks;
mod lies;
mod manage;
mod meanwhile;
mod meddler;
mod memory;
mod mishaps;
mod model;
mod oversize;
mod packaging;
mod raw;
mod rehearsals;
mod rotation;
mod round_trips;
mod scene;
mod second_factor;
mod second_look;
mod six_operations;
mod ssh_agent;
mod startup;
mod store_files;
mod supply;
mod support;
mod sweep;
mod terminal;
mod tls;
mod vectors;
mod wire;
mod withheld;
