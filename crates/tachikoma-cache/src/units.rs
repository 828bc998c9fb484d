//! Durations like `250ms` and sizes like `64MiB`, as they are written in files, flags and URLs.
//!
//! The one place that reads and writes them, for the library, its attribute and the server. A bare
//! number is refused: nobody can tell seconds from milliseconds in somebody else's file.
//! Whole numbers only, because `1.5s` and `1500ms` would be two spellings of one value.

use std::time::Duration;

/// The largest first, so that what is shown is short.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

const DURATION: &str =
    "a duration is a whole number and a unit (ms, s, m, h, d), like 250ms or 30s";

const SIZE: &str = "a size is a whole number and a unit (B, kB, KiB, MB, MiB, GB, GiB), like 64MiB";

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Form,
    TooLarge,
}

/// Reads a duration: a whole number and its unit, `ms`, `s`, `m` (minutes), `h` or `d`.
///
/// ```
/// # use {std::time::Duration, tachikoma_cache::parse_duration};
/// assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
/// assert!(parse_duration("5 parsecs").is_err());
/// ```
///
/// # Errors
///
/// What is allowed, as a sentence. It does not contain the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    scaled(text, &DURATION_UNITS).map(Duration::from_millis).map_err(|wrong| wrong.says(DURATION))
}

/// Reads a size: a whole number and its unit, `B`, `kB`, `MB`, `GB` (powers of 1000), `KiB`, `MiB`
/// or `GiB` (powers of 1024).
///
/// ```
/// # use tachikoma_cache::parse_bytes;
/// assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
/// assert!(parse_bytes("64").is_err());
/// ```
///
/// # Errors
///
/// What is allowed, as a sentence. It does not contain the text.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    scaled(text, &SIZE_UNITS).map_err(|wrong| wrong.says(SIZE))
}

/// Writes a duration so that [`parse_duration`] reads the same, to the millisecond.
#[doc(hidden)]
pub fn show_duration(duration: Duration) -> String {
    shown(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

/// Writes a size so that [`parse_bytes`] reads the same.
#[doc(hidden)]
pub fn show_bytes(bytes: u64) -> String {
    shown(bytes, &SIZE_UNITS)
}

/// The milliseconds of a duration as text; the `cached` attribute calls it at compile time.
#[cfg(feature = "macros")]
pub(crate) const fn duration_millis(text: &str) -> Option<u64> {
    match scaled(text, &DURATION_UNITS) {
        Ok(millis) => Some(millis),
        Err(_) => None,
    }
}

impl Wrong {
    fn says(self, allowed: &str) -> String {
        match self {
            Self::Form => allowed.to_owned(),
            Self::TooLarge => format!("too large; {allowed}"),
        }
    }
}

const fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, Wrong> {
    let text = text.as_bytes();
    let mut digits = 0;
    while digits < text.len() && text[digits].is_ascii_digit() {
        digits += 1;
    }
    let (number, unit) = text.split_at(digits);
    let mut row = 0;
    while row < units.len() && !same(units[row].0.as_bytes(), unit) {
        row += 1;
    }
    if number.is_empty() || row == units.len() {
        return Err(Wrong::Form);
    }
    let (mut value, mut at) = (0_u64, 0);
    while at < number.len() {
        let Some(tens) = value.checked_mul(10) else { return Err(Wrong::TooLarge) };
        let digit = (number[at] - b'0') as u64;
        let Some(sum) = tens.checked_add(digit) else { return Err(Wrong::TooLarge) };
        (value, at) = (sum, at + 1);
    }
    match value.checked_mul(units[row].1) {
        Some(value) => Ok(value),
        None => Err(Wrong::TooLarge),
    }
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// The largest unit that divides the value.
fn shown(value: u64, units: &[(&str, u64)]) -> String {
    let divides = |scale: u64| value != 0 && value.is_multiple_of(scale);
    match units.iter().find(|(_, scale)| divides(*scale)).or(units.last()) {
        Some((unit, scale)) => format!("{}{unit}", value / scale),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_duration(text: &str, expected: Option<u64>) {
        let actual = parse_duration(text);
        assert_eq!(actual.clone().ok(), expected.map(Duration::from_millis), "{text:?}");
        assert!(actual.err().is_none_or(|refused| refused.ends_with(DURATION)), "{text:?}");
    }

    #[track_caller]
    fn check_size(text: &str, expected: Option<u64>) {
        let actual = parse_bytes(text);
        assert_eq!(actual.clone().ok(), expected, "{text:?}");
        assert!(actual.err().is_none_or(|refused| refused.ends_with(SIZE)), "{text:?}");
    }

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        for (text, millis) in [
            ("0ms", 0),
            ("0s", 0),
            ("250ms", 250),
            ("60s", 60_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ] {
            check_duration(text, Some(millis));
        }
        for bad in [
            "", "5", "s", "5 parsec", "5 s", " 5s", "5s ", "-1s", "+1s", "1.5s", "1e400s", "5S",
            "0x5s", "٥s", "ms5", "5sms",
        ] {
            check_duration(bad, None);
        }
    }

    #[test]
    fn a_size_is_a_whole_number_and_a_unit() {
        for (text, bytes) in [
            ("0B", 0),
            ("1B", 1),
            ("10kB", 10_000),
            ("1KiB", 1024),
            ("2MB", 2_000_000),
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
        ] {
            check_size(text, Some(bytes));
        }
        for bad in ["", "10", "10XB", "10KB", "10mib", "-1B", "1.5MiB", "MiB"] {
            check_size(bad, None);
        }
    }

    #[test]
    fn what_is_too_large_is_said_to_be() {
        for text in ["18446744073709551615s", "99999999999999999999ms"] {
            check_duration(text, None);
            assert!(parse_duration(text).unwrap_err().starts_with("too large; "), "{text}");
        }
        check_size("99999999999GiB", None);
        assert!(parse_bytes("99999999999GiB").unwrap_err().starts_with("too large; "));
        check_size("18446744073709551615B", Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_equal(number: u64) {
            let duration = Duration::from_millis(number);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_bytes(&show_bytes(number)), Ok(number));
        }

        #[test]
        fn no_text_makes_them_panic(text in any::<String>()) {
            let _ = (parse_duration(&text), parse_bytes(&text));
        }
    }
}
