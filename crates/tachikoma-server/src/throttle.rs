//! Decides which of many equal log lines is written: one per second, with the number left out.
//!
//! When an upstream is gone, each request fails for the same reason; a line for each would bury
//! everything else and cost more than the requests. Pure but for its counters: time is passed in.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tachikoma_cache::Time;

/// Lets one line through per second.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// The second after the epoch in which a line was last let through, plus one.
    last: AtomicU64,
    skipped: AtomicU64,
}

impl Throttle {
    /// How many lines were left out since the last one, if this one may be written.
    pub(crate) fn pass(&self, now: Time) -> Option<u64> {
        let second = now.as_millis() / 1000 + 1;
        if self.last.swap(second, Relaxed) == second {
            self.skipped.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.skipped.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_second_passes_and_says_how_many_did_not() {
        let throttle = Throttle::default();
        let pass = |millis| throttle.pass(Time::from_millis(millis));
        assert_eq!([pass(0), pass(1), pass(999)], [Some(0), None, None]);
        assert_eq!([pass(1_000), pass(1_500), pass(60_000)], [Some(2), None, Some(1)]);
    }
}
