//! What a computation read through caches, so that what it makes goes when that goes.
//!
//! Decides what is noted of each read: the group of its key and its tags, each with a counter that
//! was read before what was shown could be outdated, and of several the lowest. It never asks a
//! store and decides nothing about validity: that is `invalidation`'s.
//!
//! A cache notes reads only where its switch is on (`CacheBuilder::dependencies`). Without a
//! recording around it a read costs one look at a task-local.
//!
//! ```
//! # use {std::time::Duration, tachikoma_cache::{Cache, dependencies::Dependencies}};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tachikoma_cache::Error> {
//! let cache = Cache::memory().dependencies(true).build()?;
//! cache.set("mission:7", "Batou".to_owned(), Duration::from_secs(60)).await?;
//! let render = async { cache.get::<String>("mission:7").await };
//! let (page, read) = Dependencies::record(render).await;
//! assert!(page?.is_some() && read.is_known() && !read.is_empty());
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::invalidation::{Group, Mark, Marks, Snapshot};
use crate::key::Namespace;

/// The most groups that one recording notes; of a computation that read more it is not known what
/// it depends on.
pub const MAX_DEPENDENCIES: usize = 1024;

tokio::task_local! {
    static CURRENT: Recorder;
}

/// Why it is not known what a computation depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unknown {
    /// The store could not say where its counters stand, or has lost them.
    NoCounter,
    /// Something stale was read.
    Stale,
    /// More than [`MAX_DEPENDENCIES`] groups were read.
    TooMany,
    /// Keys were listed: no group says when another one comes.
    Listed,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCounter => "the store could not say how current it is",
            Self::Stale => "it shows something stale",
            Self::TooMany => "it was made of too much",
            Self::Listed => "it was made of a list of keys",
        })
    }
}

/// What a computation read. Clones are cheap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dependencies(Option<Arc<Noted>>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Noted {
    groups: BTreeMap<Namespace, BTreeMap<Group, Snapshot>>,
    count: usize,
    unknown: Option<Unknown>,
}

impl Dependencies {
    /// Runs a computation and records what it reads through caches whose switch is on. A recording
    /// around this one records the same.
    ///
    /// What it spawns is recorded only if it is [carried](carry) along.
    pub async fn record<F: Future>(future: F) -> (F::Output, Self) {
        let recorder = Recorder::new();
        let output = recorder.scope(future).await;
        (output, recorder.dependencies())
    }

    /// The recording that the caller runs in, if any.
    pub fn current() -> Option<Recorder> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Whether all of it is known, so that what was made of it may be stored.
    pub fn is_known(&self) -> bool {
        self.unknown().is_none()
    }

    /// Why it is not known.
    pub fn unknown(&self) -> Option<Unknown> {
        self.0.as_ref()?.unknown
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |noted| noted.count)
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.is_known() && self.len() == 0
    }

    /// The groups of each namespace with their counters.
    pub fn parts(&self) -> impl Iterator<Item = (&Namespace, Vec<Mark>)> {
        let groups = self.0.iter().flat_map(|noted| &noted.groups);
        groups.map(|(space, marks)| {
            let mark = |(group, at): (&Group, &Snapshot)| Mark { group: group.clone(), at: *at };
            (space, marks.iter().map(mark).collect())
        })
    }

    /// These with those of `others`; of a group that both have, those of `others` count. For what
    /// was validated: it is as current as the validation is.
    #[must_use]
    pub fn renewed(&self, others: &Self) -> Self {
        let (Some(mine), Some(new)) = (&self.0, &others.0) else {
            return if others.0.is_some() { others.clone() } else { self.clone() };
        };
        let mut all = Noted { unknown: new.unknown, ..Noted::default() };
        for (space, group, at) in new.each() {
            all.add(space, group, at);
        }
        for (space, group, at) in mine.each() {
            if new.groups.get(space).is_none_or(|groups| !groups.contains_key(group)) {
                all.add(space, group, at);
            }
        }
        Self(Some(Arc::new(all)))
    }

    /// Those of something of which it cannot be told.
    pub(crate) fn unknowable() -> Self {
        Self(Some(Arc::new(Noted { unknown: Some(Unknown::NoCounter), ..Noted::default() })))
    }

    /// These but for the tags of a namespace.
    pub(crate) fn without_tags(&self, space: &Namespace) -> Self {
        let Some(noted) = &self.0 else { return Self::default() };
        let mut all = Noted { unknown: noted.unknown, ..Noted::default() };
        for (of, group, at) in noted.each() {
            if of != space || group.as_tag().is_none() {
                all.add(of, group, at);
            }
        }
        Self(Some(Arc::new(all)))
    }

    /// What an entry with these marks depends on.
    pub(crate) fn of(marks: &Marks, home: &Namespace) -> Self {
        if marks.is_empty() {
            return Self::default();
        }
        let mut noted = Noted::default();
        for (space, marks) in marks.parts(home) {
            for mark in marks {
                noted.add(space, &mark.group, mark.at);
            }
        }
        Self(Some(Arc::new(noted)))
    }
}

impl Noted {
    fn each(&self) -> impl Iterator<Item = (&Namespace, &Group, Snapshot)> {
        let groups = self.groups.iter();
        groups.flat_map(|(space, marks)| marks.iter().map(move |(group, at)| (space, group, *at)))
    }

    fn add(&mut self, space: &Namespace, group: &Group, at: Snapshot) {
        if self.count >= MAX_DEPENDENCIES
            && self.groups.get(space).is_none_or(|groups| !groups.contains_key(group))
        {
            return self.spoil(Unknown::TooMany);
        }
        let groups = match self.groups.get_mut(space) {
            Some(groups) => groups,
            None => self.groups.entry(space.clone()).or_default(),
        };
        match groups.entry(group.clone()) {
            Slot::Vacant(slot) => {
                slot.insert(at);
                self.count += 1;
            }
            Slot::Occupied(slot) if slot.get().epoch != at.epoch => {
                // One of them is of counters that are lost.
                self.spoil(Unknown::NoCounter);
            }
            Slot::Occupied(mut slot) => {
                let counter = slot.get().counter.min(at.counter);
                slot.insert(Snapshot { counter, ..at });
            }
        }
    }

    fn spoil(&mut self, why: Unknown) {
        self.unknown = self.unknown.or(Some(why));
    }
}

/// A recording under way. Clones write into the same one.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Recording>);

#[derive(Debug)]
struct Recording {
    noted: Mutex<Noted>,
    /// The recording around it.
    outer: Option<Recorder>,
}

impl Recorder {
    /// A new recording; the one that the caller runs in, if any, records the same.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it depends on where it is called")]
    pub fn new() -> Self {
        Self::inside(Dependencies::current())
    }

    /// A recording that no other one hears of.
    pub(crate) fn apart() -> Self {
        Self::inside(None)
    }

    fn inside(outer: Option<Self>) -> Self {
        Self(Arc::new(Recording { noted: Mutex::default(), outer }))
    }

    /// Runs a future within the recording. Dropped before its end, what it read stays noted.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), future)
    }

    /// Runs a function within the recording: to poll by hand.
    pub fn enter<T>(&self, run: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), run)
    }

    /// What was read so far.
    pub fn dependencies(&self) -> Dependencies {
        let noted = self.lock();
        let is_nothing = noted.count == 0 && noted.unknown.is_none();
        Dependencies((!is_nothing).then(|| Arc::new(noted.clone())))
    }

    /// Notes a group as it was at `at`.
    pub(crate) fn add(&self, space: &Namespace, group: &Group, at: Snapshot) {
        self.each(|noted| noted.add(space, group, at));
    }

    /// Notes what something that was read depends on itself.
    pub(crate) fn add_all(&self, read: &Dependencies) {
        let Some(read) = &read.0 else { return };
        self.each(|noted| {
            for (space, group, at) in read.each() {
                noted.add(space, group, at);
            }
            if let Some(why) = read.unknown {
                noted.spoil(why);
            }
        });
    }

    /// Notes that it is not known what was read.
    pub fn spoil(&self, why: Unknown) {
        self.each(|noted| noted.spoil(why));
    }

    fn each(&self, mut note: impl FnMut(&mut Noted)) {
        let mut next = Some(self);
        while let Some(recorder) = next {
            note(&mut recorder.lock());
            next = recorder.0.outer.as_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a future along into a task of its own: what it reads there is recorded where this was
/// called.
///
/// ```
/// # use tachikoma_cache::dependencies::carry;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let part = tokio::spawn(carry(async { "what it reads is the page's" }));
/// assert_eq!(part.await.unwrap(), "what it reads is the page's");
/// # }
/// ```
pub fn carry<F: Future>(future: F) -> impl Future<Output = F::Output> + use<F> {
    let recorder = Dependencies::current();
    async move {
        match recorder {
            Some(recorder) => recorder.scope(future).await,
            None => future.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(counter: u64) -> Snapshot {
        Snapshot { epoch: 7, counter }
    }

    fn space(name: &str) -> Namespace {
        Namespace::new(name).unwrap()
    }

    fn group(name: &str) -> Group {
        Group::tag(name).unwrap()
    }

    #[tokio::test]
    async fn of_two_counters_of_a_group_the_lower_is_kept() {
        let ((), read) = Dependencies::record(async {
            let recorder = Dependencies::current().unwrap();
            recorder.add(&space("a"), &group("x"), at(5));
            recorder.add(&space("a"), &group("x"), at(3));
            recorder.add(&space("b"), &group("x"), at(9));
        })
        .await;
        let parts: Vec<_> = read.parts().collect();
        assert_eq!(read.len(), 2);
        assert_eq!(parts[0].1, [Mark { group: group("x"), at: at(3) }]);
        assert_eq!(parts[1].1, [Mark { group: group("x"), at: at(9) }]);
    }

    #[tokio::test]
    async fn a_recording_inside_another_one_is_heard_by_both_and_one_apart_by_none() {
        let (inner, outer) = Dependencies::record(async {
            let apart = Recorder::apart();
            apart.scope(async { Dependencies::current().unwrap().spoil(Unknown::Stale) }).await;
            assert_eq!(apart.dependencies().unknown(), Some(Unknown::Stale));
            let note = async {
                Dependencies::current().unwrap().add(&space("a"), &group("x"), at(1));
            };
            Dependencies::record(note).await.1
        })
        .await;
        assert_eq!(inner, outer);
        assert_eq!((outer.len(), outer.is_known()), (1, true));
    }

    #[tokio::test]
    async fn a_spawned_task_is_recorded_if_it_is_carried_along() {
        let note = || async {
            let recorder = Dependencies::current();
            if let Some(recorder) = recorder {
                recorder.add(&space("a"), &group("x"), at(1));
            }
        };
        let spawned = async { tokio::spawn(note()).await.unwrap() };
        assert!(Dependencies::record(spawned).await.1.is_empty());
        let carried = async { tokio::spawn(carry(note())).await.unwrap() };
        assert_eq!(Dependencies::record(carried).await.1.len(), 1);
    }

    #[test]
    fn counters_of_two_epochs_and_too_many_groups_are_not_known() {
        let recorder = Recorder::new();
        recorder.add(&space("a"), &group("x"), at(1));
        recorder.add(&space("a"), &group("x"), Snapshot { epoch: 8, counter: 1 });
        assert_eq!(recorder.dependencies().unknown(), Some(Unknown::NoCounter));
        let recorder = Recorder::new();
        for i in 0..MAX_DEPENDENCIES {
            recorder.add(&space("a"), &group(&i.to_string()), at(1));
        }
        recorder.add(&space("a"), &group("0"), at(1));
        assert!(recorder.dependencies().is_known());
        recorder.add(&space("b"), &group("0"), at(1));
        assert_eq!(recorder.dependencies().unknown(), Some(Unknown::TooMany));
        assert_eq!(recorder.dependencies().len(), MAX_DEPENDENCIES);
    }

    #[test]
    fn what_was_validated_has_the_newer_counters_and_keeps_the_others() {
        let (old, new) = (Recorder::new(), Recorder::new());
        old.add(&space("a"), &group("x"), at(1));
        old.add(&space("a"), &group("y"), at(1));
        new.add(&space("a"), &group("x"), at(4));
        let renewed = old.dependencies().renewed(&new.dependencies());
        let marks = renewed.parts().next().unwrap().1;
        assert_eq!(marks.iter().map(|mark| mark.at.counter).collect::<Vec<_>>(), [4, 1]);
        let nothing = Dependencies::default();
        assert_eq!(old.dependencies().renewed(&nothing), old.dependencies());
        assert_eq!(nothing.renewed(&new.dependencies()), new.dependencies());
    }
}
