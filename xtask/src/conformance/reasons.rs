//! Why a test is left out on purpose: the committed table beside this command.
//!
//! Each entry is a line of test names and, indented below it, the reason. A name may begin with
//! `proxy:` or `layer:` where it holds for one of them only.

use super::folder;
use super::score::Score;
use super::servers::Subject;
use super::suite::Test;
use crate::Failure;

/// The reasons, in the order of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reasons {
    entries: Vec<Entry>,
}

/// One reason and what it is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) ids: Vec<(Option<Subject>, String)>,
    pub(crate) why: String,
}

impl Reasons {
    pub(crate) fn read() -> Result<Self, Failure> {
        let path = folder().join("left-out.txt");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::parse(&text).map_err(|failure| format!("{}: {failure}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let mut entries: Vec<Entry> = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            if let Some(why) = line.strip_prefix("    ") {
                let entry = entries.last_mut().ok_or("a reason without a test")?;
                if !entry.why.is_empty() {
                    entry.why.push(' ');
                }
                entry.why.push_str(why.trim());
            } else {
                let ids = line.split_whitespace().map(|name| match name.split_once(':') {
                    Some((subject, id)) => Subject::read(subject)
                        .map(|subject| (Some(subject), id.to_owned()))
                        .ok_or_else(|| format!("{name:?}: only proxy: and layer: are known")),
                    None => Ok((None, name.to_owned())),
                });
                let ids = ids.collect::<Result<Vec<_>, _>>()?;
                match entries.last_mut().filter(|entry| entry.why.is_empty()) {
                    Some(entry) => entry.ids.extend(ids),
                    None => entries.push(Entry { ids, why: String::new() }),
                }
            }
        }
        match entries.iter().find(|entry| entry.why.is_empty()) {
            Some(entry) => Err(format!("{:?} has no reason", entry.ids)),
            None => Ok(Self { entries }),
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The reason for a test, for whichever subject.
    pub(crate) fn of(&self, id: &str) -> Option<&str> {
        let of_test = |entry: &&Entry| entry.ids.iter().any(|(_, known)| known == id);
        self.entries.iter().find(of_test).map(|entry| entry.why.as_str())
    }

    fn covers(&self, subject: Subject, id: &str) -> bool {
        self.entries
            .iter()
            .flat_map(|entry| &entry.ids)
            .any(|(only, known)| known == id && only.is_none_or(|only| only == subject))
    }

    /// What failed without a reason, and what has a reason and passed.
    pub(crate) fn gaps(&self, subject: Subject, score: &Score) -> Vec<String> {
        let name = subject.name();
        let mut gaps: Vec<String> = score
            .not_passed()
            .filter(|verdict| !self.covers(subject, &verdict.id))
            .map(|verdict| format!("{name}: {} did not pass: {}", verdict.id, verdict.said))
            .collect();
        let passed = score.verdicts().iter().filter(|verdict| verdict.passed);
        let passed = passed.filter(|verdict| self.covers(subject, &verdict.id));
        gaps.extend(passed.map(|verdict| format!("{name}: {} passed: take it off", verdict.id)));
        gaps
    }

    /// Names that no test has.
    pub(crate) fn unknown(&self, tests: &[Test]) -> Vec<String> {
        let ids = self.entries.iter().flat_map(|entry| &entry.ids);
        let unknown = ids.filter(|(_, id)| !tests.iter().any(|test| test.id == *id));
        unknown.map(|(_, id)| format!("left out, but there is no such test: {id}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_share_the_reason_below_them() {
        let text = "# x\na b\n  \nlayer:c\n    one\n    two\n\nd\n    three\n";
        let reasons = Reasons::parse(&text.replace("  \n", "")).expect("reasons");
        assert_eq!(reasons.of("a"), Some("one two"));
        assert_eq!(reasons.of("c"), Some("one two"));
        assert_eq!(reasons.of("d"), Some("three"));
        assert_eq!(reasons.of("e"), None);
        assert!(reasons.covers(Subject::Layer, "c") && !reasons.covers(Subject::Proxy, "c"));
    }

    #[test]
    fn a_table_that_says_too_little_is_refused() {
        for text in ["    a reason\n", "a\n", "other:a\n    x\n"] {
            assert!(Reasons::parse(text).is_err(), "{text:?}");
        }
    }
}
