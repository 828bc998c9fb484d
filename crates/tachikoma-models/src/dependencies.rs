//! A page that is made of cached entries, also through nested loads, and the invalidation of one.
//!
//! How marks pass on: of what was read to what is made of it, the lowest of each group. Which
//! counter a read notes in the first place is the model `pages`; here it is that of the mission's
//! own load, the earliest that there is. A mission is kept in the memory of a node, which hears
//! of changes late. A part of the page is a load of its own that reads the mission and is stored in
//! Redis; the page reads that part, and the mission once more. Each entry carries the counter that
//! the mission was *read through*: that of the mission's own entry, taken before its source was
//! read. The page carries the lowest that anything in it carries.
//!
//! Kept: when the node has heard of everything, no page or part that may be used shows a mission
//! that was invalidated before.

use crate::search::{Outcome, Protocol, Steps, search};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Carried,
    /// What is made carries the counter of Redis when it was begun.
    AtStart,
    /// What is made carries the counter of the node's copy of the log when it was begun.
    FromLog,
    /// A page carries only what it read itself, not what was read for its parts.
    DirectOnly,
    /// Of two counters of one group the page carries the later.
    LatestWins,
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    use Variant::{AtStart, Carried, DirectOnly, FromLog, LatestWins};
    let run = |name, variant| search(name, variant == Carried, Dependencies { variant });
    vec![
        run("marks carried", Carried),
        run("marks of the render's start", AtStart),
        run("marks from the node's log", FromLog),
        run("marks of nested loads dropped", DirectOnly),
        run("the latest mark wins", LatestWins),
    ]
}

struct Dependencies {
    variant: Variant,
}

/// A value that shows the mission, and the counter that it carries; `None`: no mark of the mission.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Entry {
    version: u8,
    mark: Option<u8>,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Load {
    Idle,
    Begun { mark: u8 },
    Read { mark: u8, entry: Entry },
    Done,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Writer {
    Idle,
    Committed,
    Done,
}

#[derive(Debug, Clone, Hash, PartialEq)]
struct State {
    source: u8,
    done: u8,
    counter: u8,
    /// Of the mission's group.
    generation: u8,
    /// The node: its copy of the log, the mission in its memory, a load of it, a push on its way.
    log: u8,
    mission: Option<Entry>,
    loading: Load,
    push: bool,
    /// In Redis.
    part: Option<Entry>,
    page: Option<Entry>,
    part_load: Load,
    page_load: Load,
    writers: [Writer; 2],
}

const WRITERS: [&str; 2] = ["writer 1", "writer 2"];

impl State {
    fn may_be_used(&self, entry: Entry) -> bool {
        entry.mark.is_none_or(|mark| mark >= self.generation)
    }
}

impl Dependencies {
    fn begin(&self, now: &State) -> Load {
        let of_log = self.variant == Variant::FromLog;
        Load::Begun { mark: if of_log { now.log } else { now.counter } }
    }

    /// What is stored of what was read.
    fn made(&self, mark: u8, read: Entry) -> Entry {
        match self.variant {
            Variant::AtStart | Variant::FromLog => Entry { mark: Some(mark), ..read },
            _ => read,
        }
    }

    /// The mission: into memory, with the counter before its load.
    fn load(now: &State, steps: &mut Steps<'_, State>) {
        let mut to = now.clone();
        match now.loading {
            Load::Idle if now.mission.is_none() => {
                to.loading = Load::Begun { mark: now.counter };
                steps.add("mission", "takes the counter", to);
            }
            Load::Begun { mark } => {
                let entry = Entry { version: now.source, mark: Some(mark) };
                to.loading = Load::Read { mark, entry };
                steps.add_of("mission", "is loaded", now.source, to);
            }
            Load::Read { entry, .. } => {
                // A marker that a push dirtied keeps it out.
                to.mission = (!now.push).then_some(entry);
                to.loading = Load::Idle;
                steps.add_of("mission", "is kept in memory", entry.version, to);
            }
            Load::Idle | Load::Done => {}
        }
    }

    fn part(&self, now: &State, steps: &mut Steps<'_, State>) {
        let mut to = now.clone();
        match (now.part_load, now.mission) {
            (Load::Idle, _) => {
                to.part_load = self.begin(now);
                steps.add("part", "is begun", to);
            }
            (Load::Begun { mark }, Some(entry)) => {
                to.part_load = Load::Read { mark, entry };
                steps.add_of("part", "reads the mission in memory", entry.version, to);
            }
            (Load::Read { mark, entry }, _) => {
                to.part = Some(self.made(mark, entry));
                to.part_load = Load::Done;
                steps.add_of("part", "is stored", entry.version, to);
            }
            (Load::Begun { .. } | Load::Done, _) => {}
        }
    }

    fn page(&self, now: &State, steps: &mut Steps<'_, State>) {
        let mut to = now.clone();
        match now.page_load {
            Load::Idle => {
                to.page_load = self.begin(now);
                steps.add("page", "is begun", to);
            }
            Load::Begun { mark } => {
                // From the entry, which may be used now, or from the nested load under way.
                let stored = now.part.filter(|part| now.may_be_used(*part));
                let nested = match now.part_load {
                    Load::Read { mark, entry } => Some(self.made(mark, entry)),
                    _ => None,
                };
                for part in [stored, nested].into_iter().flatten() {
                    let mut entry = part;
                    if self.variant == Variant::DirectOnly {
                        entry.mark = None;
                    }
                    let to = State { page_load: Load::Read { mark, entry }, ..now.clone() };
                    steps.add_of("page", "reads the part", entry.version, to);
                }
            }
            Load::Read { mark, entry } => {
                to.page = Some(self.made(mark, entry));
                to.page_load = Load::Done;
                steps.add_of("page", "is stored", entry.version, to);
                if let Some(direct) = now.mission {
                    let both = [entry.mark, direct.mark].into_iter().flatten();
                    let lowest =
                        if self.variant == Variant::LatestWins { both.max() } else { both.min() };
                    let version = entry.version.min(direct.version);
                    let page = self.made(mark, Entry { version, mark: lowest });
                    let page_load = Load::Done;
                    let to = State { page: Some(page), page_load, ..now.clone() };
                    steps.add_of("page", "reads the mission too, is stored", version, to);
                }
            }
            Load::Done => {}
        }
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
            log: 0,
            mission: None,
            loading: Load::Idle,
            push: false,
            part: None,
            page: None,
            part_load: Load::Idle,
            page_load: Load::Idle,
            writers: [Writer::Idle; 2],
        }
    }

    fn steps(&self, now: &State, steps: &mut Steps<'_, State>) {
        Self::load(now, steps);
        self.part(now, steps);
        self.page(now, steps);
        for (at, who) in WRITERS.into_iter().enumerate() {
            let mut to = now.clone();
            match now.writers[at] {
                Writer::Idle => {
                    (to.source, to.writers[at]) = (now.source + 1, Writer::Committed);
                    steps.add_of(who, "commits", now.source + 1, to);
                }
                Writer::Committed => {
                    (to.counter, to.generation) = (now.counter + 1, now.counter + 1);
                    (to.done, to.writers[at], to.push) = (now.source, Writer::Done, true);
                    steps.add(who, "deletes the mission: counter and push", to);
                }
                Writer::Done => {}
            }
        }
        if now.push {
            let to = State { push: false, mission: None, ..now.clone() };
            steps.add("node", "reads the push", to);
        }
        if now.log != now.counter {
            steps.add("node", "reads the log", State { log: now.counter, ..now.clone() });
        }
    }

    fn is_broken(&self, state: &State) -> bool {
        let stale = |entry: &Option<Entry>| {
            entry.is_some_and(|entry| state.may_be_used(entry) && entry.version < state.done)
        };
        !state.push && state.log == state.counter && (stale(&state.part) || stale(&state.page))
    }
}
