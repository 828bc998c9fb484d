//! The memory tier: several nodes, each with a memory and a connection of its own, on one Redis.
//!
//! Time is real here, because what is tested is how far a memory is behind. What the tier answers
//! in general, the laws and the random sequences show.

mod faults;
mod history;
mod tags;
mod tickets;

use std::time::Duration;

use tachikoma_cache::stats::TierState;
use tachikoma_cache::{Cache, ErrorKind, Guarantee, Health, KeyTtl};
use tachikoma_testkit::{Fault, FaultProxy, RedisServer, Stopwatch, allowed};

use crate::bench::Bench;

const MINUTE: Duration = Duration::from_secs(60);

/// The default freshness.
const FRESHNESS: Duration = Duration::from_secs(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn pause(duration: Duration) {
    tokio::time::timeout(duration, std::future::pending::<()>()).await.unwrap_err();
}

/// A node on this server, or on what stands before it.
async fn node(port: u16) -> Cache {
    let url = format!("redis://127.0.0.1:{port}/0");
    Cache::connect(&url).await.unwrap()
}

/// The same on a server that is never away, with patience for a busy machine.
async fn patient(port: u16) -> Cache {
    let url = format!("redis://127.0.0.1:{port}/0?store_timeout=10s");
    Cache::connect(&url).await.unwrap()
}

/// One that asks Redis each time.
async fn without_tier(server: &RedisServer) -> Cache {
    Cache::connect(&format!("{}?memory=off", server.url())).await.unwrap()
}

/// Reads until the answer is as wanted; how long it took. Panics after 10 s.
async fn until(cache: &Cache, key: &str, what: &str, wanted: fn(Option<Seen>) -> bool) -> Duration {
    let watch = Stopwatch::start();
    loop {
        let seen = look(cache, key).await;
        if wanted(seen) {
            return watch.elapsed();
        }
        assert!(watch.elapsed() < Duration::from_secs(10), "{key} is not {what}: {seen:?}");
        tokio::task::yield_now().await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    value: u64,
    guarantee: Guarantee,
}

/// What a node shows; nothing if it cannot ask.
async fn look(cache: &Cache, key: &str) -> Option<Seen> {
    let hit = cache.get::<u64>(key).await.ok().flatten()?;
    Some(Seen { value: *hit, guarantee: hit.guarantee() })
}

fn in_memory(seen: Option<Seen>) -> bool {
    seen.is_some_and(|seen| seen.guarantee == Guarantee::Within(FRESHNESS))
}

async fn until_in_memory(cache: &Cache, key: &str) {
    until(cache, key, "in memory", in_memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_says_what_it_promises_and_goes_when_another_node_changes_the_key() {
    let server = RedisServer::start();
    let (a, b) = (patient(server.port()).await, patient(server.port()).await);
    a.set("k", 1_u64, MINUTE).await.unwrap();
    let first = look(&b, "k").await;
    assert_eq!(first, Some(Seen { value: 1, guarantee: Guarantee::Fresh }), "from Redis");
    until_in_memory(&b, "k").await;
    a.set("k", 2_u64, MINUTE).await.unwrap();
    until(&b, "k", "2", |seen| seen.is_some_and(|seen| seen.value == 2)).await;
    until_in_memory(&b, "k").await;
    a.touch("k", 2 * MINUTE).await.unwrap();
    until(&b, "k", "read anew", |seen| !in_memory(seen)).await;
    until_in_memory(&b, "k").await;
    assert!(a.delete("k").await.unwrap());
    until(&b, "k", "gone", |seen| seen.is_none()).await;
    // Whoever changes it: another language, an operator, a flush.
    for command in
        [&["DEL", "tachikoma:{vk}"][..], &["PEXPIRE", "tachikoma:{vk}", "1"], &["FLUSHALL"]]
    {
        a.set("k", 3_u64, MINUTE).await.unwrap();
        until_in_memory(&b, "k").await;
        server.command(command);
        until(&b, "k", "gone", |seen| seen.is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_tells_of_is_read_from_redis_each_time() {
    let server = RedisServer::start();
    let (a, b) = (patient(server.port()).await, patient(server.port()).await);
    let load = || async { Ok::<_, ()>(1_u64) };
    a.get_or_load("idle", load).ttl(MINUTE).time_to_idle(MINUTE).await.unwrap();
    until(&b, "idle", "there", |seen| seen.is_some()).await;
    for _ in 0..10 {
        let seen = look(&b, "idle").await.unwrap();
        assert_eq!(seen.guarantee, Guarantee::Fresh);
    }
}

/// A node that is cut off has a copy of what was deleted, until the wait is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_strict_invalidation_no_node_shows_the_old_value() {
    let mut server = RedisServer::start();
    let proxy = FaultProxy::to(server.port());
    let (writer, far) = (node(server.port()).await, node(proxy.port()).await);
    let plain = without_tier(&server).await;
    for (cache, by_tag) in [(&writer, false), (&plain, false), (&writer, true), (&plain, true)] {
        writer.set("k", 1_u64, MINUTE).tags(["t"]).await.unwrap();
        until_in_memory(&far, "k").await;
        proxy.set(Fault::Stall);
        let watch = Stopwatch::start();
        let waited = if by_tag {
            cache.invalidate_tags_strict(["t", "u"]).await.unwrap()
        } else {
            cache.invalidate_strict("k").await.unwrap()
        };
        assert!(far.try_get::<u64>("k").is_none());
        assert!(waited >= FRESHNESS && waited <= watch.elapsed() + ms(1), "{waited:?}");
        proxy.set(Fault::Pass);
        until(&far, "k", "gone", |seen| seen.is_none()).await;
    }
    // What is not in is not waited for.
    server.kill();
    let watch = Stopwatch::start();
    let error = writer.invalidate_strict("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pending);
    assert!(watch.elapsed() < FRESHNESS, "{:?}", watch.elapsed());
    let watch = Stopwatch::start();
    let error = writer.invalidate_tags_strict(["t"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pending);
    assert!(watch.elapsed() < FRESHNESS, "{:?}", watch.elapsed());
}

/// Law 8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_lives_no_longer_than_its_entry() {
    let b = Bench::tiered().await;
    let copied = async || {
        let watch = Stopwatch::start();
        while b.cache.try_get::<u64>("k").is_none() {
            b.cache.get::<u64>("k").await.unwrap();
            assert!(watch.elapsed() < Duration::from_secs(10), "it does not get into memory");
        }
    };
    let left = async |millis| {
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::Expires(ms(millis)));
        b.advance(millis - 1);
        assert!(b.cache.try_get::<u64>("k").is_some(), "from memory");
        b.advance(1);
        assert!(b.cache.try_get::<u64>("k").is_none());
        assert!(b.cache.get::<u64>("k").await.unwrap().is_none());
    };
    b.cache.set("k", 1_u64, ms(1000)).await.unwrap();
    b.advance(300);
    copied().await;
    b.advance(100);
    left(600).await;
    b.cache.set("k", 2_u64, MINUTE).await.unwrap();
    copied().await;
    b.cache.touch("k", ms(500)).await.unwrap();
    copied().await;
    left(500).await;
}

/// Law 39.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_reads_what_it_wrote() {
    let server = RedisServer::start();
    let cache = patient(server.port()).await;
    let mut from_memory = 0;
    for round in 0..1000_u64 {
        cache.set("k", round, MINUTE).await.unwrap();
        for _ in 0..3 {
            let seen = look(&cache, "k").await;
            assert_eq!(seen.map(|seen| seen.value), Some(round));
            from_memory += u64::from(in_memory(seen));
        }
        if round % 3 == 0 {
            assert!(cache.delete("k").await.unwrap());
            assert_eq!(look(&cache, "k").await, None);
        }
    }
    assert!(from_memory >= 1000, "{from_memory} of 3000 reads");
}

/// Law 40. `TACHIKOMA_DELETIONS=10000` makes as many as the catalogue asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_reaches_the_memory_of_another_node_in_milliseconds() {
    let deletions = std::env::var("TACHIKOMA_DELETIONS").map_or(1000_u64, |n| n.parse().unwrap());
    let server = RedisServer::start();
    let (a, b) = (patient(server.port()).await, patient(server.port()).await);
    let mut behind = Vec::new();
    for round in 0..deletions {
        let key = format!("k{}", round % 64);
        a.set(&key, round, MINUTE).await.unwrap();
        until_in_memory(&b, &key).await;
        assert!(a.delete(&key).await.unwrap());
        behind.push(until(&b, &key, "gone", |seen| seen.is_none()).await);
    }
    behind.sort_unstable();
    let (p99, max) = (behind[behind.len() * 99 / 100], behind[behind.len() - 1]);
    println!("{deletions} deletions: p50 {:?}, p99 {p99:?}, max {max:?}", behind[behind.len() / 2]);
    assert!(p99 <= allowed(ms(50), p99), "p99 {p99:?}");
    assert!(max <= allowed(FRESHNESS, max), "max {max:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_tells_nothing_is_used_without_a_memory_tier() {
    let server =
        RedisServer::builder().acl("user default on nopass ~* &* +@all -client|tracking").start();
    let (a, b) = (patient(server.port()).await, patient(server.port()).await);
    a.set("k", 1_u64, MINUTE).await.unwrap();
    for _ in 0..10 {
        assert_eq!(look(&b, "k").await, Some(Seen { value: 1, guarantee: Guarantee::Fresh }));
    }
    assert!(a.delete("k").await.unwrap());
    assert_eq!(look(&b, "k").await, None);
    assert_eq!(b.stats().bytes, Some(0));
    assert_eq!(tier(&b), (TierState::Off, 0));
    assert_eq!(b.health(), Health::Up);
}

/// What the tier says of itself, and its copies.
fn tier(cache: &Cache) -> (TierState, u64) {
    loop {
        let tier = cache.stats().tier.unwrap();
        let shown = format!("{cache:?}");
        // It may have changed in between.
        if cache.stats().tier == Some(tier) {
            assert_eq!(tier.copies == 0, tier.bytes == 0);
            assert!(shown.contains(&format!("memory_tier: {:?}", tier.state)), "{shown}");
            return (tier.state, tier.copies);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_whether_it_follows() {
    let mut server = RedisServer::start();
    let cache = node(server.port()).await;
    cache.set("k", 1_u64, MINUTE).await.unwrap();
    until_in_memory(&cache, "k").await;
    assert_eq!(tier(&cache), (TierState::Following, 1));
    server.kill();
    let is = |state| {
        let cache = cache.clone();
        async move {
            let watch = Stopwatch::start();
            while tier(&cache).0 != state {
                assert!(watch.elapsed() < Duration::from_secs(10), "{:?}", tier(&cache));
                pause(ms(2)).await;
            }
        }
    };
    is(TierState::Lapsed).await;
    assert_eq!(tier(&cache), (TierState::Lapsed, 1), "for those who accept a stale value");
    assert_ne!(cache.health(), Health::Up);
    server.restart();
    is(TierState::Following).await;
    assert_eq!(tier(&cache), (TierState::Following, 0));
    let plain = without_tier(&server).await;
    assert_eq!(plain.stats().tier, None);
}
