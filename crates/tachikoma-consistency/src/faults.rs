//! What is broken, and when. Each fault is over when its step ends; its window says for how long
//! afterwards the nodes may still be recovering.

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

/// Until caches are filled again.
const RECOVERY: Duration = Duration::from_secs(2);

/// A fault that took place.
pub(crate) type Broke = (Fault, Window);

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
        let calm = if self.0 == Pace::Long { Duration::from_secs(4) } else { time / 20 };
        let mut broke = Vec::new();
        let rounds = match self.0 {
            Pace::None => 0,
            Pace::Short => 1,
            Pace::Long => usize::MAX,
        };
        let all = (0..rounds).flat_map(|round| Fault::ALL.map(|fault| (round, fault)));
        for (number, (_, fault)) in all.enumerate() {
            thread::sleep(calm);
            if watch.elapsed() + calm + STOPPED > time && self.0 == Pace::Long {
                break;
            }
            let begin = micros(watch);
            self.break_once(fault, cluster, number)?;
            let end = micros(watch) + u64::try_from(RECOVERY.as_micros()).unwrap_or_default();
            broke.push((fault, Window { begin, end }));
        }
        thread::sleep(time.saturating_sub(watch.elapsed()));
        Ok(Faults(broke))
    }

    fn break_once(&self, fault: Fault, cluster: &mut Cluster, number: usize) -> anyhow::Result<()> {
        let long = self.0 == Pace::Long;
        let place = number % cluster.nodes.len();
        let wait = |short: u64, long_one: Duration| {
            thread::sleep(if long { long_one } else { Duration::from_millis(short) });
        };
        match fault {
            Fault::Stop => {
                cluster.nodes[place].signal(Signal::STOP)?;
                wait(2200, STOPPED);
                cluster.nodes[place].signal(Signal::CONT)?;
            }
            Fault::Kill => {
                cluster.nodes[place].kill();
                wait(50, Duration::from_millis(300));
                cluster.nodes[place].start()?;
            }
            Fault::Cut => {
                let proxy = &cluster.nodes[place].proxy;
                for bytes in [700, 3000, 9000] {
                    proxy.set(Broken::CutAfter(bytes));
                    wait(60, Duration::from_millis(300));
                    proxy.set(Broken::CutRequestsAfter(bytes));
                    wait(60, Duration::from_millis(300));
                    proxy.drop_connections();
                }
                proxy.set(Broken::Pass);
            }
            Fault::Stall => {
                cluster.nodes[place].proxy.set(Broken::Stall);
                wait(600, Duration::from_millis(1500));
                cluster.nodes[place].proxy.set(Broken::Pass);
            }
            Fault::ClientKill => {
                for _ in 0..3 {
                    cluster.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
                    wait(50, Duration::from_millis(200));
                }
            }
            Fault::Flush => {
                cluster.redis.command(&["FLUSHALL"]);
                wait(20, Duration::from_millis(100));
                cluster.redis.command(&["FLUSHALL", "ASYNC"]);
            }
            Fault::Evict => {
                let redis = &cluster.redis;
                redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
                // So much less than is used that hardly anything can stay.
                let limit = (redis.info("used_memory") - 60_000).max(1).to_string();
                redis.command(&["CONFIG", "SET", "maxmemory", &limit]);
                wait(400, Duration::from_millis(1500));
                redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
            }
            Fault::RestartEmpty => {
                let _ = std::fs::remove_file(cluster.dump());
                cluster.redis.restart();
            }
            Fault::RestartOlder => {
                cluster.redis.command(&["SAVE"]);
                wait(700, Duration::from_millis(1500));
                cluster.redis.restart();
                let _ = std::fs::remove_file(cluster.dump());
            }
        }
        Ok(())
    }
}

fn micros(watch: Stopwatch) -> u64 {
    u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX)
}
