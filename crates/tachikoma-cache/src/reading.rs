//! What one lookup notes in the recording of its caller.
//!
//! Decides with which counters: those that were known before the lookup began. What it shows was
//! not removed before that, or the lookup would not have found it; what removes it later counts
//! higher. For a copy in a memory tier, those that were known before the copy was read count.

use crate::dependencies::{Dependencies, Recorder, Unknown};
use crate::entry::Entry;
use crate::invalidation::{Group, Mark, Snapshot};
use crate::key::Namespace;
use crate::load::outcome::Basis;
use crate::shared::Shared;
use crate::store::Guarantee;

/// See the module.
#[derive(Debug)]
pub(crate) struct Reading {
    recorder: Recorder,
    at: Option<Snapshot>,
}

impl Shared {
    /// Begins to note a lookup, if its caller is recorded. Before the store is asked.
    #[inline]
    pub(crate) fn reading(&self, space: &Namespace) -> Option<Reading> {
        if self.dependencies { self.recorded(space) } else { None }
    }

    #[cold]
    fn recorded(&self, space: &Namespace) -> Option<Reading> {
        let recorder = Dependencies::current()?;
        Some(Reading { recorder, at: self.store.groups().known(space) })
    }

    /// Asks where the counters stand, if that is not known yet. Before the store is asked.
    pub(crate) async fn settle(&self, reading: &mut Option<Reading>, space: &Namespace) {
        if let Some(reading) = reading
            && reading.at.is_none()
        {
            let at = self.store.groups().snapshot(space, &self.cx()).await;
            reading.at = self.counted(at).ok();
        }
    }
}

impl Reading {
    /// Notes a key, whatever was found.
    pub(crate) fn key(&self, space: &Namespace, name: &str) {
        self.key_at(space, name, self.at);
    }

    /// Notes a key and what a value of it was made of.
    pub(crate) fn value(&self, space: &Namespace, name: &str, basis: &Basis, guarantee: Guarantee) {
        if guarantee.is_stale() {
            self.recorder.spoil(Unknown::Stale);
        }
        match basis {
            Basis::Stored(entry) => self.entry(space, name, entry),
            Basis::Loaded(tags, read) => {
                self.key(space, name);
                for tag in tags.iter() {
                    self.add(space, tag, self.at);
                }
                self.recorder.add_all(read);
            }
        }
    }

    /// Notes a key and what its entry carries.
    pub(crate) fn entry(&self, space: &Namespace, name: &str, entry: &Entry) {
        let meta = entry.meta();
        self.key_at(space, name, meta.seen.or(self.at));
        self.recorder.add_all(&Dependencies::of(&meta.marks, space));
    }

    /// Notes that it is not known what was read.
    pub(crate) fn spoil(&self, why: Unknown) {
        self.recorder.spoil(why);
    }

    fn key_at(&self, space: &Namespace, name: &str, at: Option<Snapshot>) {
        match at {
            Some(at) => {
                for Mark { group, at } in Mark::of_key(name, at) {
                    self.recorder.add(space, &group, at);
                }
            }
            None => self.recorder.spoil(Unknown::NoCounter),
        }
    }

    fn add(&self, space: &Namespace, group: &Group, at: Option<Snapshot>) {
        match at {
            Some(at) => self.recorder.add(space, group, at),
            None => self.recorder.spoil(Unknown::NoCounter),
        }
    }
}
