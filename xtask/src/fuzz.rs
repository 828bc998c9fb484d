//! Runs the fuzzers of `fuzz/fuzz_targets`, one after the other, each for a while.
//!
//! It needs `cargo-fuzz` and says so if it is missing: in the tests the same functions run over the
//! kept corpora without any tool. What a run finds new stays in the target directory; what broke is
//! named with its file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::metadata::Metadata;
use crate::process::{Report, cargo, output, run as run_process};
use crate::{Failure, json, root};

/// Building all targets once, on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_mins(40);

/// What the command line chose.
#[derive(Debug, Default)]
pub(crate) struct Options {
    seconds: Option<u64>,
    target: Option<String>,
}

impl Options {
    /// Takes a flag; `false` if it is none of these.
    pub(crate) fn take(&mut self, flag: &str) -> bool {
        if let Some(seconds) = flag.strip_prefix("--seconds=").and_then(|text| text.parse().ok()) {
            self.seconds = Some(seconds);
        } else if let Some(target) = flag.strip_prefix("--target=") {
            self.target = Some(target.to_owned());
        } else {
            return false;
        }
        true
    }
}

/// Runs them; `false` when one found something.
pub(crate) fn run(report: Report, options: &Options) -> Result<bool, Failure> {
    output(&mut cargo(&["fuzz", "--version"]))
        .map_err(|_| "cargo-fuzz is missing; install it with `cargo install cargo-fuzz`")?;
    let fuzz = root().join("fuzz");
    let known = targets(&fuzz)?;
    let chosen: Vec<&String> =
        known.iter().filter(|name| options.target.as_ref().is_none_or(|t| t == *name)).collect();
    if chosen.is_empty() {
        return Err(format!("there is no such target; there are {}", known.join(", ")));
    }
    let found = Metadata::read()?.target_directory.join("fuzz");
    let seconds = options.seconds.unwrap_or(60);
    let mut results = Vec::new();
    for name in chosen {
        report.line(format!("\n==> {name}, {seconds} s"));
        let new = found.join(name);
        fs::create_dir_all(&new).map_err(|error| format!("{}: {error}", new.display()))?;
        let corpus = fuzz.join("corpus").join(name);
        let (new, corpus) = (new.to_string_lossy(), corpus.to_string_lossy());
        let limit = format!("-max_total_time={seconds}");
        let tool = ["fuzz", "run", "-s", "none", name, &new, &corpus, "--", &limit];
        let rest = ["-rss_limit_mb=1024", "-print_final_stats=1"];
        let mut command = cargo(&[&tool[..], &rest].concat());
        // libFuzzer's instrumentation is a setting of the compiler that stable does not offer.
        command.env("RUSTC_BOOTSTRAP", "1").current_dir(&fuzz);
        let all = BUILD_LIMIT + Duration::from_secs(seconds);
        let ended = run_process(&mut command, all, |line| {
            if !line.starts_with('#') {
                report.line(line);
            }
        })?;
        results.push(Outcome::read(name, ended.success, &ended.lines));
    }
    if report.json {
        let rows: Vec<String> = results.iter().map(Outcome::json).collect();
        println!("[{}]", rows.join(","));
    } else {
        println!("\n{:>12} {:>10}  target", "runs", "new");
        for Outcome { name, passed, runs, new } in &results {
            let result = if *passed { "" } else { "  BROKE" };
            println!("{runs:>12} {new:>10}  {name}{result}");
        }
    }
    Ok(results.iter().all(|result| result.passed))
}

/// The names of the targets: one file each.
fn targets(fuzz: &Path) -> Result<Vec<String>, Failure> {
    let folder = fuzz.join("fuzz_targets");
    let files = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names: Vec<String> = files
        .filter_map(|file| Some(file.ok()?.path().file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// What one fuzzer did.
#[derive(Debug, PartialEq)]
struct Outcome {
    name: String,
    passed: bool,
    runs: u64,
    new: u64,
}

impl Outcome {
    fn read(name: &str, passed: bool, lines: &[String]) -> Self {
        let stat = |key: &str| {
            let line = lines.iter().rev().find_map(|line| line.strip_prefix(key));
            line.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        };
        Self {
            name: name.to_owned(),
            passed,
            runs: stat("stat::number_of_executed_units:"),
            new: stat("stat::new_units_added:"),
        }
    }

    fn json(&self) -> String {
        let Self { name, passed, runs, new } = self;
        let name = json::quote(name);
        format!(r#"{{"target":{name},"passed":{passed},"runs":{runs},"new":{new}}}"#)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistics_of_a_run_are_read() {
        let lines = ["#8 NEW", "stat::number_of_executed_units: 1234", "stat::new_units_added: 5"];
        let lines: Vec<String> = lines.map(str::to_owned).to_vec();
        let outcome = Outcome::read("glob", true, &lines);
        let expected = r#"{"target":"glob","passed":true,"runs":1234,"new":5}"#;
        assert_eq!(outcome.json(), expected);
        assert_eq!(Outcome::read("glob", false, &[]).runs, 0);
    }

    #[test]
    fn options_are_seconds_and_a_target() {
        let mut options = Options::default();
        assert!(options.take("--seconds=5") && options.take("--target=glob"));
        assert_eq!((options.seconds, options.target.as_deref()), (Some(5), Some("glob")));
        assert!(!options.take("--seconds=five") && !options.take("--twice"));
    }

    /// Each target has a name in the manifest, its file and a corpus to begin with.
    #[test]
    fn every_fuzzer_is_complete() {
        let fuzz = root().join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("the manifest");
        let names = targets(&fuzz).expect("the targets");
        assert!(names.len() >= 11, "{names:?}");
        for name in &names {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} in the manifest");
            let corpus = fs::read_dir(fuzz.join("corpus").join(name)).map(Iterator::count);
            assert!(corpus.is_ok_and(|files| files > 0), "{name} has no corpus");
        }
    }
}
