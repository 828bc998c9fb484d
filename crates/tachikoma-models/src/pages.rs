//! A page that notes of a key what the process knows of its group, and the deletion of that key.
//!
//! | Step | In the code |
//! |---|---|
//! | the node hears the counter | `Tables::hear`: a question went along with a read |
//! | the page or the copy notes what is known | `Shared::reading`, `TieredStore::known` |
//! | the page reads in Redis, in memory, or loads | `Reading::entry`, `Reading::value` |
//! | a writer removes, then raises the group | `Shared::remove_of`, `courier::outdate` |
//! | a load is stored under its lease | the script `FILL` |
//!
//! Kept: when the node has read every push, no page that may be used shows a value that was deleted
//! before. How marks pass through nested loads is the model `dependencies`.

use crate::search::{Outcome, Protocol, Steps, search};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Shipped,
    /// The group is raised before the key is removed.
    RaisedFirst,
    /// What is read in memory is noted with the counter that is known when the page is begun.
    AtStart,
    /// What is read in Redis is noted with the counter that is known after it.
    AfterRead,
    /// That there is nothing is not noted.
    NothingNotNoted,
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    use Variant::{AfterRead, AtStart, NothingNotNoted, RaisedFirst, Shipped};
    let run = |name, variant| search(name, variant == Shipped, Pages { variant });
    vec![
        run("counters known before the read", Shipped),
        run("the group raised before the removal", RaisedFirst),
        run("the page's start for a copy in memory", AtStart),
        run("counters known after the read", AfterRead),
        run("nothing is no dependency", NothingNotNoted),
    ]
}

struct Pages {
    variant: Variant,
}

/// A version that is shown, with the counter that was noted; `None`: nothing was.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Shown {
    version: u8,
    mark: Option<u8>,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Load {
    Idle,
    Begun { may_store: bool },
    Read { may_store: bool, version: u8 },
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Reader {
    Idle,
    Noted {
        at: u8,
    },
    /// It has read, and has still to note.
    Read {
        version: u8,
    },
    Done,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Writer {
    Idle,
    Committed {
        version: u8,
    },
    /// One of its two steps is done.
    Half {
        version: u8,
    },
    Done,
}

#[derive(Debug, Clone, Hash, PartialEq)]
struct State {
    source: u8,
    /// The version of the newest deletion that has ended.
    done: u8,
    redis: Option<u8>,
    counter: u8,
    /// Of the key's group.
    generation: u8,
    /// What the node knows of the counter.
    known: u8,
    copy: Option<Shown>,
    /// The node asks for a copy: the counter that was known, and whether a push came since.
    copying: Option<(u8, bool)>,
    push: bool,
    load: Load,
    reader: Reader,
    page: Option<Shown>,
    writers: [Writer; 2],
}

const WRITERS: [&str; 2] = ["writer 1", "writer 2"];

impl Pages {
    /// The page, and the load that it may need.
    fn page(&self, now: &State, steps: &mut Steps<'_, State>) {
        let done = |version, mark| {
            let page = Some(Shown { version, mark });
            State { page, reader: Reader::Done, ..now.clone() }
        };
        match now.reader {
            Reader::Idle => {
                let reader = Reader::Noted { at: now.known };
                steps.add("page", "notes what is known", State { reader, ..now.clone() });
            }
            Reader::Noted { at } => {
                if let Some(copy) = now.copy {
                    let at_start = self.variant == Variant::AtStart;
                    let mark = if at_start { Some(at) } else { copy.mark };
                    steps.add_of("page", "reads in memory", copy.version, done(copy.version, mark));
                }
                match now.redis {
                    Some(version) if self.variant == Variant::AfterRead => {
                        let reader = Reader::Read { version };
                        let to = State { reader, ..now.clone() };
                        steps.add_of("page", "reads in Redis", version, to);
                    }
                    Some(version) => {
                        steps.add_of("page", "reads in Redis", version, done(version, Some(at)));
                    }
                    None => {
                        // It asks the source itself, and stores nothing.
                        let is_noted = self.variant != Variant::NothingNotNoted;
                        let to = done(now.source, is_noted.then_some(at));
                        steps.add_of("page", "finds nothing, reads the source", now.source, to);
                    }
                }
            }
            Reader::Read { version } => {
                let to = done(version, Some(now.known));
                steps.add_of("page", "notes what is known", version, to);
            }
            Reader::Done => {}
        }
    }

    fn load(now: &State, steps: &mut Steps<'_, State>) {
        let mut to = now.clone();
        match now.load {
            Load::Idle if now.redis.is_none() => {
                to.load = Load::Begun { may_store: true };
                steps.add("load", "takes the lease", to);
            }
            Load::Begun { may_store } => {
                to.load = Load::Read { may_store, version: now.source };
                steps.add_of("load", "reads the source", now.source, to);
            }
            Load::Read { may_store, version } => {
                to.load = Load::Idle;
                to.redis = if may_store { Some(version) } else { now.redis };
                steps.add_of("load", "stores if it may", version, to);
            }
            Load::Idle => {}
        }
    }

    fn node(now: &State, steps: &mut Steps<'_, State>) {
        if now.known != now.counter {
            steps.add("node", "hears the counter", State { known: now.counter, ..now.clone() });
        }
        match (now.copying, now.redis) {
            (None, _) if now.copy.is_none() => {
                let copying = Some((now.known, false));
                steps.add("node", "marks the key, notes", State { copying, ..now.clone() });
            }
            (Some((at, false)), Some(version)) => {
                let copy = Some(Shown { version, mark: Some(at) });
                let to = State { copy, copying: None, ..now.clone() };
                steps.add_of("node", "keeps a copy", version, to);
            }
            (Some(_), _) => {
                steps.add("node", "keeps no copy", State { copying: None, ..now.clone() });
            }
            (None, _) => {}
        }
        if now.push {
            let copying = now.copying.map(|(at, _)| (at, true));
            let to = State { push: false, copy: None, copying, ..now.clone() };
            steps.add("node", "reads the push", to);
        }
    }

    fn writer(&self, at: usize, now: &State, steps: &mut Steps<'_, State>) {
        let who = WRITERS[at];
        let mut to = now.clone();
        let raised_first = self.variant == Variant::RaisedFirst;
        let (version, is_last) = match now.writers[at] {
            Writer::Idle => {
                let version = now.source + 1;
                (to.source, to.writers[at]) = (version, Writer::Committed { version });
                return steps.add_of(who, "commits", version, to);
            }
            Writer::Committed { version } => (version, false),
            Writer::Half { version } => (version, true),
            Writer::Done => return,
        };
        if is_last {
            (to.writers[at], to.done) = (Writer::Done, now.done.max(version));
        } else {
            to.writers[at] = Writer::Half { version };
        }
        if is_last == raised_first {
            (to.redis, to.push) = (None, true);
            to.load = match now.load {
                Load::Begun { .. } => Load::Begun { may_store: false },
                Load::Read { version, .. } => Load::Read { may_store: false, version },
                Load::Idle => Load::Idle,
            };
            steps.add(who, "removes the key and its lease", to);
        } else {
            (to.counter, to.generation) = (now.counter + 1, now.counter + 1);
            steps.add(who, "raises the group", to);
        }
    }
}

impl Protocol for Pages {
    type State = State;

    fn start(&self) -> State {
        State {
            source: 0,
            done: 0,
            redis: None,
            counter: 0,
            generation: 0,
            known: 0,
            copy: None,
            copying: None,
            push: false,
            load: Load::Idle,
            reader: Reader::Idle,
            page: None,
            writers: [Writer::Idle; 2],
        }
    }

    fn steps(&self, now: &State, steps: &mut Steps<'_, State>) {
        Self::load(now, steps);
        Self::node(now, steps);
        self.page(now, steps);
        for at in 0..WRITERS.len() {
            self.writer(at, now, steps);
        }
    }

    fn is_broken(&self, state: &State) -> bool {
        let may_be_used = |page: &Shown| page.mark.is_none_or(|mark| mark >= state.generation);
        !state.push
            && state.page.is_some_and(|page| may_be_used(&page) && page.version < state.done)
    }
}
