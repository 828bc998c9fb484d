//! Lets only so many exchanges with one upstream happen at once; others wait, and not too many.
//!
//! A slow upstream must not collect all requests of the world: whoever finds the queue full, or
//! waits too long in it, is told so at once (503).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tachikoma_cache::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config;

/// The right to one exchange; dropping it lets the next one in.
pub(super) type Pass = OwnedSemaphorePermit;

/// There is no room, nor will there be soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug)]
pub(super) struct Gate {
    passes: Arc<Semaphore>,
    waiting: AtomicU32,
    max_waiting: u32,
    limit: std::time::Duration,
}

impl Gate {
    pub(super) fn new(terms: &config::Proxy) -> Self {
        Self {
            passes: Arc::new(Semaphore::new(terms.max_concurrent as usize)),
            waiting: AtomicU32::new(0),
            max_waiting: terms.max_waiting,
            limit: terms.wait_timeout.0,
        }
    }

    /// Waits for a pass, in the order in which the requests came.
    pub(super) async fn enter(&self, clock: &dyn Clock) -> Result<Pass, Full> {
        if let Ok(pass) = Arc::clone(&self.passes).try_acquire_owned() {
            return Ok(pass);
        }
        if self.waiting.fetch_add(1, Relaxed) >= self.max_waiting {
            self.waiting.fetch_sub(1, Relaxed);
            return Err(Full);
        }
        let _place = Place(&self.waiting);
        tokio::select! {
            biased;
            pass = Arc::clone(&self.passes).acquire_owned() => pass.map_err(|_| Full),
            () = clock.sleep(self.limit) => Err(Full),
        }
    }
}

/// A place in the queue, given back even when the waiting request is dropped.
struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tachikoma_cache::SystemClock;

    use super::*;
    use crate::config::units::Span;

    fn gate(max_concurrent: u32, max_waiting: u32, wait: Duration) -> Gate {
        let wait_timeout = Span(wait);
        let defaults = config::Proxy::default();
        Gate::new(&config::Proxy { max_concurrent, max_waiting, wait_timeout, ..defaults })
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_is_sent_away_and_who_waits_gets_in() {
        let clock = SystemClock::new();
        let gate = gate(1, 1, Duration::from_secs(60));
        let first = gate.enter(&clock).await.expect("a pass");
        let mut second = Box::pin(gate.enter(&clock));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(gate.enter(&clock).await.err(), Some(Full));
        drop(first);
        drop(second.await.expect("a pass"));
        // Who goes away while waiting gives the place back.
        let held = gate.enter(&clock).await.expect("a pass");
        for _ in 0..3 {
            let mut waiting = Box::pin(gate.enter(&clock));
            assert!((&mut waiting).now_or_never().is_none());
        }
        drop(held);
    }

    #[tokio::test]
    async fn who_waits_too_long_is_sent_away() {
        let gate = gate(1, 9, Duration::from_millis(20));
        let clock = SystemClock::new();
        let _held = gate.enter(&clock).await.expect("a pass");
        assert_eq!(gate.enter(&clock).await.err(), Some(Full));
    }
}
