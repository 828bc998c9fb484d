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

use crate::storage::Stored;

/// How long what proved uncacheable is fetched without waiting.
const HIT_FOR_MISS: Duration = Duration::from_secs(5);

/// At most this many such marks are kept.
const MAX_MARKS: usize = 4_096;

/// How far a fetch is.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// Its response has not been seen to the end.
    Fetching,
    /// Its response is whole and being stored.
    Storing,
    /// It is over: this is what it brought, or else look again.
    Over(Option<Arc<Stored>>),
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
    leads: HashMap<String, Arc<watch::Sender<Progress>>>,
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
        if let Some(progress) = table.leads.get(name) {
            return Join::Wait(progress.subscribe());
        }
        if let Some(until) = table.marks.get(name) {
            if now < *until {
                return Join::Alone;
            }
            table.marks.remove(name);
        }
        let progress = Arc::new(watch::Sender::new(Progress::Fetching));
        table.leads.insert(name.to_owned(), Arc::clone(&progress));
        Join::Lead(Lead { flights: Arc::clone(self), name: name.to_owned(), progress })
    }

    /// What is being fetched of `key` was asked for before an invalidation: whoever comes from now
    /// on does not wait for it. Names are a key, or a key, a space and what selects a variant.
    pub(crate) fn detach(&self, key: &str) {
        let is_of_key = |name: &str| {
            name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        self.lock().leads.retain(|name, _| !is_of_key(name));
    }

    /// The same for every key.
    pub(crate) fn detach_all(&self) {
        self.lock().leads.clear();
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
    progress: Arc<watch::Sender<Progress>>,
}

impl Lead {
    /// The response is whole: whoever comes now finds it in a moment.
    pub(crate) fn storing(&self) {
        self.progress.send_replace(Progress::Storing);
    }

    /// The fetch is over, and this is what it brought to those who wait.
    pub(crate) fn bring(self, stored: Arc<Stored>) {
        self.progress.send_replace(Progress::Over(Some(stored)));
    }

    /// The response will not be stored.
    pub(crate) fn decline(self, now: Time) {
        let until = now.saturating_add(HIT_FOR_MISS);
        let mut table = self.flights.lock();
        if table.marks.len() >= MAX_MARKS {
            table.marks.retain(|_, until| now < *until);
        }
        if table.marks.len() < MAX_MARKS {
            table.marks.insert(self.name.clone(), until);
        }
        drop(table);
        self.progress.send_replace(Progress::Declined);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut table = self.flights.lock();
        // Detached, its place may be another one's by now.
        if table.leads.get(&self.name).is_some_and(|held| Arc::ptr_eq(held, &self.progress)) {
            table.leads.remove(&self.name);
        }
        drop(table);
        self.progress.send_if_modified(|progress| {
            let is_open = matches!(progress, Progress::Fetching | Progress::Storing);
            if is_open {
                *progress = Progress::Over(None);
            }
            is_open
        });
    }
}

/// Waits until a fetch is over or declined, at most for `limit`; how it ended, if it did in time.
pub(crate) async fn wait(
    mut progress: watch::Receiver<Progress>,
    limit: Duration,
) -> Option<Progress> {
    let ended = progress.wait_for(|now| matches!(now, Progress::Over(_) | Progress::Declined));
    match tokio::time::timeout(limit, ended).await {
        Ok(Ok(progress)) => Some(progress.clone()),
        // The sender always says how it ended before it is dropped.
        Ok(Err(_)) => Some(Progress::Over(None)),
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
        assert!(matches!(wait(second, LONG).await, Some(Progress::Over(None))));
        assert!(flights.is_empty());
        drop(lead(&flights));
    }

    #[tokio::test]
    async fn what_is_declined_is_not_waited_for_until_the_mark_ends() {
        let flights = Arc::new(Flights::default());
        let first = lead(&flights);
        let second = waiter(&flights);
        first.decline(NOW);
        assert!(matches!(wait(second, LONG).await, Some(Progress::Declined)));
        assert!(matches!(flights.join("a", NOW), Join::Alone));
        let later = NOW.saturating_add(HIT_FOR_MISS);
        assert!(matches!(flights.join("a", later), Join::Lead(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_though_the_leader_does_not() {
        let flights = Arc::new(Flights::default());
        let first = lead(&flights);
        assert!(wait(waiter(&flights), Duration::from_secs(1)).await.is_none());
        drop(first);
    }

    #[test]
    fn who_comes_while_it_is_stored_sees_that() {
        let flights = Arc::new(Flights::default());
        let first = lead(&flights);
        assert!(matches!(*waiter(&flights).borrow(), Progress::Fetching));
        first.storing();
        assert!(matches!(*waiter(&flights).borrow(), Progress::Storing));
    }

    #[tokio::test]
    async fn what_an_invalidation_detached_is_joined_by_nobody_and_still_wakes_its_waiters() {
        let flights = Arc::new(Flights::default());
        let old = lead(&flights);
        let waiting = waiter(&flights);
        flights.detach("b");
        flights.detach("a b");
        drop(waiter(&flights));
        flights.detach("a");
        let new = lead(&flights);
        drop(old);
        assert!(matches!(wait(waiting, LONG).await, Some(Progress::Over(None))));
        // The old one did not take the new one's place along.
        drop(waiter(&flights));
        drop(new);
        assert!(flights.is_empty());
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
