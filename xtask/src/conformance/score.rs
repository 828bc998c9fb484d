//! Scores the results of one run. Pure: no process, no file.
//!
//! A test passed only if it did and if all it depends on did. The rest is told apart as the suite
//! tells it: what a test is about failed, or the ground for it could not be laid.

use std::collections::BTreeMap;

use super::suite::{Kind, Test};
use crate::Failure;
use crate::json::{self, Json};

/// A group that is no part of the suite's score: a W3C note of 2001 that no RFC took up.
const APART: &str = "surrogate-control";

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) group: String,
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) passed: bool,
    /// What the suite says where it did not.
    pub(crate) said: String,
}

/// How many passed, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Part {
    pub(crate) passed: usize,
    pub(crate) all: usize,
}

/// The score of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Score {
    verdicts: Vec<Verdict>,
    /// The groups in the suite's order, each with its title.
    groups: Vec<(String, String)>,
}

impl Score {
    /// Scores what the suite's client printed: a JSON object of results by test.
    pub(crate) fn of(tests: &[Test], printed: &str) -> Result<Self, Failure> {
        let start = printed.find('{').ok_or_else(|| format!("no results:\n{printed}"))?;
        let results = json::parse(printed[start..].trim())?;
        let by_id: BTreeMap<&str, &Test> =
            tests.iter().map(|test| (test.id.as_str(), test)).collect();
        let mut groups: Vec<(String, String)> = Vec::new();
        for test in tests {
            if !groups.iter().any(|(group, _)| *group == test.group) {
                groups.push((test.group.clone(), test.title.clone()));
            }
        }
        let verdicts = tests.iter().map(|test| {
            let ground = test
                .depends_on
                .iter()
                .find(|id| by_id.get(id.as_str()).is_none_or(|on| !passed(on, &by_id, &results)));
            let said = match (said(&results, &test.id), ground) {
                (Some(said), _) => said,
                (None, Some(ground)) => format!("depends on {ground}, which did not pass"),
                (None, None) => String::new(),
            };
            Verdict {
                group: test.group.clone(),
                id: test.id.clone(),
                kind: test.kind,
                passed: said.is_empty(),
                said,
            }
        });
        Ok(Self { verdicts: verdicts.collect(), groups })
    }

    /// How many of a kind passed, in the whole suite.
    pub(crate) fn total(&self, kind: Kind) -> Part {
        self.part(|verdict| verdict.kind == kind && verdict.group != APART)
    }

    /// The groups: name, title, and the parts of each kind.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, &str, [Part; 3])> {
        self.groups.iter().map(|(group, title)| {
            let part = |kind| self.part(|verdict| verdict.kind == kind && verdict.group == *group);
            (group.as_str(), title.as_str(), Kind::ALL.map(part))
        })
    }

    /// Whether this group is scored apart.
    pub(crate) fn is_apart(group: &str) -> bool {
        group == APART
    }

    /// Every test.
    pub(crate) fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// What is required or optimal and did not pass.
    pub(crate) fn not_passed(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| {
            !verdict.passed && verdict.kind != Kind::Check && verdict.group != APART
        })
    }

    /// The tests that two runs disagree on.
    pub(crate) fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let pairs = self.verdicts.iter().zip(&other.verdicts);
        pairs.filter(|(a, b)| a.id != b.id || a.passed != b.passed).map(|(a, _)| a.id.as_str())
    }

    /// The totals in one line.
    pub(crate) fn line(&self) -> String {
        let parts = Kind::ALL.map(|kind| {
            let Part { passed, all } = self.total(kind);
            format!("{passed} of {all} {}", kind.name())
        });
        parts.join(", ")
    }

    /// The score by group, as text.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![row("", Kind::ALL.map(Kind::name))];
        for (group, _, parts) in self.groups() {
            lines.push(row(group, parts.map(show).each_ref().map(String::as_str)));
        }
        lines.join("\n")
    }

    fn part(&self, counts: impl Fn(&Verdict) -> bool) -> Part {
        let mut part = Part::default();
        for verdict in self.verdicts.iter().filter(|verdict| counts(verdict)) {
            part.all += 1;
            part.passed += usize::from(verdict.passed);
        }
        part
    }
}

fn row(name: &str, cells: [&str; 3]) -> String {
    let [required, optimal, check] = cells;
    format!("{name:<20} {required:>10} {optimal:>10} {check:>10}")
}

/// `3/5`, or nothing where there are none.
pub(crate) fn show(part: Part) -> String {
    if part.all == 0 { String::new() } else { format!("{}/{}", part.passed, part.all) }
}

fn passed(test: &Test, tests: &BTreeMap<&str, &Test>, results: &Json) -> bool {
    said(results, &test.id).is_none()
        && test
            .depends_on
            .iter()
            .all(|id| tests.get(id.as_str()).is_some_and(|on| passed(on, tests, results)))
}

/// What the client says against a test: nothing where it is `true`.
fn said(results: &Json, id: &str) -> Option<String> {
    match results.get(id) {
        Some(Json::Bool(true)) => None,
        Some(result) => {
            let words: Vec<&str> = result.array().iter().filter_map(Json::text).collect();
            Some(words.join(": "))
        }
        None => Some("it did not run".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(id: &str, kind: Kind, depends_on: &[&str]) -> Test {
        Test {
            group: id.split('-').next().unwrap_or_default().to_owned(),
            title: String::new(),
            id: id.to_owned(),
            kind,
            depends_on: depends_on.iter().map(|&id| id.to_owned()).collect(),
        }
    }

    fn score(printed: &str) -> Score {
        let tests = [
            test("a-1", Kind::Required, &[]),
            test("a-2", Kind::Required, &["a-1"]),
            test("a-3", Kind::Required, &["a-2"]),
            test("b-1", Kind::Optimal, &[]),
            test("b-2", Kind::Check, &[]),
        ];
        Score::of(&tests, printed).expect("a score")
    }

    #[test]
    fn a_test_counts_only_if_all_it_depends_on_passed() {
        let score = score(
            r#"Running
            {"a-1":["Assertion","no"],"a-2":true,"a-3":true,"b-1":true,"b-2":["Setup","x"]}"#,
        );
        assert_eq!(score.line(), "0 of 3 required, 1 of 1 optimal, 0 of 1 check");
        let left: Vec<_> = score.not_passed().map(|verdict| verdict.said.as_str()).collect();
        assert_eq!(
            left,
            [
                "Assertion: no",
                "depends on a-1, which did not pass",
                "depends on a-2, which did not pass"
            ]
        );
    }

    #[test]
    fn what_did_not_run_did_not_pass() {
        let score = score(r#"{"a-1":true,"a-2":true,"b-1":true}"#);
        assert_eq!(score.line(), "2 of 3 required, 1 of 1 optimal, 0 of 1 check");
    }

    #[test]
    fn runs_that_differ_are_named() {
        let all = r#"{"a-1":true,"a-2":true,"a-3":true,"b-1":true,"b-2":true}"#;
        let (first, second) = (score(all), score(&all.replace("\"b-1\":true", "\"b-1\":[\"x\"]")));
        assert_eq!(first.differences(&second).collect::<Vec<_>>(), ["b-1"]);
        assert_eq!(first.differences(&first).count(), 0);
        assert!(Score::of(&[], "nothing").is_err());
    }
}
