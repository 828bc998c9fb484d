//! What was done and seen, and what of it breaks the promise. Pure: times are numbers.
//!
//! A read breaks the promise if its version is lower than that of an invalidation of the same key
//! that had been answered before the read was sent (at once), or that long before (for what is only
//! promised within Δ). A value that says that it is stale, or a write that was not answered with
//! success, breaks nothing.

use std::collections::HashMap;

/// Δ, in microseconds.
pub(crate) const DELTA: u64 = 1_000_000;

/// How a value is read and invalidated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    /// By key: `get_or_load`, `delete`.
    Keys,
    /// By tag: `get_or_load` with a tag, `invalidate_tag`.
    Tags,
    /// Missions of the reference API.
    Api,
    /// Responses in the response cache, `purge_tag`.
    Pages,
}

impl Class {
    pub(crate) const ALL: [Self; 4] = [Self::Keys, Self::Tags, Self::Api, Self::Pages];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Tags => "tags",
            Self::Api => "api",
            Self::Pages => "pages",
        }
    }
}

/// What an answer promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// Nothing that was invalidated before.
    AtOnce,
    /// Nothing that was invalidated Δ before.
    Within,
    /// It says that it is stale.
    None,
}

/// One value that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read {
    pub(crate) class: Class,
    pub(crate) id: u16,
    /// Microseconds when the request was sent and answered.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) node: usize,
    pub(crate) version: u32,
    pub(crate) hit: bool,
    pub(crate) promise: Promise,
}

/// One write whose invalidation was answered with success.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Invalidation {
    pub(crate) class: Class,
    pub(crate) id: u16,
    pub(crate) end: u64,
    pub(crate) version: u32,
}

/// All that happened in a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) reads: Vec<Read>,
    pub(crate) invalidations: Vec<Invalidation>,
    /// Requests that failed, and writes whose invalidation was pending.
    pub(crate) failed_reads: u64,
    pub(crate) failed_writes: u64,
    pub(crate) pending_writes: u64,
    /// Writes that were pending or failed outside of every fault.
    pub(crate) trouble: Vec<u64>,
}

impl History {
    pub(crate) fn add(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.invalidations.extend(other.invalidations);
        self.failed_reads += other.failed_reads;
        self.failed_writes += other.failed_writes;
        self.pending_writes += other.pending_writes;
        self.trouble.extend(other.trouble);
    }
}

/// When something was broken, in microseconds, with the time it takes to recover.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

/// What a run showed of one class and promise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) reads: u64,
    /// Reads that began within Δ after an invalidation of their key.
    pub(crate) near: u64,
    pub(crate) violations: u64,
    /// Older than an invalidation, but not by more than Δ, where that is allowed.
    pub(crate) late: u64,
}

/// A read that broke the promise, and the version that it should have shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Violation {
    pub(crate) read: Read,
    pub(crate) floor: u32,
    /// How long before the read that one's invalidation was answered, in microseconds.
    pub(crate) after: u64,
}

/// A checked history.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checked {
    pub(crate) tallies: HashMap<(Class, Promise), Tally>,
    pub(crate) worst: Vec<Violation>,
    /// Reads and hits that began outside of every fault.
    pub(crate) calm_reads: u64,
    pub(crate) calm_hits: u64,
    pub(crate) invalidations: u64,
    pub(crate) failed: [u64; 3],
    /// Writes outside of every fault that were pending or failed.
    pub(crate) calm_trouble: u64,
}

/// How many violations are kept with all they say.
const KEPT: usize = 10;

impl Checked {
    pub(crate) fn new(history: &History, faults: &[Window]) -> Self {
        let mut floors: HashMap<(Class, u16), Vec<(u64, u32)>> = HashMap::new();
        for one in &history.invalidations {
            floors.entry((one.class, one.id)).or_default().push((one.end, one.version));
        }
        for ends in floors.values_mut() {
            ends.sort_unstable();
            let mut highest = 0;
            for (_, version) in ends {
                highest = highest.max(*version);
                *version = highest;
            }
        }
        let is_calm = |at: u64| !faults.iter().any(|fault| fault.begin <= at && at <= fault.end);
        let mut checked = Self {
            invalidations: history.invalidations.len() as u64,
            failed: [history.failed_reads, history.failed_writes, history.pending_writes],
            calm_trouble: history.trouble.iter().filter(|at| is_calm(**at)).count() as u64,
            ..Self::default()
        };
        for read in &history.reads {
            let ends = floors.get(&(read.class, read.id)).map(Vec::as_slice).unwrap_or_default();
            checked.take(read, ends);
            if is_calm(read.begin) && is_calm(read.end) {
                checked.calm_reads += 1;
                checked.calm_hits += u64::from(read.hit);
            }
        }
        checked
    }

    fn take(&mut self, read: &Read, ends: &[(u64, u32)]) {
        let tally = self.tallies.entry((read.class, read.promise)).or_default();
        tally.reads += 1;
        let now = last_before(ends, read.begin);
        if now.is_some_and(|(end, _)| read.begin - end <= DELTA) {
            tally.near += 1;
        }
        let at = match read.promise {
            Promise::AtOnce => now,
            Promise::Within => read.begin.checked_sub(DELTA).and_then(|at| last_before(ends, at)),
            Promise::None => return,
        };
        let is_older = |found: Option<(u64, u32)>| found.filter(|found| read.version < found.1);
        if is_older(at).is_none() {
            tally.late += u64::from(is_older(now).is_some());
            return;
        }
        tally.violations += 1;
        // The first invalidation that it does not know.
        let first = ends.iter().find(|(_, version)| read.version < *version);
        if let Some((end, floor)) = first.copied()
            && self.worst.len() < KEPT
        {
            self.worst.push(Violation { read: *read, floor, after: read.begin - end });
        }
    }

    pub(crate) fn total(&self) -> Tally {
        self.tallies.values().fold(Tally::default(), |all, one| Tally {
            reads: all.reads + one.reads,
            near: all.near + one.near,
            violations: all.violations + one.violations,
            late: all.late + one.late,
        })
    }
}

/// The last invalidation that was answered before `at`, with the highest version until then.
fn last_before(ends: &[(u64, u32)], at: u64) -> Option<(u64, u32)> {
    let place = ends.partition_point(|(end, _)| *end < at);
    place.checked_sub(1).and_then(|place| ends.get(place).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVALIDATED: u64 = 5_000_000;

    /// Version 7 of the key was invalidated at 5 s, version 6 a little later.
    #[track_caller]
    fn check(promise: Promise, version: u32, begin: u64, violations: u64, late: u64) {
        let invalidation = |end, version| Invalidation { class: Class::Tags, id: 1, end, version };
        let read = Read {
            class: Class::Tags,
            id: 1,
            begin,
            end: begin + 10,
            node: 0,
            version,
            hit: true,
            promise,
        };
        let other = Read { id: 2, ..read };
        let history = History {
            reads: vec![read, other],
            invalidations: vec![invalidation(INVALIDATED + 9, 6), invalidation(INVALIDATED, 7)],
            ..History::default()
        };
        let checked = Checked::new(&history, &[]);
        let total = checked.total();
        assert_eq!((total.reads, total.violations, total.late), (2, violations, late));
        assert_eq!(checked.worst.len() as u64, violations);
    }

    #[test]
    fn a_read_that_began_after_the_answer_shows_that_version_or_a_later_one() {
        check(Promise::AtOnce, 6, INVALIDATED, 0, 0);
        check(Promise::AtOnce, 6, INVALIDATED + 1, 1, 0);
        check(Promise::AtOnce, 6, INVALIDATED + 10, 1, 0);
        check(Promise::AtOnce, 7, INVALIDATED + 1, 0, 0);
        check(Promise::AtOnce, 8, INVALIDATED + 1, 0, 0);
    }

    #[test]
    fn what_is_promised_within_delta_may_be_late_but_no_longer() {
        check(Promise::Within, 6, INVALIDATED + 1, 0, 1);
        check(Promise::Within, 6, INVALIDATED + DELTA, 0, 1);
        check(Promise::Within, 6, INVALIDATED + DELTA + 1, 1, 0);
        check(Promise::Within, 7, INVALIDATED + DELTA + 1, 0, 0);
    }

    #[test]
    fn what_says_that_it_is_stale_breaks_nothing() {
        check(Promise::None, 1, INVALIDATED + 2 * DELTA, 0, 0);
    }

    #[test]
    fn hits_are_counted_outside_of_faults() {
        let read = |begin, hit| Read {
            class: Class::Keys,
            id: 1,
            begin,
            end: begin,
            node: 0,
            version: 1,
            hit,
            promise: Promise::AtOnce,
        };
        let reads = vec![read(1, true), read(5, false), read(9, false)];
        let history = History { reads, trouble: vec![2, 6], ..History::default() };
        let checked = Checked::new(&history, &[Window { begin: 4, end: 6 }]);
        assert_eq!((checked.calm_reads, checked.calm_hits, checked.calm_trouble), (2, 1, 1));
    }
}
