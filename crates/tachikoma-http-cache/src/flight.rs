//! Decides who fetches and who waits: one fetch per key and variant at a time.
//!
//! Never lets anybody wait for one who is gone: a [`Lead`] that is dropped wakes its waiters. What
//! proves uncacheable is marked, and for some seconds nobody waits for it (hit-for-miss): waiting
//! in line for answers that cannot be shared would only serialise them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tachikoma_cache::Time;
use tokio::sync::watch;

/// How long what proved uncacheable is fetched without waiting.
const HIT_FOR_MISS: Duration = Duration::from_secs(5);

/// At most this many such marks are kept.
const MAX_MARKS: usize = 4_096;

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its response has not been seen to the end.
    Fetching,
    /// Its response is whole and being stored.
    Storing,
    /// It is over: look again.
    Over,
    /// It will not be stored: go ahead.
    Declined,
}

/// The fetches under way, and the marks.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    leads: HashMap<String, watch::Sender<Progress>>,
    marks: HashMap<String, Time>,
}

/// What one who wants to fetch should do.
#[derive(Debug)]
pub(crate) enum Join {
    /// Fetch; others wait for it.
    Lead(Lead),
    /// Wait for who is fetching.
    Wait(watch::Receiver<Progress>),
    /// Fetch; nobody waits.
    Alone,
}

impl Flights {
    /// Joins the fetch of `name`, or leads it.
    pub(crate) fn join(self: &Arc<Self>, name: &str, now: Time) -> Join {
        let mut table = self.lock();
        if let Some(lead) = table.leads.get(name) {
            return Join::Wait(lead.subscribe());
        }
        if let Some(until) = table.marks.get(name) {
            if now < *until {
                return Join::Alone;
            }
            table.marks.remove(name);
        }
        table.leads.insert(name.to_owned(), watch::Sender::new(Progress::Fetching));
        Join::Lead(Lead { flights: Arc::clone(self), name: name.to_owned(), is_over: false })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here is left half done by a panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.lock().leads.is_empty()
    }
}

/// The right and the duty to fetch. Dropped, it wakes who waits.
#[derive(Debug)]
pub(crate) struct Lead {
    flights: Arc<Flights>,
    name: String,
    is_over: bool,
}

impl Lead {
    /// The response is whole: whoever comes now finds it in a moment.
    pub(crate) fn storing(&self) {
        if let Some(lead) = self.flights.lock().leads.get(&self.name) {
            lead.send_replace(Progress::Storing);
        }
    }

    /// The response will not be stored.
    pub(crate) fn decline(mut self, now: Time) {
        let until = now.saturating_add(HIT_FOR_MISS);
        {
            let mut table = self.flights.lock();
            if table.marks.len() >= MAX_MARKS {
                table.marks.retain(|_, until| now < *until);
            }
            if table.marks.len() < MAX_MARKS {
                table.marks.insert(self.name.clone(), until);
            }
        }
        self.end(Progress::Declined);
    }

    fn end(&mut self, progress: Progress) {
        if !self.is_over {
            self.is_over = true;
            let lead = self.flights.lock().leads.remove(&self.name);
            if let Some(lead) = lead {
                lead.send_replace(progress);
            }
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.end(Progress::Over);
    }
}

/// Waits until a fetch is over or declined, at most for `limit`; whether it ended in time, and how.
pub(crate) async fn wait(
    mut progress: watch::Receiver<Progress>,
    limit: Duration,
) -> Option<Progress> {
    let ended = progress.wait_for(|now| matches!(now, Progress::Over | Progress::Declined));
    match tokio::time::timeout(limit, ended).await {
        Ok(Ok(progress)) => Some(*progress),
        // The sender is always told how it ended before it is dropped.
        Ok(Err(_)) => Some(Progress::Over),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000);
    const LONG: Duration = Duration::from_secs(60);

    fn lead(flights: &Arc<Flights>) -> Lead {
        match flights.join("a", NOW) {
            Join::Lead(lead) => lead,
            other => panic!("{other:?}"),
        }
    }

    fn waiter(flights: &Arc<Flights>) -> watch::Receiver<Progress> {
        match flights.join("a", NOW) {
            Join::Wait(progress) => progress,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_is_woken_when_it_is_gone() {
        let flights = Arc::new(Flights::default());
        let first = lead(&flights);
        let second = waiter(&flights);
        assert!(matches!(flights.join("b", NOW), Join::Lead(_)));
        drop(first);
        assert_eq!(wait(second, LONG).await, Some(Progress::Over));
        assert!(flights.is_empty());
        drop(lead(&flights));
    }

    #[tokio::test]
    async fn what_is_declined_is_not_waited_for_until_the_mark_ends() {
        let flights = Arc::new(Flights::default());
        let first = lead(&flights);
        let second = waiter(&flights);
        first.decline(NOW);
        assert_eq!(wait(second, LONG).await, Some(Progress::Declined));
        assert!(matches!(flights.join("a", NOW), Join::Alone));
        let later = NOW.saturating_add(HIT_FOR_MISS);
        assert!(matches!(flights.join("a", later), Join::Lead(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_though_the_leader_does_not() {
        let flights = Arc::new(Flights::default());
        let first = lead(&flights);
        assert_eq!(wait(waiter(&flights), Duration::from_secs(1)).await, None);
        drop(first);
    }

    #[test]
    fn who_comes_while_it_is_stored_sees_that() {
        let flights = Arc::new(Flights::default());
        let first = lead(&flights);
        assert_eq!(*waiter(&flights).borrow(), Progress::Fetching);
        first.storing();
        assert_eq!(*waiter(&flights).borrow(), Progress::Storing);
    }

    #[test]
    fn marks_are_bounded() {
        let flights = Arc::new(Flights::default());
        for i in 0..MAX_MARKS + 10 {
            if let Join::Lead(lead) = flights.join(&format!("{i}"), NOW) {
                lead.decline(NOW);
            }
        }
        assert_eq!(flights.lock().marks.len(), MAX_MARKS);
    }
}
