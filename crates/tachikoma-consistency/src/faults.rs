//! What is broken, and when. Each fault is over when its step ends; its window says for how long
//! afterwards the nodes may still be recovering.
//!
//! A fault counts only if it is seen to have done what its name says: keys were there to be
//! flushed, the process was really stopped, the old dump was really loaded.

use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::Signal;
use tachikoma_testkit::{Fault as Broken, Stopwatch};

use crate::cluster::Cluster;
use crate::history::Window;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pace {
    /// Nothing is broken.
    None,
    /// Each fault once, as short as it makes sense.
    Short,
    /// All faults, over and over.
    Long,
}

/// A class of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node is stopped for longer than its lease and Δ.
    Stop,
    /// A node is killed and started again.
    Kill,
    /// A node's connections to Redis are closed, also in the middle of an answer.
    Cut,
    /// A node's connections to Redis stay open and nothing passes.
    Stall,
    /// Redis closes the connections of all clients.
    ClientKill,
    /// `FLUSHALL`.
    Flush,
    /// Redis evicts what it is given, by `maxmemory`.
    Evict,
    /// Redis is killed and starts empty.
    RestartEmpty,
    /// Redis is killed and starts from a dump that is older than the last writes.
    RestartOlder,
}

impl Fault {
    pub(crate) const ALL: [Self; 9] = [
        Self::Cut,
        Self::Kill,
        Self::ClientKill,
        Self::RestartOlder,
        Self::Flush,
        Self::Stop,
        Self::Evict,
        Self::Stall,
        Self::RestartEmpty,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stop => "SIGSTOP",
            Self::Kill => "SIGKILL",
            Self::Cut => "connections cut",
            Self::Stall => "connections stalled",
            Self::ClientKill => "CLIENT KILL",
            Self::Flush => "FLUSHALL",
            Self::Evict => "maxmemory",
            Self::RestartEmpty => "Redis restarted empty",
            Self::RestartOlder => "Redis restarted from an older dump",
        }
    }
}

/// Longer than the lease of the nodes.
const STOPPED: Duration = Duration::from_millis(3500);

/// Between two faults.
const CALM: Duration = Duration::from_secs(4);

/// Until caches are filled again.
const RECOVERY: Duration = Duration::from_secs(2);

/// A fault that took place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broke {
    pub(crate) fault: Fault,
    pub(crate) window: Window,
    /// Whether it did what it should.
    pub(crate) took: bool,
}

/// All faults of a run.
#[derive(Debug, Clone)]
pub(crate) struct Faults(pub(crate) Vec<Broke>);

impl std::ops::Deref for Faults {
    type Target = [Broke];

    fn deref(&self) -> &[Broke] {
        &self.0
    }
}

/// Which faults come when.
#[derive(Debug)]
pub(crate) struct Schedule(Pace);

impl Schedule {
    pub(crate) fn new(pace: Pace) -> Self {
        Self(pace)
    }

    /// Breaks things for `time`, with calm in between.
    pub(crate) fn run(
        &self,
        cluster: &mut Cluster,
        watch: Stopwatch,
        time: Duration,
    ) -> anyhow::Result<Faults> {
        let (rounds, calm) = match self.0 {
            Pace::None => (0, time),
            Pace::Short => (1, time / 20),
            Pace::Long => (usize::MAX, CALM),
        };
        let mut broke = Vec::new();
        for (number, fault) in (0..rounds).flat_map(|_| Fault::ALL).enumerate() {
            thread::sleep(calm);
            if watch.elapsed() + calm + STOPPED > time && self.0 == Pace::Long {
                break;
            }
            let begin = micros(watch);
            let took = self.break_once(fault, cluster, number)?;
            let end = micros(watch) + u64::try_from(RECOVERY.as_micros()).unwrap_or_default();
            broke.push(Broke { fault, window: Window { begin, end }, took });
        }
        thread::sleep(time.saturating_sub(watch.elapsed()));
        Ok(Faults(broke))
    }

    /// Whether it did what it should.
    fn break_once(
        &self,
        fault: Fault,
        cluster: &mut Cluster,
        number: usize,
    ) -> anyhow::Result<bool> {
        let long = self.0 == Pace::Long;
        // Each class comes to every node in time, and a stop first to one with a memory tier.
        let place = (number + number / Fault::ALL.len() + 2) % cluster.nodes.len();
        let wait = |short: u64, long_one: Duration| {
            thread::sleep(if long { long_one } else { Duration::from_millis(short) });
        };
        let keys = |cluster: &Cluster| cluster.redis.command(&["DBSIZE"]).integer();
        Ok(match fault {
            Fault::Stop => {
                cluster.nodes[place].signal(Signal::STOP)?;
                wait(2200, STOPPED);
                let stopped = cluster.nodes[place].is_stopped();
                cluster.nodes[place].signal(Signal::CONT)?;
                stopped
            }
            Fault::Kill => {
                cluster.nodes[place].kill();
                wait(50, Duration::from_millis(300));
                cluster.nodes[place].start()?;
                true
            }
            Fault::Cut => {
                let proxy = &cluster.nodes[place].proxy;
                let before = proxy.accepted();
                for bytes in [700, 3000, 9000] {
                    proxy.set(Broken::CutAfter(bytes));
                    wait(60, Duration::from_millis(300));
                    proxy.set(Broken::CutRequestsAfter(bytes));
                    wait(60, Duration::from_millis(300));
                    proxy.drop_connections();
                }
                proxy.set(Broken::Pass);
                proxy.accepted() > before
            }
            Fault::Stall => {
                let proxy = &cluster.nodes[place].proxy;
                proxy.set(Broken::Stall);
                wait(600, Duration::from_millis(1500));
                proxy.set(Broken::Pass);
                true
            }
            Fault::ClientKill => {
                let kill = ["CLIENT", "KILL", "TYPE", "normal"];
                let mut killed = 0;
                for _ in 0..3 {
                    killed += cluster.redis.command(&kill).integer();
                    wait(50, Duration::from_millis(200));
                }
                killed >= i64::try_from(cluster.nodes.len())?
            }
            Fault::Flush => {
                let there = keys(cluster);
                cluster.redis.command(&["FLUSHALL"]);
                wait(20, Duration::from_millis(100));
                cluster.redis.command(&["FLUSHALL", "ASYNC"]);
                there > 0
            }
            Fault::Evict => {
                let redis = &cluster.redis;
                let before = redis.info("evicted_keys");
                redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
                // So much less than is used that hardly anything can stay.
                let limit = (redis.info("used_memory") - 60_000).max(1).to_string();
                redis.command(&["CONFIG", "SET", "maxmemory", &limit]);
                wait(400, Duration::from_millis(1500));
                redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
                redis.info("evicted_keys") > before
            }
            Fault::RestartEmpty => {
                let _ = std::fs::remove_file(cluster.dump());
                cluster.redis.restart();
                cluster.redis.info("rdb_last_load_keys_loaded") == 0
            }
            Fault::RestartOlder => {
                cluster.redis.command(&["SAVE"]);
                wait(700, Duration::from_millis(1500));
                cluster.redis.restart();
                let _ = std::fs::remove_file(cluster.dump());
                cluster.redis.info("rdb_last_load_keys_loaded") > 0
            }
        })
    }
}

fn micros(watch: Stopwatch) -> u64 {
    u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX)
}
