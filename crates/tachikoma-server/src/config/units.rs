//! Reads durations like `250ms` and sizes like `64MiB`.
//!
//! A bare number is refused: nobody can tell seconds from milliseconds in somebody else's file.
//! Whole numbers only, because `1.5s` and `1500ms` would be two spellings of one value.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration as it is written in a file or a flag: a whole number and a unit.
///
/// Units: `ms`, `s`, `m` (minutes), `h`, `d`. Resolution: one millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes as it is written in a file or a flag: a whole number and a unit.
///
/// Units: `B`, `kB`, `MB`, `GB` (powers of 1000), `KiB`, `MiB`, `GiB` (powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a value was refused: what is allowed instead. Never contains the value itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub(super) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

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

impl FromStr for Span {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        const ALLOWED: &str =
            "a duration is a whole number and a unit (ms, s, m, h, d), like 250ms or 30s";
        scaled(text, &DURATION_UNITS, ALLOWED).map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl FromStr for Size {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        const ALLOWED: &str =
            "a size is a whole number and a unit (B, kB, KiB, MB, MiB, GB, GiB), like 64MiB";
        scaled(text, &SIZE_UNITS, ALLOWED).map(Self)
    }
}

/// Reads a whole number, for `clap`; a file has numbers of its own.
pub(super) fn whole<T: FromStr>(text: &str) -> Result<T, Refused> {
    text.parse().map_err(|_| Refused("not a whole number in the range that is allowed".to_owned()))
}

fn scaled(text: &str, units: &[(&str, u64)], allowed: &str) -> Result<u64, Refused> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    match (number.parse::<u64>(), scale) {
        (Ok(number), Some(scale)) => {
            number.checked_mul(scale).ok_or_else(|| Refused(format!("too large; {allowed}")))
        }
        _ => Err(Refused(allowed.to_owned())),
    }
}

/// Prints the largest unit that divides the value, so that what is printed reads back equal.
fn with_unit(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fits = |scale: u64| value != 0 && value.is_multiple_of(scale);
    match units.iter().find(|(_, scale)| fits(*scale)).or(units.last()) {
        Some((name, scale)) => write!(f, "{}{name}", value / scale),
        None => write!(f, "{value}"),
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_unit(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS, f)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_unit(self.0, &SIZE_UNITS, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_span(text: &str, expected: Option<u64>) {
        let actual = text.parse::<Span>().ok().map(|span| span.0);
        assert_eq!(actual, expected.map(Duration::from_millis), "{text:?}");
    }

    #[track_caller]
    fn check_size(text: &str, expected: Option<u64>) {
        assert_eq!(text.parse::<Size>().ok().map(|size| size.0), expected, "{text:?}");
    }

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        check_span("250ms", Some(250));
        check_span("0s", Some(0));
        check_span("30s", Some(30_000));
        check_span("2m", Some(120_000));
        check_span("1h", Some(3_600_000));
        check_span("1d", Some(86_400_000));
        for bad in [
            "",
            "5",
            "s",
            "5 parsec",
            "5 s",
            " 5s",
            "5s ",
            "-1s",
            "+1s",
            "1.5s",
            "1e400s",
            "5S",
            "0x5s",
            "٥s",
            "18446744073709551615s",
            "99999999999999999999ms",
            "ms5",
            "5sms",
        ] {
            check_span(bad, None);
        }
    }

    #[test]
    fn a_size_is_a_whole_number_and_a_unit() {
        check_size("1B", Some(1));
        check_size("64MiB", Some(64 << 20));
        check_size("10kB", Some(10_000));
        check_size("1GiB", Some(1 << 30));
        for bad in ["", "10", "10XB", "10KB", "10mib", "-1B", "1.5MiB", "99999999999GiB", "MiB"] {
            check_size(bad, None);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_equal(number: u64) {
            let span = Span(Duration::from_millis(number));
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
            prop_assert_eq!(Size(number).to_string().parse::<Size>(), Ok(Size(number)));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in any::<String>()) {
            let _ = text.parse::<Span>();
            let _ = text.parse::<Size>();
        }
    }
}
