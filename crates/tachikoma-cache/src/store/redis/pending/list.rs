//! The list itself: pure.

use std::collections::{HashMap, HashSet};
use std::task::Poll;

use crate::glob::Glob;
use crate::invalidation::{Group, How};
use crate::key::Namespace;

/// How many keys, groups and patterns may be pending in all; also how many keys of a namespace its
/// pending patterns may spare.
pub(in crate::store::redis) const MAX_PENDING: usize = 100_000;

/// How many patterns of one namespace: each is tried on every key that is read.
pub(super) const MAX_GLOBS: usize = 64;

/// How much is sent again at once.
const BATCH: usize = 500;

/// What one call invalidates, in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::redis) enum Work {
    Keys(Vec<String>),
    Groups(Vec<Group>, How),
    /// Every entry that has groups: one step, whatever there is.
    Floor,
    /// The keys that match. That of all keys brings the floor with it.
    Matching(Glob),
}

/// The right to take something out of the list: that which was entered with it and not since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::redis) struct Claim {
    pub(in crate::store::redis) namespace: Namespace,
    pub(in crate::store::redis) work: Work,
    pub(super) ticket: u64,
    /// Its keys are as their caller wants them once it is confirmed: earlier patterns leave them.
    pub(super) spares: bool,
    /// It sends again what was entered before: writes of its keys wait for it.
    pub(super) again: bool,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    ticket: u64,
    /// Somebody is sending it and will say how that went.
    in_flight: bool,
}

impl Item {
    fn new(ticket: u64) -> Self {
        Self { ticket, in_flight: true }
    }

    fn waiting(ticket: u64) -> Self {
        Self { ticket, in_flight: false }
    }

    /// Whoever sent it with this ticket does so no more.
    fn free(&mut self, ticket: u64) {
        self.in_flight &= self.ticket != ticket;
    }

    /// Nobody is sending it, and it was last sent before `round`.
    fn waits(&self, round: u64) -> bool {
        !self.in_flight && self.ticket < round
    }
}

/// A pattern whose keys are removed.
#[derive(Debug)]
struct Sweep {
    glob: Glob,
    item: Item,
    /// The ticket with which it was entered; what was written with a later one is spared.
    since: u64,
    spared: HashSet<String>,
}

impl Sweep {
    fn new(glob: Glob, item: Item) -> Self {
        Self { glob, since: item.ticket, item, spared: HashSet::new() }
    }

    fn covers(&self, name: &str) -> bool {
        self.glob.matches(name.as_bytes()) && !self.spared.contains(name)
    }
}

#[derive(Debug, Default)]
struct Waiting {
    keys: HashMap<String, Item>,
    groups: HashMap<Group, (How, Item)>,
    floor: Option<Item>,
    sweeps: Vec<Sweep>,
    /// How often the removal of each key is just being sent again, also when it has been confirmed
    /// or entered anew since: what is on its way can still arrive.
    sent_keys: HashMap<String, u32>,
    /// The same of invalidations of groups, all together.
    sent_groups: u32,
}

impl Waiting {
    fn len(&self) -> usize {
        self.keys.len() + self.groups.len() + usize::from(self.floor.is_some()) + self.sweeps.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0 && self.sent_keys.is_empty() && self.sent_groups == 0
    }

    /// What was sent again has ended, one way or the other.
    fn ended(&mut self, claim: &Claim) {
        match &claim.work {
            _ if !claim.again => {}
            Work::Keys(names) => {
                for name in names {
                    if let Some(count) = self.sent_keys.get_mut(name) {
                        *count -= 1;
                        if *count == 0 {
                            self.sent_keys.remove(name);
                        }
                    }
                }
            }
            Work::Groups(..) | Work::Floor => self.sent_groups -= 1,
            Work::Matching(_) => {}
        }
    }

    fn covers(&self, name: &str) -> bool {
        self.keys.contains_key(name) || self.sweeps.iter().any(|sweep| sweep.covers(name))
    }

    /// Whether somebody is sending a change of this key that is newer than all patterns that cover
    /// it. An older one leaves it to them: other writes may have come after it.
    fn is_changed_anew(&self, name: &str) -> bool {
        let sweeps = || self.sweeps.iter().filter(|sweep| sweep.covers(name));
        let is_newer = |item: &Item| sweeps().all(|sweep| sweep.since < item.ticket);
        self.keys.get(name).is_some_and(|item| item.in_flight && is_newer(item))
    }

    /// Patterns that were entered before `ticket` leave this key alone from now on.
    fn spare(&mut self, name: &str, ticket: u64, limit: usize) {
        let mut spared: usize = self.sweeps.iter().map(|sweep| sweep.spared.len()).sum();
        for sweep in &mut self.sweeps {
            // Beyond the limit the key stays covered: it is removed once too often.
            if sweep.since < ticket && spared < limit && sweep.covers(name) {
                sweep.spared.insert(name.to_owned());
                spared += 1;
            }
        }
    }
}

/// The list.
#[derive(Debug)]
pub(super) struct Pending {
    namespaces: HashMap<Namespace, Waiting>,
    tickets: u64,
    limit: usize,
}

impl Pending {
    pub(super) fn new(limit: usize) -> Self {
        Self { namespaces: HashMap::new(), tickets: 0, limit }
    }

    pub(super) fn len(&self) -> usize {
        self.namespaces.values().map(Waiting::len).sum()
    }

    pub(super) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Enters `work` as being sent by the caller.
    pub(super) fn enter(&mut self, namespace: &Namespace, work: Work) -> Claim {
        let ticket = self.ticket();
        let item = Item::new(ticket);
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
            Work::Floor => waiting.floor = Some(item),
            Work::Matching(glob) => {
                if glob.is_match_all() {
                    // Nobody sends it yet.
                    waiting.floor = Some(Item::waiting(ticket));
                }
                waiting.sweeps.retain(|known| known.glob != *glob);
                waiting.sweeps.push(Sweep::new(glob.clone(), item));
            }
        }
        let crowded = waiting.sweeps.len() > MAX_GLOBS;
        if crowded || self.len() > self.limit {
            self.give_up_details(namespace);
        }
        Claim { namespace: namespace.clone(), work, ticket, spares: true, again: false }
    }

    fn give_up_details(&mut self, namespace: &Namespace) {
        let item = Item::waiting(self.tickets);
        let waiting = self.namespaces.entry(namespace.clone()).or_default();
        waiting.keys.clear();
        waiting.groups.clear();
        waiting.floor = Some(item);
        waiting.sweeps = vec![Sweep::new(Glob::everything(), item)];
    }

    /// Takes out what `claim` was given for, where nothing newer was entered since.
    pub(super) fn confirm(&mut self, claim: &Claim) {
        let limit = self.limit;
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
                    if claim.spares {
                        waiting.spare(name, claim.ticket, limit);
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
            Work::Floor => waiting.floor = waiting.floor.filter(|item| !same(item)),
            Work::Matching(glob) => {
                waiting.sweeps.retain(|sweep| sweep.glob != *glob || !same(&sweep.item));
            }
        }
        waiting.ended(claim);
        if waiting.is_empty() {
            self.namespaces.remove(&claim.namespace);
        }
    }

    /// Leaves what `claim` was given for to whoever sends it next.
    pub(super) fn release(&mut self, claim: &Claim) {
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
            Work::Floor => {
                if let Some(item) = &mut waiting.floor {
                    item.free(claim.ticket);
                }
            }
            Work::Matching(glob) => {
                for sweep in waiting.sweeps.iter_mut().filter(|known| known.glob == *glob) {
                    sweep.item.free(claim.ticket);
                }
            }
        }
        waiting.ended(claim);
        if waiting.is_empty() {
            self.namespaces.remove(&claim.namespace);
        }
    }

    /// Something that nobody is sending and that was last sent before `round`, to be sent by the
    /// caller: first what takes one step.
    pub(super) fn take(&mut self, round: u64) -> Option<Claim> {
        let mut spaces: Vec<Namespace> = self.namespaces.keys().cloned().collect();
        spaces.sort_unstable();
        spaces.into_iter().find_map(|space| {
            self.take_groups(&space, round)
                .or_else(|| self.take_keys(&space, round))
                .or_else(|| self.take_sweep(&space, round))
        })
    }

    /// Of this namespace, what concerns groups and nobody is sending.
    pub(super) fn take_groups(&mut self, namespace: &Namespace, round: u64) -> Option<Claim> {
        let ticket = self.ticket();
        let mine = Item::new(ticket);
        let waiting = self.namespaces.get_mut(namespace)?;
        if let Some(floor) = waiting.floor.as_mut().filter(|item| item.waits(round)) {
            *floor = mine;
            waiting.sent_groups += 1;
            return Some(Claim::again(namespace, Work::Floor, ticket));
        }
        for wanted in [How::Hard, How::Soft] {
            let mut groups = Vec::new();
            for (group, (how, item)) in &mut waiting.groups {
                if *how == wanted && item.waits(round) && groups.len() < BATCH {
                    *item = mine;
                    groups.push(group.clone());
                }
            }
            if !groups.is_empty() {
                waiting.sent_groups += 1;
                return Some(Claim::again(namespace, Work::Groups(groups, wanted), ticket));
            }
        }
        None
    }

    fn take_keys(&mut self, namespace: &Namespace, round: u64) -> Option<Claim> {
        let ticket = self.ticket();
        let waiting = self.namespaces.get_mut(namespace)?;
        let mut names = Vec::new();
        let waits = waiting.keys.iter_mut().filter(|(_, item)| item.waits(round));
        for (name, item) in waits.take(BATCH) {
            *item = Item::new(ticket);
            *waiting.sent_keys.entry(name.clone()).or_default() += 1;
            names.push(name.clone());
        }
        (!names.is_empty()).then(|| Claim::again(namespace, Work::Keys(names), ticket))
    }

    /// The removal of this key, to be sent by the caller; nothing if none is pending. To be asked
    /// for again while somebody else sends it.
    pub(super) fn take_key(&mut self, namespace: &Namespace, name: &str) -> Poll<Option<Claim>> {
        let ticket = self.ticket();
        let Some(waiting) = self.namespaces.get_mut(namespace) else { return Poll::Ready(None) };
        let sent = waiting.keys.get(name).is_some_and(|item| item.in_flight);
        if sent || waiting.sent_keys.contains_key(name) {
            return Poll::Pending;
        }
        if !waiting.covers(name) {
            return Poll::Ready(None);
        }
        waiting.keys.insert(name.to_owned(), Item::new(ticket));
        *waiting.sent_keys.entry(name.to_owned()).or_default() += 1;
        let work = Work::Keys(vec![name.to_owned()]);
        Poll::Ready(Some(Claim { spares: true, ..Claim::again(namespace, work, ticket) }))
    }

    fn take_sweep(&mut self, namespace: &Namespace, round: u64) -> Option<Claim> {
        let ticket = self.ticket();
        let waiting = self.namespaces.get_mut(namespace)?;
        let sweep = waiting.sweeps.iter_mut().find(|sweep| sweep.item.waits(round))?;
        sweep.item = Item::new(ticket);
        let work = Work::Matching(sweep.glob.clone());
        Some(Claim::again(namespace, work, ticket))
    }

    /// Of the keys that a sweep has found, those that it must remove, to be sent by the caller.
    pub(super) fn take_found(&mut self, namespace: &Namespace, found: Vec<String>) -> Claim {
        let ticket = self.ticket();
        let mut names = found;
        match self.namespaces.get_mut(namespace) {
            Some(waiting) => {
                names.retain(|name| waiting.covers(name) && !waiting.is_changed_anew(name));
                for name in &names {
                    waiting.keys.insert(name.clone(), Item::new(ticket));
                    *waiting.sent_keys.entry(name.clone()).or_default() += 1;
                }
            }
            None => names.clear(),
        }
        Claim::again(namespace, Work::Keys(names), ticket)
    }

    pub(super) fn covers(&self, namespace: &Namespace, name: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|waiting| waiting.covers(name))
    }

    /// Whether the removal of this key is just being sent again.
    pub(super) fn is_busy(&self, namespace: &Namespace, name: &str) -> bool {
        let waiting = self.namespaces.get(namespace);
        waiting.is_some_and(|waiting| waiting.sent_keys.contains_key(name))
    }

    /// Whether an invalidation of groups is just being sent again.
    pub(super) fn is_busy_with_groups(&self, namespace: &Namespace) -> bool {
        self.namespaces.get(namespace).is_some_and(|waiting| waiting.sent_groups > 0)
    }

    /// Whether an invalidation of groups is pending or on its way.
    pub(super) fn owes_groups(&self, namespace: &Namespace) -> bool {
        self.namespaces.get(namespace).is_some_and(|waiting| {
            waiting.sent_groups > 0 || waiting.floor.is_some() || !waiting.groups.is_empty()
        })
    }

    /// Whether nothing is pending or on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.namespaces.is_empty()
    }

    pub(super) fn of_group(&self, namespace: &Namespace, group: &Group) -> Option<How> {
        let waiting = self.namespaces.get(namespace)?;
        if waiting.floor.is_some() {
            return Some(How::Hard);
        }
        let (how, _) = waiting.groups.get(group)?;
        Some(*how)
    }
}

impl Claim {
    fn again(namespace: &Namespace, work: Work, ticket: u64) -> Self {
        Self { namespace: namespace.clone(), work, ticket, spares: false, again: true }
    }
}
