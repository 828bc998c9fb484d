//! The page for people: the score by group, each test that did not pass and why.
//!
//! Made from a measurement and the table of reasons, and from nothing else, so that the same
//! measurement always makes the same page.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::reasons::Reasons;
use super::score::{Part, Score, show};
use super::servers::Subject;
use super::suite::Kind;
use crate::json::quote;
use crate::{Failure, root};

/// Where it lies.
pub(crate) const PATH: &str = "docs/conformance.md";

const HEAD: &str = "\
# Conformance

<!-- Written by `cargo xtask conformance`. Do not edit: the reasons are in
     xtask/conformance/left-out.txt. -->

This is how the response cache does in the public HTTP cache tests behind
[cache-tests.fyi](https://cache-tests.fyi), in the version that npm has (`http-cache-tests` 0.4.5).
Their README says that a score is behaviour, not certification. `cargo xtask conformance` fetches
them, measures both ways of using the cache and writes this page; `cargo xtask test` measures them
too and fails below the committed floor. A test counts only if all that it depends on passed.

*Required* tests are what every cache has to do, *optimal* ones what the best do; a *check* asks how
a cache behaves where the RFCs leave a choice.
";

const CHECKS: &str = "\n## Checks\n\n";

type Scores = [(Subject, Score)];

/// Writes the page; whether it changed.
pub(crate) fn write(scores: &Scores, reasons: &Reasons) -> Result<bool, Failure> {
    let (path, page) = (root().join(PATH), text(scores, reasons));
    if std::fs::read_to_string(&path).is_ok_and(|known| known == page) {
        return Ok(false);
    }
    std::fs::write(path, page).map_err(|error| format!("cannot write {PATH}: {error}"))?;
    Ok(true)
}

/// Whether the committed page says what was measured; some checks turn on a moment, so they are not
/// compared.
pub(crate) fn is_current(scores: &Scores, reasons: &Reasons) -> Result<bool, Failure> {
    let above = |page: &str| page.split(CHECKS).next().map(str::to_owned);
    match std::fs::read_to_string(root().join(PATH)) {
        Ok(known) => Ok(above(&known) == above(&text(scores, reasons))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("cannot read {PATH}: {error}")),
    }
}

fn text(scores: &Scores, reasons: &Reasons) -> String {
    let mut page = HEAD.to_owned();
    totals(&mut page, scores);
    by_group(&mut page, scores);
    left_out(&mut page, scores, reasons);
    checks(&mut page, scores);
    page
}

// Writing into a string cannot fail, so what `write!` returns is nothing to look at.

fn totals(page: &mut String, scores: &Scores) {
    page.push_str(
        "\n## Score\n\n| | required | optimal | checks answered yes |\n|---|---|---|---|\n",
    );
    for (subject, score) in scores {
        let [required, optimal, _] = Kind::ALL.map(|kind| of(score.total(kind)));
        let _ = writeln!(page, "| {} | {required} | {optimal} |", subject.title());
    }
}

fn of(part: Part) -> String {
    format!("{} of {}", part.passed, part.all)
}

fn by_group(page: &mut String, scores: &Scores) {
    page.push_str("\n## By group\n\nRequired and optimal tests");
    let names: Vec<&str> = scores.iter().map(|(subject, _)| subject.name()).collect();
    let _ = writeln!(page, ", each as {}.\n", names.join(" · "));
    page.push_str("| group | required | optimal |\n|---|---|---|\n");
    let groups: Vec<Vec<_>> = scores.iter().map(|(_, score)| score.groups().collect()).collect();
    let Some(first) = groups.first() else { return };
    for (place, (group, title, _)) in first.iter().enumerate() {
        let cells = [0, 1].map(|kind: usize| {
            let cells: Vec<String> =
                groups.iter().filter_map(|all| all.get(place)).map(|g| show(g.2[kind])).collect();
            if cells.iter().all(String::is_empty) { String::new() } else { cells.join(" · ") }
        });
        let apart = if Score::is_apart(group) { " (not part of the score)" } else { "" };
        let _ = writeln!(page, "| {title}{apart} | {} |", cells.join(" | "));
    }
}

fn left_out(page: &mut String, scores: &Scores, reasons: &Reasons) {
    page.push_str("\n## What does not pass, and why\n");
    for entry in reasons.entries() {
        page.push_str("\n- ");
        let names = entry.ids.iter().map(|(only, id)| match only {
            Some(subject) => format!("`{id}` ({})", subject.name()),
            None => format!("`{id}`"),
        });
        let words: Vec<String> = names.collect();
        let kinds: BTreeSet<&str> = entry
            .ids
            .iter()
            .filter_map(|(_, id)| {
                let (_, score) = scores.first()?;
                let verdict = score.verdicts().iter().find(|verdict| verdict.id == *id)?;
                Some(verdict.kind.name())
            })
            .collect();
        let kinds: Vec<&str> = kinds.into_iter().collect();
        let text = format!("{} ({}): {}", words.join(", "), kinds.join(", "), entry.why);
        wrap(page, &text);
    }
}

/// Breaks lines before column 100, indented below the dash.
fn wrap(page: &mut String, text: &str) {
    let mut column = 2;
    for (place, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if place > 0 && column + 1 + length > 100 {
            page.push_str("\n  ");
            column = 2;
        } else if place > 0 {
            page.push(' ');
            column += 1;
        }
        page.push_str(word);
        column += length;
    }
    page.push('\n');
}

fn checks(page: &mut String, scores: &Scores) {
    page.push_str(CHECKS);
    page.push_str("How the cache answers where it has a choice. The names are the suite's.\n\n");
    let names: Vec<&str> = scores.iter().map(|(subject, _)| subject.name()).collect();
    let _ = writeln!(page, "| check | {} |", names.join(" | "));
    let _ = writeln!(page, "|---|{}", "---|".repeat(names.len()));
    let Some((_, first)) = scores.first() else { return };
    for verdict in first.verdicts() {
        if verdict.kind != Kind::Check && !Score::is_apart(&verdict.group) {
            continue;
        }
        let answers: Vec<&str> = scores
            .iter()
            .map(|(_, score)| {
                let same = score.verdicts().iter().find(|other| other.id == verdict.id);
                if same.is_some_and(|verdict| verdict.passed) { "yes" } else { "no" }
            })
            .collect();
        let _ = writeln!(page, "| {} | {} |", verdict.id, answers.join(" | "));
    }
}

/// The scores as one JSON object.
pub(crate) fn json(scores: &Scores) -> String {
    let of_subject = |(subject, score): &(Subject, Score)| {
        let totals = Kind::ALL.map(|kind| {
            let Part { passed, all } = score.total(kind);
            format!(r#"{}:{{"passed":{passed},"all":{all}}}"#, quote(kind.name()))
        });
        let tests: Vec<String> = score
            .verdicts()
            .iter()
            .map(|verdict| format!("{}:{}", quote(&verdict.id), verdict.passed))
            .collect();
        let (totals, tests) = (totals.join(","), tests.join(","));
        format!(r#"{}:{{{totals},"tests":{{{tests}}}}}"#, quote(subject.name()))
    };
    let all: Vec<String> = scores.iter().map(of_subject).collect();
    format!("{{{}}}", all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_reason_is_wider_than_100_columns() {
        let mut page = "- ".to_owned();
        wrap(&mut page, &"words of some length ".repeat(30));
        assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
        assert_eq!(page.split_whitespace().count(), 1 + 4 * 30);
    }
}
