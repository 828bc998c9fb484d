//! A memory tier without marks is caught. Run with `--features __no_marker`, which builds one.

#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

use std::process::Command;

/// What is printed, and whether the run is as it should be.
fn run(strategy: &str, seconds: &str) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tachikoma-consistency"));
    command.args(["run", "--faults", "none", "--strategy", strategy, "--seconds", seconds]);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.success())
}

/// By chance a short run may show nothing.
#[test]
fn copies_kept_whatever_was_heard_meanwhile_are_caught() {
    let caught = ["10", "20", "60"].iter().any(|seconds| {
        let (text, good) = run("no-marker", seconds);
        println!("{text}");
        good
    });
    assert!(caught, "a memory tier without marks showed nothing stale");
}

#[test]
fn a_broken_build_does_not_pass_for_what_is_shipped() {
    let (text, good) = run("shipped", "2");
    assert!(!good && text.contains("--strategy is shipped"), "{text}");
}
