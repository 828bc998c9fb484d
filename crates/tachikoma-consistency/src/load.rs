//! Readers and writers on all nodes, each a thread with a connection of its own that notes what it
//! sees, with the times of one clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tachikoma_testkit::Stopwatch;

use crate::client::{Answer, Client};
use crate::cluster::Cluster;
use crate::history::{Class, History, Invalidation, Promise, Read};
use crate::strategy::Strategy;

/// Keys of each class: 64 in all.
const KEYS: u16 = 20;
const PAGES: u16 = 12;

/// Versions that one request reads.
const BATCH: usize = 16;

const READERS_PER_NODE: usize = 3;
const WRITERS: usize = 8;

/// Between two writes of one writer. Every other one is followed by another write of the same key:
/// 120 invalidations a second together.
const PACE: Duration = Duration::from_millis(100);

/// So soon, at most, that a load that the first one caused may be under way.
const SECOND_WRITE: Duration = Duration::from_millis(16);

/// After a failure.
const PAUSE: Duration = Duration::from_millis(20);

/// The clients of a run.
#[derive(Debug)]
pub(crate) struct Load {
    threads: Vec<JoinHandle<History>>,
    ended: Arc<AtomicBool>,
    watch: Stopwatch,
}

/// What every client knows.
#[derive(Debug, Clone)]
struct Shared {
    ports: Vec<u16>,
    missions: Vec<String>,
    classes: Vec<Class>,
    ended: Arc<AtomicBool>,
    watch: Stopwatch,
}

impl Load {
    /// Starts clients of all nodes of a cluster.
    pub(crate) fn start(cluster: &Cluster, strategy: Strategy) -> anyhow::Result<Self> {
        let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.port).collect();
        let port = *ports.first().context("a node")?;
        let missions = (0..PAGES).map(|_| mission(port)).collect::<anyhow::Result<_>>()?;
        let classes = match strategy {
            Strategy::Naive => vec![Class::Keys, Class::Tags],
            _ => Class::ALL.to_vec(),
        };
        let (ended, watch) = (Arc::new(AtomicBool::new(false)), Stopwatch::start());
        let shared = Shared { ports, missions, classes, ended: Arc::clone(&ended), watch };
        let mut threads = Vec::new();
        for number in 0..shared.ports.len() * READERS_PER_NODE {
            let shared = shared.clone();
            threads.push(thread::spawn(move || shared.reader(number)));
        }
        for number in 0..WRITERS {
            let shared = shared.clone();
            threads.push(thread::spawn(move || shared.writer(number)));
        }
        Ok(Self { threads, ended, watch })
    }

    /// The clock that all times come from.
    pub(crate) fn watch(&self) -> Stopwatch {
        self.watch
    }

    /// Ends the clients; what they saw.
    pub(crate) fn end(self) -> anyhow::Result<History> {
        self.ended.store(true, Ordering::SeqCst);
        let mut history = History::default();
        for thread in self.threads {
            let Ok(part) = thread.join() else { bail!("a client panicked") };
            history.add(part);
        }
        Ok(history)
    }
}

/// A new mission of the reference API; its path.
fn mission(port: u16) -> anyhow::Result<String> {
    let answer = Client::to(port).send("POST", "/api/v1/missions", r#"{"title":"drill"}"#)?;
    let id = field(&answer.body, "id").context("a mission has an id")?;
    Ok(format!("/api/v1/missions/{id}"))
}

fn field(body: &str, name: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(body).ok()?;
    let found = value.get(name)?;
    Some(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.watch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// A class and a key of it, by chance.
    fn pick(&self) -> (Class, u16) {
        let class = self.classes[rand::random_range(0..self.classes.len())];
        (class, rand::random_range(0..keys_of(class)))
    }

    fn reader(&self, number: usize) -> History {
        let node = number % self.ports.len();
        let mut client = Client::to(self.ports[node]);
        let mut history = History::default();
        while !self.is_over() {
            let (class, id) = self.pick();
            let begin = self.now();
            let answer = match class {
                Class::Keys | Class::Tags => client.send("GET", &batch(class), ""),
                Class::Api => client.send("GET", &self.missions[usize::from(id)], ""),
                Class::Pages => client.send("GET", &format!("/pages/{id}"), ""),
            };
            let end = self.now();
            match answer {
                Ok(answer) if answer.status == 200 => {
                    let read = Read {
                        class,
                        id,
                        begin,
                        end,
                        node,
                        version: 0,
                        hit: false,
                        promise: Promise::Within,
                    };
                    note(&mut history, read, &answer);
                }
                _ => {
                    history.failed_reads += 1;
                    thread::sleep(PAUSE);
                }
            }
        }
        history
    }

    fn writer(&self, number: usize) -> History {
        let node = number % self.ports.len();
        let mut client = Client::to(self.ports[node]);
        let mut history = History::default();
        let mut next = PACE.mul_f64(rand::random());
        while !self.is_over() {
            thread::sleep(next.saturating_sub(self.watch.elapsed()));
            next = self.watch.elapsed().max(next) + PACE;
            let (class, id) = self.pick();
            self.write(&mut client, class, id, &mut history);
            if rand::random() {
                thread::sleep(SECOND_WRITE.mul_f64(rand::random()));
                self.write(&mut client, class, id, &mut history);
            }
        }
        history
    }

    fn write(&self, client: &mut Client, class: Class, id: u16, history: &mut History) {
        let begin = self.now();
        let answer = if class == Class::Api {
            client.send("PUT", &self.missions[usize::from(id)], r#"{"title":"drill"}"#)
        } else {
            client.send("POST", &format!("/write/{}/{id}", class.name()), "")
        };
        let end = self.now();
        let version = answer.as_ref().ok().and_then(|answer| match class {
            Class::Api => field(&answer.body, "version")?.parse().ok(),
            _ => answer.body.trim().parse().ok(),
        });
        match (answer.map(|answer| answer.status), version) {
            (Ok(200), Some(version)) => {
                history.invalidations.push(Invalidation { class, id, end, version });
            }
            (Ok(202), _) => {
                history.pending_writes += 1;
                history.trouble.push(begin);
            }
            _ => {
                history.failed_writes += 1;
                history.trouble.push(begin);
            }
        }
    }
}

fn keys_of(class: Class) -> u16 {
    match class {
        Class::Keys | Class::Tags => KEYS,
        Class::Api | Class::Pages => PAGES,
    }
}

fn batch(class: Class) -> String {
    let ids: Vec<String> = (0..BATCH).map(|_| rand::random_range(0..KEYS).to_string()).collect();
    format!("/read/{}?ids={}", class.name(), ids.join(","))
}

/// Notes the values of one answer.
fn note(history: &mut History, read: Read, answer: &Answer) {
    match read.class {
        Class::Keys | Class::Tags => {
            for line in answer.body.lines() {
                let words: Vec<&str> = line.split(' ').collect();
                let [id, version, came_by, guarantee] = words[..] else { continue };
                let (Ok(id), Ok(version)) = (id.parse(), version.parse()) else { continue };
                let promise = match guarantee {
                    "fresh" => Promise::AtOnce,
                    "within" => Promise::Within,
                    _ => Promise::None,
                };
                let hit = came_by == "hit";
                history.reads.push(Read { id, version, hit, promise, ..read });
            }
        }
        Class::Api => {
            let Some(version) = field(&answer.body, "version") else { return };
            let Ok(version) = version.parse() else { return };
            let stale = answer.cache.contains("desc=stale");
            let promise = if stale { Promise::None } else { Promise::Within };
            let hit = answer.cache.contains("desc=hit");
            history.reads.push(Read { version, hit, promise, ..read });
        }
        Class::Pages => {
            let Ok(version) = answer.body.trim().parse() else { return };
            let hit = answer.cache.contains("hit");
            history.reads.push(Read { version, hit, ..read });
        }
    }
}
