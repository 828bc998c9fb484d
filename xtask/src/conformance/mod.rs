//! Runs the public HTTP cache tests (behind cache-tests.fyi) against this cache and scores them.
//!
//! It decides what counts: a test passed only if it did and if all it depends on did. It judges
//! twice, the proxy with its defaults and the layer in front of a client with heuristic freshness
//! on, and neither may fall below the committed floor. What is left out on purpose is listed with
//! its reason; a test that fails and is not listed is a failure, and so is a reason for a test
//! that passes.

mod floor;
mod page;
mod reasons;
mod score;
mod servers;
mod suite;

use std::thread;
use std::time::Duration;

use self::floor::Floor;
use self::reasons::Reasons;
use self::score::Score;
use self::servers::Subject;
use self::suite::Suite;
use crate::process::{Report, Timer, cargo, run as run_process};
use crate::{Failure, root, tools};

const BUILD_LIMIT: Duration = Duration::from_mins(20);

/// What of the command line is for this command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Only the proxy.
    pub(crate) proxy: bool,
    /// Only the layer.
    pub(crate) layer: bool,
    /// Run it twice; the two runs must agree.
    pub(crate) twice: bool,
    /// Run it with the suite's own header names and paths changed.
    pub(crate) renamed: bool,
}

impl Options {
    /// Takes one argument, if it is one of these.
    pub(crate) fn take(&mut self, argument: &str) -> bool {
        let flag = match argument {
            "--proxy" => &mut self.proxy,
            "--layer" => &mut self.layer,
            "--twice" => &mut self.twice,
            "--renamed" => &mut self.renamed,
            _ => return false,
        };
        *flag = true;
        true
    }

    fn subjects(self) -> Vec<Subject> {
        match (self.proxy, self.layer) {
            (true, false) => vec![Subject::Proxy],
            (false, true) => vec![Subject::Layer],
            _ => vec![Subject::Proxy, Subject::Layer],
        }
    }
}

/// What a run found.
#[derive(Debug)]
pub(crate) struct Outcome {
    scores: Vec<(Subject, Score)>,
    problems: Vec<String>,
}

impl Outcome {
    /// One line for each subject, for people.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.scores.iter().map(|(subject, score)| format!("{}: {}", subject.name(), score.line()))
    }

    /// Which subjects were scored.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.scores.iter().map(|(subject, _)| subject.name())
    }

    /// What keeps this run from being a pass, as sentences.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// Runs the command; `false` when something is wrong.
pub(crate) fn run(report: Report, options: Options) -> Result<bool, Failure> {
    tools::ensure(tools::CONFORMANCE, report)?;
    let reasons = Reasons::read()?;
    let outcome = measure(report, options, &reasons)?;
    for (subject, score) in &outcome.scores {
        report.line(format!("\n==> {}", subject.title()));
        score.table().lines().for_each(|line| report.line(format!("    {line}")));
        for test in score.not_passed() {
            let why = reasons.of(&test.id).map_or("NO REASON GIVEN", |_| "left out");
            report.line(format!("    {} {} ({why}): {}", test.kind.name(), test.id, test.said));
        }
    }
    if report.json {
        println!("{}", page::json(&outcome.scores));
    }
    let whole = outcome.scores.len() == 2 && !options.renamed;
    if whole && page::write(&outcome.scores, &reasons)? {
        report.line(format!("\n    {} is new: commit it", page::PATH));
    }
    report.line("");
    outcome.lines().for_each(|line| report.line(format!("    {line}")));
    for problem in outcome.problems() {
        report.line(format!("    {problem}"));
    }
    Ok(outcome.problems().is_empty())
}

/// Runs it as a part of all tests: the page is not written but compared.
pub(crate) fn check(report: Report) -> Result<Outcome, Failure> {
    let reasons = Reasons::read()?;
    let mut outcome = measure(report, Options::default(), &reasons)?;
    if outcome.problems.is_empty() && !page::is_current(&outcome.scores, &reasons)? {
        let command = "run `cargo xtask conformance` and commit what it writes";
        outcome.problems.push(format!("{} is not what was measured: {command}", page::PATH));
    }
    Ok(outcome)
}

fn measure(report: Report, options: Options, reasons: &Reasons) -> Result<Outcome, Failure> {
    let floor = Floor::read()?;
    let timer = Timer::start();
    let suite = Suite::fetch(report)?;
    let suite = if options.renamed { suite.renamed()? } else { suite };
    let tests = suite.tests()?;
    let subjects = options.subjects();
    let programs = build(report, &subjects)?;
    report.line(format!("    {} tests, ready after {} s", tests.len(), timer.elapsed().as_secs()));
    let mut problems = Vec::new();
    let mut scores = once(&suite, &tests, &programs)?;
    if options.twice {
        for ((subject, first), (_, second)) in scores.iter().zip(once(&suite, &tests, &programs)?) {
            let differ = first.differences(&second);
            problems.extend(differ.map(|id| format!("{}: two runs differ: {id}", subject.name())));
        }
    }
    report.line(format!("    measured after {} s", timer.elapsed().as_secs()));
    for (subject, score) in &mut scores {
        problems.extend(floor.shortfalls(*subject, score));
        problems.extend(reasons.gaps(*subject, score));
    }
    problems.extend(reasons.unknown(&tests));
    Ok(Outcome { scores, problems })
}

type Programs = Vec<(Subject, std::path::PathBuf)>;

fn build(report: Report, subjects: &[Subject]) -> Result<Programs, Failure> {
    subjects
        .iter()
        .map(|subject| {
            let arguments = subject.build();
            let ended = run_process(&mut cargo(arguments), BUILD_LIMIT, |line| report.line(line))?;
            if !ended.success {
                return Err(format!("cargo {} failed", arguments.join(" ")));
            }
            Ok((*subject, subject.program()?))
        })
        .collect()
}

/// One run against each subject, side by side: they mostly wait.
fn once(
    suite: &Suite,
    tests: &[suite::Test],
    programs: &Programs,
) -> Result<Vec<(Subject, Score)>, Failure> {
    thread::scope(|scope| {
        let runs: Vec<_> = programs
            .iter()
            .map(|(subject, program)| {
                scope.spawn(move || {
                    let results = servers::measure(suite, *subject, program)?;
                    Ok((*subject, Score::of(tests, &results)?))
                })
            })
            .collect();
        runs.into_iter()
            .map(|run| run.join().map_err(|_| "a measurement panicked".to_owned())?)
            .collect()
    })
}

/// Where the committed files of this command lie.
fn folder() -> std::path::PathBuf {
    root().join("xtask/conformance")
}
