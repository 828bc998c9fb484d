//! Every check that needs no test run. All of them run, and all that failed are named at the end.
//!
//! Compiler checks turn warnings into errors by flags of the tool (`-- -D warnings`), not by
//! `RUSTFLAGS`, so that they share one build with the tests.

mod licences;
mod links;
mod publish;
mod spelling;
mod text;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::metadata::{Metadata, Package};
use crate::process::{Report, Timer, cargo, output, run as run_process};
use crate::{Failure, json, root};

const CARGO_LIMIT: Duration = Duration::from_mins(20);

/// One thing that is wrong, with its place.
type Finding = String;

/// Runs every check; `false` when one of them found something.
pub(crate) fn run(report: Report) -> Result<bool, Failure> {
    let mut session = Session { report, checks: 0, failed: Vec::new() };
    let files = tracked_files()?;
    session.check("layout", || Ok(text::findings(&files)));
    session.check("spelling", || spelling::findings(&files));
    session.check("links", || links::findings(&files));
    components(report)?;
    session.cargo("format", &mut cargo(&["fmt", "--all", "--check"]));
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    session.cargo("clippy", &mut cargo(&clippy));
    let mut documents = cargo(&["doc", "--workspace", "--no-deps"]);
    session.cargo("documentation", documents.env("RUSTDOCFLAGS", "-D warnings"));
    let metadata = Metadata::read()?;
    session.check("licences", || licences::findings(&metadata));
    session.check("publishable", || publish::findings(&metadata));
    for package in metadata.members().filter(|package| package.is_library()) {
        session.feature_combinations(package);
    }
    for (package, target) in metadata.targets("test").filter(|(_, target)| target.is_apart()) {
        let features = target.required_features.join(",");
        let name = format!("clippy of {} with {features}", target.name);
        let select = ["clippy", "-p", &package.name, "--test", &target.name];
        let rest = ["--features", &features, "--", "-D", "warnings"];
        session.cargo(&name, &mut cargo(&[&select[..], &rest].concat()));
    }
    Ok(session.finish())
}

struct Session {
    report: Report,
    checks: usize,
    failed: Vec<String>,
}

impl Session {
    fn check(&mut self, name: &str, find: impl FnOnce() -> Result<Vec<Finding>, Failure>) {
        let timer = Timer::start();
        let findings = find().unwrap_or_else(|failure| vec![failure]);
        self.ended(name, timer.elapsed(), &findings);
    }

    fn cargo(&mut self, name: &str, command: &mut Command) {
        let timer = Timer::start();
        let findings = match run_process(command, CARGO_LIMIT, |_| ()) {
            Ok(ended) if ended.success => Vec::new(),
            Ok(mut ended) => {
                ended.lines.retain(|line| !is_progress(line));
                ended.lines.push(format!("{command:?} failed"));
                ended.lines
            }
            Err(failure) => vec![failure],
        };
        self.ended(name, timer.elapsed(), &findings);
    }

    /// No features, each alone, all together: a feature must not need another in secret.
    fn feature_combinations(&mut self, package: &Package) {
        let public: Vec<&str> = package
            .features
            .iter()
            .map(String::as_str)
            .filter(|feature| *feature != "default" && !feature.starts_with("__"))
            .collect();
        let mut combinations = vec![String::new()];
        combinations.extend(public.iter().map(|&feature| feature.to_owned()));
        if public.len() > 1 {
            combinations.push(public.join(","));
        }
        for features in combinations {
            let shown = if features.is_empty() { "no features" } else { &features };
            let name = format!("{} with {shown}", package.name);
            let select = ["clippy", "-p", &package.name, "--lib", "--no-default-features"];
            let rest = ["--features", &features, "--", "-D", "warnings"];
            self.cargo(&name, &mut cargo(&[&select[..], &rest].concat()));
        }
    }

    fn ended(&mut self, name: &str, took: Duration, findings: &[Finding]) {
        self.checks += 1;
        let result = if findings.is_empty() { "ok" } else { "FAILED" };
        self.report.line(format!("lint: {name}: {result} ({:.1} s)", took.as_secs_f64()));
        for finding in findings {
            self.report.line(format!("    {finding}"));
        }
        if !findings.is_empty() {
            self.failed.push(name.to_owned());
        }
    }

    fn finish(self) -> bool {
        if self.report.json {
            let failed: Vec<String> = self.failed.iter().map(|name| json::quote(name)).collect();
            println!(r#"{{"checks":{},"failed":[{}]}}"#, self.checks, failed.join(","));
        } else {
            let passed = self.checks - self.failed.len();
            println!("lint: {passed} checks passed, {} failed", self.failed.len());
            self.failed.iter().for_each(|name| println!("lint: failed: {name}"));
        }
        self.failed.is_empty()
    }
}

/// Cargo's own lines about what it is doing, which say nothing of what is wrong.
fn is_progress(line: &str) -> bool {
    let words =
        ["Compiling ", "Checking ", "Downloading ", "Downloaded ", "Blocking ", "Updating "];
    words.iter().any(|word| line.trim_start().starts_with(word))
}

/// A file of the project with its text.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    fn is(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, own)| own == extension)
    }

    fn numbered_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().zip(1..).map(|(line, number)| (number, line))
    }
}

/// The text files that git has or would take; files that are not text are left out.
fn tracked_files() -> Result<Vec<TextFile>, Failure> {
    // A checkout that belongs to another user, as in many containers, is fine for a listing.
    let owner = ["-c", "safe.directory=*"];
    let listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let names = output(Command::new("git").args(owner).args(listing).current_dir(root()))?;
    Ok(names
        .split('\0')
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let text = std::fs::read_to_string(root().join(name)).ok()?;
            Some(TextFile { path: name.to_owned(), text })
        })
        .collect())
}

/// Reads a committed list: one entry a line, `#` begins a comment.
fn list(name: &str) -> Result<Vec<String>, Failure> {
    let path: PathBuf = root().join("xtask").join(name);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let entries = text.lines().map(str::trim);
    Ok(entries.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Into::into).collect())
}

/// rustfmt and clippy, which a small Rust installation leaves out.
fn components(report: Report) -> Result<(), Failure> {
    for component in ["fmt", "clippy"] {
        if output(&mut cargo(&[component, "--version"])).is_ok() {
            continue;
        }
        let name = if component == "fmt" { "rustfmt" } else { component };
        report.line(format!("lint: installing {name} with rustup"));
        output(Command::new("rustup").args(["component", "add", name]).current_dir(root()))
            .map_err(|failure| format!("{name} is missing and cannot be installed: {failure}"))?;
    }
    Ok(())
}
