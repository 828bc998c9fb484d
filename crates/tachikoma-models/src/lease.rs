//! One key: leases, the single flight inside a process, and restarts that lose the last writes.
//!
//! | step | stands for |
//! |---|---|
//! | `GET`, at the start of a get | `store/redis/read.rs` `Shared::read` |
//! | joins, leads | `load.rs` `run`, `load/flight.rs` `FlightTable::join` |
//! | `SET lease NX`, then `GET` | `store/redis/read.rs` `begin_all` (a pipeline: two commands) |
//! | cannot ask the store | `load/lead.rs` `Right::Nothing`: the store failed |
//! | loads, gives its value out | `load/lead.rs` `lead`, `store`; `load/crew.rs` `Crew` |
//! | `FILL` | `store/redis/scripts.rs` `FILL`, asked for by `write.rs` `fill` and `may_fill` |
//! | `UNLINK lease`, `UNLINK entry` | `store/redis/write.rs` `remove_of`, `courier.rs` `unlink` |
//! | takes the load out of the table | `cache/invalidate.rs` `remove_keys` (`detach_all`) |
//! | restarts from its dump | another run: `Connection::incarnation`, `read.rs` `is_current` |
//!
//! Three gets and a writer, or two of each, in two processes. A lease may end and an entry may be
//! evicted at any moment, which is also what a dead holder looks like to the others; that a living
//! one renews its lease (`RENEW`) makes it end later and is no step. Not here: entries that are
//! kept stale for those who accept them, values set without a load (`When::Always`, `When::Absent`;
//! they end the lease in the transaction that stores them), and what one process has pending.

use crate::search::{Outcome, Protocol, Steps, search, with};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Shipped,
    /// A load takes no lease and stores what it brings.
    NoLease,
    /// The lease is a lock: only one loads, but the fill does not ask whether it still holds it.
    BlindFill,
    /// All loads of a process have the same token.
    TokenPerProcess,
    /// A removal takes the entry out before it ends the lease.
    EntryBeforeLease,
    /// Who joins while the load reads gets the value as soon as it is there.
    PlainSingleFlight,
    /// Who joins while the value is stored gets it if it was stored.
    JoinWhileStoring,
    /// A load that could not ask the store is shared by all who join it.
    SharedOutage,
    /// What another run of the server wrote or allowed is used.
    NoIncarnation,
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    use Variant::{
        BlindFill, EntryBeforeLease, JoinWhileStoring, NoIncarnation, NoLease, PlainSingleFlight,
        SharedOutage, Shipped, TokenPerProcess,
    };
    let run = |name, variant, writer| {
        let lease = Lease::<3, 1> { variant, writer, restarts: false };
        search(name, variant == Shipped, lease)
    };
    let restarted = |name, variant| {
        let lease = Lease::<2, 2> { variant, writer: A, restarts: true };
        search(name, variant == Shipped, lease)
    };
    vec![
        run("shipped, the writer on node A", Shipped, A),
        run("shipped, the writer on node B", Shipped, B),
        restarted("shipped, two writers and a restart", Shipped),
        run("no lease", NoLease, B),
        run("lock, then blind fill", BlindFill, B),
        run("token for each process", TokenPerProcess, A),
        run("entry removed before lease", EntryBeforeLease, B),
        run("plain single flight", PlainSingleFlight, B),
        run("joined while it is stored", JoinWhileStoring, B),
        run("joined though the store is away", SharedOutage, B),
        restarted("no incarnation", NoIncarnation),
    ]
}

/// The processes.
const A: usize = 0;
const B: usize = 1;

struct Lease<const READERS: usize, const WRITERS: usize> {
    variant: Variant,
    /// The process of the first writer.
    writer: usize,
    restarts: bool,
}

/// In Redis.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Entry {
    version: u8,
    run: u8,
}

/// When a caller joined a load (`load/crew.rs`).
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Joined {
    BeforeReading,
    Reading,
    Storing,
}

/// The right to store that a load has.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Right {
    /// `None`: another one holds the lease, or the store could not be asked.
    token: Option<u8>,
    run: u8,
    away: bool,
}

/// Where a get stands. `floor`: the highest version whose invalidation was in when it began.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Reader {
    Idle,
    /// It waited in vain and asks once more.
    Again {
        floor: u8,
    },
    Missed {
        floor: u8,
        again: bool,
    },
    Joined {
        floor: u8,
        leader: usize,
        when: Joined,
    },
    Leading {
        floor: u8,
    },
    /// Another one holds the lease; it asks again.
    Waiting {
        floor: u8,
    },
    Begun {
        floor: u8,
        right: Right,
    },
    Ready {
        floor: u8,
        right: Right,
    },
    Loaded {
        floor: u8,
        right: Right,
        version: u8,
    },
    Storing {
        right: Right,
        version: u8,
    },
    /// The answer is on its way. `None`: the connection was lost.
    Answered {
        version: u8,
        stored: Option<bool>,
    },
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
struct State<const READERS: usize, const WRITERS: usize> {
    /// The version in the source.
    source: u8,
    /// The highest version whose invalidation was answered.
    done: u8,
    entry: Option<Entry>,
    lease: Option<u8>,
    run: u8,
    next_token: u8,
    dump: Option<(Option<Entry>, Option<u8>)>,
    /// Which load of the key is in the table of each process.
    table: [Option<usize>; 2],
    readers: [Reader; READERS],
    writers: [Writer; WRITERS],
    stale: bool,
}

const READERS: [&str; 3] = ["get 1 (node A)", "get 2 (node A)", "get 3 (node B)"];
const WRITERS: [&str; 2] = ["writer on A", "writer on B"];

impl<const R: usize, const W: usize> Lease<R, W> {
    /// With two gets both are of one process.
    fn process_of(reader: usize) -> usize {
        if reader == 2 { B } else { A }
    }

    fn shows(&self, state: &State<R, W>) -> Option<u8> {
        let entry = state.entry?;
        let current = entry.run == state.run || self.variant == Variant::NoIncarnation;
        current.then_some(entry.version)
    }

    fn read(&self, now: &State<R, W>, at: usize, steps: &mut Steps<'_, State<R, W>>) {
        let (who, process) = (READERS[at], Self::process_of(at));
        let mut to = now.clone();
        match now.readers[at] {
            Reader::Idle | Reader::Again { .. } => {
                let (floor, again) = match now.readers[at] {
                    Reader::Again { floor } => (floor, true),
                    _ => (now.done, false),
                };
                if let Some(version) = self.shows(now) {
                    to.serve(at, floor, version);
                    return steps.add_of(who, "GET: hit", version, to);
                }
                to.readers[at] = Reader::Missed { floor, again };
                steps.add(who, "GET: miss", to);
            }
            Reader::Missed { floor, again } => {
                if let Some(leader) = now.table[process] {
                    let when = if again { Joined::BeforeReading } else { self.when(now, leader) };
                    to.readers[at] = Reader::Joined { floor, leader, when };
                    return steps.add(who, "joins", to);
                }
                to.table[process] = Some(at);
                to.readers[at] = Reader::Leading { floor };
                steps.add(who, "leads", to);
            }
            Reader::Joined { .. } | Reader::Done => {}
            Reader::Leading { floor } | Reader::Waiting { floor } => {
                let mut right = Right { token: None, run: now.run, away: true };
                let ready = Reader::Ready { floor, right };
                let alone = State { readers: with(&now.readers, at, ready), ..now.clone() };
                steps.add(who, "cannot ask the store", alone);
                right.away = false;
                if self.variant != Variant::NoLease && now.lease.is_none() {
                    let per_process = self.variant == Variant::TokenPerProcess;
                    let own = u8::try_from(process).unwrap_or_default();
                    right.token = Some(if per_process { own } else { now.next_token });
                    (to.lease, to.next_token) = (right.token, now.next_token + 1);
                }
                to.readers[at] = Reader::Begun { floor, right };
                steps.add(who, "SET lease NX", to);
            }
            Reader::Begun { floor, right } => {
                if let Some(version) = self.shows(now) {
                    to.serve(at, floor, version);
                    to.give(at, version);
                    to.judge(at, None);
                    return steps.add_of(who, "GET under its lease: hit", version, to);
                }
                if right.token.is_none() && self.variant != Variant::NoLease {
                    let readers = with(&now.readers, at, Reader::Waiting { floor });
                    steps.add(who, "GET: miss, waits", State { readers, ..now.clone() });
                }
                to.readers[at] = Reader::Ready { floor, right };
                steps.add(who, "GET under its lease: miss", to);
            }
            Reader::Ready { floor, right } => {
                to.readers[at] = Reader::Loaded { floor, right, version: now.source };
                steps.add_of(who, "loads", now.source, to);
            }
            Reader::Loaded { floor, right, version } => {
                to.give(at, version);
                to.serve(at, floor, version);
                if right.away {
                    let shared = self.variant == Variant::SharedOutage;
                    to.judge(at, shared.then_some(version));
                    steps.add_of(who, "gives out, without the store", version, to);
                } else if right.token.is_some() || self.variant == Variant::NoLease {
                    to.readers[at] = Reader::Storing { right, version };
                    steps.add_of(who, "gives out and sends its fill", version, to);
                } else {
                    to.judge(at, None);
                    steps.add_of(who, "gives out, has no right to store", version, to);
                }
            }
            Reader::Storing { right, version } => {
                let stored = self.may_fill(now, right);
                if stored {
                    to.entry = Some(Entry { version, run: now.run });
                    to.lease = None;
                }
                to.readers[at] = Reader::Answered { version, stored: Some(stored) };
                let does = if stored { "FILL: stored" } else { "FILL: refused" };
                steps.add_of(who, does, version, to);
            }
            Reader::Answered { version, stored } => {
                to.judge(at, stored.filter(|stored| *stored).map(|_| version));
                steps.add(who, "hears of its fill", to);
            }
        }
    }

    fn when(&self, now: &State<R, W>, leader: usize) -> Joined {
        let when = match now.readers[leader] {
            Reader::Leading { .. } => Joined::BeforeReading,
            Reader::Storing { .. } | Reader::Answered { .. } => Joined::Storing,
            _ => Joined::Reading,
        };
        match (self.variant, when) {
            (Variant::PlainSingleFlight, Joined::Reading) => Joined::BeforeReading,
            (Variant::JoinWhileStoring, Joined::Storing) => Joined::Reading,
            _ => when,
        }
    }

    fn may_fill(&self, now: &State<R, W>, right: Right) -> bool {
        match self.variant {
            Variant::NoLease | Variant::BlindFill => true,
            Variant::NoIncarnation => now.lease == right.token,
            _ => now.lease == right.token && now.run == right.run,
        }
    }

    fn write(&self, now: &State<R, W>, at: usize, steps: &mut Steps<'_, State<R, W>>) {
        let (process, mut to) = (self.writer + at, now.clone());
        let who = WRITERS[process];
        let entry_first = self.variant == Variant::EntryBeforeLease;
        let (half, whole) = if entry_first {
            ("UNLINK entry", "UNLINK lease: the invalidation is in,")
        } else {
            ("UNLINK lease", "UNLINK entry: the invalidation is in,")
        };
        match now.writers[at] {
            Writer::Idle => {
                let version = now.source + 1;
                to.source = version;
                to.writers[at] = Writer::Committed { version };
                steps.add_of(who, "commits", version, to);
            }
            Writer::Committed { version } => {
                to.table[process] = None;
                to.unlink(entry_first);
                to.writers[at] = Writer::Half { version };
                steps.add(who, half, to);
            }
            Writer::Half { version } => {
                to.table[process] = None;
                to.unlink(!entry_first);
                to.done = now.done.max(version);
                to.writers[at] = Writer::Done;
                steps.add_of(who, whole, version, to);
            }
            Writer::Done => {}
        }
    }
}

impl<const R: usize, const W: usize> State<R, W> {
    /// A get ends with a value.
    fn serve(&mut self, at: usize, floor: u8, version: u8) {
        self.stale |= version < floor;
        self.readers[at] = Reader::Done;
    }

    /// Those who joined before the load began to read get its value (`Crew::publish`).
    fn give(&mut self, leader: usize, version: u8) {
        for at in 0..R {
            if let Reader::Joined { floor, leader: of, when: Joined::BeforeReading } =
                self.readers[at]
                && of == leader
            {
                self.serve(at, floor, version);
            }
        }
    }

    /// A load leaves the table and tells the others: what was stored, or nothing (`Crew::judge`).
    fn judge(&mut self, leader: usize, stored: Option<u8>) {
        let process = Lease::<R, W>::process_of(leader);
        if self.table[process] == Some(leader) {
            self.table[process] = None;
        }
        self.readers[leader] = Reader::Done;
        for at in 0..R {
            let Reader::Joined { floor, leader: of, when } = self.readers[at] else { continue };
            match stored.filter(|_| when == Joined::Reading) {
                _ if of != leader => {}
                Some(version) => self.serve(at, floor, version),
                None => self.readers[at] = Reader::Again { floor },
            }
        }
    }

    fn unlink(&mut self, entry: bool) {
        if entry {
            self.entry = None;
        } else {
            self.lease = None;
        }
    }

    /// Connections are lost with what is on them: fills get no answer, removals are sent again.
    fn restart(&mut self) {
        let Some((entry, lease)) = self.dump else { return };
        (self.entry, self.lease, self.run) = (entry, lease, self.run + 1);
        for reader in &mut self.readers {
            if let Reader::Storing { version, .. } = *reader {
                *reader = Reader::Answered { version, stored: None };
            }
        }
        for writer in &mut self.writers {
            if let Writer::Half { version } = *writer {
                *writer = Writer::Committed { version };
            }
        }
    }
}

impl<const R: usize, const W: usize> Protocol for Lease<R, W> {
    type State = State<R, W>;

    fn start(&self) -> State<R, W> {
        State {
            source: 0,
            done: 0,
            entry: None,
            lease: None,
            run: 0,
            next_token: 2,
            dump: None,
            table: [None; 2],
            readers: [Reader::Idle; R],
            writers: [Writer::Idle; W],
            stale: false,
        }
    }

    fn steps(&self, now: &State<R, W>, steps: &mut Steps<'_, State<R, W>>) {
        for at in 0..R {
            self.read(now, at, steps);
        }
        for at in 0..W {
            self.write(now, at, steps);
        }
        if now.lease.is_some() {
            steps.add("Redis", "lets the lease expire", State { lease: None, ..now.clone() });
        }
        if now.entry.is_some() {
            steps.add("Redis", "evicts the entry", State { entry: None, ..now.clone() });
        }
        if self.restarts && now.dump.is_none() {
            let dump = Some((now.entry, now.lease));
            steps.add("Redis", "writes its dump", State { dump, ..now.clone() });
        } else if self.restarts && now.run == 0 {
            let mut to = now.clone();
            to.restart();
            steps.add("Redis", "restarts from its dump", to);
        }
    }

    fn is_broken(&self, state: &State<R, W>) -> bool {
        state.stale
    }
}
