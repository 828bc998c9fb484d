//! What of a history breaks the promise, and whether the history can be believed. Pure.
//!
//! A read breaks the promise if its version is lower than that of an invalidation of the same key
//! that had been answered before the read was sent (at once), or Δ before (for what is only
//! promised within Δ). A value that says that it is stale breaks nothing, and a write that was not
//! answered with success demands nothing: so both are counted, and are not to be seen while nothing
//! is broken.
//!
//! A history can be believed if no read shows a version that nobody had begun to write, and
//! versions rise in the order of the writes. Otherwise the harness itself, or the source, is wrong.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Came, Class, History, Promise, Read, Trouble, Window, Write};

/// Δ, in microseconds.
pub(crate) const DELTA: u64 = 1_000_000;

/// What a run showed of one class of values that came from one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) reads: u64,
    /// Reads that began within Δ after an invalidation of their key.
    pub(crate) near: u64,
    pub(crate) violations: u64,
    /// Older than an invalidation, but not by more than Δ, where that is allowed.
    pub(crate) late: u64,
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            near: self.near + other.near,
            violations: self.violations + other.violations,
            late: self.late + other.late,
        }
    }
}

/// A read that broke the promise, and the version that it should have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) read: Read,
    pub(crate) floor: u32,
    /// How long before the read the first invalidation that it does not know was answered.
    pub(crate) after: u64,
}

/// Reads of one node while nothing was broken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Calm {
    pub(crate) reads: u64,
    pub(crate) hits: u64,
}

/// A checked history.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checked {
    pub(crate) tallies: BTreeMap<(Class, Came, Promise), Tally>,
    pub(crate) worst: Vec<Violation>,
    pub(crate) calm: BTreeMap<u8, Calm>,
    pub(crate) invalidations: u64,
    pub(crate) troubles: Vec<Trouble>,
    /// Those that no fault explains.
    pub(crate) calm_troubles: Vec<Trouble>,
    /// Values that said that they are stale while nothing was broken.
    pub(crate) calm_stale: u64,
    /// Reads of a version that nobody had begun to write.
    pub(crate) unwritten: u64,
    /// Writes whose version is not above that of a write that had been answered before.
    pub(crate) disordered: u64,
}

/// How many violations are kept with all they say.
const KEPT: usize = 10;

/// What is known of one key.
#[derive(Debug, Default)]
struct Row {
    /// When invalidations were answered, each with the highest version until then.
    floors: Vec<(u64, u32)>,
    /// When writes were begun.
    begun: Vec<u64>,
    first: u32,
}

impl Checked {
    /// Checks what was done and seen while `faults` came one after the other.
    pub(crate) fn new(history: &History, faults: &[Window]) -> Self {
        let rows = rows(history);
        let nothing = Row::default();
        let row_of = |class, id| rows.get(&(class, id)).unwrap_or(&nothing);
        let is_calm = |begin, end| {
            let place = faults.partition_point(|fault| fault.end < begin);
            !faults.get(place).is_some_and(|fault| fault.touches(begin, end))
        };
        let is_unexplained = |one: &&Trouble| is_calm(one.begin, one.end);
        let told = history.writes.iter().filter_map(|write| Some((write, write.told?)));
        let is_disordered = |(write, version): &(&Write, u32)| {
            let before = last_before(&row_of(write.class, write.id).floors, write.begin);
            before.is_some_and(|(_, highest)| *version <= highest)
        };
        let mut checked = Self {
            invalidations: told.clone().count() as u64,
            disordered: told.filter(is_disordered).count() as u64,
            troubles: history.troubles.clone(),
            calm_troubles: history.troubles.iter().filter(is_unexplained).cloned().collect(),
            ..Self::default()
        };
        for read in &history.reads {
            let row = row_of(read.class, read.id);
            checked.take(read, &row.floors);
            let begun = row.begun.partition_point(|begin| *begin < read.end) as u64;
            let may_be = u64::from(row.first) + begun;
            checked.unwritten += u64::from(u64::from(read.version) > may_be);
            if is_calm(read.begin, read.end) {
                let calm = checked.calm.entry(read.node).or_default();
                calm.reads += 1;
                calm.hits += u64::from(read.came != Came::Loaded);
                checked.calm_stale += u64::from(read.promise == Promise::None);
            }
        }
        checked
    }

    fn take(&mut self, read: &Read, floors: &[(u64, u32)]) {
        let tally = self.tallies.entry((read.class, read.came, read.promise)).or_default();
        tally.reads += 1;
        let now = last_before(floors, read.begin);
        if now.is_some_and(|(end, _)| read.begin - end <= DELTA) {
            tally.near += 1;
        }
        let at = match read.promise {
            Promise::AtOnce => now,
            Promise::Within => read.begin.checked_sub(DELTA).and_then(|at| last_before(floors, at)),
            Promise::None => return,
        };
        let is_older = |found: Option<(u64, u32)>| found.filter(|found| read.version < found.1);
        if is_older(at).is_none() {
            tally.late += u64::from(is_older(now).is_some());
            return;
        }
        tally.violations += 1;
        let first = floors.iter().find(|(_, version)| read.version < *version);
        if let Some((end, floor)) = first.copied()
            && self.worst.len() < KEPT
        {
            self.worst.push(Violation { read: *read, floor, after: read.begin - end });
        }
    }

    /// Of all that `counts`.
    pub(crate) fn sum(&self, counts: impl Fn(Class, Came) -> bool) -> Tally {
        let counted = self.tallies.iter().filter(|((class, came, _), _)| counts(*class, *came));
        counted.fold(Tally::default(), |sum, (_, tally)| sum + *tally)
    }

    pub(crate) fn total(&self) -> Tally {
        self.sum(|_, _| true)
    }
}

fn rows(history: &History) -> HashMap<(Class, u16), Row> {
    let mut rows: HashMap<(Class, u16), Row> = HashMap::new();
    for (key, first) in &history.first {
        rows.entry(*key).or_default().first = *first;
    }
    for write in &history.writes {
        let row = rows.entry((write.class, write.id)).or_default();
        row.begun.push(write.begin);
        row.floors.extend(write.told.map(|version| (write.end, version)));
    }
    for row in rows.values_mut() {
        row.begun.sort_unstable();
        row.floors.sort_unstable();
        let mut highest = 0;
        for (_, version) in &mut row.floors {
            highest = highest.max(*version);
            *version = highest;
        }
    }
    rows
}

/// The last invalidation that was answered before `at`, with the highest version until then.
fn last_before(floors: &[(u64, u32)], at: u64) -> Option<(u64, u32)> {
    let place = floors.partition_point(|(end, _)| *end < at);
    place.checked_sub(1).and_then(|place| floors.get(place).copied())
}

#[cfg(test)]
mod tests;
