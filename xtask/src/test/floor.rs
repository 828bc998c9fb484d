//! The committed floor: how many suites, cases and stores must have run at least.
//!
//! It only ever rises, by hand, in the change that adds the tests.

use std::path::Path;

use super::count::Count;
use crate::Failure;

/// The least numbers, from lines such as `cases 120`; `#` begins a comment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    suites: usize,
    cases: usize,
    stores: usize,
    per_store: usize,
}

impl Floor {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::parse(&text).map_err(|failure| format!("{}: {failure}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let mut floor = Self { suites: 0, cases: 0, stores: 0, per_store: 0 };
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let wrong = || format!("{line:?} is not a name and a number");
            let (name, number) = line.split_once(' ').ok_or_else(wrong)?;
            let number = number.trim().parse().map_err(|_| wrong())?;
            match name {
                "suites" => floor.suites = number,
                "cases" => floor.cases = number,
                "stores" => floor.stores = number,
                "per_store" => floor.per_store = number,
                _ => {
                    return Err(format!("unknown name {name:?}: suites, cases, stores, per_store"));
                }
            }
        }
        Ok(floor)
    }

    /// What has run too little, as sentences.
    pub(crate) fn shortfalls(&self, count: &Count) -> Vec<String> {
        let totals = [
            ("suites", count.suites(), self.suites),
            ("cases", count.cases(), self.cases),
            ("stores", count.stores().count(), self.stores),
        ];
        let per_store = count.stores().map(|(store, cases)| (store, cases, self.per_store));
        totals
            .into_iter()
            .chain(per_store)
            .filter(|(_, ran, least)| ran < least)
            .map(|(what, ran, least)| format!("below the floor: {what} {ran}, at least {least}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count() -> Count {
        let mut count = Count::default();
        count.case("a", "conformance::memory::x", true);
        count.case("a", "conformance::redis::x", true);
        count.case("b", "y", true);
        count
    }

    #[track_caller]
    fn check(floor: &str, expected: &[&str]) {
        let floor = Floor::parse(floor).expect("a floor");
        assert_eq!(floor.shortfalls(&count()), expected);
    }

    #[test]
    fn only_what_ran_too_little_is_reported() {
        check("# least\nsuites 2\ncases 3\n\nstores 2\nper_store 1\n", &[]);
        check("suites 3", &["below the floor: suites 2, at least 3"]);
        check(
            "cases 4\nstores 3",
            &["below the floor: cases 3, at least 4", "below the floor: stores 2, at least 3"],
        );
        check(
            "per_store 2",
            &["below the floor: memory 1, at least 2", "below the floor: redis 1, at least 2"],
        );
    }

    #[test]
    fn a_wrong_line_is_named() {
        for text in ["cases", "cases many", "case 3"] {
            assert!(Floor::parse(text).is_err(), "{text:?} was read");
        }
    }
}
