//! Invalidations that Redis has not confirmed yet.
//!
//! Decides what has to be sent again and what this process must not show meanwhile. [`Pending`] is
//! pure; [`Book`] puts a lock around it. Each invalidation is entered before it is sent and taken
//! out when Redis has confirmed it, so a caller that goes away loses nothing.
//!
//! The list is bounded. When a namespace has too much in it, everything of that namespace becomes
//! pending instead: more than was asked for, never less.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::glob::Glob;
use crate::invalidation::{Group, How};
use crate::key::Namespace;

/// How many keys, groups and patterns may be pending in all.
pub(super) const MAX_PENDING: usize = 100_000;

/// How many patterns of one namespace: each is tried on every key that is read.
const MAX_GLOBS: usize = 64;

/// How much is sent again at once.
const BATCH: usize = 500;

/// What one call invalidates, in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    Keys(Vec<String>),
    Groups(Vec<Group>, How),
    /// The keys that match, then the counters of all groups if the whole namespace goes.
    Matching(Glob),
}

/// The right to take something out of the list: that which was entered with it and not since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) namespace: Namespace,
    pub(super) work: Work,
    ticket: u64,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    ticket: u64,
    /// Somebody is sending it and will say how that went.
    in_flight: bool,
}

impl Item {
    /// Whoever sent it with this ticket does so no more.
    fn free(&mut self, ticket: u64) {
        self.in_flight &= self.ticket != ticket;
    }
}

#[derive(Debug, Default)]
struct Waiting {
    keys: HashMap<String, Item>,
    groups: HashMap<Group, (How, Item)>,
    globs: Vec<(Glob, Item)>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.keys.len() + self.groups.len() + self.globs.len()
    }
}

/// The list.
#[derive(Debug)]
pub(super) struct Pending {
    namespaces: HashMap<Namespace, Waiting>,
    tickets: u64,
    limit: usize,
    everything: Option<Glob>,
}

impl Pending {
    fn new(limit: usize) -> Self {
        // `*` is always a valid pattern; without it a full list would only stop growing.
        Self { namespaces: HashMap::new(), tickets: 0, limit, everything: Glob::new("*").ok() }
    }

    fn len(&self) -> usize {
        self.namespaces.values().map(Waiting::len).sum()
    }

    /// Enters `work` as being sent by the caller.
    fn enter(&mut self, namespace: &Namespace, work: Work) -> Claim {
        self.tickets += 1;
        let ticket = self.tickets;
        let item = Item { ticket, in_flight: true };
        let waiting = self.namespaces.entry(namespace.clone()).or_default();
        match &work {
            Work::Keys(names) => {
                waiting.keys.extend(names.iter().map(|name| (name.clone(), item)));
            }
            Work::Groups(groups, how) => {
                for group in groups {
                    let hard = matches!(waiting.groups.get(group), Some((How::Hard, _)));
                    let how = if hard { How::Hard } else { *how };
                    waiting.groups.insert(group.clone(), (how, item));
                }
            }
            Work::Matching(glob) => {
                waiting.globs.retain(|(known, _)| known != glob);
                waiting.globs.push((glob.clone(), item));
            }
        }
        let crowded = waiting.globs.len() > MAX_GLOBS;
        if crowded || self.len() > self.limit {
            self.give_up_details(namespace);
        }
        Claim { namespace: namespace.clone(), work, ticket }
    }

    fn give_up_details(&mut self, namespace: &Namespace) {
        let (Some(everything), Some(waiting)) =
            (self.everything.clone(), self.namespaces.get_mut(namespace))
        else {
            return;
        };
        let item = Item { ticket: self.tickets, in_flight: false };
        *waiting = Waiting { globs: vec![(everything, item)], ..Waiting::default() };
    }

    /// Takes out what `claim` was given for, where nothing newer was entered since.
    fn confirm(&mut self, claim: &Claim) {
        let Some(waiting) = self.namespaces.get_mut(&claim.namespace) else {
            return;
        };
        let same = |item: &Item| item.ticket == claim.ticket;
        match &claim.work {
            Work::Keys(names) => {
                for name in names {
                    if waiting.keys.get(name).is_some_and(same) {
                        waiting.keys.remove(name);
                    }
                }
            }
            Work::Groups(groups, _) => {
                for group in groups {
                    if waiting.groups.get(group).is_some_and(|(_, item)| same(item)) {
                        waiting.groups.remove(group);
                    }
                }
            }
            Work::Matching(glob) => waiting.globs.retain(|(g, item)| g != glob || !same(item)),
        }
        if waiting.len() == 0 {
            self.namespaces.remove(&claim.namespace);
        }
    }

    /// Leaves what `claim` was given for to whoever sends it next.
    fn release(&mut self, claim: &Claim) {
        let Some(waiting) = self.namespaces.get_mut(&claim.namespace) else {
            return;
        };
        match &claim.work {
            Work::Keys(names) => {
                for name in names {
                    if let Some(item) = waiting.keys.get_mut(name) {
                        item.free(claim.ticket);
                    }
                }
            }
            Work::Groups(groups, _) => {
                for group in groups {
                    if let Some((_, item)) = waiting.groups.get_mut(group) {
                        item.free(claim.ticket);
                    }
                }
            }
            Work::Matching(glob) => {
                for (_, item) in waiting.globs.iter_mut().filter(|(known, _)| known == glob) {
                    item.free(claim.ticket);
                }
            }
        }
    }

    /// Something that nobody is sending, to be sent by the caller.
    fn take(&mut self) -> Option<Claim> {
        self.tickets += 1;
        let ticket = self.tickets;
        let mine = Item { ticket, in_flight: true };
        for (namespace, waiting) in &mut self.namespaces {
            let mut names = Vec::new();
            for (name, item) in waiting.keys.iter_mut().filter(|(_, item)| !item.in_flight) {
                *item = mine;
                names.push(name.clone());
                if names.len() == BATCH {
                    break;
                }
            }
            if !names.is_empty() {
                return Some(Claim {
                    namespace: namespace.clone(),
                    work: Work::Keys(names),
                    ticket,
                });
            }
            for wanted in [How::Hard, How::Soft] {
                let mut groups = Vec::new();
                for (group, (how, item)) in &mut waiting.groups {
                    if *how == wanted && !item.in_flight && groups.len() < BATCH {
                        *item = mine;
                        groups.push(group.clone());
                    }
                }
                if !groups.is_empty() {
                    let work = Work::Groups(groups, wanted);
                    return Some(Claim { namespace: namespace.clone(), work, ticket });
                }
            }
            if let Some((glob, item)) = waiting.globs.iter_mut().find(|(_, item)| !item.in_flight) {
                *item = mine;
                let work = Work::Matching(glob.clone());
                return Some(Claim { namespace: namespace.clone(), work, ticket });
            }
        }
        None
    }

    fn covers(&self, namespace: &Namespace, name: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|waiting| {
            waiting.keys.contains_key(name)
                || waiting.globs.iter().any(|(glob, _)| glob.matches(name.as_bytes()))
        })
    }

    fn of_group(&self, namespace: &Namespace, group: &Group) -> Option<How> {
        let (how, _) = self.namespaces.get(namespace)?.groups.get(group)?;
        Some(*how)
    }
}

/// The list, shared.
#[derive(Debug)]
pub(super) struct Book {
    list: Mutex<Pending>,
    len: AtomicU64,
    /// Wakes the courier.
    pub(super) left_over: Notify,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            list: Mutex::new(Pending::new(MAX_PENDING)),
            len: AtomicU64::new(0),
            left_over: Notify::new(),
        }
    }
}

impl Book {
    /// How much is pending.
    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Enters what the caller is about to send. Until [`Sending::confirm`], also if the caller goes
    /// away, it is pending.
    pub(super) fn enter(&self, namespace: &Namespace, work: Work) -> Sending<'_> {
        let claim = self.change(|list| list.enter(namespace, work));
        Sending { book: self, claim: Some(claim) }
    }

    /// Enters what cannot be sent now.
    pub(super) fn defer(&self, namespace: &Namespace, work: Work) {
        drop(self.enter(namespace, work));
    }

    /// Something to send again.
    pub(super) fn take(&self) -> Option<Sending<'_>> {
        if self.len() == 0 {
            return None;
        }
        let claim = self.change(Pending::take)?;
        Some(Sending { book: self, claim: Some(claim) })
    }

    /// Whether this key must be shown as absent.
    pub(super) fn covers(&self, namespace: &Namespace, name: &str) -> bool {
        self.len() > 0 && self.lock().covers(namespace, name)
    }

    /// How the entries of this group must be treated, if not as usual.
    pub(super) fn of_group(&self, namespace: &Namespace, group: &Group) -> Option<How> {
        if self.len() == 0 {
            return None;
        }
        self.lock().of_group(namespace, group)
    }

    fn change<R>(&self, act: impl FnOnce(&mut Pending) -> R) -> R {
        let mut list = self.lock();
        let result = act(&mut list);
        self.len.store(list.len() as u64, Ordering::Release);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An invalidation on its way. Dropped without [`confirm`](Self::confirm) it is sent again.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    book: &'a Book,
    claim: Option<Claim>,
}

impl Sending<'_> {
    /// What is to be sent; `None` once it is confirmed.
    pub(super) fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// Redis has taken it.
    pub(super) fn confirm(mut self) {
        if let Some(claim) = self.claim.take() {
            self.book.change(|list| list.confirm(&claim));
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.book.change(|list| list.release(&claim));
            self.book.left_over.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
