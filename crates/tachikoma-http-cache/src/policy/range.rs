//! Decides which part of a stored response a request asks for. Never combines stored parts.
//!
//! RFC 9110 §13.1.5 and §14. One range of bytes is answered with a part; what the RFC lets a
//! server ignore (several ranges, other units, what is no range) is answered whole.

use std::ops::Range;

use http::{
    HeaderMap,
    header::{DATE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE},
};

use super::{date, validation::ETag};

/// What of a stored response answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// These bytes.
    Bytes(Range<usize>),
    /// The range lies behind its end: 416.
    Unsatisfiable,
}

/// Decides which part of a stored response of `length` bytes answers a request
/// ([RFC 9110 §14.2]).
///
/// [RFC 9110 §14.2]: https://www.rfc-editor.org/rfc/rfc9110#section-14.2
pub fn part(request: &HeaderMap, stored: &HeaderMap, length: usize) -> Part {
    let mut lines = request.get_all(RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Part::Whole;
    };
    if !is_unchanged(request, stored) {
        return Part::Whole;
    }
    line.to_str().ok().and_then(|line| one_range(line, length)).unwrap_or(Part::Whole)
}

/// `If-Range` ([RFC 9110 §13.1.5]): a strong tag, or a date that is one; without it, always.
///
/// [RFC 9110 §13.1.5]: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
fn is_unchanged(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let mut lines = request.get_all(IF_RANGE).iter();
    let Some(line) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    let mut asked = HeaderMap::new();
    asked.insert(ETAG, line.clone());
    if let Some(asked) = ETag::read(&asked) {
        return ETag::read(stored).is_some_and(|stored| stored.strongly_equals(&asked));
    }
    let since = line.to_str().ok().and_then(date::parse);
    let modified = date::read(stored, &LAST_MODIFIED).valid();
    let created = date::read(stored, &DATE).valid();
    // Strong only if nothing can have changed within the same second (RFC 9110 §8.8.2.2).
    since.is_some() && since == modified && created > modified
}

/// `bytes=first-last`, `bytes=first-` or `bytes=-suffix`; `None` for anything else.
fn one_range(line: &str, length: usize) -> Option<Part> {
    let (unit, range) = line.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let part = match (first, last) {
        ("", "") => return None,
        ("", suffix) => length.saturating_sub(position(suffix)?)..length,
        (first, "") => position(first)?..length,
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Some(if part.is_empty() { Part::Unsatisfiable } else { Part::Bytes(part) })
}

/// Only digits; what is too large is behind any end.
fn position(text: &str) -> Option<usize> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    #[track_caller]
    #[allow(clippy::needless_pass_by_value)] // Each row reads as a table.
    fn check(range: &str, expected: Part) {
        let actual = part(&headers(&[("range", range)]), &HeaderMap::new(), 10);
        assert_eq!(actual, expected, "{range:?}");
    }

    #[test]
    fn one_range_of_bytes_is_a_part() {
        check("bytes=0-0", Part::Bytes(0..1));
        check("bytes=2-5", Part::Bytes(2..6));
        check("bytes=2-", Part::Bytes(2..10));
        check("bytes=-3", Part::Bytes(7..10));
        check("bytes=-99", Part::Bytes(0..10));
        check("bytes=9-99", Part::Bytes(9..10));
        check("Bytes=0-18446744073709551615", Part::Bytes(0..10));
        check("bytes=0-99999999999999999999999", Part::Bytes(0..10));
    }

    #[test]
    fn a_range_behind_the_end_is_unsatisfiable() {
        check("bytes=10-", Part::Unsatisfiable);
        check("bytes=10-20", Part::Unsatisfiable);
        check("bytes=-0", Part::Unsatisfiable);
        check("bytes=99999999999999999999999-", Part::Unsatisfiable);
        let empty = part(&headers(&[("range", "bytes=0-")]), &HeaderMap::new(), 0);
        assert_eq!(empty, Part::Unsatisfiable);
    }

    #[test]
    fn what_is_not_one_range_of_bytes_is_answered_whole() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=1-2,4-5",
            "lines=1-2",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes 1-2",
            "bytes=0x1-2",
        ] {
            check(range, Part::Whole);
        }
        let twice = headers(&[("range", "bytes=0-1"), ("range", "bytes=2-3")]);
        assert_eq!(part(&twice, &HeaderMap::new(), 10), Part::Whole);
        assert_eq!(part(&HeaderMap::new(), &HeaderMap::new(), 10), Part::Whole);
    }

    #[test]
    fn if_range_needs_the_same_strong_validator() {
        const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const NEW: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
        let check = |condition: &str, stored: &[(&'static str, &str)], is_part: bool| {
            let request = headers(&[("range", "bytes=0-1"), ("if-range", condition)]);
            let expected = if is_part { Part::Bytes(0..2) } else { Part::Whole };
            assert_eq!(part(&request, &headers(stored), 10), expected, "{condition} {stored:?}");
        };
        check("\"a\"", &[("etag", "\"a\"")], true);
        check("\"a\"", &[("etag", "\"b\"")], false);
        check("W/\"a\"", &[("etag", "W/\"a\"")], false);
        check("\"a\"", &[("etag", "W/\"a\"")], false);
        check("\"a\"", &[], false);
        check(OLD, &[("last-modified", OLD), ("date", NEW)], true);
        check(OLD, &[("last-modified", OLD), ("date", OLD)], false);
        check(OLD, &[("last-modified", OLD)], false);
        check(NEW, &[("last-modified", OLD), ("date", NEW)], false);
        check("x", &[("etag", "\"a\"")], false);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_whole(
            line in "bytes=[0-9]{0,3}-[0-9]{0,3}",
            length in 0_usize..500,
        ) {
            match part(&headers(&[("range", &line)]), &HeaderMap::new(), length) {
                Part::Bytes(part) => prop_assert!(part.start < part.end && part.end <= length),
                Part::Whole | Part::Unsatisfiable => {}
            }
        }
    }
}
