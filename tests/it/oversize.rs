//! Lists that are long, and too long: what fits into a request is written, read back and finished;
//! what does not is refused before anything is made.

use std::fs;

use serde_json::{Value, json};

use super::{
    manage::{Bench, SCOPE},
    support::{Home, Run, join},
};

const PLAIN: [&str; 2] = ["--no-passphrase", "--insecure"];

/// Different addresses, of 12 characters each.
fn addresses(count: usize) -> Vec<String> {
    let one = |n: usize| format!("10.{}.{}.{}", 100 + n / 8100, 10 + n / 90 % 90, 10 + n % 90);
    (0..count).map(one).collect()
}

fn flags<'a>(flag: &'a str, values: &'a [String]) -> Vec<&'a str> {
    values.iter().flat_map(|value| [flag, value]).collect()
}

fn too_long(run: &Run, code: i32) {
    assert_eq!(run.code, Some(code), "{run:#?}");
    let error = run.error(code);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("larger than the 32 kB"), "{error}");
}

#[test]
fn a_list_that_fills_a_request_is_kept_and_carried_on() {
    // A creation that is answered, and the edit after it not: the journal is read by `resume`.
    let bench = Bench::with_faults(&["edit_api_key:500:1"]);
    let ips = addresses(2_000);
    let provision = ["provision", "one", "--scope", SCOPE];
    let run = bench.run(&join(&[&provision, &PLAIN, &flags("--ip", &ips)]));
    assert!(matches!(run.code, Some(5 | 9)), "{run:#?}");
    let resumed = bench.run(&["resume"]).json();
    assert_eq!(resumed["resumed"][0]["name"], "one", "{resumed}");
    let listed = |shown: &Value| shown["ip_whitelist"].as_array().unwrap().len();
    let show = || bench.home.run(&["--json", "show", "one"]).json();
    assert_eq!(listed(&show()), ips.len());
    let rotated = bench.run(&join(&[&["rotate", "one"], &PLAIN])).json();
    assert_eq!(listed(&rotated), ips.len());
    let back = bench.run(&["rollback", "one"]).json();
    assert_eq!(listed(&back), ips.len());
    // One more would do, a thousand more would not.
    let more = ["--add-ip", "192.0.2.1"];
    let edited = bench.run(&join(&[&["edit", "one", "--yes"], &more])).json();
    assert_eq!(listed(&edited), ips.len() + 1);
    let all = addresses(3_000);
    let much = flags("--add-ip", &all);
    too_long(&bench.run(&join(&[&["edit", "one", "--yes"], &much])), 2);
    assert_eq!(listed(&show()), ips.len() + 1);
    // What an edit can just say leaves no room for the second factor of a rotation.
    let all = addresses(2_100);
    let full = flags("--ip", &all);
    bench.run(&join(&[&["edit", "one", "--yes"], &full])).json();
    too_long(&bench.run(&join(&[&["rotate", "one"], &PLAIN])), 2);
    let status = bench.home.run(&["--json", "status"]).json();
    assert_eq!(status["pending"], json!([]));
}

#[test]
fn a_list_that_fits_no_request_is_refused_before_a_key_is_made() {
    let home = Home::new();
    let ips = addresses(2_200);
    for dry_run in [&[][..], &["--dry-run"]] {
        let args = join(&[
            &["--json", "--network", "sandbox", "provision", "one"],
            &["--scope", SCOPE],
            &PLAIN,
            dry_run,
            &flags("--ip", &ips),
        ]);
        too_long(&home.run(&args), 2);
        assert!(!home.store().exists());
    }
    let list = serde_json::to_string(&ips).unwrap();
    let fleet = home.path("fleet.toml");
    let text = format!("[keys.one]\nscope = \"account:read\"\nip = {list}\n");
    fs::write(&fleet, text).unwrap();
    let fleet = fleet.to_str().unwrap();
    for command in ["plan", "apply"] {
        let args = ["--json", "--network", "sandbox", command, "-f", fleet];
        let run = home.run(&args);
        too_long(&run, 3);
        assert!(run.stderr.contains("line 1: keys.one"), "{run:#?}");
    }
    assert!(!home.store().exists());
}

/// The words of a hook are kept in the journal, from which they have to be read again.
#[test]
fn a_hook_that_cannot_be_written_down_is_refused_before_a_key_is_made() {
    let bench = Bench::new();
    bench.trader("one");
    let before = bench.run(&["list", "--remote"]).json();
    let hook = format!("/bin/true {}", "x ".repeat(30_000));
    let rotate = ["rotate", "one", "--deploy-hook", &hook];
    let run = bench.run(&join(&[&rotate, &PLAIN]));
    let error = run.error(8);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("is the most"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("shorter hook"));
    assert_eq!(bench.run(&["list", "--remote"]).json(), before);
    let status = bench.home.run(&["--json", "status"]).json();
    assert_eq!(status["pending"], json!([]));
    let generations = fs::read_dir(bench.home.store().join("keys/one")).unwrap();
    let names = generations.map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| name != "2"));
}
