//! One tag: counters, epoch, floor, eviction of the counters, restarts, and a log that lags.
//!
//! | step | stands for |
//! |---|---|
//! | `GET`, then the question | `store/redis/read.rs` `Shared::fetch`, `groups.rs` `validities` |
//! | takes the counters | `read.rs` `begin_all`, `write.rs` `snapshot_on`: before the load |
//! | loads, stores | `load/lead.rs` `lead`, `load/storing.rs` `Unmarked::entry`, `FILL` |
//! | `INVALIDATE` | `store/redis/scripts.rs` `INVALIDATE`, by `courier.rs` `run_invalidate` |
//! | too many groups | the second half of `INVALIDATE`: old ones go, the floor is raised |
//! | evicts the counters | also `courier.rs` `run_invalidate` when Redis is out of memory |
//! | may be used | `invalidation.rs` `judge` |
//!
//! Invalidating a tag does not end the leases of its entries, so only the incarnation of a lease
//! matters here. *Asking* is a read from Redis: what has changed is asked for after every `GET`.
//! *Following* is the memory tier: a node judges by what it knows (`groups/table.rs`), which lags,
//! and of which an answer may bring the newest part only; then only what it knows of counts. A line
//! of the log is what has changed from one number to the next. Not here: soft invalidations,
//! several tags (each mark is judged by itself and the worst decides), and what is pending.

use crate::search::{Outcome, Protocol, Steps, search};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Sound,
    /// A mark is the time at the reader's node, which is a tick ahead; so is a generation.
    WallClock,
    /// The counters are taken when the value is stored.
    CounterAfterLoad,
    /// Counters that were lost begin again in the same epoch.
    NoEpoch,
    /// Too many groups are forgotten without raising the floor.
    NoFloor,
    /// What another run of the server wrote or allowed is used.
    NoIncarnation,
    /// A follower goes on behind a gap in the log.
    IgnoredGap,
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    use Variant::{
        CounterAfterLoad, IgnoredGap, NoEpoch, NoFloor, NoIncarnation, Sound, WallClock,
    };
    let run = |name, variant, follows| search(name, variant == Sound, Groups { variant, follows });
    vec![
        run("shipped: asking", Sound, false),
        run("shipped: following", Sound, true),
        run("wall clock instead of the counter", WallClock, false),
        run("counter taken after the load", CounterAfterLoad, false),
        run("no epoch", NoEpoch, false),
        run("no floor", NoFloor, false),
        run("no incarnation", NoIncarnation, false),
        run("a gap in the log is ignored", IgnoredGap, true),
    ]
}

struct Groups {
    variant: Variant,
    follows: bool,
}

/// The hash of a namespace, for one group.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Counters {
    epoch: u8,
    counter: u8,
    generation: u8,
    floor: u8,
}

/// What a value was read through.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Mark {
    epoch: u8,
    counter: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Entry {
    version: u8,
    mark: Mark,
    run: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Reader {
    Idle,
    Found { floor: u8, entry: Entry },
    Missed,
    Begun { mark: Mark, run: u8 },
    Loaded { mark: Mark, run: u8, version: u8 },
    Done,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Writer {
    Idle,
    Committed { version: u8 },
    Done,
}

/// A line of the log.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Line {
    after: Counters,
    /// The highest version whose invalidation is in it or before it.
    done: u8,
}

#[derive(Debug, Clone, Hash, PartialEq)]
struct State {
    source: u8,
    done: u8,
    counters: Option<Counters>,
    next_epoch: u8,
    entry: Option<Entry>,
    run: u8,
    dump: Option<(Option<Counters>, Option<Entry>)>,
    clock: u8,
    /// Following: lines that the node has not read, whether some were cut off, its copy.
    log: Vec<Line>,
    gap: bool,
    copy: Option<Counters>,
    copy_done: u8,
    readers: [Reader; 2],
    writers: [Writer; 2],
    evicted: bool,
    overflowed: bool,
    stale: bool,
}

const READERS: [&str; 2] = ["get 1", "get 2"];
const WRITERS: [&str; 2] = ["writer 1", "writer 2"];
const LAST_TICK: u8 = 1;

impl Groups {
    fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }

    fn judge(&self, entry: Entry, state: &State) -> bool {
        let counters = if self.follows { state.copy } else { state.counters };
        let Some(Counters { epoch, generation, floor, .. }) = counters else { return false };
        let run = entry.run == state.run || self.is(Variant::NoIncarnation);
        let Mark { epoch: of, counter } = entry.mark;
        run && of == epoch && counter >= floor && counter >= generation
    }

    /// Where the counters stand; they begin if there are none (`HSETNX`).
    fn begin(&self, state: &mut State) -> Counters {
        let fresh = Counters { epoch: state.next_epoch, counter: 0, generation: 0, floor: 0 };
        if state.counters.is_none() && !self.is(Variant::NoEpoch) {
            state.next_epoch += 1;
        }
        *state.counters.get_or_insert(fresh)
    }

    fn take(&self, state: &mut State) -> Mark {
        let counters = self.begin(state);
        let counter = if self.is(Variant::WallClock) { state.clock + 1 } else { counters.counter };
        Mark { epoch: counters.epoch, counter }
    }

    fn read(&self, now: &State, at: usize, steps: &mut Steps<'_, State>) {
        let (who, mut to) = (READERS[at], now.clone());
        match now.readers[at] {
            Reader::Idle => {
                let floor = if self.follows { now.copy_done } else { now.done };
                to.readers[at] = match now.entry {
                    Some(entry) => Reader::Found { floor, entry },
                    None => Reader::Missed,
                };
                steps.add(who, "GET", to);
            }
            Reader::Found { floor, entry } => {
                let valid = self.judge(entry, now);
                to.stale |= valid && entry.version < floor;
                to.readers[at] = if valid { Reader::Done } else { Reader::Missed };
                let does = if valid { "the question: a hit" } else { "the question: not valid" };
                steps.add_of(who, does, entry.version, to);
            }
            Reader::Missed => {
                let mark = self.take(&mut to);
                to.readers[at] = Reader::Begun { mark, run: now.run };
                steps.add(who, "takes the counters", to);
            }
            Reader::Begun { mark, run } => {
                to.readers[at] = Reader::Loaded { mark, run, version: now.source };
                steps.add_of(who, "loads", now.source, to);
            }
            Reader::Loaded { mark, run, version } => {
                to.readers[at] = Reader::Done;
                let refused = run != now.run && !self.is(Variant::NoIncarnation);
                let mark =
                    if self.is(Variant::CounterAfterLoad) { self.take(&mut to) } else { mark };
                if !refused {
                    to.entry = Some(Entry { version, mark, run: now.run });
                }
                let does = if refused { "FILL: refused" } else { "FILL: stored" };
                steps.add_of(who, does, version, to);
            }
            Reader::Done => {}
        }
    }

    fn write(&self, now: &State, at: usize, steps: &mut Steps<'_, State>) {
        let (who, mut to) = (WRITERS[at], now.clone());
        match now.writers[at] {
            Writer::Idle => {
                let version = now.source + 1;
                to.source = version;
                to.writers[at] = Writer::Committed { version };
                steps.add_of(who, "commits", version, to);
            }
            Writer::Committed { version } => {
                let mut counters = self.begin(&mut to);
                counters.counter += 1;
                counters.generation =
                    if self.is(Variant::WallClock) { now.clock } else { counters.counter };
                to.done = now.done.max(version);
                to.writers[at] = Writer::Done;
                self.log(&mut to, counters);
                steps.add_of(who, "INVALIDATE: it is in,", version, to);
            }
            Writer::Done => {}
        }
    }

    fn log(&self, state: &mut State, counters: Counters) {
        state.counters = Some(counters);
        if self.follows {
            state.log.push(Line { after: counters, done: state.done });
        }
    }

    /// The log is lost with the counters, or another one's: the follower must read all anew.
    fn lose_log(&self, state: &mut State) {
        state.gap = self.follows;
        state.log.clear();
    }

    fn follow(&self, now: &State, steps: &mut Steps<'_, State>) {
        if now.gap && !self.is(Variant::IgnoredGap) {
            let mut to = now.clone();
            (to.copy, to.copy_done) = (now.counters, now.done);
            (to.gap, to.log) = (false, Vec::new());
            return steps.add("node", "reads all counters anew", to);
        }
        let Some(Line { after, done }) = now.log.first().copied() else { return };
        let mut to = now.clone();
        to.log.remove(0);
        (to.copy, to.copy_done) = (Some(after), done);
        steps.add("node", "reads a line of the log", to);
        if now.log.len() > 1 {
            let mut to = State { gap: true, ..now.clone() };
            to.log.remove(0);
            if self.is(Variant::IgnoredGap) {
                // The next line says nothing of this group; the copy keeps what it knows of it.
                (to.copy_done, to.log) = (now.done, Vec::new());
                to.copy = to.copy.map(|copy| Counters { counter: after.counter + 1, ..copy });
            }
            steps.add("Redis", "cuts the oldest line off", to);
        }
    }
}

impl Protocol for Groups {
    type State = State;

    fn start(&self) -> State {
        State {
            source: 0,
            done: 0,
            counters: None,
            next_epoch: 0,
            entry: None,
            run: 0,
            dump: None,
            clock: 0,
            log: Vec::new(),
            gap: self.follows,
            copy: None,
            copy_done: 0,
            readers: [Reader::Idle; 2],
            writers: [Writer::Idle; 2],
            evicted: false,
            overflowed: false,
            stale: false,
        }
    }

    fn steps(&self, now: &State, steps: &mut Steps<'_, State>) {
        for at in 0..now.readers.len() {
            self.read(now, at, steps);
        }
        for at in 0..now.writers.len() {
            self.write(now, at, steps);
        }
        if self.follows {
            self.follow(now, steps);
        }
        if self.is(Variant::WallClock) && now.clock < LAST_TICK {
            steps.add("clock", "ticks", State { clock: now.clock + 1, ..now.clone() });
        }
        if let (Some(counters), false) = (now.counters, now.overflowed) {
            let mut to = State { overflowed: true, ..now.clone() };
            let counter = counters.counter + 1;
            let floor = if self.is(Variant::NoFloor) { 0 } else { counter };
            self.log(&mut to, Counters { counter, generation: 0, floor, ..counters });
            steps.add("Redis", "INVALIDATE of others: too many groups", to);
        }
        if now.counters.is_some() && !now.evicted {
            let mut to = State { evicted: true, counters: None, ..now.clone() };
            self.lose_log(&mut to);
            steps.add("Redis", "evicts the counters", to);
        }
        // A follower reads all anew after a restart, as after an eviction.
        if self.follows {
            return;
        }
        if now.dump.is_none() {
            let dump = Some((now.counters, now.entry));
            steps.add("Redis", "writes its dump", State { dump, ..now.clone() });
        } else if let (Some((counters, entry)), 0) = (now.dump, now.run) {
            let mut to = State { counters, entry, run: 1, ..now.clone() };
            self.lose_log(&mut to);
            steps.add("Redis", "restarts from its dump", to);
        }
    }

    fn is_broken(&self, state: &State) -> bool {
        state.stale
    }
}
