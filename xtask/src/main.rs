//! The project's own commands, as `cargo xtask <command>`: tests, lints, benchmarks, faults.
//!
//! Standard library only, so that a fresh machine builds it in seconds. It decides which commands
//! run and what counts as a pass; it changes no file of the project but the page of `conformance`.

mod bench;
mod conformance;
mod consistency;
mod faults;
mod fuzz;
mod json;
mod lint;
mod metadata;
mod process;
mod test;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What a command reports when it cannot go on: one line for the person who called it.
type Failure = String;

const HELP: &str = "\
The project's own commands

Usage: cargo xtask <command> [--json]

Commands:
  test    Install what the tests need if it is missing, run every test, check the floor
  lint    Format, clippy, docs, feature combinations, licences, packages, spelling, links,
          layout
  ci      What continuous integration runs: lint, then the README's test command
  bench   Run the benchmarks of every crate and print their medians
  faults  Run every test that breaks something and print the fault matrix
  conformance
          Run the public HTTP cache tests against the proxy and the layer, write
          docs/conformance.md; options: --proxy, --layer (only that one), --twice (two runs must
          agree), --renamed (with the suite's own header names and paths changed)
  consistency
          Load and break several processes that share one Redis and check every read, then see
          that broken strategies are caught; options: --minutes N (1), --nodes N (3),
          --redis PATH and --valkey PATH (server programs, one run each), --strategy NAME (only
          that one: shipped, naive, blind-fill, late-counter, token-per-process,
          no-dependencies, no-marker), --query TEXT (added to the Redis URL), --release (an
          optimised build instead of that of the tests)
  fuzz    Run the fuzzers, a minute each; needs cargo-fuzz; options: --seconds=N,
          --target=NAME (only that one)
  help    Print this text

Options:
  --json  Print the result as one JSON object on stdout; progress goes to stderr
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command; `false` means that it ran and found failures.
fn run(arguments: &[String]) -> Result<bool, Failure> {
    let mut json = false;
    let mut command = None;
    let mut conformance = conformance::Options::default();
    let mut consistency = consistency::Options::default();
    let mut fuzz = fuzz::Options::default();
    for argument in arguments {
        match argument.as_str() {
            "--json" => json = true,
            flag if command == Some("conformance") && conformance.take(flag) => {}
            word if command == Some("consistency") && consistency.take(word) => {}
            flag if command == Some("fuzz") && fuzz.take(flag) => {}
            "--help" | "-h" => command = Some("help"),
            name if command.is_none() && !name.starts_with('-') => command = Some(name),
            other => return Err(format!("unknown argument {other:?}\n\n{HELP}")),
        }
    }
    let report = process::Report { json };
    match command {
        Some("test") => test::run(report),
        Some("lint") => lint::run(report),
        Some("bench") => bench::run(report),
        Some("conformance") => conformance::run(report, conformance),
        Some("consistency") => consistency::run(report, &consistency),
        Some("faults") => faults::run(report),
        Some("fuzz") => fuzz::run(report, &fuzz),
        Some("ci") if json => Err("`ci` has no --json: use it with `lint` and `test`".into()),
        Some("ci") => ci(),
        Some("help") | None => {
            print!("{HELP}");
            Ok(true)
        }
        Some(other) => Err(format!("unknown command {other:?}\n\n{HELP}")),
    }
}

/// `.ci/run` holds the steps: one place for people and machines.
fn ci() -> Result<bool, Failure> {
    let script = root().join(".ci/run");
    let status = Command::new(&script)
        .status()
        .map_err(|error| format!("cannot run {}: {error}", script.display()))?;
    Ok(status.success())
}

/// The root of the workspace.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &[&str]) -> Result<bool, Failure> {
        run(&arguments.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_a_command_is_refused_with_the_help() {
        for arguments in [&["tset"][..], &["test", "--jsno"], &["test", "lint"]] {
            let failure = call(arguments).expect_err("it is refused");
            assert!(failure.contains("Usage: cargo xtask"), "{arguments:?}: {failure}");
        }
    }

    #[test]
    fn help_is_printed_on_request() {
        assert_eq!(call(&["help"]), Ok(true));
        assert_eq!(call(&["test", "--help"]), Ok(true));
        assert_eq!(call(&[]), Ok(true));
    }
}
