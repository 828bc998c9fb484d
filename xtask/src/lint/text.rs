//! The layout of files: how wide, how long, how they begin, and what they must not name.
//!
//! The limits are those of `STYLE.md`. Rust files are also held by rustfmt, which leaves comments
//! and long strings alone.

use std::path::PathBuf;

use super::{Finding, TextFile};

const WIDEST: usize = 100;
const LONGEST: usize = 600;

/// Everything that is wrong in any file.
pub(super) fn findings(files: &[TextFile]) -> Vec<Finding> {
    let never = places();
    let mut findings = Vec::new();
    for file in files {
        if file.is("rs") || file.is("md") {
            findings.extend(too_wide(file));
        }
        if file.is("rs") {
            findings.extend(too_long(file));
            findings.extend(no_header(file));
        }
        findings.extend(named(file, &never));
    }
    findings
}

/// Where this checkout and its user live: no other machine has these places.
fn places() -> Vec<String> {
    let checkout = std::env::current_dir().ok();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let long_enough = |place: &PathBuf| place.components().count() > 1;
    let place = |place: PathBuf| format!("{}/", place.display());
    checkout.into_iter().chain(home).filter(long_enough).map(place).collect()
}

fn too_wide(file: &TextFile) -> impl Iterator<Item = Finding> {
    file.numbered_lines()
        .filter(|(_, line)| line.chars().count() > WIDEST && !cannot_wrap(line))
        .map(|(number, line)| {
            let width = line.chars().count();
            format!("{}:{number}: {width} characters wide, at most {WIDEST}", file.path)
        })
}

/// An address cannot be broken, and neither can the row of a table.
fn cannot_wrap(line: &str) -> bool {
    let prose = line.trim_start().trim_start_matches(['/', '!']).trim_start();
    line.contains("://") || prose.starts_with('|')
}

fn too_long(file: &TextFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    (lines > LONGEST).then(|| format!("{}: {lines} lines long, at most {LONGEST}", file.path))
}

/// The tests of a module (`tests.rs`) have the header of that module.
fn no_header(file: &TextFile) -> Option<Finding> {
    (!file.text.starts_with("//! ") && !file.path.ends_with("/tests.rs"))
        .then(|| format!("{}:1: begins without //!: what does this module decide?", file.path))
}

fn named(file: &TextFile, never: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.numbered_lines() {
        for name in never.iter().filter(|name| stands_alone(line, name)) {
            findings.push(format!("{}:{number}: names {name:?}", file.path));
        }
    }
    findings
}

/// Whether a name occurs where no word runs into it.
fn stands_alone(line: &str, name: &str) -> bool {
    let word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '.');
    line.match_indices(name).any(|(at, _)| !line[..at].ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: impl Into<String>) -> TextFile {
        TextFile { path: path.into(), text: text.into() }
    }

    #[test]
    fn width_counts_characters_and_spares_what_cannot_wrap() {
        let wide = |line: String| too_wide(&file("a.md", line)).count();
        assert_eq!(wide("é".repeat(100)), 0);
        assert_eq!(wide("é".repeat(101)), 1);
        assert_eq!(wide(format!("| {} |", "a".repeat(100))), 0);
        assert_eq!(wide(format!("//! | {} |", "a".repeat(100))), 0);
        assert_eq!(wide(format!("[1]: https://example.com/{}", "a".repeat(100))), 0);
    }

    #[test]
    fn a_module_begins_with_its_header_and_ends_in_time() {
        assert!(no_header(&file("a.rs", "//! Decides.\n")).is_none());
        assert!(no_header(&file("a.rs", "use std::fmt;\n//! Late.\n")).is_some());
        assert!(no_header(&file("a/tests.rs", "use super::*;\n")).is_none());
        assert!(too_long(&file("a.rs", "\n".repeat(600))).is_none());
        assert!(too_long(&file("a.rs", "\n".repeat(601))).is_some());
    }

    #[test]
    fn a_name_is_found_where_no_word_runs_into_it() {
        let never = ["/secret/".to_owned(), "other.example".to_owned()];
        let count = |line: &str| named(&file("a.rs", line), &never).len();
        assert_eq!(count("see /secret/file"), 1);
        assert_eq!(count("see http://a/secret/file"), 0);
        assert_eq!(count("from https://other.example/x and /secret/"), 2);
        assert_eq!(count("from https://my.other.example/x"), 0);
    }
}
