//! Real processes on one server: together they load a key once, one that is killed is replaced, and
//! nothing stale is left by those that load while others invalidate (FM-16, FM-17).

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::ops::Range;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt as _;
use tachikoma_cache::{Cache, Clock as _, SystemClock};
use tachikoma_testkit::{Connection, RedisServer, Resp, Stopwatch, allowed};

/// The URL of the process that does what it is told; without it this is the test.
const NODE: &str = "TACHIKOMA_NODE";
const NAME: &str = "nodes::four_processes_with_200_waiters_each_load_a_key_once";
const MINUTE: Duration = Duration::from_secs(60);
const WAITERS: u32 = 200;

async fn pause(duration: Duration) {
    SystemClock::new().sleep(duration).await;
}

/// What a node of these tests runs: it does what its standard input says, line by line.
fn run_node(url: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cache = runtime.block_on(async { Cache::connect(url).await }).unwrap();
    let versions = Versions::open(url.split('?').next().unwrap());
    say("ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let done = match words[..] {
            ["load", key] => runtime.block_on(load_by_many(&cache, key)),
            ["hang", key] => runtime.block_on(hang(&cache, key)),
            ["read", strategy, from, to] => {
                let naive = strategy == "naive";
                runtime.block_on(readers(&cache, &versions, naive, range(from, to)))
            }
            ["change", strategy, from, to] => {
                let naive = strategy == "naive";
                runtime.block_on(writers(&cache, &versions, naive, range(from, to)))
            }
            _ => panic!("{line}"),
        };
        say(&done);
    }
}

fn say(text: &str) {
    println!("node: {text}");
}

fn range(from: &str, to: &str) -> Range<u32> {
    from.parse().unwrap()..to.parse().unwrap()
}

/// 200 callers of one key at once; how many loads, and the longest wait in milliseconds.
async fn load_by_many(cache: &Cache, key: &str) -> String {
    let loads = Arc::new(AtomicU32::new(0));
    let callers: Vec<_> = (0..WAITERS)
        .map(|_| {
            let (cache, key, loads) = (cache.clone(), key.to_owned(), Arc::clone(&loads));
            tokio::spawn(async move {
                let clock = Stopwatch::start();
                let load = move || async move {
                    say("loading");
                    loads.fetch_add(1, Ordering::SeqCst);
                    pause(Duration::from_millis(100)).await;
                    Ok::<u32, ()>(7)
                };
                assert_eq!(*cache.get_or_load(&key, load).ttl(MINUTE).await.unwrap(), 7);
                clock.elapsed()
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for caller in callers {
        longest = longest.max(caller.await.unwrap());
    }
    format!("{} {}", loads.load(Ordering::SeqCst), longest.as_millis())
}

async fn hang(cache: &Cache, key: &str) -> String {
    let load = || async {
        say("loading");
        std::future::pending::<Result<u32, ()>>().await
    };
    cache.get_or_load(key, load).await.map(|hit| *hit).unwrap_or_default().to_string()
}

/// The source of the races: a version of each, beside the cache in the same server.
#[derive(Clone)]
struct Versions(Arc<Mutex<Connection>>);

impl Versions {
    fn open(server: &str) -> Self {
        let port = server.rsplit(':').next().unwrap().split('/').next().unwrap();
        let connection = Connection::open(port.parse().unwrap(), MINUTE).unwrap();
        Self(Arc::new(Mutex::new(connection)))
    }

    /// The first version stands nowhere.
    fn read(&self, race: u32) -> u32 {
        let key = format!("source:{race}");
        let answer = self.0.lock().unwrap().command(&["GET", &key]).unwrap();
        if answer == Resp::Nil { 1 } else { answer.text().parse().unwrap() }
    }

    fn change(&self, race: u32) {
        let key = format!("source:{race}");
        self.0.lock().unwrap().command(&["SET", &key, "2"]).unwrap();
    }
}

/// Up to three milliseconds: no two races run alike.
async fn a_moment() {
    let micros = rand::rng().random_range(0..3000);
    pause(Duration::from_micros(micros)).await;
}

/// Loads the key of each race; how many values had been overtaken when they were to be stored.
async fn readers(cache: &Cache, versions: &Versions, naive: bool, races: Range<u32>) -> String {
    let before = cache.stats().refused_fills;
    let tasks = races.map(|race| {
        let (cache, versions) = (cache.clone(), versions.clone());
        tokio::spawn(async move {
            a_moment().await;
            let key = format!("race:{race}");
            let load = move || async move {
                let version = versions.read(race);
                a_moment().await;
                Ok::<u32, ()>(version)
            };
            if !naive {
                cache.get_or_load(&key, load).ttl(MINUTE).await.unwrap();
            } else if cache.get::<u32>(&key).await.unwrap().is_none() {
                let version = load().await.unwrap();
                cache.set(&key, version, MINUTE).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    // Storing delays no answer: the last fills may still be under way.
    pause(Duration::from_millis(20)).await;
    (cache.stats().refused_fills - before).to_string()
}

/// Changes the source of each race and deletes its key; who asks then must get the new version.
async fn writers(cache: &Cache, versions: &Versions, naive: bool, races: Range<u32>) -> String {
    let tasks = races.map(|race| {
        let (cache, versions) = (cache.clone(), versions.clone());
        tokio::spawn(async move {
            a_moment().await;
            let key = format!("race:{race}");
            versions.change(race);
            cache.delete(&key).await.unwrap();
            if naive {
                return 0;
            }
            let load = move || async move { Ok::<u32, ()>(versions.read(race)) };
            u32::from(*cache.get_or_load(&key, load).ttl(MINUTE).await.unwrap() != 2)
        })
    });
    let mut stale = 0;
    for task in tasks.collect::<Vec<_>>() {
        stale += task.await.unwrap();
    }
    stale.to_string()
}

/// A process that runs [`run_node`]. It is killed when it is dropped.
struct Node {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Node {
    fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(NODE, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut node = Self { child, input, lines };
        assert_eq!(node.hear(), "ready");
        node
    }

    fn tell(&mut self, words: &str) {
        writeln!(self.input, "{words}").unwrap();
    }

    /// What it says next.
    fn hear(&mut self) -> String {
        loop {
            let line = self.lines.next().expect("the node lives").unwrap();
            if let Some((_, said)) = line.split_once("node: ") {
                return said.to_owned();
            }
        }
    }

    /// The same, as numbers, but for what it says of its loads.
    fn numbers(&mut self) -> Vec<u64> {
        loop {
            let said = self.hear();
            if said != "loading" {
                return said.split(' ').map(|number| number.parse().unwrap()).collect();
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only for a process that has already been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn four_processes_with_200_waiters_each_load_a_key_once() {
    if let Ok(url) = std::env::var(NODE) {
        return run_node(&url);
    }
    let server = RedisServer::start();
    // Each reads from Redis, so that the number of commands says how often they ask.
    let url = format!("{}&store_timeout=10s&memory=off", server.url_with("shop"));
    let mut nodes: Vec<Node> = (0..4).map(|_| Node::start(&url)).collect();
    let (mut most, mut longest) = (0, 0);
    for round in 0..20 {
        let before = server.info("total_commands_processed");
        for node in &mut nodes {
            node.tell(&format!("load k{round}"));
        }
        let mut loads = 0;
        for node in &mut nodes {
            let said = node.numbers();
            loads += said[0];
            longest = longest.max(said[1]);
        }
        let commands = server.info("total_commands_processed") - before;
        assert_eq!(loads, 1, "round {round}");
        assert!(commands <= 300, "{commands} commands in round {round}");
        most = most.max(commands);
    }
    println!("at most {most} commands a round, the longest wait for 100 ms: {longest} ms");
}

#[test]
fn a_holder_that_is_killed_is_replaced_within_its_lease() {
    const LEASE: Duration = Duration::from_secs(1);
    let server = RedisServer::start();
    let url = format!("{}&store_timeout=10s&lease=1s", server.url_with("shop"));
    let mut waiting: Vec<Node> = (0..3).map(|_| Node::start(&url)).collect();
    let mut times = Vec::new();
    // Machines that run tests are shared: one of three tries must be in time.
    for round in 0..3 {
        let mut holder = Node::start(&url);
        holder.tell(&format!("hang k{round}"));
        assert_eq!(holder.hear(), "loading");
        for node in &mut waiting {
            node.tell(&format!("load k{round}"));
        }
        // It lives for longer than a lease, and is not replaced.
        std::thread::sleep(LEASE * 2);
        let lease = format!("shop:{{vk{round}}}:l");
        assert_eq!(server.command(&["EXISTS", &lease]).integer(), 1);
        let clock = Stopwatch::start();
        drop(holder);
        let said: Vec<_> = waiting.iter_mut().map(Node::numbers).collect();
        // The load itself takes 100 ms.
        let took = clock.elapsed().saturating_sub(Duration::from_millis(100));
        assert_eq!(said.iter().map(|said| said[0]).sum::<u64>(), 1, "one of them loads");
        let most = allowed(LEASE + Duration::from_millis(100), took);
        times.push((took, most));
        if took <= most {
            println!("replaced after {times:?}");
            return;
        }
    }
    panic!("each took and was allowed {times:?}; on a quiet machine a lease and 100 ms");
}

/// Runs races of a load against a change; how many keys hold the old version afterwards, or gave it
/// to somebody who asked after the change, and how many values were refused.
fn race(races: u32, strategy: &str) -> (u64, u64) {
    const AT_ONCE: u32 = 250;
    let server = RedisServer::start();
    let url = format!("{}&store_timeout=10s&memory=off", server.url_with("shop"));
    let (mut reader, mut writer) = (Node::start(&url), Node::start(&url));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cache = runtime.block_on(async { Cache::connect(&url).await }).unwrap();
    let (mut stale, mut refused) = (0, 0);
    for from in (0..races).step_by(AT_ONCE as usize) {
        let to = races.min(from + AT_ONCE);
        reader.tell(&format!("read {strategy} {from} {to}"));
        writer.tell(&format!("change {strategy} {from} {to}"));
        refused += reader.numbers()[0];
        stale += writer.numbers()[0];
        let keys: Vec<_> = (from..to).map(|race| format!("race:{race}")).collect();
        let left = runtime.block_on(cache.get_many::<u32>(&keys)).unwrap();
        stale += left.iter().flatten().filter(|hit| ***hit != 2).count() as u64;
    }
    println!("{races} races {strategy}: {stale} stale, {refused} refused");
    (stale, refused)
}

#[test]
fn of_races_between_a_load_and_an_invalidation_in_two_processes_none_ends_stale() {
    let races = std::env::var("TACHIKOMA_RACES").map_or(10_000, |races| races.parse().unwrap());
    let (stale, refused) = race(races, "leased");
    assert_eq!(stale, 0);
    assert!(refused > u64::from(races) / 100, "only {refused} loads were overtaken");
    assert!(race(races.min(1000), "naive").0 > 0, "without leases the same races end stale");
}
