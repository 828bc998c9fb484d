//! How long an entry lives.
//!
//! Decides which times to live are allowed and when an entry that is written now expires. Pure: no
//! clock, no store, no chance.

use std::time::Duration;

use crate::clock::Time;
#[cfg(any(feature = "memory", feature = "redis"))]
use crate::entry::Meta;
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

/// How long an entry lives: fresh for its TTL, then stale for a while; less if nobody looks it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) ttl: Ttl,
    /// How long it is kept after its TTL, for those who accept a stale value.
    pub(crate) stale: Duration,
    pub(crate) idle: Option<Duration>,
}

impl From<Ttl> for Life {
    fn from(ttl: Ttl) -> Self {
        Self { ttl, stale: Duration::ZERO, idle: None }
    }
}

impl Life {
    /// From when on an entry that is written at `now` is stale, and from when on it is gone.
    ///
    /// # Errors
    ///
    /// As [`expiry`].
    pub(crate) fn expiries(
        self,
        default: Ttl,
        now: Time,
    ) -> Result<(Option<Time>, Option<Time>), Error> {
        let soft = expiry(self.ttl, default, now)?;
        Ok((soft, soft.map(|at| at.saturating_add(self.stale))))
    }
}

/// From when on an entry is gone if it gets another soft expiry: it stays stale for as long as it
/// would have.
#[cfg(any(feature = "memory", feature = "redis"))]
pub(crate) fn moved(meta: &Meta, soft: Option<Time>) -> Option<Time> {
    let stale = match (meta.soft_expiry, meta.hard_expiry) {
        (Some(soft), Some(hard)) => hard.since(soft),
        _ => Duration::ZERO,
    };
    soft.map(|at| at.saturating_add(stale))
}

/// From when on an entry is gone that is written or read at `now` and then left alone.
#[cfg(feature = "memory")]
pub(crate) fn gone_at(meta: &Meta, now: Time) -> Option<Time> {
    let idle = meta.idle.map(|idle| now.saturating_add(idle));
    [meta.hard_expiry, idle].into_iter().flatten().min()
}

/// A time to live shortened by a part of up to `fraction` of it: the part that `draw`, from 0 to 1,
/// says. Never less than a millisecond, and never more than the time itself.
pub(crate) fn jittered(ttl: Duration, fraction: f64, draw: f64) -> Duration {
    let part = (fraction * draw).clamp(0.0, 1.0);
    // Zero is refused elsewhere, and must not become a millisecond here.
    if part.is_nan() || part == 0.0 || ttl > MAX_TTL {
        return ttl;
    }
    ttl.mul_f64(1.0 - part).clamp(ttl.min(Duration::from_millis(1)), ttl)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{CodecId, TypeTag};

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

    #[test]
    fn a_life_is_fresh_then_stale_then_over() {
        let life = Life { stale: Duration::from_millis(50), ..Life::from(Ttl::Default) };
        let default = Ttl::After(Duration::from_millis(100));
        let at = |millis| Some(Time::from_millis(millis));
        let now = Time::from_millis(1000);
        assert_eq!(life.expiries(default, now).unwrap(), (at(1100), at(1150)));
        assert_eq!(life.expiries(Ttl::Never, now).unwrap(), (None, None));
        let meta = Meta {
            soft_expiry: at(1100),
            hard_expiry: at(1150),
            ..Meta::new(now, TypeTag(1), CodecId::Json)
        };
        assert_eq!(moved(&meta, at(2000)), at(2050));
        assert_eq!(moved(&meta, None), None);
    }

    proptest! {
        /// Law 10, DS-26.
        #[test]
        fn jitter_only_shortens_and_stays_within_its_bounds(
            millis in 1_u64..=1000 * MAX_TTL.as_secs(), fraction in 0.0..=1.0, draw in 0.0..=1.0,
        ) {
            let ttl = Duration::from_millis(millis);
            let actual = jittered(ttl, fraction, draw);
            prop_assert!(actual <= ttl && actual >= Duration::from_millis(1));
            // A microsecond for what floating point rounds.
            let least = ttl.mul_f64(1.0 - fraction).saturating_sub(Duration::from_micros(1));
            prop_assert!(actual >= least || actual == Duration::from_millis(1));
        }
    }

    #[test]
    fn without_jitter_a_ttl_stays_as_it_is() {
        for ttl in [Duration::ZERO, Duration::from_nanos(1), MAX_TTL, Duration::MAX] {
            assert_eq!(jittered(ttl, 0.0, 0.7), ttl);
            assert_eq!(jittered(ttl, 0.5, 0.0), ttl);
        }
        assert_eq!(jittered(Duration::from_secs(1), 1.0, 1.0), Duration::from_millis(1));
    }
}
