//! Whether what is in the memory tier may be shown.
//!
//! Pure: times come in as arguments. What the server has been heard of is complete up to the moment
//! when the last heartbeat that was answered was *sent*; for the freshness time after it, and not a
//! millisecond longer, copies are shown. The answer of a heartbeat may be late, so the time of its
//! arrival says nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Time;

/// Until when copies are good.
#[derive(Debug)]
pub(super) struct Floor {
    /// Milliseconds; zero: not at all.
    until: AtomicU64,
    /// Milliseconds: everything that happened before is known.
    heard: AtomicU64,
    freshness: Duration,
}

impl Floor {
    /// One that is not good yet.
    pub(super) fn new(freshness: Duration) -> Self {
        Self { until: AtomicU64::new(0), heard: AtomicU64::new(0), freshness }
    }

    pub(super) fn freshness(&self) -> Duration {
        self.freshness
    }

    /// Everything that happened before `at` is known.
    pub(super) fn confirm(&self, at: Time) {
        let until = at.saturating_add(self.freshness).as_millis();
        self.heard.store(at.as_millis(), Ordering::Release);
        self.until.store(until, Ordering::Release);
    }

    /// From now on changes may be missed.
    pub(super) fn lapse(&self) {
        self.until.store(0, Ordering::Release);
    }

    pub(super) fn is_good(&self, now: Time) -> bool {
        now.as_millis() < self.until.load(Ordering::Acquire)
    }

    /// For how long it has not been known what happened.
    pub(super) fn unheard(&self, now: Time) -> Duration {
        now.since(Time::from_millis(self.heard.load(Ordering::Acquire)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_good_for_the_freshness_after_a_heartbeat_was_sent_and_no_longer() {
        let floor = Floor::new(Duration::from_millis(100));
        let good = |now| floor.is_good(Time::from_millis(now));
        assert!(!good(0) && !good(5000), "before the first heartbeat");
        floor.confirm(Time::from_millis(5000));
        assert!(good(5000) && good(5099));
        assert!(!good(5100));
        floor.confirm(Time::from_millis(5090));
        assert!(good(5189) && !good(5190));
        floor.lapse();
        assert!(!good(5100) && !good(0));
        assert_eq!(floor.unheard(Time::from_millis(5100)), Duration::from_millis(10));
        floor.confirm(Time::from_millis(5200));
        assert!(good(5250));
    }
}
