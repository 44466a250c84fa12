//! What the program is made of, and that `docs/dependencies.md` says so. The exceptions' dates are
//! `scripts/exceptions.py`'s: a test that fails on a certain day would fail its users.

use std::{collections::BTreeSet, fs, path::Path};

use toml::{Table, Value};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

fn table(file: &str) -> Table {
    read(file).parse().unwrap()
}

/// The first cells of the tables under a heading, each of which names crates.
fn rows(heading: &str) -> BTreeSet<String> {
    let text = read("docs/dependencies.md");
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let cells = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let named = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    named.map(str::to_owned).collect()
}

#[test]
fn each_dependency_has_its_reason_and_no_other_has() {
    let manifest = table("Cargo.toml");
    for (kind, heading) in [
        ("dependencies", "Direct dependencies"),
        ("dev-dependencies", "Only for tests"),
    ] {
        let direct: BTreeSet<String> = manifest[kind].as_table().unwrap().keys().cloned().collect();
        assert_eq!(rows(heading), direct, "{heading}");
    }
}

/// Figures are quoted as they were printed.
#[test]
fn each_row_of_figures_in_the_readme_is_one_of_the_last_run() {
    let (readme, run) = (read("README.md"), read("docs/figures.md"));
    let (_, section) = readme.split_once("\n## Figures\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 20, "{rows:#?}");
    for row in rows {
        assert!(run.lines().any(|line| line == row), "{row}");
    }
}

#[test]
fn each_exception_of_deny_is_explained() {
    let (deny, text) = (table("deny.toml"), read("docs/dependencies.md"));
    let ignored = deny["advisories"]["ignore"].as_array().unwrap().iter();
    let skipped = deny["bans"]["skip"].as_array().unwrap().iter();
    let named: Vec<&str> = ignored
        .map(|entry| &entry["id"])
        .chain(skipped.map(|entry| &entry["crate"]))
        .filter_map(Value::as_str)
        .collect();
    assert!(!named.is_empty());
    for name in named {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn crates_that_must_not_come_in_are_banned_and_not_there() {
    let banned = table("deny.toml")["bans"]["deny"].clone();
    let banned: BTreeSet<String> = banned
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["crate"].as_str().unwrap().to_owned())
        .collect();
    let lock = table("Cargo.lock");
    let locked = lock["package"].as_array().unwrap();
    for name in ["openssl-sys", "openssl", "native-tls"] {
        assert!(banned.contains(name), "{name} is not banned");
        let there = locked.iter().any(|p| p["name"].as_str() == Some(name));
        assert!(!there, "{name} is there");
    }
}

/// One `cargo update` would bring the tables of Unicode domains back: twenty crates that no endpoint
/// can need.
#[test]
fn no_tables_of_unicode_domains_are_compiled() {
    for package in table("Cargo.lock")["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        assert!(
            !name.starts_with("icu_"),
            "{name}: cargo update -p idna_adapter --precise 1.0.0"
        );
    }
}
