//! Measures real time, for tests whose subject is real time (outages, deadlines).
//!
//! Never used to wait: tests that can move a clock use `TestClock` instead.

use std::time::{Duration, Instant};

use crate::allowed;

/// Real time since [`start`](Self::start), for checks such as "no read takes longer than 300 ms".
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place where tests read real time")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Says how long it took, and that it was not more than `bar` [allows](allowed).
    ///
    /// # Panics
    ///
    /// If it took longer.
    #[track_caller]
    pub fn within(&self, bar: Duration) -> Duration {
        let took = self.elapsed();
        let most = allowed(bar, took);
        assert!(took <= most, "{took:?}, and at most {most:?} is allowed (quiet: {bar:?})");
        took
    }
}
