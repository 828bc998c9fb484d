//! Groups: many entries invalidated at once, in constant time.
//!
//! Decides whether an entry of a group is still valid. Pure: counters in, verdict out; where the
//! counters live (process memory, a Redis hash) is the store's business. A logical counter, never a
//! wall clock: two nodes whose clocks differ by a tick would serve stale values.
//!
//! The protocol is that of `docs/src/tags.md`: an entry carries, for each of its groups, the
//! counter that was read *before* its source was. It is valid while no invalidation of that group
//! has a higher one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use xxhash_rust::xxh3::xxh3_64;

use crate::edition::Edition;
#[cfg(feature = "memory")]
use crate::edition::Stamp;
use crate::error::{Error, ErrorKind};
use crate::key::Namespace;

/// The most tags that one entry may have.
pub const MAX_TAGS: usize = 64;

/// The longest tag, in bytes.
pub const MAX_TAG_BYTES: usize = 256;

/// How many groups a namespace remembers before it raises its floor instead. Those of keys alone
/// are up to 65,536.
pub(crate) const MAX_GROUPS: usize = 200_000;

/// A set of entries of one namespace that are invalidated together.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Arc<str>);

impl Group {
    /// The group of the entries with this tag.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidTag`] if it is empty or longer than [`MAX_TAG_BYTES`].
    pub fn tag(tag: &str) -> Result<Self, Error> {
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES {
            return Err(Error::new(
                ErrorKind::InvalidTag,
                format!("{} bytes; allowed are 1 to {MAX_TAG_BYTES}", tag.len()),
            ));
        }
        // The letter leaves room for other kinds of groups; they can never meet a tag.
        Ok(Self(format!("t:{tag}").into()))
    }

    /// The groups of these tags, each once.
    ///
    /// # Errors
    ///
    /// As [`tag`](Self::tag); also if there are more than [`MAX_TAGS`] different ones.
    pub fn tags<S: AsRef<str>>(tags: impl IntoIterator<Item = S>) -> Result<Vec<Self>, Error> {
        let mut groups: Vec<Self> = Vec::new();
        for tag in tags {
            let group = Self::tag(tag.as_ref())?;
            if !groups.contains(&group) {
                groups.push(group);
            }
            check_number(&groups)?;
        }
        Ok(groups)
    }

    /// The group of a key, of which there are 65,536: with it others go, so that what is remembered
    /// of them stays bounded. It is the same in every process.
    pub fn of_key(name: &str) -> Self {
        let hash = xxh3_64(name.as_bytes()) & 0xFFFF;
        Self(format!("k:{hash:04x}").into())
    }

    /// The group of every key, for patterns: they may concern keys that nobody remembers.
    pub fn of_any_key() -> Self {
        Self("k:*".into())
    }

    /// The groups of these keys, each once.
    #[cfg(feature = "redis")]
    pub(crate) fn of_keys<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let mut groups: Vec<Self> = names.into_iter().map(Self::of_key).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The tag, if it is the group of one.
    pub fn as_tag(&self) -> Option<&str> {
        self.0.strip_prefix("t:")
    }

    /// A group by the name that [`as_str`](Self::as_str) gave.
    pub fn from_name(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name in a store: the kind's letter, a colon, then for a tag the tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether one entry may have so many groups.
pub(crate) fn check_number(groups: &[Group]) -> Result<(), Error> {
    if groups.len() > MAX_TAGS {
        return Err(Error::new(
            ErrorKind::InvalidTag,
            format!("more than {MAX_TAGS} tags on one entry"),
        ));
    }
    Ok(())
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Where the counters of a namespace stood at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// A random number of this run of the counters. If they are lost they begin again in another
    /// epoch, and everything of the lost one is invalid.
    pub epoch: u64,
    /// How many invalidations there had been.
    pub counter: u64,
}

/// One group of an entry, with the counters as they stood before the entry's source was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Which group.
    pub group: Group,
    /// The counters then.
    pub at: Snapshot,
}

impl Mark {
    /// What depends on a key that was read after `at`.
    pub(crate) fn of_key(name: &str, at: Snapshot) -> [Self; 2] {
        [Group::of_key(name), Group::of_any_key()].map(|group| Self { group, at })
    }
}

/// All groups that an entry is judged by: its own, and those of what it was made of, which may be
/// of other namespaces. Empty and free of cost for an entry without any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks(Option<Arc<[Part]>>);

/// The groups of one namespace; `None`: of the entry's own, which comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    space: Option<Namespace>,
    marks: Vec<Mark>,
}

impl Marks {
    /// The marks of an entry of these groups whose source is read after `at`.
    pub fn new(groups: &[Group], at: Snapshot) -> Self {
        groups.iter().map(|group| Mark { group: group.clone(), at }).collect()
    }

    /// These marks and those of what an entry of the namespace `home` was made of, by namespace: of
    /// one group the lower counter.
    #[must_use]
    pub fn and<'a>(
        self,
        read: impl IntoIterator<Item = (&'a Namespace, Vec<Mark>)>,
        home: &Namespace,
    ) -> Self {
        let mut all: Vec<Part> = self.0.as_deref().unwrap_or_default().to_vec();
        for (space, marks) in read {
            let space = (space != home).then(|| space.clone());
            let known = all.iter_mut().find(|part| part.space == space);
            match known {
                None => all.push(Part { space, marks }),
                Some(part) => {
                    for mark in marks {
                        // Of two epochs one is lost, and says so when both are judged.
                        let same = |other: &&mut Mark| {
                            other.group == mark.group && other.at.epoch == mark.at.epoch
                        };
                        match part.marks.iter_mut().find(same) {
                            Some(other) => {
                                other.at.counter = other.at.counter.min(mark.at.counter);
                            }
                            None => part.marks.push(mark),
                        }
                    }
                }
            }
        }
        Self::of_parts(all)
    }

    /// The marks of each namespace; `home` is the entry's own.
    pub fn parts<'a>(
        &'a self,
        home: &'a Namespace,
    ) -> impl Iterator<Item = (&'a Namespace, &'a [Mark])> + Clone {
        let parts = self.0.as_deref().unwrap_or_default().iter();
        parts.map(move |part| (part.space.as_ref().unwrap_or(home), part.marks.as_slice()))
    }

    /// The marks of the entry's own namespace.
    pub fn own(&self) -> &[Mark] {
        match self.0.as_deref().and_then(<[Part]>::first) {
            Some(Part { space: None, marks }) => marks,
            _ => &[],
        }
    }

    /// The marks of other namespaces.
    pub fn foreign(&self) -> impl Iterator<Item = (&Namespace, &[Mark])> + Clone {
        let parts = self.0.as_deref().unwrap_or_default().iter();
        parts.filter_map(|part| Some((part.space.as_ref()?, part.marks.as_slice())))
    }

    /// Whether there are none, so that the entry is always valid.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Marks as they stand in stored bytes: own ones, then those of each other namespace.
    #[cfg(feature = "redis")]
    pub(crate) fn stored(own: Vec<Mark>, foreign: Vec<(Namespace, Vec<Mark>)>) -> Self {
        let foreign = foreign.into_iter().map(|(space, marks)| Part { space: Some(space), marks });
        let own = std::iter::once(Part { space: None, marks: own });
        Self::of_parts(own.chain(foreign).collect())
    }

    fn of_parts(mut parts: Vec<Part>) -> Self {
        parts.retain(|part| !part.marks.is_empty());
        // Own ones first.
        parts.sort_by(|a, b| a.space.cmp(&b.space));
        Self((!parts.is_empty()).then(|| parts.into()))
    }
}

impl FromIterator<Mark> for Marks {
    fn from_iter<I: IntoIterator<Item = Mark>>(marks: I) -> Self {
        Self::of_parts(vec![Part { space: None, marks: marks.into_iter().collect() }])
    }
}

/// How much an invalidation takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// The entries are gone.
    Hard,
    /// The entries are stale: kept for those who accept a stale value when the source fails.
    Soft,
}

/// Whether an entry may be used, by its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Validity {
    /// No invalidation since its source was read.
    Valid,
    /// A soft invalidation came since.
    Stale,
    /// A hard invalidation came since, or the counters were lost.
    Invalid,
}

/// What is known of one group: the counters of its last invalidations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generation {
    /// Of the last hard one; zero if there was none.
    pub hard: u64,
    /// Of the last soft one; zero if there was none.
    pub soft: u64,
}

/// Judges one mark ([`Validity`]) by the state of its namespace: `floor` is the counter below which
/// everything is invalid.
pub fn judge(mark: Snapshot, epoch: u64, floor: u64, generation: Generation) -> Validity {
    if mark.epoch != epoch || mark.counter < floor || mark.counter < generation.hard {
        Validity::Invalid
    } else if mark.counter < generation.soft {
        Validity::Stale
    } else {
        Validity::Valid
    }
}

/// Who says whether entries may be used.
#[cfg(feature = "memory")]
pub(crate) trait Judge: fmt::Debug + Send + Sync {
    /// Whether the entry with these marks and this stamp may be used.
    fn check(&self, space: &Namespace, marks: &Marks, stamp: &Stamp) -> Validity;
}

/// The counters of one namespace.
#[derive(Debug, Clone)]
pub struct GroupState {
    epoch: u64,
    counter: u64,
    floor: u64,
    generations: HashMap<Group, Generation>,
}

impl GroupState {
    /// A state without any invalidation yet; `epoch` is a random number.
    pub fn new(epoch: u64) -> Self {
        Self { epoch, counter: 0, floor: 0, generations: HashMap::new() }
    }

    /// Where the counters stand. Taken before a source is read.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { epoch: self.epoch, counter: self.counter }
    }

    /// Makes what was read before now and belongs to one of `groups` invalid or stale.
    pub fn invalidate(&mut self, groups: &[Group], how: How) {
        self.counter += 1;
        for group in groups {
            let generation = self.generations.entry(group.clone()).or_default();
            match how {
                How::Hard => generation.hard = self.counter,
                How::Soft => generation.soft = self.counter,
            }
        }
        if self.generations.len() > MAX_GROUPS {
            // Forgetting a group must not revive its entries: all that carry marks go instead.
            self.floor = self.counter;
            self.generations.clear();
        }
    }

    /// Whether an entry with these marks may be used: the worst of its groups decides.
    pub fn check(&self, marks: &[Mark]) -> Validity {
        let verdict = |mark: &Mark| {
            let generation = self.generations.get(&mark.group).copied().unwrap_or_default();
            judge(mark.at, self.epoch, self.floor, generation)
        };
        marks.iter().map(verdict).max().unwrap_or(Validity::Valid)
    }
}

/// The counters of all namespaces of one process, for a store in its memory. A namespace in which
/// nothing was invalidated takes no room, so that there may be very many.
#[derive(Debug)]
pub struct LocalGroups {
    epoch: u64,
    states: RwLock<HashMap<Namespace, GroupState>>,
    edition: Edition,
}

impl Default for LocalGroups {
    fn default() -> Self {
        Self { epoch: rand::random(), states: RwLock::default(), edition: Edition::default() }
    }
}

impl LocalGroups {
    /// Where the counters of `namespace` stand.
    pub fn snapshot(&self, namespace: &Namespace) -> Snapshot {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let untouched = || GroupState::new(self.epoch).snapshot();
        states.get(namespace).map_or_else(untouched, GroupState::snapshot)
    }

    /// See [`GroupState::invalidate`].
    pub fn invalidate(&self, namespace: &Namespace, groups: &[Group], how: How) {
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        let state = states.entry(namespace.clone()).or_insert_with(|| GroupState::new(self.epoch));
        state.invalidate(groups, how);
        self.edition.turn();
    }

    /// See [`GroupState::check`]; free for an entry without marks.
    pub fn check(&self, namespace: &Namespace, marks: &Marks) -> Validity {
        if marks.is_empty() {
            return Validity::Valid;
        }
        let verdicts = marks.parts(namespace).map(|(space, marks)| self.check_in(space, marks));
        verdicts.max().unwrap_or(Validity::Valid)
    }

    /// The same of the marks of one namespace.
    pub fn check_in(&self, namespace: &Namespace, marks: &[Mark]) -> Validity {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let untouched = || GroupState::new(self.epoch).check(marks);
        states.get(namespace).map_or_else(untouched, |state| state.check(marks))
    }
}

#[cfg(feature = "memory")]
impl Judge for LocalGroups {
    fn check(&self, space: &Namespace, marks: &Marks, stamp: &Stamp) -> Validity {
        let edition = self.edition.now();
        if stamp.is(edition) {
            return Validity::Valid;
        }
        let verdict = Self::check(self, space, marks);
        if verdict == Validity::Valid {
            stamp.set(edition);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dependencies::{Dependencies, Recorder};

    fn groups(names: &[&str]) -> Vec<Group> {
        Group::tags(names).unwrap()
    }

    #[track_caller]
    fn check(tags: &[&str], invalidated: &[&str], how: How, expected: Validity) {
        let mut state = GroupState::new(7);
        let marks = Marks::new(&groups(tags), state.snapshot());
        state.invalidate(&groups(invalidated), how);
        assert_eq!(state.check(marks.own()), expected, "{tags:?} after {how:?} {invalidated:?}");
    }

    #[test]
    fn an_entry_goes_with_any_of_its_groups_and_with_no_other() {
        check(&["a", "b"], &["b"], How::Hard, Validity::Invalid);
        check(&["a", "b"], &["b"], How::Soft, Validity::Stale);
        check(&["a"], &["b"], How::Hard, Validity::Valid);
        check(&[], &["b"], How::Hard, Validity::Valid);
    }

    #[test]
    fn an_entry_read_after_the_invalidation_is_valid() {
        let mut state = GroupState::new(7);
        state.invalidate(&groups(&["a"]), How::Hard);
        let marks = Marks::new(&groups(&["a"]), state.snapshot());
        assert_eq!(state.check(marks.own()), Validity::Valid);
    }

    #[test]
    fn counters_that_were_lost_invalidate_what_carries_marks() {
        let before = GroupState::new(7);
        let marks = Marks::new(&groups(&["a"]), before.snapshot());
        assert_eq!(GroupState::new(8).check(marks.own()), Validity::Invalid);
    }

    #[test]
    fn a_namespace_is_remembered_once_something_is_invalidated_in_it() {
        let local = LocalGroups::default();
        let spaces: Vec<_> =
            (0..100).map(|i| Namespace::new(&format!("tenant/{i}")).unwrap()).collect();
        let marks = |space| Marks::new(&groups(&["a"]), local.snapshot(space));
        let before: Vec<_> = spaces.iter().map(marks).collect();
        assert!(local.states.read().unwrap().is_empty());
        assert_eq!(local.check(&spaces[0], &before[0]), Validity::Valid);
        local.invalidate(&spaces[0], &groups(&["a"]), How::Hard);
        assert_eq!(local.states.read().unwrap().len(), 1);
        assert_eq!(local.check(&spaces[0], &before[0]), Validity::Invalid);
        assert_eq!(local.check(&spaces[0], &marks(&spaces[0])), Validity::Valid);
        assert_eq!(local.check(&spaces[1], &before[1]), Validity::Valid);
        // The counters of another run of the process.
        let other = Marks::new(&groups(&["a"]), LocalGroups::default().snapshot(&spaces[1]));
        assert_eq!(local.check(&spaces[1], &other), Validity::Invalid);
    }

    #[test]
    fn a_full_table_invalidates_rather_than_forgets() {
        let mut state = GroupState::new(7);
        let marks = Marks::new(&groups(&["old"]), state.snapshot());
        state.invalidate(&groups(&["old"]), How::Hard);
        for i in 0..=MAX_GROUPS {
            state.invalidate(&[Group::tag(&i.to_string()).unwrap()], How::Hard);
        }
        assert!(state.generations.len() <= MAX_GROUPS);
        assert_eq!(state.check(marks.own()), Validity::Invalid);
        let marks = Marks::new(&groups(&["new"]), state.snapshot());
        assert_eq!(state.check(marks.own()), Validity::Valid);
    }

    #[test]
    fn tags_have_limits_and_count_once() {
        assert_eq!(groups(&["a", "b", "a"]).len(), 2);
        assert_eq!(Group::tag("").unwrap_err().kind(), ErrorKind::InvalidTag);
        assert!(Group::tag(&"x".repeat(MAX_TAG_BYTES)).is_ok());
        assert!(Group::tag(&"x".repeat(MAX_TAG_BYTES + 1)).is_err());
        let many = |n: usize| Group::tags((0..n).map(|i| i.to_string()));
        assert!(many(MAX_TAGS).is_ok());
        assert_eq!(many(MAX_TAGS + 1).unwrap_err().kind(), ErrorKind::InvalidTag);
    }

    proptest! {
        /// Marks of several namespaces say the worst that each of them says by itself.
        #[test]
        fn several_namespaces_are_judged_one_by_one(
            invalidated in prop::collection::vec((0_usize..3, 0_u8..6, any::<bool>()), 0..12),
            noted in prop::collection::vec((0_usize..3, 0_u8..6, 0_usize..12), 0..12),
        ) {
            let local = LocalGroups::default();
            let spaces = ["a", "b", "c"].map(|name| Namespace::new(name).unwrap());
            let group = |i: u8| Group::tag(&i.to_string()).unwrap();
            let recorder = Recorder::new();
            for (step, (space, i, hard)) in invalidated.iter().enumerate() {
                for (space, i, at) in noted.iter().filter(|(.., at)| *at == step) {
                    let _ = at;
                    let now = local.snapshot(&spaces[*space]);
                    recorder.add(&spaces[*space], &group(*i), now);
                }
                let how = if *hard { How::Hard } else { How::Soft };
                local.invalidate(&spaces[*space], &[group(*i)], how);
            }
            let read = recorder.dependencies();
            let marks = Marks::default().and(read.parts(), &spaces[0]);
            let apart = read.parts().map(|(space, marks)| local.check_in(space, &marks));
            let expected = apart.max().unwrap_or(Validity::Valid);
            prop_assert_eq!(local.check(&spaces[0], &marks), expected);
            let count: usize = marks.parts(&spaces[0]).map(|(_, marks)| marks.len()).sum();
            prop_assert_eq!(count, read.len());
            prop_assert_eq!(Dependencies::of(&marks, &spaces[0]), read);
        }

        /// The marks of an entry are valid exactly if none of its groups was invalidated since.
        #[test]
        fn validity_is_what_a_list_of_all_invalidations_says(
            before in prop::collection::vec(0_u8..6, 0..10),
            after in prop::collection::vec(0_u8..6, 0..10),
            mine in prop::collection::hash_set(0_u8..6, 0..4),
        ) {
            let group = |i: &u8| Group::tag(&i.to_string()).unwrap();
            let mut state = GroupState::new(7);
            for i in &before {
                state.invalidate(&[group(i)], How::Hard);
            }
            let marks = Marks::new(&mine.iter().map(group).collect::<Vec<_>>(), state.snapshot());
            for i in &after {
                state.invalidate(&[group(i)], How::Hard);
            }
            let hit = after.iter().any(|i| mine.contains(i));
            let expected = if hit { Validity::Invalid } else { Validity::Valid };
            prop_assert_eq!(state.check(marks.own()), expected);
        }
    }
}
