//! Decides which moment an `HTTP-date` names. Never guesses at a date that is not one.
//!
//! RFC 9110 §5.6.7: the preferred format and the two obsolete ones (RFC 850, asctime), robustly: a
//! weekday that is not that of the date changes nothing. RFC 9111 §4.2: a cache should compare them
//! without regard to case; a zone other than GMT is invalid.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName};

/// Parses an `HTTP-date` in any of its three formats ([RFC 9110 §5.6.7]), in any case.
///
/// The weekday must be one, and need not be the right one: the date says which moment it is
/// without it. `None` for anything else.
///
/// [RFC 9110 §5.6.7]: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7
pub fn parse(text: &str) -> Option<SystemTime> {
    let text = text.trim_matches([' ', '\t']);
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        // No date has them, and `httpdate` would take some for spaces.
        return None;
    }
    let exact = |text: &str| httpdate::parse_http_date(text).ok();
    exact(text).or_else(|| {
        // Only what is oddly written comes here a second time.
        let usual = usual_case(text);
        exact(&usual).or_else(|| other_weekdays(&usual).find_map(|text| exact(&text)))
    })
}

/// The same date on each day of the week; none if it does not begin with one.
fn other_weekdays(text: &str) -> impl Iterator<Item = String> {
    const SHORT: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const LONG: [&str; 7] =
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let (day, rest) = text.split_at(text.find([',', ' ']).unwrap_or(0));
    let days = [SHORT, LONG].into_iter().find(|days| days.contains(&day));
    days.into_iter().flatten().map(move |day| format!("{day}{rest}"))
}

/// What a field that holds a single date says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateField {
    /// The field is not there.
    Absent,
    /// The field is there and is not one date: unparsable, or several that differ.
    Invalid,
    /// The date.
    At(SystemTime),
}

impl DateField {
    /// The date, if there is a valid one.
    pub fn valid(self) -> Option<SystemTime> {
        match self {
            Self::At(date) => Some(date),
            Self::Absent | Self::Invalid => None,
        }
    }
}

/// Reads the date of a field; lines that say different things make it invalid.
pub fn read(headers: &HeaderMap, name: &HeaderName) -> DateField {
    let mut field = DateField::Absent;
    for value in headers.get_all(name) {
        let Some(date) = value.to_str().ok().and_then(parse) else {
            return DateField::Invalid;
        };
        if matches!(field, DateField::At(first) if first != date) {
            return DateField::Invalid;
        }
        field = DateField::At(date);
    }
    field
}

/// `sUN, 06 nov 1994 08:49:37 gmt` in the case that the grammar asks for.
fn usual_case(text: &str) -> String {
    let mut start_of_word = true;
    let mut usual: String = text
        .chars()
        .map(|c| {
            let cased = if start_of_word { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            start_of_word = !c.is_ascii_alphabetic();
            cased
        })
        .collect();
    if let Some(start) = usual.strip_suffix("Gmt") {
        usual = format!("{start}GMT");
    }
    usual
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::{HeaderValue, header::EXPIRES};
    use proptest::prelude::*;

    use super::*;

    /// `Sun, 06 Nov 1994 08:49:37 GMT`, the example of RFC 9110.
    const EXAMPLE: u64 = 784_111_777;

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        let expected = expected.map(|secs| UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(parse(text), expected, "{text:?}");
    }

    #[test]
    fn the_three_formats_name_the_same_moment() {
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(EXAMPLE));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(EXAMPLE));
        check("Sun Nov  6 08:49:37 1994", Some(EXAMPLE));
    }

    #[test]
    fn case_does_not_matter() {
        check("sun, 06 nov 1994 08:49:37 gmt", Some(EXAMPLE));
        check("SUN, 06 NOV 1994 08:49:37 GMT", Some(EXAMPLE));
        check("SUNDAY, 06-nov-94 08:49:37 Gmt", Some(EXAMPLE));
        check("sun nov  6 08:49:37 1994", Some(EXAMPLE));
        check("sun, 06 nov 1994 08:49:37 gmt\t", Some(EXAMPLE));
        check("Sun, 06 Nov 1994 08:49:37 GMT\u{b}", None);
    }

    #[test]
    fn a_wrong_weekday_changes_nothing() {
        check("Mon, 06 Nov 1994 08:49:37 GMT", Some(EXAMPLE));
        check("Tuesday, 06-Nov-94 08:49:37 GMT", Some(EXAMPLE));
        check("WED Nov  6 08:49:37 1994", Some(EXAMPLE));
        for text in [
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Wed, 06-Nov-94 08:49:37 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            ", 06 Nov 1994 08:49:37 GMT",
            "06 Nov 1994 08:49:37 GMT",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn what_is_not_a_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            "now",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun,  06  Nov  1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "é",
            "ééé gmt",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn lines_that_differ_are_no_date() {
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers, &EXPIRES), DateField::Absent);
        let example = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        headers.append(EXPIRES, example.clone());
        headers.append(EXPIRES, example);
        assert!(matches!(read(&headers, &EXPIRES), DateField::At(_)));
        headers.append(EXPIRES, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:38 GMT"));
        assert_eq!(read(&headers, &EXPIRES), DateField::Invalid);
        headers.insert(EXPIRES, HeaderValue::from_static("0"));
        assert_eq!(read(&headers, &EXPIRES), DateField::Invalid);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text: String, ascii in "[ -~]{20,40}") {
            let _ = (parse(&text), parse(&ascii));
        }

        #[test]
        fn what_is_printed_is_read_back(secs in 0u64..253_402_300_799) {
            let date = UNIX_EPOCH + Duration::from_secs(secs);
            prop_assert_eq!(parse(&httpdate::fmt_http_date(date)), Some(date));
        }
    }
}
