//! Links between documents: each leads to a file that exists, and to a heading in it.
//!
//! Addresses with a scheme are left alone: a check must not depend on the network. Every page of
//! the guide stands in its summary.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{Finding, TextFile};
use crate::{Failure, root};

const SUMMARY: &str = "docs/src/SUMMARY.md";

/// Every link that leads nowhere.
#[expect(clippy::unnecessary_wraps, reason = "all checks have one shape")]
pub(super) fn findings(files: &[TextFile]) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    let mut reached = BTreeSet::new();
    for file in files.iter().filter(|file| file.is("md")) {
        for (number, target) in links(&file.text) {
            let (path, heading) = target.split_once('#').unwrap_or((target.as_str(), ""));
            let full = if path.is_empty() { file.path.clone() } else { join(&file.path, path) };
            if file.path == SUMMARY {
                reached.insert(full.clone());
            }
            let found = files.iter().find(|other| other.path == full);
            if found.is_none() && !root().join(&full).exists() {
                findings.push(format!("{}:{number}: {target} does not exist", file.path));
            } else if let Some(other) = found
                && !heading.is_empty()
                && other.is("md")
                && !has_heading(&other.text, heading)
            {
                findings.push(format!("{}:{number}: {full} has no heading #{heading}", file.path));
            }
        }
    }
    let pages = files.iter().filter(|file| file.path.starts_with("docs/src/") && file.is("md"));
    for page in pages.filter(|page| page.path != SUMMARY && !reached.contains(&page.path)) {
        findings.push(format!("{}: is not in {SUMMARY}", page.path));
    }
    Ok(findings)
}

/// The targets of `[text](target)` and `[name]: target` that are not addresses, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let definition = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "))
            .map(|(_, target)| target);
        let inline = line.match_indices("](").filter_map(|(at, mark)| {
            let rest = &line[at + mark.len()..];
            rest.split_once(')').map(|(target, _)| target)
        });
        found.extend(
            definition
                .into_iter()
                .chain(inline)
                .map(str::trim)
                .filter(|target| !target.contains(':') && !target.is_empty())
                .map(|target| (number, target.to_owned())),
        );
    }
    found
}

/// The lines outside fenced blocks, without what stands in backticks.
pub(super) fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fenced = false;
    text.lines().zip(1..).filter_map(move |(line, number)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        // Every second piece is inside backticks.
        (!fenced).then(|| (number, line.split('`').step_by(2).collect::<Vec<_>>().join("``")))
    })
}

fn has_heading(text: &str, wanted: &str) -> bool {
    let mut fenced = false;
    text.lines().any(|line| {
        fenced ^= line.starts_with("```");
        !fenced && line.starts_with('#') && slug(line.trim_start_matches('#')) == wanted
    })
}

/// The name of a heading, as GitHub and mdBook make it.
fn slug(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .filter_map(|character| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            other => other.is_alphanumeric().then(|| other.to_ascii_lowercase()),
        })
        .collect()
}

/// Joins a link to the folder of its file, without `.` and `..`.
fn join(from: &str, link: &str) -> String {
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    let mut joined = PathBuf::new();
    for part in folder.join(link).components() {
        match part {
            Component::ParentDir => {
                joined.pop();
            }
            Component::CurDir => (),
            other => joined.push(other),
        }
    }
    joined.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.into(), text: text.into() }
    }

    #[test]
    fn links_are_found_in_prose_only() {
        let text =
            "see [a](a.md) and [b](https://b) `[c](c.md)`\n```\n[d](d.md)\n```\n[e]: e.md#x\n";
        assert_eq!(links(text), [(1, "a.md".to_owned()), (5, "e.md#x".to_owned())]);
    }

    #[test]
    fn a_link_leads_to_a_file_and_a_heading() {
        let files = [
            file("docs/src/SUMMARY.md", "[A](a.md)\n"),
            file(
                "docs/src/a.md",
                "# What it's for: `get`\n[here](#what-its-for-get) [no](#other)\n",
            ),
            file("docs/src/b.md", "[up](../none.md) [a](./a.md#nothing)\n"),
        ];
        let found = findings(&files).expect("a result");
        assert_eq!(
            found,
            [
                "docs/src/a.md:2: docs/src/a.md has no heading #other",
                "docs/src/b.md:1: ../none.md does not exist",
                "docs/src/b.md:1: docs/src/a.md has no heading #nothing",
                "docs/src/b.md: is not in docs/src/SUMMARY.md",
            ]
        );
    }
}
