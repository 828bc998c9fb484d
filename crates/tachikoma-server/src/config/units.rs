//! Durations like `250ms` and sizes like `64MiB` as settings.
//!
//! How they are written is decided in `tachikoma_cache::units`; here they are types of their own.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tachikoma_cache::units::{parse_bytes, parse_duration, show_bytes, show_duration};

pub use super::text::Refused;
use super::text::as_text;

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

impl FromStr for Span {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        parse_duration(text).map(Self).map_err(Refused)
    }
}

impl FromStr for Size {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        parse_bytes(text).map(Self).map_err(Refused)
    }
}

/// Reads a whole number, for `clap`; a file has numbers of its own.
pub(super) fn whole<T: FromStr + TryFrom<u64>>(text: &str) -> Result<T, Refused> {
    text.parse().map_err(|_| {
        let most = u64::MAX >> (64 - 8 * size_of::<T>());
        Refused(format!("a whole number from 0 to {most} is allowed"))
    })
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_duration(self.0))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_bytes(self.0))
    }
}

as_text!(Span, Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_equal() {
        let span = Span(Duration::from_millis(1500));
        assert_eq!((span.to_string().as_str(), span.to_string().parse()), ("1500ms", Ok(span)));
        let size = Size(64 << 20);
        assert_eq!((size.to_string().as_str(), size.to_string().parse()), ("64MiB", Ok(size)));
        for bad in ["", "5", "1.5s", "10XB"] {
            assert!(bad.parse::<Span>().is_err() && bad.parse::<Size>().is_err(), "{bad:?}");
        }
    }
}
