//! Runs every test of the workspace and says how many ran.
//!
//! In order: what the tests need, all test binaries (nextest if it is installed), documentation
//! examples, targets that are built apart (features that begin with `__`), the examples that say
//! `// xtask: run`, and the public HTTP cache tests. A skipped test fails the run, and so do fewer
//! suites, cases or stores than the committed floor: a test that silently stopped running is a
//! failure.

pub(crate) mod count;
mod floor;

use std::fs;
use std::process::Command;
use std::time::Duration;

use self::count::Count;
use self::floor::Floor;
use crate::metadata::Metadata;
use crate::process::{Ended, Report, Timer, cargo, output, run as run_process};
use crate::{Failure, conformance, json, root, tools};

/// An example whose source has this line is run as a test.
const RUN_MARK: &str = "// xtask: run";
/// How long each fuzz test looks, in seconds, and the variable that says so.
const FUZZ_SECONDS: (&str, &str) = ("TACHIKOMA_FUZZ_SECONDS", "30");
const CARGO_LIMIT: Duration = Duration::from_mins(25);
const EXAMPLE_LIMIT: Duration = Duration::from_mins(1);

/// Runs everything; `false` when a test failed or the floor was missed.
pub(crate) fn run(report: Report) -> Result<bool, Failure> {
    let mut session = Session { report, timer: Timer::start(), count: Count::default() };
    let floor = Floor::read(&root().join("xtask/floor.txt"))?;

    session.heading("what the tests need");
    tools::ensure(tools::TESTS, report)?;
    session.test_binaries()?;
    session.heading("documentation examples");
    session.cargo(&["test", "--workspace", "--doc", "--no-fail-fast"])?;
    let metadata = Metadata::read()?;
    session.targets_apart(&metadata)?;
    session.examples(&metadata)?;
    session.conformance();
    Ok(session.finish(&floor))
}

struct Session {
    report: Report,
    timer: Timer,
    count: Count,
}

impl Session {
    fn heading(&self, text: &str) {
        self.report.line(format!("\n==> [{:>4} s] {text}", self.timer.elapsed().as_secs()));
    }

    fn test_binaries(&mut self) -> Result<(), Failure> {
        if output(&mut cargo(&["nextest", "--version"])).is_ok() {
            self.heading("test binaries, with nextest");
            self.cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests", "pass"])
        } else {
            self.heading("test binaries");
            let targets = ["--lib", "--bins", "--tests", "--examples"];
            let select = ["test", "--workspace", "--no-fail-fast"];
            // One at a time: many tests measure real time, and a neighbour that keeps the machine
            // busy makes them miss it. Nextest knows which ones, in `.config/nextest.toml`.
            let alone = ["--", "--test-threads", "1"];
            self.cargo(&[&select[..], &targets, &alone].concat())
        }
    }

    fn targets_apart(&mut self, metadata: &Metadata) -> Result<(), Failure> {
        for (package, target) in metadata.targets("test").filter(|(_, target)| target.is_apart()) {
            let features = target.required_features.join(",");
            self.heading(&format!("{} {} with {features}", package.name, target.name));
            let selection = ["test", "-p", &package.name, "--test", &target.name];
            let arguments = [&selection[..], &["--features", &features, "--no-fail-fast"]].concat();
            self.cargo(&arguments)?;
        }
        Ok(())
    }

    fn examples(&mut self, metadata: &Metadata) -> Result<(), Failure> {
        self.heading("examples");
        self.cargo(&["build", "--workspace", "--examples"])?;
        for (package, target) in metadata.targets("example") {
            let source = fs::read_to_string(&target.path)
                .map_err(|error| format!("cannot read {}: {error}", target.path.display()))?;
            if !source.lines().any(|line| line.trim() == RUN_MARK) {
                continue;
            }
            let program = metadata.target_directory.join("debug/examples").join(&target.name);
            let ended =
                run_process(Command::new(program).current_dir(root()), EXAMPLE_LIMIT, |_| ());
            let name = format!("{}::{}", package.name, target.name);
            let passed = ended.as_ref().is_ok_and(|ended| ended.success);
            match &ended {
                Ok(ended) if passed => self.report.line(format!("    {name} {:.1?}", ended.took)),
                Ok(ended) => self.report.line(format!("    {name} failed\n{}", tail(ended))),
                Err(failure) => self.report.line(format!("    {name} failed: {failure}")),
            }
            self.count.case("examples", &name, passed);
        }
        Ok(())
    }

    /// Measures the public HTTP cache tests: one case for each way of using the cache.
    fn conformance(&mut self) {
        self.heading("conformance");
        match conformance::check(self.report) {
            Ok(outcome) => {
                outcome.lines().for_each(|line| self.report.line(format!("    {line}")));
                for problem in outcome.problems() {
                    self.count.case("conformance", problem, false);
                }
                if outcome.problems().is_empty() {
                    outcome.names().for_each(|name| self.count.case("conformance", name, true));
                }
            }
            Err(failure) => self.count.case("conformance", &failure, false),
        }
    }

    /// Runs cargo, shows its lines and counts the tests in them.
    fn cargo(&mut self, arguments: &[&str]) -> Result<(), Failure> {
        self.report.line(format!("    cargo {}", arguments.join(" ")));
        let failed_before = self.count.failed();
        let mut counter = count::Reader::default();
        let mut command = cargo(arguments);
        command.env(FUZZ_SECONDS.0, FUZZ_SECONDS.1);
        let ended = run_process(&mut command, CARGO_LIMIT, |line| {
            self.report.line(line);
            counter.line(line, &mut self.count);
        })?;
        if !ended.success && self.count.failed() == failed_before {
            // It did not compile, or a test binary died: no case says so.
            self.count.case("cargo", &arguments.join(" "), false);
        }
        Ok(())
    }

    fn finish(self, floor: &Floor) -> bool {
        self.heading("result");
        let Self { report, timer, count } = self;
        for failed in count.failures() {
            report.line(format!("    failed: {failed}"));
        }
        let mut shortfalls = floor.shortfalls(&count);
        if count.skipped() > 0 {
            shortfalls.push(format!("{} cases were skipped: every test runs", count.skipped()));
        }
        for shortfall in &shortfalls {
            report.line(format!("    {shortfall}"));
        }
        let stores: Vec<String> =
            count.stores().map(|(store, cases)| format!("{store} {cases} cases")).collect();
        report.line(format!(
            "    {} suites, {} cases, {} stores ({}) in {} s",
            count.suites(),
            count.cases(),
            stores.len(),
            stores.join(", "),
            timer.elapsed().as_secs()
        ));
        // What misses the floor is a failure that the last line must show too.
        let failed = count.failed() + shortfalls.len();
        if report.json {
            println!("{}", summary(&count, failed, &shortfalls));
        } else {
            println!("\n{} passed, {failed} failed", count.passed());
        }
        failed == 0
    }
}

fn summary(count: &Count, failed: usize, shortfalls: &[String]) -> String {
    let stores: Vec<String> =
        count.stores().map(|(store, cases)| format!("{}:{cases}", json::quote(store))).collect();
    let failures: Vec<String> =
        count.failures().chain(shortfalls.iter().map(String::as_str)).map(json::quote).collect();
    let numbers = [
        ("passed", count.passed()),
        ("failed", failed),
        ("suites", count.suites()),
        ("cases", count.cases()),
    ];
    let numbers = numbers.map(|(name, number)| format!(r#""{name}":{number}"#)).join(",");
    let (stores, failures) = (stores.join(","), failures.join(","));
    format!(r#"{{{numbers},"stores":{{{stores}}},"failures":[{failures}]}}"#)
}

fn tail(ended: &Ended) -> String {
    ended.lines[ended.lines.len().saturating_sub(20)..].join("\n")
}
