//! How many loads run at once, and who waits for a turn.
//!
//! After a failover everything misses, each caller on a key of its own: then one load per key does
//! not protect the source, a bound on all loads does. Loads beyond the bound wait in the order in
//! which they came; beyond a second bound they are refused at once, because a long queue only makes
//! everybody time out.
//!
//! It knows neither loaders nor time: who waits decides for how long. A load that another load
//! waits for takes no turn of its own, and does not wait for one any more if it does: the other one
//! has a turn and would keep it until this one ends.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::error::{Error, ErrorKind};
use crate::stats::Counter;

/// Without a bound of its own, so many loads may wait for each that may run.
const QUEUED_FOR_EACH: usize = 100;

/// The largest bound.
const MOST: usize = 1 << 20;

/// The bounds that a cache was built with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds {
    /// Loads that run at once; `None`: any number.
    pub(crate) running: Option<usize>,
    /// Loads that wait; `None`: a hundred for each that may run.
    pub(crate) queued: Option<usize>,
}

impl Bounds {
    /// Says which bound is not allowed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`].
    pub(crate) fn check(self) -> Result<(), Error> {
        let refused = |detail: String| Err(Error::new(ErrorKind::Config, detail));
        match (self.running, self.queued) {
            (Some(most), _) if !(1..=MOST).contains(&most) => {
                refused(format!("max_concurrent_loads is {most}; allowed is 1 to {MOST}"))
            }
            (_, Some(most)) if most > MOST => {
                refused(format!("max_queued_loads is {most}; allowed is 0 to {MOST}"))
            }
            (None, Some(_)) => {
                refused("max_queued_loads needs max_concurrent_loads beside it".into())
            }
            _ => Ok(()),
        }
    }
}

/// The loads of one cache that run or wait.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    /// `None`: there is no bound.
    turns: Option<Semaphore>,
    queue: usize,
    running: AtomicUsize,
    queued: AtomicUsize,
    rejected: Counter,
}

/// The queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The right to run, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    bulkhead: &'a Bulkhead,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.bulkhead.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place in the queue. Whoever leaves it without a turn is counted.
struct Place<'a> {
    bulkhead: &'a Bulkhead,
    served: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.bulkhead.queued.fetch_sub(1, Ordering::Relaxed);
        if !self.served {
            self.bulkhead.rejected.add_one();
        }
    }
}

impl Bulkhead {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let running = bounds.running.map(|most| most.min(MOST));
        let each = running.unwrap_or_default().saturating_mul(QUEUED_FOR_EACH);
        Self {
            turns: running.map(Semaphore::new),
            queue: bounds.queued.unwrap_or(each),
            running: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            rejected: Counter::default(),
        }
    }

    /// How many loads run now.
    pub(crate) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed) as u64
    }

    /// How many loads wait for a turn now.
    pub(crate) fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed) as u64
    }

    /// How many loads never ran: refused by a full queue, or gone while they waited.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.get()
    }

    /// Waits for a turn, or until a load that has one waits for this one (`hurried`): then, and for
    /// every later load of the same keys, without waiting.
    ///
    /// # Errors
    ///
    /// [`Full`], at once.
    pub(super) async fn enter(&self, hurried: &Notify) -> Result<Turn<'_>, Full> {
        let Some(turns) = &self.turns else { return Ok(self.turn(None)) };
        let mut waiting = pin!(hurried.notified());
        if waiting.as_mut().now_or_never().is_some() {
            hurried.notify_one();
            return Ok(self.turn(None));
        }
        if let Ok(permit) = turns.try_acquire() {
            return Ok(self.turn(Some(permit)));
        }
        let mut place = self.place()?;
        let acquired = pin!(turns.acquire());
        let permit = match select(acquired, waiting).await {
            Either::Left((permit, _)) => permit.ok(),
            Either::Right(_) => {
                hurried.notify_one();
                None
            }
        };
        place.served = true;
        Ok(self.turn(permit))
    }

    fn turn<'a>(&'a self, permit: Option<SemaphorePermit<'a>>) -> Turn<'a> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Turn { bulkhead: self, _permit: permit }
    }

    fn place(&self) -> Result<Place<'_>, Full> {
        let more = |queued: usize| (queued < self.queue).then_some(queued + 1);
        if self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.rejected.add_one();
            return Err(Full);
        }
        Ok(Place { bulkhead: self, served: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulkhead(running: usize, queued: usize) -> Bulkhead {
        Bulkhead::new(Bounds { running: Some(running), queued: Some(queued) })
    }

    fn counts(bulkhead: &Bulkhead) -> [u64; 3] {
        [bulkhead.running(), bulkhead.queued(), bulkhead.rejected()]
    }

    #[test]
    fn turns_are_taken_in_the_order_of_coming() {
        let (bulkhead, never) = (bulkhead(1, 10), Notify::new());
        let first = bulkhead.enter(&never).now_or_never().unwrap().unwrap();
        let mut second = Box::pin(bulkhead.enter(&never));
        let mut third = Box::pin(bulkhead.enter(&never));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(counts(&bulkhead), [1, 2, 0]);
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        let turn = second.as_mut().now_or_never().unwrap().unwrap();
        assert_eq!(counts(&bulkhead), [1, 1, 0]);
        drop(turn);
        assert!(third.as_mut().now_or_never().unwrap().is_ok());
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let (bulkhead, never) = (bulkhead(1, 1), Notify::new());
        let _first = bulkhead.enter(&never).now_or_never().unwrap().unwrap();
        let mut second = Box::pin(bulkhead.enter(&never));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(bulkhead.enter(&never).now_or_never().unwrap().unwrap_err(), Full);
        assert_eq!(counts(&bulkhead), [1, 1, 1]);
    }

    #[test]
    fn who_leaves_the_queue_takes_nothing_along() {
        let (bulkhead, never) = (bulkhead(1, 1), Notify::new());
        let first = bulkhead.enter(&never).now_or_never().unwrap().unwrap();
        let mut second = Box::pin(bulkhead.enter(&never));
        assert!(second.as_mut().now_or_never().is_none());
        // It has been given the turn when it leaves.
        drop(first);
        drop(second);
        assert_eq!(counts(&bulkhead), [0, 0, 1]);
        assert!(bulkhead.enter(&never).now_or_never().unwrap().is_ok());
    }

    #[test]
    fn who_is_waited_for_by_a_running_load_does_not_wait() {
        let (bulkhead, hurried) = (bulkhead(1, 10), Notify::new());
        let _first = bulkhead.enter(&hurried).now_or_never().unwrap().unwrap();
        let mut second = Box::pin(bulkhead.enter(&hurried));
        assert!(second.as_mut().now_or_never().is_none());
        hurried.notify_one();
        let _turn = second.as_mut().now_or_never().unwrap().unwrap();
        assert_eq!(counts(&bulkhead), [2, 0, 0]);
        // It was said before the load came to its turn.
        hurried.notify_one();
        let _other = bulkhead.enter(&hurried).now_or_never().unwrap().unwrap();
        assert_eq!(counts(&bulkhead), [3, 0, 0]);
        // Some keys of a list are loaded later than others: they are waited for all the same.
        let _later = bulkhead.enter(&hurried).now_or_never().unwrap().unwrap();
        assert_eq!(counts(&bulkhead), [4, 0, 0]);
    }

    #[test]
    fn without_a_bound_nobody_waits_and_all_are_counted() {
        let (bulkhead, never) = (Bulkhead::new(Bounds::default()), Notify::new());
        let turns: Vec<_> =
            (0..1000).map(|_| bulkhead.enter(&never).now_or_never().unwrap().unwrap()).collect();
        assert_eq!(counts(&bulkhead), [1000, 0, 0]);
        drop(turns);
        assert_eq!(counts(&bulkhead), [0, 0, 0]);
    }

    #[test]
    fn bounds_that_make_no_sense_are_refused_by_name() {
        #[track_caller]
        fn check(running: Option<usize>, queued: Option<usize>, expected: Option<&str>) {
            let actual = Bounds { running, queued }.check().err().map(|error| error.to_string());
            match (&actual, expected) {
                (None, None) => {}
                (Some(text), Some(word)) if text.contains(word) => {}
                _ => panic!("{actual:?}, expected {expected:?}"),
            }
        }
        check(None, None, None);
        check(Some(1), Some(0), None);
        check(Some(MOST), Some(MOST), None);
        check(Some(0), None, Some("max_concurrent_loads is 0; allowed is 1"));
        check(Some(MOST + 1), None, Some("max_concurrent_loads is 1048577"));
        check(Some(1), Some(MOST + 1), Some("max_queued_loads is 1048577"));
        check(None, Some(5), Some("max_queued_loads needs max_concurrent_loads"));
    }
}
