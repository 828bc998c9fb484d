//! The only file that reads a clock or waits.
//!
//! Everything else gets a [`Time`] as an argument. [`SystemClock`] starts at the wall clock and
//! then follows the monotonic one, so no step of the wall clock revives or kills an entry.

// The one place where these calls belong.
#![allow(clippy::disallowed_methods)]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// A point in time: milliseconds since the Unix epoch, by the cache's [`Clock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// This many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This time later by `duration`, a part of a millisecond counted as a whole one, or `None`
    /// when it cannot be expressed.
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let millis = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).ok()?;
        self.0.checked_add(millis).map(Self)
    }

    /// This time later by `duration`, at most the last time that can be expressed.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self(u64::MAX))
    }
}

/// Where a cache gets its time from.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now. Never steps back.
    fn now(&self) -> Time;

    /// The wall clock, for what is compared with other machines' dates. It may step.
    fn wall(&self) -> SystemTime;

    /// Ends after `duration` of this clock.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Whether this clock runs as real time does. A store whose server has a clock of its own
    /// corrects for the difference only then.
    fn is_real(&self) -> bool {
        true
    }
}

/// The machine's clock. [`sleep`](Clock::sleep) waits, from when it is first polled, with the
/// timers of the Tokio runtime that it is polled in; without any it never ends.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
    origin: Time,
}

impl SystemClock {
    /// A clock that reads the wall clock once, now, and is monotonic from then on.
    pub fn new() -> Self {
        let since_epoch =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), origin: Time::EPOCH.saturating_add(since_epoch) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Time(self.origin.0.saturating_add(elapsed))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(real_sleep(duration))
    }
}

/// A clock that only a test moves. Clones share their time.
///
/// ```
/// # use {std::time::Duration, tachikoma_cache::{Clock, TestClock}};
/// let clock = TestClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now().since(before), Duration::from_secs(3600));
/// ```
#[derive(Debug, Clone)]
pub struct TestClock {
    now: Arc<watch::Sender<Time>>,
    wall_offset: Arc<Mutex<i64>>,
}

impl TestClock {
    /// A clock that stands at 2001-09-09T01:46:40Z.
    pub fn new() -> Self {
        let (now, _) = watch::channel(Time(1_000_000_000_000));
        Self { now: Arc::new(now), wall_offset: Arc::new(Mutex::new(0)) }
    }

    /// Moves the time on and wakes whoever slept until then.
    pub fn advance(&self, duration: Duration) {
        self.now.send_modify(|now| *now = now.saturating_add(duration));
    }

    /// Makes the wall clock step by this many milliseconds; [`Clock::now`] does not move.
    pub fn step_wall(&self, millis: i64) {
        let mut offset = self.wall_offset.lock().unwrap_or_else(PoisonError::into_inner);
        *offset = offset.saturating_add(millis);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Time {
        *self.now.borrow()
    }

    fn wall(&self) -> SystemTime {
        let offset = *self.wall_offset.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = self.now().0.saturating_add_signed(offset);
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut now = self.now.subscribe();
        let until = self.now().saturating_add(duration);
        Box::pin(async move {
            // An error means that the clock is gone, so no later time can come.
            if now.wait_for(|now| *now >= until).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn is_real(&self) -> bool {
        false
    }
}

/// When an operation must have ended, in real time whatever the [`Clock`] says: it bounds waits for
/// I/O, which a test clock cannot hurry.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// `budget` from now; at most a day.
    pub fn after(budget: Duration) -> Self {
        Self(Instant::now() + budget.min(Duration::from_secs(86_400)))
    }

    /// What is left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Waits in real time, whatever the [`Clock`] says: for I/O. Without Tokio's timers it never ends.
pub(crate) async fn real_sleep(duration: Duration) {
    match timer(duration) {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

/// Whether a wait that begins here ends: in a Tokio runtime whose time is enabled.
pub(crate) fn has_timers() -> bool {
    timer(Duration::ZERO).is_some()
}

fn timer(duration: Duration) -> Option<tokio::time::Sleep> {
    tokio::runtime::Handle::try_current().ok()?;
    // A runtime that was built without `enable_time` can only be told by its panic.
    std::panic::catch_unwind(|| tokio::time::sleep(duration)).ok()
}

/// Measures how long something takes, in real time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_a_millisecond_counts_as_one() {
        assert_eq!(Time(5).checked_add(Duration::from_nanos(1)), Some(Time(6)));
        assert_eq!(Time(5).checked_add(Duration::from_millis(1)), Some(Time(6)));
        assert_eq!(Time(5).checked_add(Duration::MAX), None);
        assert_eq!(Time(5).saturating_add(Duration::MAX), Time(u64::MAX));
    }

    #[test]
    fn an_earlier_time_is_no_time_after_a_later_one() {
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
        assert_eq!(Time(9).since(Time(5)), Duration::from_millis(4));
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_test_clock_has_moved_far_enough() {
        let clock = TestClock::new();
        let sleeper = tokio::spawn(clock.sleep(Duration::from_secs(60)));
        clock.advance(Duration::from_secs(59));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
    }

    #[test]
    fn without_timers_a_sleep_never_ends_and_does_not_panic() {
        let sleeps = || {
            let sleep = SystemClock::new().sleep(Duration::ZERO);
            (has_timers(), futures_util::FutureExt::now_or_never(sleep).is_some())
        };
        assert_eq!(sleeps(), (false, false));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let without = runtime.build().unwrap();
        assert_eq!(without.block_on(async { sleeps() }), (false, false));
        let with = runtime.enable_time().build().unwrap();
        assert!(with.block_on(async { sleeps() }).0);
        with.block_on(SystemClock::new().sleep(Duration::from_millis(1)));
    }

    #[test]
    fn a_step_of_the_wall_clock_does_not_move_now() {
        let clock = TestClock::new();
        let (now, wall) = (clock.now(), clock.wall());
        clock.step_wall(-3_600_000);
        assert_eq!(clock.now(), now);
        assert_eq!(wall.duration_since(clock.wall()).unwrap(), Duration::from_secs(3600));
    }

    #[test]
    fn the_system_clock_starts_at_the_wall_clock() {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = Duration::from_millis(SystemClock::new().now().as_millis());
        assert!(now.abs_diff(wall) < Duration::from_secs(5));
    }
}
