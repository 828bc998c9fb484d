//! The memory tier of one node: server pushes, in-flight markers, freshness floor, connection loss.
//!
//! Another node's writes may come at any moment; by symmetry each node sees the others so. The node
//! has one connection at a time. Commands are run in the order in which they were sent, and answers
//! and pushes arrive in the order in which the server wrote them; what waits for an answer is woken
//! and goes on some time later.
//!
//! | step | stands for |
//! |---|---|
//! | sets its marker and sends `GET` | `store/tiered.rs` `read`, `begin`; `tiered/near.rs` `mark` |
//! | drops the copy and is sent | `tiered/near.rs` `changing`, before a write and after it |
//! | the server runs a command | `CLIENT TRACKING ON`, default mode, see below |
//! | reads a push | `redis/manager.rs` `on_push`, in the read loop; `Near::changed` |
//! | is kept in memory, or not | `near.rs` `Marked::keep`, `memory/copies.rs` `keep_copy` |
//! | heartbeat, its answer | `redis/manager.rs` `watch`, `redis/tracking.rs` `add_watch`, `is_on` |
//! | connects and arms | `redis/manager.rs` `open`, `redis/tracking.rs` `arm` |
//! | uses the connection, then flushes | `redis/link.rs` `publish`; `Near::lost`, `Near::forget` |
//!
//! Tracking: a read registers the key on its connection. A write ends the registration; it pushes
//! to whoever was registered, to the writer itself after its answer. An answered heartbeat raises
//! the floor to what the server had when the heartbeat was sent, and so does arming.
//!
//! Two designs. *Pushed to itself* is what is built: own writes are pushed too, and what a load
//! stores is not kept but read again. *With `NOLOOP`* own writes are not pushed, a fill is kept if
//! its marker is clean, and the last `EXISTS` of the script `FILL` (`store/redis/scripts.rs`)
//! begins the registration anew that its `SET` ended.
//!
//! Kept: while a floor is known, memory holds nothing older than it (with a clock: nothing that was
//! replaced longer than Δ ago), and nothing older than this node's own last removal that was
//! answered. Not here: how long a copy may live, values with tags (they have no copies), several
//! keys.

use crate::search::{Outcome, Protocol, Steps, search, with};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Shipped,
    /// What was read is put in memory whatever was pushed meanwhile.
    NoMarker,
    /// A new connection is used after the flush, before tracking is on.
    FlushBeforeArm,
    /// The flush after a loss does not dirty the markers of what is in flight.
    FlushSparesMarkers,
    /// `BCAST`: pushes are written at the end of the event loop, after the answers.
    Broadcast,
    /// The heartbeat is a `PING`: it says nothing about tracking.
    Ping,
    /// Pushes go through a channel to another task; answers do not.
    Channel,
    /// The fill does not read its key again.
    NoTrailingRead,
    /// An own write leaves the copy to a push.
    OwnWriteWaits,
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    use Variant::{
        Broadcast, Channel, FlushBeforeArm, FlushSparesMarkers, NoMarker, NoTrailingRead,
        OwnWriteWaits, Ping, Shipped,
    };
    let run =
        |name, variant, writes| search(name, variant == Shipped, Tracking { variant, writes });
    vec![
        run("two gets", Shipped, Own::None),
        run("own writes, pushed to itself", Shipped, Own::Pushed),
        run("own writes, with NOLOOP", Shipped, Own::NoLoop),
        run("no marker", NoMarker, Own::None),
        run("flushed before it is armed", FlushBeforeArm, Own::None),
        run("flush spares the markers", FlushSparesMarkers, Own::None),
        run("BCAST with one ping", Broadcast, Own::None),
        run("PING instead of GETREDIR", Ping, Own::None),
        run("pushes through a channel", Channel, Own::None),
        run("own write waits for a push", OwnWriteWaits, Own::Pushed),
        run("NOLOOP, no read after the fill", NoTrailingRead, Own::NoLoop),
    ]
}

struct Tracking {
    variant: Variant,
    writes: Own,
}

/// Whether the node itself writes: then one get, a fill and a removal; else two gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    None,
    Pushed,
    NoLoop,
}

/// Commands of a client, by the place of who waits for them.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Command {
    Get(usize),
    Fill,
    Remove,
    Beat { sent_at: u8 },
    Arm,
}

/// What the server writes.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Frame {
    Value(usize, u8),
    Filled(u8),
    Removed(u8),
    Push,
    Beat { sent_at: u8, armed: bool },
    Armed,
}

/// Something in flight with its marker.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Request {
    Idle,
    Sent { clean: bool },
    Woken { version: u8, clean: bool },
    Done,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Link {
    Up,
    Lost,
    /// Armed, while the server had this version or a later one.
    Armed {
        at: u8,
    },
    /// In use, memory not flushed yet.
    Unflushed {
        at: u8,
    },
}

/// How often something may still happen.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Left {
    foreign_writes: u8,
    beats: u8,
    losses: u8,
    disarmings: u8,
}

#[derive(Debug, Clone, Hash, PartialEq)]
struct State {
    /// The version in Redis.
    server: u8,
    armed: bool,
    registered: bool,
    /// `BCAST` only: a push that is not written yet.
    owed: bool,
    to_server: Vec<Command>,
    to_node: Vec<Frame>,
    /// Pushes on their way through a channel inside the node.
    channel: u8,
    link: Link,
    memory: Option<u8>,
    /// Two gets and one fill of the key.
    gets: [Request; 2],
    fill: Request,
    /// Whether the node has removed the key.
    removal: Request,
    beating: bool,
    floor: Option<u8>,
    own: u8,
    left: Left,
}

const GETS: [&str; 2] = ["get 1", "get 2"];

impl State {
    fn drop_copy(&mut self, spare_markers: bool) {
        self.memory = None;
        if spare_markers {
            return;
        }
        for request in self.gets.iter_mut().chain([&mut self.fill]) {
            if let Request::Sent { clean } | Request::Woken { clean, .. } = request {
                *clean = false;
            }
        }
    }

    /// The server changes the key for somebody else.
    fn push(&mut self, broadcast: bool) {
        if broadcast {
            self.owed |= self.armed;
        } else if self.armed && self.registered && self.link != Link::Lost {
            self.to_node.push(Frame::Push);
        }
        self.registered = false;
    }
}

impl Tracking {
    fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }

    fn send(&self, now: &State, steps: &mut Steps<'_, State>) {
        if !matches!(now.link, Link::Up | Link::Unflushed { .. }) {
            return;
        }
        for (at, who) in GETS.into_iter().enumerate() {
            // What is in memory is answered from there.
            if now.gets[at] == Request::Idle && now.memory.is_none() {
                let mut to = now.clone();
                to.gets[at] = Request::Sent { clean: true };
                to.to_server.push(Command::Get(at));
                steps.add(who, "sets its marker and sends GET", to);
            }
        }
        if now.fill == Request::Idle {
            let mut to = now.clone();
            if !self.is(Variant::OwnWriteWaits) {
                to.drop_copy(false);
            }
            to.fill = Request::Sent { clean: true };
            to.to_server.push(Command::Fill);
            steps.add("fill", "drops the copy and is sent", to);
        }
        if now.removal == Request::Idle {
            let mut to = now.clone();
            if !self.is(Variant::OwnWriteWaits) {
                to.drop_copy(false);
            }
            to.removal = Request::Sent { clean: true };
            to.to_server.push(Command::Remove);
            steps.add("removal", "drops the copy and is sent", to);
        }
        if now.left.beats > 0 && !now.beating && now.link == Link::Up {
            let mut to = now.clone();
            (to.left.beats, to.beating) = (now.left.beats - 1, true);
            to.to_server.push(Command::Beat { sent_at: now.server });
            steps.add_of("heartbeat", "is sent while the server has", now.server, to);
        }
    }

    /// The server runs the oldest command.
    fn serve(&self, now: &State, steps: &mut Steps<'_, State>) {
        let Some(command) = now.to_server.first().copied() else { return };
        let mut to = now.clone();
        to.to_server.remove(0);
        match command {
            Command::Get(at) => {
                to.registered |= now.armed;
                to.to_node.push(Frame::Value(at, now.server));
                steps.add_of("Redis", "runs GET", now.server, to);
            }
            Command::Fill => {
                to.server += 1;
                to.to_node.push(Frame::Filled(to.server));
                self.tell_itself(&mut to);
                to.registered = now.armed && !self.is(Variant::NoTrailingRead);
                steps.add_of("Redis", "runs FILL", now.server + 1, to);
            }
            Command::Remove => {
                to.server += 1;
                to.to_node.push(Frame::Removed(to.server));
                self.tell_itself(&mut to);
                steps.add_of("Redis", "runs UNLINK", now.server + 1, to);
            }
            Command::Beat { sent_at } => {
                to.to_node.push(Frame::Beat { sent_at, armed: now.armed });
                steps.add("Redis", "runs the heartbeat", to);
            }
            Command::Arm => {
                (to.armed, to.registered) = (true, false);
                to.to_node.push(Frame::Armed);
                steps.add("Redis", "turns tracking on", to);
            }
        }
    }

    /// An own write ends the registration, with a push or without.
    fn tell_itself(&self, to: &mut State) {
        if to.registered && self.writes == Own::Pushed {
            to.to_node.push(Frame::Push);
        }
        to.registered = false;
    }

    /// The node's read loop takes the oldest frame.
    fn take(&self, now: &State, steps: &mut Steps<'_, State>) {
        let Some(frame) = now.to_node.first().copied() else { return };
        let mut to = now.clone();
        to.to_node.remove(0);
        match frame {
            Frame::Value(at, version) => {
                if let Request::Sent { clean } = now.gets[at] {
                    to.gets[at] = Request::Woken { version, clean };
                }
                steps.add_of(GETS[at], "has its answer", version, to);
            }
            Frame::Filled(version) => {
                if let Request::Sent { clean } = now.fill {
                    to.fill = Request::Woken { version, clean };
                }
                to.memory = now.memory.filter(|_| self.is(Variant::OwnWriteWaits));
                if self.writes == Own::Pushed {
                    to.fill = Request::Done;
                }
                steps.add_of("fill", "has its answer", version, to);
            }
            Frame::Removed(version) => {
                if !self.is(Variant::OwnWriteWaits) {
                    to.drop_copy(false);
                }
                (to.removal, to.own) = (Request::Done, version);
                steps.add_of("removal", "has its answer", version, to);
            }
            Frame::Push if self.is(Variant::Channel) => {
                to.channel += 1;
                steps.add("node", "puts a push into its channel", to);
            }
            Frame::Push => {
                to.drop_copy(false);
                steps.add("node", "reads a push", to);
            }
            Frame::Beat { sent_at, armed } => {
                to.beating = false;
                if armed || self.is(Variant::Ping) {
                    to.floor = Some(sent_at);
                    steps.add_of("heartbeat", "is answered: the floor is", sent_at, to);
                } else {
                    to.floor = None;
                    to.lose();
                    steps.add("heartbeat", "finds tracking off: the connection is replaced", to);
                }
            }
            Frame::Armed => steps.add("node", "hears that tracking is on", to),
        }
    }

    /// What was read goes into memory.
    fn insert(&self, now: &State, steps: &mut Steps<'_, State>) {
        let keeps = |clean: bool| clean || self.is(Variant::NoMarker);
        for (at, who) in GETS.into_iter().enumerate() {
            if let Request::Woken { version, clean } = now.gets[at] {
                let memory = if keeps(clean) { Some(version) } else { now.memory };
                let gets = with(&now.gets, at, Request::Done);
                let does = if keeps(clean) { "is kept in memory" } else { "is not kept" };
                steps.add_of(who, does, version, State { memory, gets, ..now.clone() });
            }
        }
        if let Request::Woken { version, clean } = now.fill {
            let memory = if keeps(clean) { Some(version) } else { now.memory };
            let does = if keeps(clean) { "is kept in memory" } else { "is not kept" };
            steps.add_of(
                "fill",
                does,
                version,
                State { memory, fill: Request::Done, ..now.clone() },
            );
        }
    }

    fn connect(&self, now: &State, steps: &mut Steps<'_, State>) {
        let mut to = now.clone();
        match now.link {
            Link::Up => {}
            Link::Lost if self.is(Variant::FlushBeforeArm) => {
                to.flush();
                to.link = Link::Up;
                to.to_server.push(Command::Arm);
                steps.add("node", "connects, flushes and uses the connection", to);
                // Others were quicker than the command that arms.
                let mut later = now.clone();
                later.flush();
                later.link = Link::Up;
                for (at, who) in GETS.into_iter().enumerate() {
                    if now.gets[at] == Request::Idle {
                        let mut to = later.clone();
                        to.gets[at] = Request::Sent { clean: true };
                        to.to_server = vec![Command::Get(at), Command::Arm];
                        steps.add(who, "uses the flushed connection before it is armed", to);
                    }
                }
            }
            Link::Lost => {
                (to.link, to.armed, to.registered) = (Link::Armed { at: now.server }, true, false);
                steps.add("node", "connects and arms", to);
            }
            Link::Armed { at } => {
                (to.floor, to.link) = (None, Link::Unflushed { at });
                steps.add("node", "uses the armed connection", to);
            }
            Link::Unflushed { at } => {
                to.drop_copy(self.is(Variant::FlushSparesMarkers));
                (to.floor, to.link) = (Some(at), Link::Up);
                steps.add_of("node", "flushes: the floor is", at, to);
            }
        }
    }
}

impl State {
    /// What is on the connection is gone; the server forgets what it registered.
    fn lose(&mut self) {
        self.link = Link::Lost;
        (self.armed, self.registered, self.owed, self.beating) = (false, false, false, false);
        self.to_server.clear();
        self.to_node.clear();
        for request in self.gets.iter_mut().chain([&mut self.fill]) {
            if let Request::Sent { .. } = request {
                *request = Request::Done;
            }
        }
        // It is pending, and sent again on the next connection.
        if let Request::Sent { .. } = self.removal {
            self.removal = Request::Idle;
        }
    }

    fn flush(&mut self) {
        self.drop_copy(false);
        self.floor = None;
    }
}

impl Protocol for Tracking {
    type State = State;

    fn start(&self) -> State {
        let only = |there| if there { Request::Idle } else { Request::Done };
        State {
            server: 0,
            armed: true,
            registered: false,
            owed: false,
            to_server: Vec::new(),
            to_node: Vec::new(),
            channel: 0,
            link: Link::Up,
            memory: None,
            gets: [Request::Idle, only(self.writes == Own::None)],
            fill: only(self.writes != Own::None),
            removal: only(self.writes != Own::None),
            beating: false,
            floor: None,
            own: 0,
            left: Left {
                foreign_writes: 2 - u8::from(self.writes != Own::None),
                beats: 2,
                losses: 1,
                disarmings: u8::from(self.writes == Own::None),
            },
        }
    }

    fn steps(&self, now: &State, steps: &mut Steps<'_, State>) {
        self.send(now, steps);
        self.serve(now, steps);
        self.take(now, steps);
        self.insert(now, steps);
        self.connect(now, steps);
        if now.left.foreign_writes > 0 {
            let mut to = now.clone();
            (to.server, to.left.foreign_writes) = (now.server + 1, now.left.foreign_writes - 1);
            to.push(self.is(Variant::Broadcast));
            steps.add_of("another node", "writes", now.server + 1, to);
        }
        if now.owed {
            let mut to = State { owed: false, ..now.clone() };
            to.to_node.push(Frame::Push);
            steps.add("Redis", "writes the push that it owes", to);
        }
        if now.channel > 0 {
            let mut to = State { channel: now.channel - 1, ..now.clone() };
            to.drop_copy(false);
            steps.add("node", "takes a push out of its channel", to);
        }
        if now.left.losses > 0 && matches!(now.link, Link::Up | Link::Unflushed { .. }) {
            let mut to = now.clone();
            to.left.losses -= 1;
            to.lose();
            steps.add("network", "loses the connection", to);
        }
        if now.left.disarmings > 0 && now.armed && now.link == Link::Up {
            let mut to = State { armed: false, registered: false, ..now.clone() };
            to.left.disarmings -= 1;
            steps.add("Redis", "forgets that tracking is on", to);
        }
    }

    fn is_broken(&self, state: &State) -> bool {
        let Some(version) = state.memory else { return false };
        version < state.own || state.floor.is_some_and(|floor| version < floor)
    }
}
