//! Short sweeps of `scripts/sweep.py`; the whole ones are reported in docs/sweep.md.

use std::{path::Path, process::Command};

use super::{kills::can_trace, support::installed};

#[track_caller]
fn sweep(how: &str, points: &str, before: &[&str], command: &[&str]) {
    if !can_trace() || !installed("python3", &["--version"]) {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/sweep.py");
    let output = Command::new("python3")
        .arg(script)
        .args(["--derikey", env!("CARGO_BIN_EXE_derikey")])
        .args(["--how", how, "--points", points])
        .args(before.iter().flat_map(|line| ["--before", line]))
        .arg("--")
        .args(command)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let row = text.lines().last().unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!(cells[4], points, "tried: {text}");
    assert_eq!(cells[6], "0", "failed: {text}");
}

const PROVISION: [&str; 6] = [
    "provision",
    "bot",
    "--scope",
    "trade:read",
    "--ip",
    "127.0.0.1",
];
const EDIT: [&str; 6] = ["edit", "bot", "--scope", "trade:read", "--ip", "127.0.0.1"];
const ROTATE: [&str; 2] = ["rotate", "bot"];
const REMOVE: [&str; 3] = ["remove", "bot", "--yes"];
const BEFORE: [&str; 1] = ["provision bot --scope trade:read_write"];

#[test]
fn provision_is_killed_between_system_calls() {
    sweep("kill", "20", &[], &PROVISION);
}

#[test]
fn edit_is_killed_between_system_calls() {
    sweep("kill", "6", &BEFORE, &EDIT);
}

#[test]
fn rotate_is_killed_between_system_calls() {
    sweep("kill", "10", &BEFORE, &ROTATE);
}

#[test]
fn remove_is_killed_between_system_calls() {
    sweep("kill", "6", &BEFORE, &REMOVE);
}

#[test]
fn a_fleet_is_applied_and_killed_between_system_calls() {
    sweep(
        "kill",
        "5",
        &BEFORE,
        &["apply", "-f", "fleet.toml", "--yes"],
    );
}

#[test]
fn the_disk_fails_under_a_rotation() {
    sweep("disk", "10", &BEFORE, &ROTATE);
}

#[test]
fn the_disk_fails_under_an_edit_and_a_removal() {
    sweep("disk", "5", &BEFORE, &EDIT);
    sweep("disk", "5", &BEFORE, &REMOVE);
}

#[test]
fn the_exchange_fails_under_a_rotation() {
    sweep("exchange", "10", &BEFORE, &ROTATE);
}

#[test]
fn the_exchange_fails_under_an_edit_and_a_removal() {
    sweep("exchange", "5", &BEFORE, &EDIT);
    sweep("exchange", "5", &BEFORE, &REMOVE);
}
