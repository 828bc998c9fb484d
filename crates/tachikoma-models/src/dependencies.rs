//! A page that is made of cached entries, also through nested loads, and the removal of one.
//!
//! | step | stands for |
//! |---|---|
//! | is begun | `reading.rs` `Shared::recorded`: the counter that is known before the lookup |
//! | reads the copy | `reading.rs` `Reading::entry`: the counter known before the copy was read |
//! | reads the entry, joins the load | `Reading::value`: the counter of the lookup's begin |
//! | marks, keeps a copy | `store/tiered.rs` `read`, `near.rs` `Marked::keep` |
//! | takes the lease, fills | as in the model `lease`: a removal ends it |
//! | removes, counts | `store/redis/courier.rs` `unlink`, `outdate`: the key first, then its group |
//! | reads the part | `dependencies.rs` `Recorder::add_all`: of several counters the lowest |
//!
//! A mission is cached in Redis and copied into the memory of a node, which hears of changes and of
//! the counter late. A part of the page is a load of its own that reads the mission and is stored;
//! the page reads that part, or the mission itself, or both.
//!
//! Kept: no page or part that may be used shows a mission that was removed before. It may be used
//! by what the server knows; that a node knows it later is the model `groups`.

use crate::search::{Outcome, Protocol, Steps, search};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Shipped,
    /// What is made carries the counter of the moment when its parts have been read.
    AtEnd,
    /// A copy counts as read when it is shown, not when it was read from the server.
    CopyAsNow,
    /// A removal counts in the group of the key before the key goes.
    CountedFirst,
    /// Who joins while the value is stored gets it if it was stored.
    JoinWhileStoring,
    /// A page carries only what it read itself, not what was read for its parts.
    DirectOnly,
    /// Of two counters of one group the page carries the later.
    LatestWins,
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    use Variant::{
        AtEnd, CopyAsNow, CountedFirst, DirectOnly, JoinWhileStoring, LatestWins, Shipped,
    };
    let run = |name, variant| search(name, variant == Shipped, Dependencies { variant });
    vec![
        run("marks carried", Shipped),
        run("marks of the render's end", AtEnd),
        run("a copy counts as read when it is shown", CopyAsNow),
        run("the group counts before the key goes", CountedFirst),
        run("joined while it is stored", JoinWhileStoring),
        run("marks of nested loads dropped", DirectOnly),
        run("the latest mark wins", LatestWins),
    ]
}

struct Dependencies {
    variant: Variant,
}

/// What shows the mission, and the counter that it carries; `None`: no mark of the mission.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Shown {
    version: u8,
    mark: Option<u8>,
}

/// The load of the mission.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Load {
    Idle,
    Begun,
    Read(u8),
    /// It was stored or refused, and the node has not heard which.
    Stored(u8, bool),
}

/// Who makes the part or the page.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Maker {
    Idle,
    Begun { at: u8 },
    Joined { at: u8 },
    Read(Shown),
    Done,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Writer {
    Idle,
    Committed { version: u8 },
    Half { version: u8 },
    Done,
}

#[derive(Debug, Clone, Hash, PartialEq)]
struct State {
    source: u8,
    /// The highest version whose removal was answered.
    done: u8,
    counter: u8,
    /// Of the mission's group.
    generation: u8,
    /// The mission in Redis, and whether the load still has its lease.
    entry: Option<u8>,
    lease: bool,
    load: Load,
    /// The node: the counter that it knows, a copy with the counter from before it was read, the
    /// mark of one on its way, a push on its way.
    known: u8,
    copy: Option<Shown>,
    marked: Option<u8>,
    push: bool,
    /// In Redis.
    part: Option<Shown>,
    page: Option<Shown>,
    part_maker: Maker,
    page_maker: Maker,
    writers: [Writer; 2],
}

const WRITERS: [&str; 2] = ["writer 1", "writer 2"];

impl State {
    fn may_be_used(&self, shown: Shown) -> bool {
        shown.mark.is_none_or(|mark| mark >= self.generation)
    }
}

impl Dependencies {
    fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }

    fn load(now: &State, steps: &mut Steps<'_, State>) {
        let mut to = now.clone();
        match now.load {
            Load::Idle if now.entry.is_none() => {
                (to.load, to.lease) = (Load::Begun, true);
                steps.add("load", "takes the lease", to);
            }
            Load::Begun => {
                to.load = Load::Read(now.source);
                steps.add_of("load", "reads", now.source, to);
            }
            Load::Read(version) => {
                to.entry = if now.lease { Some(version) } else { now.entry };
                (to.load, to.lease) = (Load::Stored(version, now.lease), false);
                steps.add_of("load", "fills or is refused", version, to);
            }
            Load::Stored(version, stored) => {
                to.load = Load::Idle;
                for maker in [&mut to.part_maker, &mut to.page_maker] {
                    if let Maker::Joined { at } = *maker {
                        // Who gets nothing looks it up again.
                        let shown = Shown { version, mark: Some(at) };
                        *maker = if stored { Maker::Read(shown) } else { Maker::Begun { at } };
                    }
                }
                steps.add_of("load", "hears the verdict", version, to);
            }
            Load::Idle => {}
        }
    }

    fn copy(now: &State, steps: &mut Steps<'_, State>) {
        if now.copy.is_none() && now.marked.is_none() {
            steps.add("node", "marks the key", State { marked: Some(now.known), ..now.clone() });
        }
        if let (Some(seen), Some(version)) = (now.marked, now.entry) {
            let copy = Some(Shown { version, mark: Some(seen) });
            let to = State { copy, marked: None, ..now.clone() };
            steps.add_of("node", "reads the entry, keeps a copy", version, to);
        }
    }

    /// The ways to read the mission, of who began with this counter.
    fn mission(&self, now: &State, at: u8) -> Vec<Maker> {
        let mut ways = Vec::new();
        if let Some(copy) = now.copy {
            let mark = if self.is(Variant::CopyAsNow) { Some(at) } else { copy.mark };
            ways.push(Maker::Read(Shown { mark, ..copy }));
        } else if let Some(version) = now.entry {
            ways.push(Maker::Read(Shown { version, mark: Some(at) }));
        }
        let joins = match now.load {
            Load::Begun | Load::Read(_) => true,
            Load::Stored(..) => self.is(Variant::JoinWhileStoring),
            Load::Idle => false,
        };
        if joins {
            ways.push(Maker::Joined { at });
        }
        ways
    }

    /// What is stored of what was read.
    fn made(&self, now: &State, read: Shown) -> Shown {
        if self.is(Variant::AtEnd) { Shown { mark: Some(now.known), ..read } } else { read }
    }

    fn part(&self, now: &State, steps: &mut Steps<'_, State>) {
        match now.part_maker {
            Maker::Idle => {
                let part_maker = Maker::Begun { at: now.known };
                steps.add("part", "is begun", State { part_maker, ..now.clone() });
            }
            Maker::Begun { at } => {
                for part_maker in self.mission(now, at) {
                    let to = State { part_maker, ..now.clone() };
                    steps.add("part", "reads the mission or joins its load", to);
                }
            }
            Maker::Read(shown) => {
                let part = Some(self.made(now, shown));
                let to = State { part, part_maker: Maker::Done, ..now.clone() };
                steps.add_of("part", "is stored", shown.version, to);
            }
            Maker::Joined { .. } | Maker::Done => {}
        }
    }

    fn page(&self, now: &State, steps: &mut Steps<'_, State>) {
        match now.page_maker {
            Maker::Idle => {
                let page_maker = Maker::Begun { at: now.known };
                steps.add("page", "is begun", State { page_maker, ..now.clone() });
            }
            Maker::Begun { at } => {
                for page_maker in self.mission(now, at) {
                    let to = State { page_maker, ..now.clone() };
                    steps.add("page", "reads the mission or joins its load", to);
                }
                if let Some(part) = now.part.filter(|part| now.may_be_used(*part)) {
                    let mark = part.mark.filter(|_| !self.is(Variant::DirectOnly));
                    let page_maker = Maker::Read(Shown { mark, ..part });
                    let to = State { page_maker, ..now.clone() };
                    steps.add_of("page", "reads the part", part.version, to);
                }
            }
            Maker::Read(shown) => {
                let store = |shown| {
                    let page = Some(self.made(now, shown));
                    State { page, page_maker: Maker::Done, ..now.clone() }
                };
                steps.add_of("page", "is stored", shown.version, store(shown));
                for way in self.mission(now, now.known) {
                    let Maker::Read(more) = way else { continue };
                    let marks = [shown.mark, more.mark].into_iter().flatten();
                    let latest = self.is(Variant::LatestWins);
                    let mark = if latest { marks.max() } else { marks.min() };
                    let version = shown.version.min(more.version);
                    let to = store(Shown { version, mark });
                    steps.add_of("page", "reads the mission too, is stored", version, to);
                }
            }
            Maker::Joined { .. } | Maker::Done => {}
        }
    }

    fn write(&self, now: &State, at: usize, steps: &mut Steps<'_, State>) {
        let mut to = now.clone();
        let mut remove = |goes: bool| {
            if goes {
                (to.entry, to.lease, to.push) = (None, false, true);
                "removes the mission"
            } else {
                (to.counter, to.generation) = (now.counter + 1, now.counter + 1);
                "counts in its group"
            }
        };
        let counted_first = self.is(Variant::CountedFirst);
        let does = match now.writers[at] {
            Writer::Idle => {
                to.source += 1;
                to.writers[at] = Writer::Committed { version: to.source };
                "commits"
            }
            Writer::Committed { version } => {
                let does = remove(!counted_first);
                to.writers[at] = Writer::Half { version };
                does
            }
            Writer::Half { version } => {
                let does = remove(counted_first);
                (to.writers[at], to.done) = (Writer::Done, now.done.max(version));
                does
            }
            Writer::Done => return,
        };
        steps.add(WRITERS[at], does, to);
    }
}

impl Protocol for Dependencies {
    type State = State;

    fn start(&self) -> State {
        State {
            source: 0,
            done: 0,
            counter: 0,
            generation: 0,
            entry: None,
            lease: false,
            load: Load::Idle,
            known: 0,
            copy: None,
            marked: None,
            push: false,
            part: None,
            page: None,
            part_maker: Maker::Idle,
            page_maker: Maker::Idle,
            writers: [Writer::Idle; 2],
        }
    }

    fn steps(&self, now: &State, steps: &mut Steps<'_, State>) {
        Self::load(now, steps);
        Self::copy(now, steps);
        self.part(now, steps);
        self.page(now, steps);
        for at in 0..now.writers.len() {
            self.write(now, at, steps);
        }
        if now.push {
            let to = State { push: false, copy: None, marked: None, ..now.clone() };
            steps.add("node", "hears of a change of the mission", to);
        }
        if now.known != now.counter {
            steps.add("node", "hears the counter", State { known: now.counter, ..now.clone() });
        }
    }

    fn is_broken(&self, state: &State) -> bool {
        let stale = |shown: &Option<Shown>| {
            shown.is_some_and(|shown| state.may_be_used(shown) && shown.version < state.done)
        };
        stale(&state.part) || stale(&state.page)
    }
}
