//! How long a load waits for that of another process, and how often it asks whether that is over.
//!
//! Pure: time and chance are arguments. A load is waited for as long as one may take. Whoever saw
//! several others load the key, one after the other, and found none of their values, loads itself:
//! what it brings is not stored, but it is an answer.

use std::time::Duration;

use crate::clock::Time;
use crate::store::Holder;

/// The first pause at most.
const FIRST: Duration = Duration::from_millis(5);

/// The longest pause: a lease that ended is noticed so soon.
const LONGEST: Duration = Duration::from_millis(50);

/// So many loads of others are waited for.
const MOST_HOLDERS: u32 = 3;

/// The patience of one load.
#[derive(Debug)]
pub(super) struct Patience {
    until: Time,
    asked: u32,
    holders: u32,
    last: Option<Holder>,
}

impl Patience {
    /// As long as `limit` from `now`.
    pub(super) fn new(now: Time, limit: Duration) -> Self {
        Self { until: now.saturating_add(limit), asked: 0, holders: 0, last: None }
    }

    /// How long to wait until the next question, now that `holder` is loading; `None`: not any
    /// more. `draw`, from 0 to 1, keeps processes from asking in step.
    pub(super) fn pause(
        &mut self,
        holder: Option<Holder>,
        now: Time,
        draw: f64,
    ) -> Option<Duration> {
        // A holder that is not known may be the same.
        if holder.is_some() && holder != self.last {
            self.last = holder;
            self.holders += 1;
        }
        if now >= self.until || self.holders > MOST_HOLDERS {
            return None;
        }
        let pause = FIRST.saturating_mul(1 << self.asked.min(8)).min(LONGEST);
        self.asked += 1;
        Some(pause.mul_f64(0.5 + draw.clamp(0.0, 1.0) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn pauses_grow_from_5_to_50_ms_and_differ() {
        let mut patience = Patience::new(at(0), LIMIT);
        for longest in [5, 10, 20, 40, 50, 50, 50, 50, 50, 50, 50] {
            let draw = if longest == 20 { 0.0 } else { 1.0 };
            let pause = patience.pause(Some(Holder(1)), at(0), draw).unwrap();
            let expected = Duration::from_millis(longest);
            assert_eq!(pause, if draw == 0.0 { expected / 2 } else { expected });
        }
    }

    #[test]
    fn it_ends_with_the_time_that_a_load_may_take() {
        let mut patience = Patience::new(at(500), LIMIT);
        assert!(patience.pause(Some(Holder(1)), at(1499), 0.5).is_some());
        assert_eq!(patience.pause(Some(Holder(1)), at(1500), 0.5), None);
    }

    #[test]
    fn it_ends_when_others_loaded_three_times_in_vain() {
        let mut patience = Patience::new(at(0), LIMIT);
        for number in [1, 1, 2, 2, 3, 3] {
            assert!(patience.pause(Some(Holder(number)), at(1), 0.5).is_some());
            assert!(patience.pause(None, at(1), 0.5).is_some(), "it may be the same");
        }
        assert_eq!(patience.pause(Some(Holder(4)), at(1), 0.5), None);
    }
}
