//! Misspelt words, and words of the field in one spelling only.
//!
//! The list is `xtask/spelling.txt`: a wrong word and the right one. Documents and comments are
//! read; code, addresses and what stands in backticks are not.

use std::collections::HashMap;

use super::links::prose;
use super::{Finding, TextFile, list};
use crate::Failure;

/// Every wrong word, with its place and the right one.
pub(super) fn findings(files: &[TextFile]) -> Result<Vec<Finding>, Failure> {
    let entries = list("spelling.txt")?;
    let mut right = HashMap::new();
    for entry in &entries {
        let (wrong, correct) = entry
            .split_once(' ')
            .ok_or_else(|| format!("xtask/spelling.txt: {entry:?} is not two words"))?;
        right.insert(wrong, correct.trim());
    }
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is("md") || file.is("rs")) {
        let comments = if file.is("rs") { comments(&file.text) } else { file.text.clone() };
        for (number, line) in prose(&comments) {
            findings.extend(words(&line).filter_map(|word| {
                let correct = right.get(word.to_lowercase().as_str())?;
                Some(format!("{}:{number}: {word:?}: write {correct:?}", file.path))
            }));
        }
    }
    Ok(findings)
}

/// The comments of Rust source, line for line, with everything else left empty.
fn comments(text: &str) -> String {
    let comment = |line: &str| {
        let marked = line.trim_start();
        let starts = ["//!", "///", "//"];
        let body = starts.iter().find_map(|start| marked.strip_prefix(start));
        body.unwrap_or_default().to_owned()
    };
    text.lines().map(comment).collect::<Vec<_>>().join("\n")
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
        .filter(|piece| !piece.contains("://"))
        .flat_map(|piece| piece.split(|character: char| !character.is_alphabetic()))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spelt in two halves: this file is checked too.
    fn wrong() -> String {
        ["rec", "ieve"].concat()
    }

    fn count(path: &str, text: &str) -> usize {
        let file = TextFile { path: path.into(), text: text.into() };
        findings(&[file]).expect("the list can be read").len()
    }

    #[test]
    fn words_are_found_in_prose_and_comments_only() {
        let wrong = wrong();
        assert_eq!(count("a.md", &format!("We {wrong} it. RECEIVED, {wrong}.")), 2);
        assert_eq!(count("a.md", &format!("`{wrong}` https://example.com/{wrong}")), 0);
        assert_eq!(count("a.rs", &format!("/// {wrong}\nfn {wrong}() {{}}\n// {wrong}")), 2);
        assert_eq!(count("a.toml", &wrong), 0);
    }
}
