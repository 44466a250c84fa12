//! Short sweeps of `scripts/sweep.py`; the whole ones are reported in docs/sweep.md.

use std::{fs, path::Path, process::Command};

use derikey::sandbox::KINDS;

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

/// The second factor is `tests/it/second_factor.rs`'s.
#[test]
fn the_sweep_knows_every_fault_but_those_of_the_second_factor() {
    let read =
        |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let script = read("scripts/sweep.py");
    let (_, list) = script.split_once("FAULTS = (").unwrap();
    let (list, _) = list.split_once(").split()").unwrap();
    let mut swept: Vec<&str> = list.split(['"', ' ', '\n']).collect();
    swept.retain(|word| !word.is_empty());
    let number = swept.len();
    swept.extend(["challenge", "wrong-rp-id"]);
    swept.sort_unstable();
    let mut known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    known.sort_unstable();
    assert_eq!(swept, known);
    let said = format!("{number} of the sandbox's {} ways", known.len());
    assert!(read("docs/sweep.md").contains(&said), "{said}");
}
