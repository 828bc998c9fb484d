//! Readers and writers on all nodes, each a thread with a connection of its own that notes what it
//! sees, with the times of one clock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tachikoma_testkit::Stopwatch;

use crate::client::{Answer, Client};
use crate::cluster::Cluster;
use crate::history::{Came, Class, History, Kind, Promise, Read, Trouble, Write};
use crate::strategy::Strategy;

/// Keys of each class: 64 in all.
const KEYS: u16 = 17;
const PAGES: u16 = 10;

/// Versions that one request reads.
const BATCH: usize = 16;

const READERS_PER_NODE: usize = 3;
const WRITERS: usize = 8;

/// Between two writes of one writer. Every other one is followed by another write of the same key:
/// 120 invalidations a second together.
const PACE: Duration = Duration::from_millis(100);

/// So soon, at most, that a load that the first one caused may be under way.
const SECOND_WRITE: Duration = Duration::from_millis(10);

/// After a failure.
const PAUSE: Duration = Duration::from_millis(20);

/// The clients of a run.
#[derive(Debug)]
pub(crate) struct Load {
    threads: Vec<JoinHandle<History>>,
    /// What there was before the first write.
    start: History,
    ended: Arc<AtomicBool>,
    watch: Stopwatch,
}

/// What every client knows.
#[derive(Debug, Clone)]
struct Shared {
    ports: Vec<u16>,
    /// Paths.
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
        let (mut missions, mut start) = (Vec::new(), History::default());
        for id in 0..PAGES {
            let (path, version) = mission(port)?;
            missions.push(path);
            start.first.insert((Class::Api, id), version);
        }
        let classes = match strategy {
            Strategy::Naive => vec![Class::Keys, Class::Tags],
            // Their store notes nothing of what was read.
            Strategy::BlindFill | Strategy::LateCounter | Strategy::TokenPerProcess => {
                Class::ALL.into_iter().filter(|class| *class != Class::Parts).collect()
            }
            Strategy::Shipped | Strategy::NoMarker | Strategy::NoDependencies => {
                Class::ALL.to_vec()
            }
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
        Ok(Self { threads, start, ended, watch })
    }

    /// The clock that all times come from.
    pub(crate) fn watch(&self) -> Stopwatch {
        self.watch
    }

    /// Ends the clients; what they saw.
    pub(crate) fn end(self) -> anyhow::Result<History> {
        self.ended.store(true, Ordering::SeqCst);
        let mut history = self.start;
        for thread in self.threads {
            let Ok(part) = thread.join() else { bail!("a client panicked") };
            history.add(part);
        }
        Ok(history)
    }
}

/// A new mission of the reference API; its path and version.
fn mission(port: u16) -> anyhow::Result<(String, u32)> {
    let answer = Client::to(port).send("POST", "/api/v1/missions", r#"{"title":"drill"}"#)?;
    let id = field(&answer.body, "id").context("a mission has an id")?;
    let version = field(&answer.body, "version").and_then(|version| version.parse().ok());
    Ok((format!("/api/v1/missions/{id}"), version.context("a mission has a version")?))
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

    fn class(&self) -> Class {
        self.classes[rand::random_range(0..self.classes.len())]
    }

    fn reader(&self, number: usize) -> History {
        let node = number % self.ports.len();
        let mut client = Client::to(self.ports[node]);
        let mut history = History::default();
        while !self.is_over() {
            let asked = Asked::of(self.class());
            let begin = self.now();
            let answer = client.send("GET", &self.path(&asked), "");
            let read = Read {
                class: asked.class,
                id: 0,
                begin,
                end: self.now(),
                node: u8::try_from(node).unwrap_or(u8::MAX),
                version: 0,
                came: Came::Loaded,
                promise: Promise::Within,
            };
            let before = history.reads.len();
            if let Err(what) = asked.note(&mut history.reads, read, answer) {
                history.reads.truncate(before);
                let Read { class, begin, end, node, .. } = read;
                history.troubles.push(Trouble { kind: Kind::Read, class, begin, end, node, what });
                thread::sleep(PAUSE);
            }
        }
        history
    }

    fn path(&self, asked: &Asked) -> String {
        let Asked { class, ids } = asked;
        match class {
            Class::Keys | Class::Tags => {
                let ids: Vec<String> = ids.iter().map(u16::to_string).collect();
                format!("/read/{}?ids={}", class.name(), ids.join(","))
            }
            Class::Api => self.missions[usize::from(ids[0])].clone(),
            Class::Pages | Class::Parts => format!("/{}/{}", class.name(), ids[0]),
        }
    }

    fn writer(&self, number: usize) -> History {
        let node = number % self.ports.len();
        let mut client = Client::to(self.ports[node]);
        let mut history = History::default();
        let mut next = PACE.mul_f64(rand::random());
        while !self.is_over() {
            thread::sleep(next.saturating_sub(self.watch.elapsed()));
            next = self.watch.elapsed().max(next) + PACE;
            let class = self.class();
            let id = written(keys_of(class));
            self.write(&mut client, node, (class, id), &mut history);
            if rand::random() {
                thread::sleep(SECOND_WRITE.mul_f64(rand::random()));
                self.write(&mut client, node, (class, id), &mut history);
            }
        }
        history
    }

    fn write(
        &self,
        client: &mut Client,
        node: usize,
        (class, id): (Class, u16),
        history: &mut History,
    ) {
        let begin = self.now();
        let answer = if class == Class::Api {
            client.send("PUT", &self.missions[usize::from(id)], r#"{"title":"drill"}"#)
        } else {
            client.send("POST", &format!("/write/{}/{id}", class.name()), "")
        };
        let end = self.now();
        let (told, kind, what) = match answer {
            Ok(answer) if answer.status == 200 => {
                let version = version_in(class, &answer);
                (version, Kind::Write, "200 without a version".to_owned())
            }
            Ok(answer) if answer.status == 202 => {
                let why = if class == Class::Api { "202".to_owned() } else { answer.body };
                (None, Kind::Pending, why)
            }
            Ok(answer) => (None, Kind::Write, described(&answer)),
            Err(error) => (None, Kind::Write, error.to_string()),
        };
        history.writes.push(Write { class, id, begin, end, told });
        if told.is_none() {
            let node = u8::try_from(node).unwrap_or(u8::MAX);
            history.troubles.push(Trouble { kind, class, begin, end, node, what });
        }
    }
}

fn keys_of(class: Class) -> u16 {
    match class {
        Class::Keys | Class::Tags => KEYS,
        Class::Api | Class::Pages | Class::Parts => PAGES,
    }
}

/// Which of so many keys is written: the first often, so that loads meet writes, and the last
/// seldom, so that a stale copy has the time to be seen.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is below `keys`")]
fn written(keys: u16) -> u16 {
    let part: f64 = rand::random();
    ((f64::from(keys) * part * part) as u16).min(keys - 1)
}

fn version_in(class: Class, answer: &Answer) -> Option<u32> {
    match class {
        Class::Api => field(&answer.body, "version")?.parse().ok(),
        _ => answer.body.trim().parse().ok(),
    }
}

fn described(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.body.trim().chars().take(200).collect::<String>())
}

/// What one request asks for.
#[derive(Debug)]
struct Asked {
    class: Class,
    ids: Vec<u16>,
}

impl Asked {
    /// Some keys of a class: all equally, and those that are often written once more.
    fn of(class: Class) -> Self {
        let many = match class {
            Class::Keys | Class::Tags => BATCH,
            Class::Api | Class::Pages | Class::Parts => 1,
        };
        let keys = keys_of(class);
        let any = || if rand::random() { written(keys) } else { rand::random_range(0..keys) };
        Self { class, ids: (0..many).map(|_| any()).collect() }
    }

    /// Notes the values of the answer, which must be all that was asked for.
    fn note(
        &self,
        reads: &mut Vec<Read>,
        read: Read,
        answer: io::Result<Answer>,
    ) -> Result<(), String> {
        let answer = answer.map_err(|error| error.to_string())?;
        let unexpected = || described(&answer);
        if answer.status != 200 {
            return Err(unexpected());
        }
        if let Class::Api | Class::Pages | Class::Parts = self.class {
            let version = version_in(self.class, &answer).ok_or_else(unexpected)?;
            let came = came_by(&answer.cache);
            let promise = if came == Came::Stale { Promise::None } else { Promise::Within };
            reads.push(Read { id: self.ids[0], version, came, promise, ..read });
            return Ok(());
        }
        let mut lines = answer.body.lines();
        for id in &self.ids {
            let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
            let [of, version, came, guarantee] = words[..] else { return Err(unexpected()) };
            let version = version.parse().map_err(|_| unexpected())?;
            let (came, promise) = match (came, guarantee) {
                ("load", "fresh") => (Came::Loaded, Promise::AtOnce),
                ("load", "within") => (Came::Loaded, Promise::Within),
                ("hit", "fresh") => (Came::Redis, Promise::AtOnce),
                ("hit", "within") => (Came::Memory, Promise::Within),
                ("stale", "stale") => (Came::Stale, Promise::None),
                _ => return Err(unexpected()),
            };
            if of.parse() != Ok(*id) {
                return Err(unexpected());
            }
            reads.push(Read { id: *id, version, came, promise, ..read });
        }
        if lines.next().is_some() { Err(unexpected()) } else { Ok(()) }
    }
}

/// What the fields of an answer tell of the cache.
fn came_by(fields: &str) -> Came {
    if fields.contains("desc=stale") {
        Came::Stale
    } else if fields.contains("hit") {
        Came::Cache
    } else {
        Came::Loaded
    }
}

#[cfg(test)]
mod tests;
