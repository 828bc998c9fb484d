//! When a connection that stays open is not trusted any more.
//!
//! Pure: the outcomes of the last calls in, a verdict out. It opens after [`IN_A_ROW`] failures in
//! a row, or when half of the last [`WINDOW`] calls failed. It never closes by itself: a new
//! connection, which has answered when it was made, begins with a new one.

use std::sync::atomic::{AtomicU32, Ordering};

/// So many calls in a row must fail.
const IN_A_ROW: u32 = 5;

/// So many calls are remembered; half of them must fail.
const WINDOW: u32 = 20;

/// The last calls, the latest in the lowest bit; a bit is set where one failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Outcomes(u32);

impl Outcomes {
    fn after(self, failed: bool) -> Self {
        Self((self.0 << 1 | u32::from(failed)) & ((1 << WINDOW) - 1))
    }

    fn is_open(self) -> bool {
        self.0.trailing_ones() >= IN_A_ROW || self.0.count_ones() >= WINDOW / 2
    }
}

/// The outcomes of one connection's calls, counted from many tasks.
#[derive(Debug, Default)]
pub(super) struct Breaker(AtomicU32);

impl Breaker {
    /// The server answered, whatever the answer was.
    pub(super) fn answered(&self) {
        // Mostly nothing has failed: then there is nothing to write.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.count(false);
        }
    }

    /// It did not answer in time; whether that was once too often.
    pub(super) fn timed_out(&self) -> bool {
        self.count(true).is_open()
    }

    fn count(&self, failed: bool) -> Outcomes {
        let after = |bits| Outcomes(bits).after(failed);
        let update = |bits| Some(after(bits).0);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        after(before.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what each letter says, `x` for a failure, and tells after which the breaker opens.
    #[track_caller]
    fn check(calls: &str, opens_after: Option<usize>) {
        let breaker = Breaker::default();
        let opened = calls.chars().position(|call| {
            if call == 'x' {
                return breaker.timed_out();
            }
            breaker.answered();
            false
        });
        assert_eq!(opened.map(|at| at + 1), opens_after, "{calls}");
    }

    #[test]
    fn it_opens_after_five_failures_in_a_row_or_half_of_the_last_twenty() {
        check("", None);
        check("xxxx", None);
        check("xxxxx", Some(5));
        check("....................xxxxx", Some(25));
        check("xxxx.xxxx.x", None);
        check("xxxx.xxxx.xx", Some(12));
        check(".x.x.x.x.x.x.x.x.x.x", Some(20));
        check("x..x..x..x..x..x..x..x..x..x..x..x..x", None);
        check("xxx..................xxx.xxx", None);
        check(&"x.".repeat(9), None);
        // What is longer ago than twenty calls is forgotten.
        check(&format!("{}{}{}", "x.".repeat(9), ".".repeat(20), "x.".repeat(9)), None);
    }

    #[test]
    fn a_call_that_is_answered_ends_a_row() {
        for row in 1..IN_A_ROW {
            let calls = format!("{}.", "x".repeat(row as usize));
            check(&format!("{calls}{}", "x".repeat(4)), None);
        }
    }
}
