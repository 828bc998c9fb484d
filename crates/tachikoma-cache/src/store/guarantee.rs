//! What is known of the freshness of what a store found or a caller gets.
//!
//! Pure: a store says whether an entry is fresh and why not; what was done about it, the load says.

use std::fmt;
use std::time::Duration;

use crate::clock::Time;
use crate::entry::Meta;
use crate::invalidation::Validity;

/// What a value's freshness is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Guarantee {
    /// Within its time to live, and no invalidation that had ended before the read concerns it.
    Fresh,
    /// The same but for invalidations that ended less than this before the read: it was found in
    /// the memory tier of this process, which follows Redis (`freshness`, default 1 s).
    Within(Duration),
    /// Past its time to live, softly invalidated, from before a restart of the store, or in a
    /// memory tier that hears of no changes: only for those who accept a stale value.
    Stale {
        /// Why it is stale or, once somebody gets it, why that one gets a stale value.
        reason: StaleReason,
        /// How long its time to live has been over; zero if it was invalidated within it. In a
        /// memory tier that hears of no changes, at least for how long it has not.
        age: Duration,
    },
}

/// Why a value is stale, or why a caller gets a stale one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleReason {
    /// Its time to live is over.
    Expired,
    /// It was softly invalidated (`expire_tag`), or the server was restarted since it was stored.
    Invalidated,
    /// It is served while one load renews it in the background (`stale_while_revalidate`).
    Revalidating,
    /// The load failed, panicked or took too long (`stale_if_error`).
    LoadFailed,
    /// The load takes longer than the soft timeout and goes on.
    SoftTimeout,
    /// A load failed a short while ago and the source is not asked again yet (`retry_after`).
    Throttled,
    /// Another process is loading the key.
    LoadedElsewhere,
    /// Redis cannot be asked. This is what the memory tier had when it last heard of changes;
    /// somebody may have changed or deleted it since.
    Disconnected,
}

impl StaleReason {
    /// The reason as a label for logs and metrics, in `snake_case`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Invalidated => "invalidated",
            Self::Revalidating => "revalidating",
            Self::LoadFailed => "load_failed",
            Self::SoftTimeout => "soft_timeout",
            Self::Throttled => "throttled",
            Self::LoadedElsewhere => "loaded_elsewhere",
            Self::Disconnected => "disconnected",
        }
    }
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Guarantee {
    /// What an unexpired entry may be used for at `now`; `None` if it was invalidated.
    pub fn of(meta: &Meta, validity: Validity, now: Time) -> Option<Self> {
        let stale = |reason| Some(Self::Stale { reason, age: age(meta, now) });
        match validity {
            Validity::Invalid => None,
            _ if meta.is_stale(now) => stale(StaleReason::Expired),
            Validity::Stale => stale(StaleReason::Invalidated),
            Validity::Valid => Some(Self::Fresh),
        }
    }

    /// Whether it is not stale.
    pub fn is_fresh(self) -> bool {
        !self.is_stale()
    }

    /// Whether it is stale.
    pub fn is_stale(self) -> bool {
        matches!(self, Self::Stale { .. })
    }
}

/// How long the time to live of an entry has been over.
pub(crate) fn age(meta: &Meta, now: Time) -> Duration {
    meta.soft_expiry.map_or(Duration::ZERO, |at| now.since(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{CodecId, TypeTag};

    #[track_caller]
    fn check(validity: Validity, now: u64, expected: Option<Guarantee>) {
        let meta = Meta {
            soft_expiry: Some(Time::from_millis(100)),
            hard_expiry: Some(Time::from_millis(200)),
            ..Meta::new(Time::EPOCH, TypeTag(1), CodecId::Json)
        };
        let actual = Guarantee::of(&meta, validity, Time::from_millis(now));
        assert_eq!(actual, expected, "{validity:?} at {now}");
    }

    fn stale(reason: StaleReason, age: u64) -> Guarantee {
        Guarantee::Stale { reason, age: Duration::from_millis(age) }
    }

    #[test]
    fn an_entry_is_fresh_then_stale_with_an_age_and_never_when_invalidated() {
        check(Validity::Valid, 99, Some(Guarantee::Fresh));
        check(Validity::Valid, 100, Some(stale(StaleReason::Expired, 0)));
        check(Validity::Valid, 130, Some(stale(StaleReason::Expired, 30)));
        check(Validity::Invalid, 0, None);
        check(Validity::Invalid, 130, None);
    }

    #[test]
    fn what_was_softly_invalidated_is_stale_from_now_on() {
        check(Validity::Stale, 50, Some(stale(StaleReason::Invalidated, 0)));
        check(Validity::Stale, 130, Some(stale(StaleReason::Expired, 30)));
    }
}
