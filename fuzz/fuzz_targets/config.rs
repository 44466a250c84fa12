#![no_main]
#[path = "../../tests/it/hostile_input/checks.rs"]
#[allow(dead_code, unreachable_pub, reason = "one door of many")]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::config(data));
