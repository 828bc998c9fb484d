//! Short runs of the harness: nothing stale as shipped, something stale with each broken strategy.
//!
//! Minutes of it: `cargo xtask consistency --minutes 5`.

#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs it; what it says, and whether it calls that good.
fn run(arguments: &[&str]) -> (Value, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tachikoma-consistency"));
    command.args(["run", "--json"]).args(arguments).stderr(Stdio::inherit());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let summary = serde_json::from_str(text.trim());
    println!("{text}");
    (summary.unwrap(), output.status.success())
}

#[test]
fn three_nodes_show_nothing_stale_whatever_breaks() {
    let (summary, good) = run(&["--seconds", "13", "--faults", "short"]);
    assert!(good, "{summary:#}");
    assert_eq!(summary["stale"], 0, "{summary:#}");
    assert!(summary["near"].as_u64().unwrap() > 1_000, "nothing could go stale: {summary:#}");
    assert!(summary["hit_percent"].as_f64().unwrap() > 50.0, "nothing was cached: {summary:#}");
    let faults = summary["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 9);
    assert!(faults.iter().all(|fault| fault["times"] == 1), "{faults:#?}");
    for class in ["keys", "tags", "api", "pages", "parts"] {
        let classes = summary["classes"].as_array().unwrap();
        assert!(classes.iter().any(|one| one["class"] == class), "{class}: {summary:#}");
    }
    let apart = summary["apart"].as_array().unwrap();
    assert_eq!(apart.len(), 5);
    assert!(apart.iter().all(|kind| kind["near"].as_u64().unwrap() > 100), "{summary:#}");
}

/// By chance a short run of a broken strategy may show nothing.
#[track_caller]
fn check_caught(strategy: &str, seconds: &[&str]) {
    let caught = seconds.iter().any(|seconds| {
        let rest = ["--seconds", seconds, "--faults", "none", "--nodes", "2"];
        let (summary, good) = run(&[&["--strategy", strategy][..], &rest].concat());
        assert_eq!(good, summary["stale"] != 0);
        good
    });
    assert!(caught, "{strategy} showed nothing stale");
}

#[test]
fn plain_cache_aside_is_caught() {
    check_caught("naive", &["2", "5", "15"]);
}

#[test]
fn a_fill_that_does_not_ask_for_its_lease_is_caught() {
    check_caught("blind-fill", &["3", "6", "20"]);
}

#[test]
fn counters_taken_after_the_load_are_caught() {
    check_caught("late-counter", &["4", "8", "25"]);
}

#[test]
fn one_token_for_all_loads_of_a_process_is_caught() {
    check_caught("token-per-process", &["6", "12", "30", "60"]);
}

#[test]
fn pages_that_do_not_know_what_they_were_made_of_are_caught() {
    check_caught("no-dependencies", &["3", "6", "12"]);
}
