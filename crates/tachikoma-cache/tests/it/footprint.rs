//! What a cache takes from the machine, and that it comes back. Heavy loads: modest by default, in
//! full by `TACHIKOMA_ENTRIES` (10,000,000).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt as _;
use peak_alloc::PeakAlloc;
use serde::{Deserialize, Serialize};
use tachikoma_cache::key::Key;
use tachikoma_cache::store::{Cursor, Want};
use tachikoma_cache::{Cache, Namespace, Pattern, TestClock, Ttl};

const MIB: u64 = 1 << 20;

/// Counts what is allocated: a leak of a few bytes a key does not show in pages of 4 KiB.
#[global_allocator]
pub(crate) static ALLOCATED: PeakAlloc = PeakAlloc;

fn entries() -> u64 {
    std::env::var("TACHIKOMA_ENTRIES").map_or(400_000, |n| n.parse().unwrap())
}

/// The memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn set(cache: &Cache, key: &str, value: u8, ttl: impl Into<Ttl>) {
    cache.set(key, value, ttl).into_future().now_or_never().unwrap().unwrap();
}

/// DS-27.
#[test]
fn tiny_entries_take_no_more_than_half_as_much_again_as_the_limit() {
    // In full it is the catalogue's limit; fewer entries still fill a smaller one twice. It is
    // large beside what the process itself takes when it runs for the first time (about 4 MiB).
    let limit = if entries() >= 10_000_000 { 256 * MIB } else { 64 * MIB };
    let before = resident();
    let cache = Cache::memory().max_bytes(limit).max_entries(u64::MAX).build().unwrap();
    let mut most = 0;
    for n in 0..entries() {
        set(&cache, &format!("k{n}"), 1, Ttl::Never);
        if n % 50_000 == 0 {
            most = most.max(resident() - before);
        }
    }
    most = most.max(resident() - before);
    let stats = cache.stats();
    println!(
        "{} entries kept; {} MiB at most, limit {}",
        stats.size.unwrap(),
        most / MIB,
        limit / MIB
    );
    assert!(stats.bytes.unwrap() <= limit);
    assert!(stats.evictions.unwrap() > 0, "the limit was reached");
    assert!(most <= limit + limit / 2, "{most} bytes for a limit of {limit}");
}

/// RG-03: what expires leaves nothing behind. Counted in what is allocated: how many pages of it
/// the allocator keeps for later says nothing about a leak.
#[test]
fn rg_moka_329_insert_and_expire_reach_a_plateau() {
    const ROUNDS: u64 = 20;
    let clock = TestClock::new();
    let cache = Cache::memory()
        .clock(Arc::new(clock.clone()))
        .max_bytes(1 << 40)
        .max_entries(1 << 30)
        .build()
        .unwrap();
    let (mut full, mut empty) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for n in 0..entries() / ROUNDS {
            set(&cache, &format!("{round:02}:{n}"), 1, Duration::from_secs(60));
        }
        full.push(ALLOCATED.current_usage());
        clock.advance(Duration::from_secs(60));
        let swept = || cache.stats().bytes == Some(0);
        assert!(tachikoma_testkit::wait_until(Duration::from_secs(30), swept));
        empty.push(ALLOCATED.current_usage());
    }
    println!("bytes when full {full:?}, when empty {empty:?}");
    // The first rounds also make what stays: tables of the shards, the test's own lists.
    for (what, bytes) in [("full", &full), ("empty", &empty)] {
        let (early, last) = (bytes[bytes.len() / 4], bytes[bytes.len() - 1]);
        assert!(last <= early + early / 20, "{what}: {bytes:?}");
    }
    assert_eq!(cache.stats().expirations, Some(entries() / ROUNDS * ROUNDS));
}

/// A value that counts how many of it there are.
#[derive(Serialize, Deserialize)]
struct Counted(u32);

static ALIVE: AtomicU64 = AtomicU64::new(0);

impl Counted {
    fn new(n: u32) -> Self {
        ALIVE.fetch_add(1, Relaxed);
        Self(n)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Relaxed);
    }
}

/// RG-02: replaced, evicted, deleted, invalidated, expired, or there when the cache goes.
#[tokio::test]
async fn rg_moka_176_every_value_is_dropped() {
    let clock = TestClock::new();
    let cache = Cache::memory().clock(Arc::new(clock.clone())).max_entries(500).build().unwrap();
    for n in 0..10_000_u32 {
        let key = (n % 700).to_string();
        let ttl = Duration::from_secs(u64::from(n % 50) + 1);
        cache.set(&key, Counted::new(n), ttl).tags([(n % 3).to_string()]).await.unwrap();
        match n % 100 {
            0 => drop(cache.delete(&key).await.unwrap()),
            1 => cache.invalidate_tag("1").await.unwrap(),
            2 => clock.advance(Duration::from_secs(1)),
            3 => drop(cache.get::<Counted>(&key).await.unwrap()),
            _ => {}
        }
    }
    assert!(ALIVE.load(Relaxed) > 0);
    drop(cache);
    assert!(tachikoma_testkit::wait_until(Duration::from_secs(5), || ALIVE.load(Relaxed) == 0));
}

/// RG-04: a write that is dropped at any await leaves nothing that the bounds do not know.
#[test]
fn rg_moka_309_a_cancelled_write_leaves_no_unmanaged_entry() {
    let cache = Cache::memory().max_entries(100).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for n in 0..20_000_u32 {
            let key = n.to_string();
            let load = cache.get_or_load(&key, move || async move {
                for _ in 0..n % 4 {
                    tokio::task::yield_now().await;
                }
                Ok::<_, ()>(n)
            });
            let mut load = Box::pin(load.into_future());
            for _ in 0..n % 5 {
                if load.as_mut().now_or_never().is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(load);
            drop(cache.set(&key, n, Ttl::Never).into_future());
        }
    });
    drop(runtime);
    let stats = cache.stats();
    assert!(stats.size.unwrap() <= 100, "{stats:?}");
    let gone = stats.evictions.unwrap() + stats.replacements.unwrap() + stats.deletions.unwrap();
    let gone = gone + stats.expirations.unwrap();
    assert_eq!(stats.inserts.unwrap(), gone + stats.size.unwrap(), "{stats:?}");
    assert_eq!(stats.loads_running, 0);
}

/// RG-10: after anything at all, an empty cache holds nothing by its own account.
#[tokio::test]
async fn rg_nntp_proxy_73_weights_add_up_to_nothing() {
    let cache = Cache::memory().max_bytes(200_000).build().unwrap();
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for _ in 0..30_000 {
        let key = draw(300).to_string();
        match draw(5) {
            0 => drop(cache.delete(&key).await.unwrap()),
            1 => drop(cache.touch(&key, Duration::from_secs(9)).await.unwrap()),
            _ => {
                let bytes = usize::try_from(draw(3_000)).unwrap();
                cache.set(&key, "x".repeat(bytes), Ttl::Never).await.unwrap();
            }
        }
        assert!(cache.stats().bytes.unwrap() <= 200_000);
    }
    cache.clear().await.unwrap();
    assert_eq!((cache.stats().size, cache.stats().bytes), (Some(0), Some(0)));
}

/// RG-11: a write races the load of the same key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rg_quick_cache_40_a_write_may_race_a_load() {
    let cache = Cache::memory().max_entries(10).build().unwrap();
    let tasks: Vec<_> = (0..4_u32)
        .map(|task| {
            let cache = cache.clone();
            tokio::spawn(async move {
                for n in 0..5_000_u32 {
                    let key = (n % 13).to_string();
                    match task {
                        0 => cache.set(&key, n, Ttl::Never).await.unwrap(),
                        1 => drop(cache.delete(&key).await.unwrap()),
                        _ => {
                            let load =
                                cache.get_or_load(&key, move || async move { Ok::<_, ()>(n) });
                            load.await.unwrap();
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(cache.stats().size.unwrap() <= 10);
}

/// RG-12: nothing waits for a background task: neither on one thread nor without a runtime.
#[test]
fn rg_stretto_27_nothing_waits_for_a_worker() {
    let cache = Cache::memory().max_entries(2).build().unwrap();
    for n in 0..1_000_u32 {
        let key = n.to_string();
        assert!(cache.set(&key, n, Ttl::Never).into_future().now_or_never().is_some());
        assert!(cache.get::<u32>(&key).now_or_never().unwrap().unwrap().is_some());
        assert_eq!(cache.stats().size.unwrap(), u64::from(n + 1).min(2));
    }
}

/// DS-31, RG-13: a million keys that were loaded once, in vain, leave nothing: no lease, no load.
#[test]
fn rg_cached_226_misses_of_distinct_keys_leave_nothing() {
    let misses = std::env::var("TACHIKOMA_MISSES").map_or(40_000, |n| n.parse().unwrap());
    let cache = Cache::memory().build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let round = |from: u64| {
        runtime.block_on(async {
            for n in from..from + misses / 5 {
                let key = n.to_string();
                let load = cache.get_or_load(&key, || async { Err::<u32, _>("no") });
                assert!(load.await.is_err());
            }
        });
    };
    round(0);
    let before = ALLOCATED.current_usage();
    (1..5).for_each(|number| round(number * misses));
    let after = ALLOCATED.current_usage();
    println!("{before} bytes after a fifth, {after} after all");
    assert!(after <= before + before / 20, "{before}, then {after}");
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.loads_running, stats.size), (misses / 5 * 5, 0, Some(0)));
    // What has a lease is found by name.
    let all = Pattern::raw("?*").unwrap();
    let page = runtime.block_on(cache.entries().scan(&all, Cursor::START, Want::Names, 10));
    assert!(page.unwrap().items.is_empty());
}

/// DS-32: who cannot know the seed cannot make keys meet.
#[test]
fn keys_hash_differently_in_each_process_and_evenly_in_one() {
    const CHILD: &str = "TACHIKOMA_HASH_CHILD";
    let namespace = Namespace::default();
    let hash = |name: &str| Key::new(&namespace, name).unwrap().hash();
    if std::env::var_os(CHILD).is_some() {
        return println!("hash {}", hash("user:1"));
    }
    let of_child = || {
        let name = "footprint::keys_hash_differently_in_each_process_and_evenly_in_one";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let out = String::from_utf8(child.stdout).unwrap();
        let hash = out.lines().find_map(|line| line.split_once("hash ")).unwrap().1;
        hash.trim().parse::<u64>().unwrap()
    };
    let hashes = [hash("user:1"), of_child(), of_child()];
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2], "{hashes:?}");

    // Keys that meet under weak hashes: counters at the end, blocks exchanged, only high bits.
    let exchanged = |n: u64| {
        let blocks = (0..20).map(|bit| if n >> bit & 1 == 0 { "AaAaAaAa" } else { "BBAaBBAa" });
        blocks.collect::<String>()
    };
    let families: [Box<dyn Fn(u64) -> String>; 3] = [
        Box::new(|n| format!("user:{n:08}")),
        Box::new(exchanged),
        Box::new(|n| format!("{n:08x}{}", "0".repeat(56))),
    ];
    for (index, family) in families.iter().enumerate() {
        for shift in [0, 48, 56] {
            let mut buckets = vec![0_u32; 256];
            for n in 0..25_600 {
                buckets[usize::try_from(hash(&family(n)) >> shift & 255).unwrap()] += 1;
            }
            let fullest = buckets.iter().max().unwrap();
            assert!(*fullest < 180, "family {index}, bits from {shift}: {fullest} of 100 expected");
        }
    }
}
