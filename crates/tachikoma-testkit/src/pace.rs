//! How busy the machine is, for bars of real time: they are set for a machine that has nothing else
//! to do.
//!
//! It decides how much more time a bar allows now, never less than the bar itself, and only when
//! the bar was missed. It never waits for anything and excuses nothing on a quiet machine.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use crate::Stopwatch;

/// What [`pace`] takes on a quiet machine of two cores, and some more: noise is no excuse.
const ALONE: Duration = Duration::from_millis(25);

/// So many checks of 64 KiB of text are the work. The standard library's code is optimised in every
/// profile, so that the figure above holds for all.
const CHECKS: usize = 600;

/// How many times slower this machine is now than a quiet one; at least 1.
///
/// The same work runs on every core at once; who is last counts, as in a test with several threads
/// and servers.
#[must_use]
pub fn pace() -> f64 {
    let text = "ä".repeat(32 << 10);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let watch = Stopwatch::start();
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                for _ in 0..CHECKS {
                    let _ = black_box(std::str::from_utf8(black_box(text.as_bytes())));
                }
            });
        }
    });
    (watch.elapsed().as_secs_f64() / ALONE.as_secs_f64()).max(1.0)
}

/// What a bar allows, now that something took so long: the bar, unless it was missed and the
/// machine is busy. Then it is as many times more as the machine is slower than a quiet one.
#[must_use]
pub fn allowed(bar: Duration, took: Duration) -> Duration {
    at_pace(bar, took, pace)
}

fn at_pace(bar: Duration, took: Duration, pace: impl FnOnce() -> f64) -> Duration {
    if took <= bar { bar } else { bar.mul_f64(pace()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: Duration = Duration::from_millis(5);

    #[test]
    fn a_bar_that_was_met_asks_for_no_pace() {
        assert_eq!(at_pace(BAR, BAR, || panic!("it was met")), BAR);
    }

    #[test]
    fn a_missed_bar_is_as_much_longer_as_the_machine_is_slower() {
        let missed = Duration::from_micros(5001);
        assert_eq!(at_pace(BAR, missed, || 1.0), BAR, "a quiet machine excuses nothing");
        assert_eq!(at_pace(BAR, missed, || 4.0), BAR * 4);
        assert!(pace() >= 1.0);
    }
}
