//! Histories of many writers and readers, checked against the promise.
//!
//! A version of a key is set or deleted with everything in its time noted; a read must not show a
//! version that an operation had replaced before the read began: at once if it says that it is
//! fresh, after the freshness if it says that it is within that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

const KEYS: usize = 4;

/// When each version of a key was replaced for sure; index: the version.
#[derive(Default)]
struct History {
    replaced: Mutex<Vec<Option<Duration>>>,
}

impl History {
    fn next(&self) -> u64 {
        let mut replaced = self.replaced.lock().unwrap();
        replaced.push(None);
        replaced.len() as u64 - 1
    }

    /// Everything up to this version is over since then.
    fn over(&self, version: u64, at: Duration) {
        let mut replaced = self.replaced.lock().unwrap();
        for one in replaced.iter_mut().take(usize::try_from(version).unwrap() + 1).rev() {
            if one.is_some() {
                break;
            }
            *one = Some(at);
        }
    }

    fn replaced_at(&self, version: u64) -> Option<Duration> {
        self.replaced.lock().unwrap()[usize::try_from(version).unwrap()]
    }
}

#[derive(Default)]
struct Tally {
    reads: AtomicU64,
    in_memory: AtomicU64,
    /// Reads that began less than the freshness after the key had changed.
    close: AtomicU64,
}

/// One writer for each key, readers on every node; `disturb` is called all the time.
async fn run(seconds: u64, disturb: impl Fn(&RedisServer, u64)) -> Arc<Tally> {
    let server = RedisServer::start();
    let nodes = [node(server.port()).await, node(server.port()).await, node(server.port()).await];
    let histories: Arc<[History; KEYS]> = Arc::default();
    let (running, tally) = (Arc::new(AtomicBool::new(true)), Arc::new(Tally::default()));
    let clock = Stopwatch::start();
    let mut tasks = Vec::new();
    for key in 0..KEYS {
        let (node, histories) = (nodes[key % 3].clone(), Arc::clone(&histories));
        let running = Arc::clone(&running);
        tasks.push(tokio::spawn(async move {
            let name = format!("k{key}");
            while running.load(Ordering::Relaxed) {
                let version = histories[key].next();
                // What it replaces is over only if it was told to be in.
                if node.set(&name, version, MINUTE).await.is_ok() && version > 0 {
                    histories[key].over(version - 1, clock.elapsed());
                }
                pause(ms(15)).await;
                if version % 4 == 3 && node.delete(&name).await.is_ok() {
                    histories[key].over(version, clock.elapsed());
                }
            }
        }));
    }
    for reader in 0..6 {
        let (node, histories) = (nodes[reader % 3].clone(), Arc::clone(&histories));
        let (running, tally) = (Arc::clone(&running), Arc::clone(&tally));
        tasks.push(tokio::spawn(async move {
            let mut newest = [0; KEYS];
            for round in 0.. {
                if !running.load(Ordering::Relaxed) {
                    return;
                }
                let key = (round + reader) % KEYS;
                let begun = clock.elapsed();
                let Some(seen) = look(&node, &format!("k{key}")).await else {
                    pause(ms(1)).await;
                    continue;
                };
                tally.reads.fetch_add(1, Ordering::Relaxed);
                let allowed = match seen.guarantee {
                    Guarantee::Within(within) => {
                        tally.in_memory.fetch_add(1, Ordering::Relaxed);
                        within
                    }
                    _ => Duration::ZERO,
                };
                if let Some(replaced) = histories[key].replaced_at(seen.value) {
                    assert!(replaced + allowed >= begun, "{seen:?}: {replaced:?}, {begun:?}");
                    tally.close.fetch_add(1, Ordering::Relaxed);
                }
                // Law 42; the readers of a node share its memory.
                assert!(seen.value >= newest[key], "{seen:?} after {}", newest[key]);
                newest[key] = seen.value;
                if round % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    let mut step = 0;
    while clock.elapsed() < Duration::from_secs(seconds) {
        pause(ms(50)).await;
        disturb(&server, step);
        step += 1;
    }
    running.store(false, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    tally
}

fn report(tally: &Tally) -> (u64, u64) {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (reads, in_memory, close) = (get(&tally.reads), get(&tally.in_memory), get(&tally.close));
    println!("{reads} reads, {in_memory} in memory, {close} of what had been replaced meanwhile");
    (reads, in_memory)
}

/// Laws 40 and 42.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_shows_what_was_replaced_longer_ago_than_it_says() {
    let (reads, in_memory) = report(&*run(3, |_, _| {}).await);
    assert!(reads > 10_000 && in_memory * 10 >= reads * 8, "{in_memory} of {reads}");
}

/// Law 41: connections are killed and everything is flushed all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_gap_shows_what_was_replaced_in_it() {
    let tally = run(4, |server, step| match step % 8 {
        1 | 5 => drop(server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])),
        3 => drop(server.command(&["FLUSHALL"])),
        _ => {}
    })
    .await;
    let (reads, in_memory) = report(&tally);
    assert!(reads > 1000 && in_memory > 500, "{in_memory} of {reads}");
}
