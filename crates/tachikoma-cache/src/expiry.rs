//! How long an entry lives.
//!
//! Decides which times to live are allowed and when an entry that is written now expires. Pure: no
//! clock, no store.

use std::time::Duration;

use crate::clock::Time;
use crate::error::{Error, ErrorKind};

/// The longest time to live: ten years of 365 days.
pub const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How long an entry shall live.
///
/// A [`Duration`] converts into it; a part of a millisecond counts as a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// The cache's default.
    #[default]
    Default,
    /// It does not expire.
    Never,
    /// Until this long after it is written.
    After(Duration),
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}

/// What is left of a key's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTtl {
    /// There is no such key.
    NoKey,
    /// It does not expire.
    NoExpiry,
    /// It expires after this.
    Expires(Duration),
}

impl KeyTtl {
    /// What is left of an entry that expires at `expiry`.
    pub fn of(expiry: Option<Time>, now: Time) -> Self {
        match expiry {
            None => Self::NoExpiry,
            Some(at) if at <= now => Self::NoKey,
            Some(at) => Self::Expires(at.since(now)),
        }
    }
}

/// Checks a time to live: at least more than zero, at most [`MAX_TTL`].
///
/// # Errors
///
/// [`ErrorKind::InvalidTtl`].
pub fn check_ttl(ttl: Duration) -> Result<(), Error> {
    if ttl.is_zero() || ttl > MAX_TTL {
        return Err(Error::new(
            ErrorKind::InvalidTtl,
            format!("{ttl:?}; allowed is more than zero and at most {} s", MAX_TTL.as_secs()),
        ));
    }
    Ok(())
}

/// When an entry written at `now` expires; `default` stands for [`Ttl::Default`].
///
/// # Errors
///
/// [`ErrorKind::InvalidTtl`] as [`check_ttl`].
pub fn expiry(ttl: Ttl, default: Ttl, now: Time) -> Result<Option<Time>, Error> {
    let ttl = if ttl == Ttl::Default { default } else { ttl };
    match ttl {
        Ttl::Default | Ttl::Never => Ok(None),
        Ttl::After(duration) => {
            check_ttl(duration)?;
            Ok(Some(now.saturating_add(duration)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ttl: Ttl, expected: Result<Option<u64>, ErrorKind>) {
        let default = Ttl::After(Duration::from_secs(60));
        let actual = expiry(ttl, default, Time::from_millis(1000));
        assert_eq!(actual.map(|at| at.map(Time::as_millis)).map_err(|e| e.kind()), expected);
    }

    #[test]
    fn a_ttl_is_kept_to_the_millisecond() {
        check(Duration::from_millis(1900).into(), Ok(Some(2900)));
        check(Duration::from_millis(500).into(), Ok(Some(1500)));
        check(Duration::from_nanos(1).into(), Ok(Some(1001)));
        check(Ttl::Default, Ok(Some(61_000)));
        check(Ttl::Never, Ok(None));
    }

    #[test]
    fn zero_and_overflow_are_refused() {
        check(Duration::ZERO.into(), Err(ErrorKind::InvalidTtl));
        check(Duration::MAX.into(), Err(ErrorKind::InvalidTtl));
        check(Duration::from_millis(i64::MAX as u64).into(), Err(ErrorKind::InvalidTtl));
        check((MAX_TTL + Duration::from_nanos(1)).into(), Err(ErrorKind::InvalidTtl));
        assert!(check_ttl(MAX_TTL).is_ok());
    }

    #[test]
    fn no_key_no_expiry_and_a_duration_are_three_answers() {
        let now = Time::from_millis(10);
        assert_eq!(KeyTtl::of(None, now), KeyTtl::NoExpiry);
        assert_eq!(KeyTtl::of(Some(now), now), KeyTtl::NoKey);
        let left = KeyTtl::of(Some(Time::from_millis(12)), now);
        assert_eq!(left, KeyTtl::Expires(Duration::from_millis(2)));
    }
}
