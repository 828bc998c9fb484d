//! The committed floor: how many tests must pass at least. It only ever rises, by hand.

use super::folder;
use super::score::Score;
use super::servers::Subject;
use super::suite::Kind;
use crate::Failure;

/// The least numbers, from lines such as `proxy required 120`; `#` begins a comment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    least: Vec<(Subject, Kind, usize)>,
}

impl Floor {
    pub(crate) fn read() -> Result<Self, Failure> {
        let path = folder().join("floor.txt");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::parse(&text).map_err(|failure| format!("{}: {failure}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let least = lines.map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let read = || {
                let [subject, kind, number] = words.as_slice() else { return None };
                let kind = Kind::ALL.into_iter().find(|known| known.name() == *kind)?;
                Some((Subject::read(subject)?, kind, number.parse().ok()?))
            };
            read().ok_or_else(|| format!("{line:?} is not a subject, a kind and a number"))
        });
        Ok(Self { least: least.collect::<Result<_, _>>()? })
    }

    /// Where a score is below, as sentences.
    pub(crate) fn shortfalls(&self, subject: Subject, score: &Score) -> Vec<String> {
        let of_subject = self.least.iter().filter(|(of, _, _)| *of == subject);
        let below = of_subject.filter_map(|(_, kind, least)| {
            let passed = score.total(*kind).passed;
            let (name, kind) = (subject.name(), kind.name());
            (passed < *least)
                .then(|| format!("{name}: below the floor: {kind} {passed}, at least {least}"))
        });
        below.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_is_reported() {
        let score = Score::of(&[], "{}").expect("a score");
        let floor = Floor::parse("# least\nproxy required 1\nlayer optimal 0\n").expect("a floor");
        assert_eq!(
            floor.shortfalls(Subject::Proxy, &score),
            ["proxy: below the floor: required 0, at least 1"]
        );
        assert!(floor.shortfalls(Subject::Layer, &score).is_empty());
    }

    #[test]
    fn a_wrong_line_is_named() {
        for text in ["proxy required", "proxy odd 1", "other required 1", "proxy required x"] {
            assert!(Floor::parse(text).is_err(), "{text:?} was read");
        }
    }
}
