//! Decides who fetches and who waits: one fetch per key and variant at a time.
//!
//! Never lets anybody wait for one who is gone: a [`Lead`] that is dropped wakes its waiters. What
//! proves uncacheable is marked, and for some seconds nobody waits for it (hit-for-miss): waiting
//! in line for answers that cannot be shared would only serialise them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tachikoma_cache::Time;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_128;

use crate::{live::Live, policy::reuse::Failed, storage::Stored};

/// How long what proved uncacheable is fetched without waiting.
const HIT_FOR_MISS: Duration = Duration::from_secs(5);

/// At most this many such marks are kept.
const MAX_MARKS: usize = 4_096;

/// How far a fetch is.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// Its response has not begun, or is being read without telling.
    Fetching,
    /// Its response is arriving: others may read it too.
    Live(Arc<Live>),
    /// Its response is whole and being stored.
    Storing,
    /// It is over: this is what it brought, or else look again.
    Over(Option<Arc<Stored>>),
    /// It will not be stored: go ahead.
    Declined,
    /// The origin failed, and how.
    Failed(Failed),
}

impl Progress {
    /// Nothing is known yet that helps who waits.
    fn is_to_be_waited_for(&self) -> bool {
        matches!(self, Self::Fetching | Self::Storing)
    }

    fn is_open(&self) -> bool {
        self.is_to_be_waited_for() || matches!(self, Self::Live(_))
    }
}

/// The fetches under way, and the marks.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// How often each of these keys was detached since somebody watches it.
    watched: HashMap<String, Arc<AtomicU64>>,
    leads: HashMap<String, Leading>,
    /// By a hash of the name: that of two is one only costs a fetch.
    marks: HashMap<u128, Time>,
}

/// A fetch under way.
#[derive(Debug)]
struct Leading {
    begun: Time,
    progress: Arc<watch::Sender<Progress>>,
}

impl Leading {
    /// To wait for it, if it began after this time.
    fn join(&self, since: Option<Time>) -> Join {
        match since {
            Some(since) if self.begun <= since => Join::Alone,
            _ => Join::Wait(self.progress.subscribe()),
        }
    }
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
    /// Joins the fetch of `name` if it began after `since`, or leads it.
    pub(crate) fn join(self: &Arc<Self>, name: &str, now: Time, since: Option<Time>) -> Join {
        let mut table = self.lock();
        if let Some(leading) = table.leads.get(name) {
            return leading.join(since);
        }
        let mark = xxh3_128(name.as_bytes());
        if let Some(until) = table.marks.get(&mark) {
            if now < *until {
                return Join::Alone;
            }
            table.marks.remove(&mark);
        }
        let progress = Arc::new(watch::Sender::new(Progress::Fetching));
        let leading = Leading { begun: now, progress: Arc::clone(&progress) };
        table.leads.insert(name.to_owned(), leading);
        Join::Lead(Lead { flights: Arc::clone(self), name: name.to_owned(), progress })
    }

    /// Joins the fetch of `name` if there is one that began after `since`, and never leads it.
    pub(crate) fn follow(&self, name: &str, since: Option<Time>) -> Join {
        self.lock().leads.get(name).map_or(Join::Alone, |leading| leading.join(since))
    }

    /// What is being fetched of `key` was asked for before an invalidation: whoever comes from now
    /// on does not wait for it. Names are a key, or a key, a space and what selects a variant.
    pub(crate) fn detach(&self, key: &str) {
        let is_of_key = |name: &str| {
            name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        let mut table = self.lock();
        if let Some(count) = table.watched.get(key) {
            count.fetch_add(1, Relaxed);
        }
        table.leads.retain(|name, _| !is_of_key(name));
    }

    /// The same for every key.
    pub(crate) fn detach_all(&self) {
        let mut table = self.lock();
        for count in table.watched.values() {
            count.fetch_add(1, Relaxed);
        }
        table.leads.clear();
    }

    /// Counts from now on how often a key is detached.
    pub(crate) fn watch(self: &Arc<Self>, key: &str) -> Watch {
        let count = Arc::clone(self.lock().watched.entry(key.to_owned()).or_default());
        let before = count.load(Relaxed);
        Watch { flights: Arc::clone(self), key: key.to_owned(), count, before }
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

/// Sees what happens to one key.
#[derive(Debug)]
pub(crate) struct Watch {
    flights: Arc<Flights>,
    key: String,
    count: Arc<AtomicU64>,
    before: u64,
}

impl Watch {
    /// How often it was detached since.
    pub(crate) fn detached(&self) -> u64 {
        self.count.load(Relaxed) - self.before
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut table = self.flights.lock();
        // The table's own and this one: nobody else watches it.
        if Arc::strong_count(&self.count) == 2 {
            table.watched.remove(&self.key);
        }
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

    /// Tells who waits that the response is arriving.
    pub(crate) fn announcer(&self) -> Announcer {
        Announcer(Arc::clone(&self.progress))
    }

    /// The origin failed, and was covered up for or not: it need not be asked in turns.
    pub(crate) fn failed(self, how: Failed) {
        self.progress.send_replace(Progress::Failed(how));
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
            table.marks.insert(xxh3_128(self.name.as_bytes()), until);
        }
        drop(table);
        self.progress.send_replace(Progress::Declined);
    }
}

/// Tells who waits for a fetch that its response is arriving, unless it is over already.
#[derive(Debug)]
pub(crate) struct Announcer(Arc<watch::Sender<Progress>>);

impl Announcer {
    pub(crate) fn announce(&self, live: Arc<Live>) {
        self.0.send_if_modified(|progress| {
            let is_fetching = matches!(progress, Progress::Fetching);
            if is_fetching {
                *progress = Progress::Live(live);
            }
            is_fetching
        });
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut table = self.flights.lock();
        // Detached, its place may be another one's by now.
        if table
            .leads
            .get(&self.name)
            .is_some_and(|held| Arc::ptr_eq(&held.progress, &self.progress))
        {
            table.leads.remove(&self.name);
        }
        drop(table);
        self.progress.send_if_modified(|progress| {
            let is_open = progress.is_open();
            if is_open {
                *progress = Progress::Over(None);
            }
            is_open
        });
    }
}

/// Waits until something of a fetch can be used or it is over, at most for `limit`; how far it is
/// then, if that was in time.
pub(crate) async fn wait(
    mut progress: watch::Receiver<Progress>,
    limit: Duration,
) -> Option<Progress> {
    let known = progress.wait_for(|now| !now.is_to_be_waited_for());
    match tokio::time::timeout(limit, known).await {
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
        match flights.join("a", NOW, None) {
            Join::Lead(lead) => lead,
            other => panic!("{other:?}"),
        }
    }

    fn waiter(flights: &Arc<Flights>) -> watch::Receiver<Progress> {
        match flights.join("a", NOW, None) {
            Join::Wait(progress) => progress,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_is_woken_when_it_is_gone() {
        let flights = Arc::new(Flights::default());
        let first = lead(&flights);
        let second = waiter(&flights);
        assert!(matches!(flights.join("b", NOW, None), Join::Lead(_)));
        drop(first);
        assert!(matches!(wait(second, LONG).await, Some(Progress::Over(None))));
        assert!(flights.is_empty());
        drop(lead(&flights));
    }

    #[test]
    fn who_only_follows_leads_nobody() {
        let flights = Arc::new(Flights::default());
        assert!(matches!(flights.follow("a", None), Join::Alone));
        let first = lead(&flights);
        assert!(matches!(flights.follow("a", None), Join::Wait(_)));
        assert!(matches!(flights.follow("b", None), Join::Alone));
        drop(first);
        assert!(matches!(flights.follow("a", None), Join::Alone));
        assert!(flights.is_empty());
    }

    #[test]
    fn who_wants_nothing_older_joins_only_what_began_later() {
        let flights = Arc::new(Flights::default());
        let first = lead(&flights);
        let before = Some(Time::from_millis(999));
        for joined in [flights.join("a", NOW, before), flights.follow("a", before)] {
            assert!(matches!(joined, Join::Wait(_)));
        }
        for joined in [flights.join("a", NOW, Some(NOW)), flights.follow("a", Some(NOW))] {
            assert!(matches!(joined, Join::Alone));
        }
        drop(first);
        assert!(matches!(flights.join("a", NOW, Some(NOW)), Join::Lead(_)));
    }

    #[tokio::test]
    async fn what_is_declined_is_not_waited_for_until_the_mark_ends() {
        let flights = Arc::new(Flights::default());
        let first = lead(&flights);
        let second = waiter(&flights);
        first.decline(NOW);
        assert!(matches!(wait(second, LONG).await, Some(Progress::Declined)));
        assert!(matches!(flights.join("a", NOW, None), Join::Alone));
        let later = NOW.saturating_add(HIT_FOR_MISS);
        assert!(matches!(flights.join("a", later, None), Join::Lead(_)));
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
    fn who_watches_a_key_sees_each_time_it_is_detached() {
        let flights = Arc::new(Flights::default());
        flights.detach("a");
        let (first, other) = (flights.watch("a"), flights.watch("b"));
        flights.detach("a");
        let second = flights.watch("a");
        flights.detach_all();
        assert_eq!((first.detached(), second.detached(), other.detached()), (2, 1, 1));
        drop(first);
        flights.detach("a");
        assert_eq!(second.detached(), 2);
        drop((second, other));
        assert!(flights.lock().watched.is_empty());
    }

    #[test]
    fn marks_are_bounded() {
        let flights = Arc::new(Flights::default());
        for i in 0..MAX_MARKS + 10 {
            if let Join::Lead(lead) = flights.join(&format!("{i}"), NOW, None) {
                lead.decline(NOW);
            }
        }
        assert_eq!(flights.lock().marks.len(), MAX_MARKS);
    }
}
