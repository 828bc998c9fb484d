//! Keeps one good connection: connects, logs in, asks who the server is, watches it.
//!
//! Decides when to try again: at once after a loss, then after 50 ms, doubling to 1 s, each with
//! jitter; once a second if the server refuses the login. A connection is published only when it
//! has answered: while the breaker is open, its attempts are the probe. On a replica it goes on
//! reading and looks once a second whether the address leads to a primary by now. It runs as a part
//! of the store's one background task and never serves a call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Pipeline, PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use super::link::{CLUSTER, Connection, LOADING, Link, LogLimit, REPLICA};
use super::reply::{self, Fault, Then};
use super::tracking;
use crate::clock::{Clock, Stopwatch, Time, real_sleep};
use crate::envelope::Offset;
use crate::error::ErrorKind;

const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
const REFUSED_EVERY: Duration = Duration::from_secs(1);

/// How often a primary is looked for while there is only a replica.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The least time between two heartbeats, whoever asks for one.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// A connection that lived so long was good: its successor is opened at once.
const GOOD_LIFE: Duration = Duration::from_secs(1);

/// The same for one that then did not answer: what answers a login only is not good.
const GOOD_LIFE_BEFORE_SILENCE: Duration = Duration::from_secs(10);

/// How many commands may wait to be written to the connection.
const PIPELINE_BUFFER: usize = 1024;

/// Keeps `link` supplied until it is dropped; tells `connected` after each success.
pub(super) async fn run(
    link: &Arc<Link>,
    connected: &Notify,
    first: tokio::sync::oneshot::Sender<Result<(), Fault>>,
) {
    let mut manager = Manager {
        link,
        backoff: Backoff::default(),
        log: LogLimit::default(),
        replaced: Vec::new(),
        untracked: false,
    };
    let mut first = Some(first);
    loop {
        match manager.connect().await {
            Ok(connection) => {
                let mut next = Some(connection);
                let (mut lived, mut tripped) = (Stopwatch::start(), false);
                while let Some(connection) = next {
                    link.publish(Arc::clone(&connection));
                    manager.say_connected();
                    connected.notify_one();
                    report(&mut first, Ok(()));
                    lived = Stopwatch::start();
                    next = manager.watch(&connection).await;
                    tripped = connection.has_tripped();
                }
                let good = if tripped { GOOD_LIFE_BEFORE_SILENCE } else { GOOD_LIFE };
                if lived.elapsed() >= good {
                    manager.backoff = Backoff::default();
                    continue;
                }
            }
            Err(fault) => {
                link.errors.count(fault.kind);
                link.set_down(fault.clone());
                manager.say_down(&fault);
                let refused = fault.kind == ErrorKind::Rejected;
                report(&mut first, Err(fault));
                if refused {
                    real_sleep(REFUSED_EVERY).await;
                    continue;
                }
            }
        }
        real_sleep(manager.backoff.next()).await;
    }
}

fn report(
    first: &mut Option<tokio::sync::oneshot::Sender<Result<(), Fault>>>,
    outcome: Result<(), Fault>,
) {
    if let Some(first) = first.take() {
        // The store was dropped while it was made; the task ends with it.
        let _ = first.send(outcome);
    }
}

struct Manager<'a> {
    link: &'a Arc<Link>,
    backoff: Backoff,
    log: LogLimit,
    /// Connections that were given up. What was written to them could still run after what a new
    /// one sends, so the server is told to end them first.
    replaced: Vec<(String, i64)>,
    /// Whether it was said that the server does not tell of changes.
    untracked: bool,
}

impl Manager<'_> {
    async fn connect(&mut self) -> Result<Arc<Connection>, Fault> {
        let within = self.link.config.get_connect_timeout();
        let login = async {
            let opened = open(self.link).await?;
            Ok(self.adopt(opened).await)
        };
        timeout(within, login).await.map_err(|_| too_slow(within))?
    }

    /// Another connection to where the address leads by now, unless that is limited too.
    async fn look_for_primary(&mut self) -> Option<Arc<Connection>> {
        let within = self.link.config.get_connect_timeout();
        let login = async {
            let opened = open(self.link).await.ok()?;
            if opened.probe.limited.is_some() {
                return None;
            }
            Some(self.adopt(opened).await)
        };
        timeout(within, login).await.ok().flatten()
    }

    /// Makes a connection ours; all earlier ones end.
    async fn adopt(&mut self, opened: Opened) -> Arc<Connection> {
        let Opened { mut client, number, probe, tracked } = opened;
        self.end_replaced(&mut client, &probe.run_id).await;
        self.link.set_limited(probe.limited);
        let Probe { run_id, incarnation, offset, id, .. } = probe;
        if let Some(id) = id {
            self.replaced.push((run_id, id));
        }
        let tracked = self.say_tracked(tracked);
        Arc::new(Connection::new(client, number, incarnation, offset.at, tracked))
    }

    /// Ends this program's earlier connections on the server. A command that was given up as timed
    /// out, such as a write, then cannot run any more.
    async fn end_replaced(&mut self, client: &mut MultiplexedConnection, run_id: &str) {
        // Numbers mean nothing to another run of the server, and its connections are gone.
        self.replaced.retain(|(run, _)| run == run_id);
        if self.replaced.is_empty() {
            return;
        }
        let mut commands = Pipeline::new();
        for (_, id) in &self.replaced {
            commands.cmd("CLIENT").arg("KILL").arg("ID").arg(*id);
        }
        // A user without the right to do this has a weaker guarantee, not a broken cache.
        if client.send_packed_commands(&commands, 0, commands.len()).await.is_ok() {
            self.replaced.clear();
        }
    }

    /// Sends heartbeats until the connection is not the published one any more, or there is a
    /// better one.
    async fn watch(&mut self, connection: &Connection) -> Option<Arc<Connection>> {
        let within = self.link.config.get_connect_timeout();
        let mut looked: Option<Stopwatch> = None;
        let every = self.link.tracking.pause(HEARTBEAT_EVERY);
        let tracked = connection.tracked.is_some();
        loop {
            let waited = Stopwatch::start();
            // An error: the time passed and nobody wanted anything.
            let _ = timeout(every, self.link.attention.notified()).await;
            if self.link.is_current(connection.number) && waited.elapsed() < LEAST_PAUSE {
                let _ = timeout(LEAST_PAUSE, self.link.attention.notified()).await;
            }
            if !self.link.is_current(connection.number) {
                return None;
            }
            let mut client = connection.client.clone();
            let asked = if tracked { Ask::AndTracking } else { Ask::Usual };
            let beat = timeout(within, probe(&mut client, &*self.link.clock, asked)).await;
            match beat {
                Ok(Ok(probe)) => {
                    let is_other = connection.incarnation() != probe.incarnation;
                    connection.update(probe.incarnation, probe.offset.after(connection.offset()));
                    if is_other {
                        // What was fresh is stale now, and nobody pushes that.
                        self.link.tracking.forget();
                    }
                    if tracked && !probe.tracks {
                        // Nobody but this connection can switch it off; begin anew with another.
                        let text = "it does not tell of changes any more";
                        let fault = Fault::new(ErrorKind::Unavailable, Then::Drop, text);
                        self.give_up(connection, &fault);
                        continue;
                    }
                    if tracked {
                        self.link.confirmed(connection.number, probe.asked);
                    }
                    self.link.set_limited(probe.limited);
                    let replica = probe.limited == Some(REPLICA);
                    if replica && looked.is_none_or(|last| last.elapsed() >= LOOK_EVERY) {
                        looked = Some(Stopwatch::start());
                        if let Some(primary) = self.look_for_primary().await {
                            return Some(primary);
                        }
                    }
                }
                Ok(Err(fault)) => self.give_up(connection, &fault),
                Err(_) => {
                    let text = "it does not answer heartbeats";
                    self.give_up(connection, &Fault::new(ErrorKind::TimedOut, Then::Drop, text));
                }
            }
        }
    }

    /// Says once why the server does not tell of changes, if it was asked to.
    fn say_tracked(&mut self, tracked: Result<Time, String>) -> Option<Time> {
        match tracked {
            Ok(at) => Some(at),
            Err(reason) => {
                if self.link.tracking.is_wanted() && !self.untracked {
                    self.untracked = true;
                    let server = &self.link.config;
                    tracing::warn!(%server, reason, "no memory tier: Redis tells of no changes");
                }
                None
            }
        }
    }

    fn give_up(&mut self, connection: &Connection, fault: &Fault) {
        self.link.errors.count(fault.kind);
        let fault = Fault::new(ErrorKind::Unavailable, Then::Drop, fault.text());
        self.say_down(&fault);
        self.link.withdraw(connection.number, fault);
    }

    fn say_connected(&mut self) {
        if self.log.allows() {
            tracing::info!(server = %self.link.config, "connected to Redis");
        }
    }

    fn say_down(&mut self, fault: &Fault) {
        if self.log.allows() {
            let reason = fault.text();
            tracing::warn!(server = %self.link.config, reason, "Redis cannot be used");
        }
    }
}

/// A connection that is logged in and has answered.
struct Opened {
    client: MultiplexedConnection,
    number: u64,
    probe: Probe,
    /// Since when it tells of changes, or why it does not.
    tracked: Result<Time, String>,
}

async fn open(link: &Arc<Link>) -> Result<Opened, Fault> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let info = link.config.login().await?;
    let client = Client::open(info).map_err(|error| Fault::of_client(&error))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE_BUFFER)
        .set_push_sender(on_push(link, number));
    let mut client = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(|error| Fault::of_client(&error))?;
    let probe = probe(&mut client, &*link.clock, Ask::WhoIAm).await?;
    let tracked = if !link.tracking.is_wanted() {
        Err(String::new())
    } else if probe.may_track {
        tracking::arm(&mut client, &*link.clock).await?
    } else {
        Err("the server is older than Redis 7".to_owned())
    };
    Ok(Opened { client, number, probe, tracked })
}

fn too_slow(within: Duration) -> Fault {
    let text = format!("no connection within {} ms", within.as_millis());
    Fault::new(ErrorKind::Unavailable, Then::Drop, text)
}

/// Withdraws connection `number` when the client finds that it is lost, and hands on what the
/// server tells of changes.
fn on_push(link: &Arc<Link>, number: u64) -> impl Fn(PushInfo) -> Result<(), ()> + use<> {
    // Weak: the link owns the connection, which owns this.
    let link: Weak<Link> = Arc::downgrade(link);
    move |push| {
        let Some(link) = link.upgrade() else { return Ok(()) };
        match push.kind {
            PushKind::Disconnection => {
                let text = "the connection is lost";
                link.withdraw(number, Fault::new(ErrorKind::Unavailable, Then::Drop, text));
            }
            // Also those of a connection that is not the published one: they cost an entry at most.
            PushKind::Invalidate => link.tracking.told(&push.data),
            _ => {}
        }
        Ok(())
    }
}

/// What a server says of itself.
struct Probe {
    run_id: String,
    incarnation: u64,
    offset: Measured,
    id: Option<i64>,
    limited: Option<&'static str>,
    /// When it was asked.
    asked: Time,
    /// Whether it may be asked to tell of changes.
    may_track: bool,
    /// Whether it said that it does.
    tracks: bool,
}

/// What a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Usual,
    /// Also which client this is: on a new connection.
    WhoIAm,
    /// Also whether it still tells of changes.
    AndTracking,
}

async fn probe(
    client: &mut MultiplexedConnection,
    clock: &dyn Clock,
    ask: Ask,
) -> Result<Probe, Fault> {
    let mut commands = Pipeline::new();
    for section in ["server", "replication", "persistence", "cluster"] {
        commands.cmd("INFO").arg(section);
    }
    commands.cmd("TIME");
    match ask {
        Ask::Usual => {}
        Ask::WhoIAm => {
            commands.cmd("CLIENT").arg("ID");
            commands.cmd("CLIENT").arg("SETNAME").arg("tachikoma");
        }
        Ask::AndTracking => tracking::add_watch(&mut commands),
    }
    let before = clock.now();
    let answers = client
        .send_packed_commands(&commands, 0, commands.len())
        .await
        .map_err(|error| Fault::of_client(&error))?;
    let after = clock.now();
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let info: String = [next(), next(), next(), next()]
        .into_iter()
        .map(reply::text)
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let offset = Measured::new(before, after, server_time(next())?, clock.is_real());
    // Not every user may ask for it.
    let id = if ask == Ask::WhoIAm { reply::integer(next()).ok() } else { None };
    let tracks = ask == Ask::AndTracking && tracking::is_on(next());
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let run_id = field("run_id").unwrap_or_default().to_owned();
    let replication = field("master_replid").unwrap_or_default();
    if run_id.is_empty() {
        let text = "INFO names no run_id, so a restart could not be noticed";
        return Err(Fault::new(ErrorKind::Rejected, Then::Drop, text));
    }
    let limited = match (field("loading"), field("role"), field("cluster_enabled")) {
        (Some("1"), ..) => Some(LOADING),
        (_, Some("slave"), _) => Some(REPLICA),
        (.., Some("1")) => Some(CLUSTER),
        _ => None,
    };
    let incarnation = xxh3_64(format!("{run_id} {replication}").as_bytes());
    let may_track = tracking::is_supported(field("redis_version").unwrap_or_default());
    Ok(Probe { run_id, incarnation, offset, id, limited, asked: before, may_track, tracks })
}

/// The milliseconds of `TIME`: seconds and microseconds.
fn server_time(value: Value) -> Result<u64, Fault> {
    let mut parts = reply::array(value)?.into_iter().map(reply::number);
    let mut next = || match parts.next() {
        Some(Ok(Some(number))) => Ok(number),
        Some(Err(fault)) => Err(fault),
        _ => Err(reply::unexpected(Value::Nil)),
    };
    Ok(next()?.saturating_mul(1000).saturating_add(next()? / 1000))
}

/// The difference between two clocks, and how far off it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Measured {
    at: Offset,
    uncertain: u64,
}

impl Measured {
    /// The server read its clock between `before` and `after`: most likely in the middle.
    fn new(before: Time, after: Time, server: u64, is_real: bool) -> Self {
        if !is_real {
            // A test's time is not the server's; entries then carry the test's.
            return Self { at: Offset(0), uncertain: 0 };
        }
        let trip = after.as_millis().saturating_sub(before.as_millis());
        let middle = before.as_millis().saturating_add(trip / 2);
        // Both clocks count whole milliseconds.
        Self { at: Offset(server.wrapping_sub(middle).cast_signed()), uncertain: trip / 2 + 1 }
    }

    /// The offset to go on with: the one before if this measure does not contradict it, so that
    /// expiries do not tremble with the network.
    fn after(self, before: Offset) -> Offset {
        if before.0.abs_diff(self.at.0) <= self.uncertain { before } else { self.at }
    }
}

/// How long to wait before the next attempt.
#[derive(Debug)]
struct Backoff {
    millis: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { millis: 50 }
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let millis = self.millis;
        self.millis = (millis * 2).min(1000);
        // Between half and all of it, so that many processes do not come back at once.
        Duration::from_millis(millis / 2 + rand::random::<u64>() % (millis / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_to_a_second_and_differ() {
        for _ in 0..100 {
            let mut backoff = Backoff::default();
            for millis in [50, 100, 200, 400, 800, 1000, 1000] {
                let pause = backoff.next().as_millis();
                assert!((millis / 2..=millis).contains(&pause), "{pause} of {millis}");
            }
        }
    }

    #[track_caller]
    fn check(before: u64, after: u64, server: u64, offset: i64, uncertain: u64) {
        let time = Time::from_millis;
        let measured = Measured::new(time(before), time(after), server, true);
        assert_eq!(measured, Measured { at: Offset(offset), uncertain });
    }

    #[test]
    fn the_servers_clock_was_read_in_the_middle() {
        check(1000, 1000, 1000, 0, 1);
        check(1000, 1100, 5000, 3950, 51);
        check(5000, 5010, 1000, -4005, 6);
    }

    #[test]
    fn an_offset_changes_only_when_it_must() {
        let measured = Measured { at: Offset(100), uncertain: 5 };
        assert_eq!(measured.after(Offset(96)), Offset(96));
        assert_eq!(measured.after(Offset(94)), Offset(100));
        assert_eq!(measured.after(Offset(-1_000_000)), Offset(100));
    }

    #[test]
    fn a_test_clock_has_no_offset() {
        let time = Time::from_millis(1);
        assert_eq!(Measured::new(time, time, 99_999, false).at, Offset(0));
    }
}
