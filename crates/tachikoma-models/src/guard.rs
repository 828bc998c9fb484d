//! The write guard: while a writer holds one, nothing that a load brings is stored.
//!
//! Two gets fill by leases, as in the model of one key. Two writers take the value out and begin a
//! guard, commit, and end the guard: alone by publishing the new value, together with another by
//! taking the value out. A writer may be killed at any moment; its guard then ends by its time,
//! which is longer than a writer lives. A third writer has no guard: it commits and deletes.
//!
//! | step | in `tachikoma-cache` |
//! |---|---|
//! | takes a lease, asks about guards | `begin_all` in `store/redis/read.rs`, one pipeline |
//! | fills | the script `FILL` |
//! | begins its guard | the script `GUARD` |
//! | publishes, takes the value out | the script `END_GUARD` |
//! | deletes | `remove_of` in `store/redis/write.rs` |
//!
//! Kept: when no write is under way, what is cached is what the source has.

use crate::search::{Outcome, Protocol, Steps, search, with};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// A set of tokens, and whether two of them ever overlapped.
    Shipped,
    /// One token: who begins later replaces it.
    SingleToken,
    /// Who overlapped with another writer publishes all the same.
    PublishContended,
    /// A guard may end while its writer still runs.
    ShortGuard,
    /// A get asks about guards before it takes its lease.
    AskFirst,
    /// The end of a guard does not ask whether it still has the lease.
    PublishOverRemoval,
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    use Variant::{
        AskFirst, PublishContended, PublishOverRemoval, Shipped, ShortGuard, SingleToken,
    };
    let run = |name, variant| search(name, variant == Shipped, Guard { variant });
    vec![
        run("set of tokens", Shipped),
        run("single token", SingleToken),
        run("published though contended", PublishContended),
        run("guard shorter than its writer", ShortGuard),
        run("guards asked for before the lease", AskFirst),
        run("published over a removal", PublishOverRemoval),
    ]
}

struct Guard {
    variant: Variant,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Reader {
    Idle,
    /// There was no guard when it asked.
    Unguarded,
    Taken {
        token: u8,
    },
    Leased {
        token: u8,
    },
    Loaded {
        token: u8,
        version: u8,
    },
    Done,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Writer {
    Idle,
    Guarding,
    Committed { version: u8 },
    Done,
    Killed,
}

#[derive(Debug, Clone, Hash, PartialEq)]
struct State {
    source: u8,
    entry: Option<u8>,
    lease: Option<u8>,
    next_token: u8,
    /// Which writers' guards are open.
    open: [bool; 2],
    contended: bool,
    readers: [Reader; 2],
    writers: [Writer; 2],
    /// The writer without a guard.
    plain: Plain,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Plain {
    Idle,
    Committed,
    Done,
}

/// The token of a writer's guard, as a lease.
const GUARDS: u8 = 100;

const READERS: [&str; 2] = ["get 1", "get 2"];
const WRITERS: [&str; 2] = ["writer 1", "writer 2"];

impl State {
    fn close(&mut self, at: usize) {
        self.open[at] = false;
        self.contended &= self.open.contains(&true);
    }
}

impl Guard {
    fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }

    fn read(&self, now: &State, at: usize, steps: &mut Steps<'_, State>) {
        let (who, mut to) = (READERS[at], now.clone());
        match now.readers[at] {
            Reader::Idle if self.is(Variant::AskFirst) => {
                if !now.open.contains(&true) {
                    to.readers[at] = Reader::Unguarded;
                    steps.add(who, "asks about guards", to);
                }
            }
            Reader::Idle | Reader::Unguarded => {
                if now.entry.is_none() && now.lease.is_none() {
                    let token = now.next_token;
                    (to.lease, to.next_token) = (Some(token), token + 1);
                    let asked = now.readers[at] == Reader::Unguarded;
                    let next =
                        if asked { Reader::Leased { token } } else { Reader::Taken { token } };
                    to.readers[at] = next;
                    steps.add(who, "takes a lease", to);
                }
            }
            Reader::Taken { token } => {
                if now.open.contains(&true) {
                    to.lease = now.lease.filter(|lease| *lease != token);
                    to.readers[at] = Reader::Done;
                    steps.add(who, "finds a guard and gives its lease back", to);
                } else {
                    to.readers[at] = Reader::Leased { token };
                    steps.add(who, "asks about guards", to);
                }
            }
            Reader::Leased { token } => {
                to.readers[at] = Reader::Loaded { token, version: now.source };
                steps.add_of(who, "loads", now.source, to);
            }
            Reader::Loaded { token, version } => {
                to.readers[at] = Reader::Done;
                let stored = now.lease == Some(token);
                if stored {
                    (to.entry, to.lease) = (Some(version), None);
                }
                let does = if stored { "fills" } else { "is refused" };
                steps.add_of(who, does, version, to);
            }
            Reader::Done => {}
        }
    }

    fn write(&self, now: &State, at: usize, steps: &mut Steps<'_, State>) {
        let (who, mut to) = (WRITERS[at], now.clone());
        let token = u8::try_from(at).unwrap_or_default();
        let killed = || State { writers: with(&now.writers, at, Writer::Killed), ..now.clone() };
        match now.writers[at] {
            Writer::Idle => {
                (to.entry, to.lease) = (None, Some(GUARDS + token));
                if self.is(Variant::SingleToken) {
                    to.open = [false; 2];
                } else {
                    to.contended |= now.open.contains(&true);
                }
                to.open[at] = true;
                to.writers[at] = Writer::Guarding;
                steps.add(who, "begins its guard", to);
            }
            Writer::Guarding => {
                let version = now.source + 1;
                to.source = version;
                to.writers[at] = Writer::Committed { version };
                steps.add_of(who, "commits", version, to);
                steps.add(who, "is killed", killed());
            }
            Writer::Committed { version } => {
                let alone = !now.contended || self.is(Variant::PublishContended);
                let unchanged = now.lease == Some(GUARDS + token)
                    || self.is(Variant::PublishOverRemoval)
                    || self.is(Variant::PublishContended);
                let publishes = now.open[at] && alone && unchanged;
                (to.entry, to.lease) = (publishes.then_some(version), None);
                to.close(at);
                to.writers[at] = Writer::Done;
                let does = if publishes { "publishes" } else { "takes the value out, not" };
                steps.add_of(who, does, version, to);
                steps.add(who, "is killed", killed());
            }
            Writer::Done | Writer::Killed => {}
        }
        let over = now.writers[at] == Writer::Killed || self.is(Variant::ShortGuard);
        if now.open[at] && over {
            let mut to = now.clone();
            to.close(at);
            steps.add(who, "has a guard that ends by its time", to);
        }
    }
}

impl Protocol for Guard {
    type State = State;

    fn start(&self) -> State {
        State {
            source: 0,
            entry: None,
            lease: None,
            next_token: 0,
            open: [false; 2],
            contended: false,
            readers: [Reader::Idle; 2],
            writers: [Writer::Idle; 2],
            plain: Plain::Idle,
        }
    }

    fn steps(&self, now: &State, steps: &mut Steps<'_, State>) {
        for at in 0..2 {
            self.read(now, at, steps);
            self.write(now, at, steps);
        }
        let mut to = now.clone();
        match now.plain {
            Plain::Idle => {
                (to.source, to.plain) = (now.source + 1, Plain::Committed);
                steps.add("writer without guard", "commits", to);
            }
            Plain::Committed => {
                (to.entry, to.lease, to.plain) = (None, None, Plain::Done);
                steps.add("writer without guard", "deletes", to);
            }
            Plain::Done => {}
        }
        if now.lease.is_some() {
            steps.add("Redis", "lets the lease expire", State { lease: None, ..now.clone() });
        }
        if now.entry.is_some() {
            steps.add("Redis", "evicts the entry", State { entry: None, ..now.clone() });
        }
    }

    fn is_broken(&self, state: &State) -> bool {
        let under_way =
            |writer: &Writer| matches!(writer, Writer::Guarding | Writer::Committed { .. });
        !state.writers.iter().any(under_way)
            && state.plain != Plain::Committed
            && state.entry.is_some_and(|version| version != state.source)
    }
}
