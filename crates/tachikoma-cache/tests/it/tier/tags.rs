//! Entries with tags in the memory of several nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tachikoma_cache::{Cache, ErrorKind};
use tachikoma_testkit::{Fault, FaultProxy};

use super::*;

async fn put(cache: &Cache, key: &str, value: u64, tags: &[&str]) {
    cache.set(key, value, MINUTE).tags(tags.iter().copied()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tagged_entry_has_a_copy_that_goes_when_another_node_invalidates_its_tag() {
    let server = RedisServer::start();
    let (a, b) = (node(server.port()).await, node(server.port()).await);
    put(&a, "k", 1, &["t", "u"]).await;
    put(&a, "other", 1, &["v"]).await;
    until_in_memory(&b, "k").await;
    until_in_memory(&b, "other").await;
    // Another tag takes nothing away, and the copies are shown again once that is known.
    a.invalidate_tag("x").await.unwrap();
    until_in_memory(&b, "k").await;
    for how in 0..2 {
        if how == 0 {
            a.invalidate_tag("u").await.unwrap();
        } else {
            a.expire_tag("t").await.unwrap();
        }
        until(&b, "k", "gone", |seen| seen.is_none()).await;
        until_in_memory(&b, "other").await;
        put(&a, "k", 2, &["t", "u"]).await;
        until_in_memory(&b, "k").await;
    }
    // Whoever takes the numbers away: an operator, an eviction, a flush.
    server.command(&["DEL", "tachikoma:g"]);
    until(&b, "k", "gone", |seen| seen.is_none()).await;
    assert_eq!(look(&b, "other").await, None);
    put(&a, "k", 3, &["t"]).await;
    until_in_memory(&b, "k").await;
    server.command(&["FLUSHALL"]);
    until(&b, "k", "gone", |seen| seen.is_none()).await;
}

/// Law 39, of tags.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_invalidates_a_tag_sees_it_at_once() {
    let server = RedisServer::start();
    let cache = node(server.port()).await;
    let mut from_memory = 0;
    for round in 0..300_u64 {
        put(&cache, "k", round, &["t"]).await;
        for _ in 0..4 {
            let seen = look(&cache, "k").await;
            assert_eq!(seen.map(|seen| seen.value), Some(round));
            from_memory += u64::from(in_memory(seen));
        }
        if round % 2 == 0 {
            cache.invalidate_tag("t").await.unwrap();
        } else {
            cache.expire_tag("t").await.unwrap();
        }
        assert_eq!(look(&cache, "k").await, None, "round {round}");
    }
    assert!(from_memory >= 300, "{from_memory} of 1200 reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tag_took_away_is_not_there_to_be_deleted() {
    let server = RedisServer::start();
    let cache = node(server.port()).await;
    for round in 0..20 {
        put(&cache, "k", round, &["t"]).await;
        until_in_memory(&cache, "k").await;
        cache.invalidate_tag("t").await.unwrap();
        assert!(!cache.delete("k").await.unwrap(), "round {round}");
        put(&cache, "k", round, &["t"]).await;
        until_in_memory(&cache, "k").await;
        assert!(cache.delete("k").await.unwrap(), "round {round}");
    }
}

/// Law 40, of tags. `TACHIKOMA_DELETIONS=10000` makes as many as the catalogue asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_of_a_tag_reaches_the_memory_of_another_node_in_milliseconds() {
    let deletions = std::env::var("TACHIKOMA_DELETIONS").map_or(1000_u64, |n| n.parse().unwrap());
    let server = RedisServer::start();
    let (a, b) = (node(server.port()).await, node(server.port()).await);
    let mut behind = Vec::new();
    for round in 0..deletions {
        let (key, tag) = (format!("k{}", round % 64), format!("t{}", round % 64));
        put(&a, &key, round, &[&tag]).await;
        until_in_memory(&b, &key).await;
        a.invalidate_tag(&tag).await.unwrap();
        behind.push(until(&b, &key, "gone", |seen| seen.is_none()).await);
    }
    behind.sort_unstable();
    let (p99, max) = (behind[behind.len() * 99 / 100], behind[behind.len() - 1]);
    println!("{deletions} tags: p50 {:?}, p99 {p99:?}, max {max:?}", behind[behind.len() / 2]);
    assert!(p99 <= ms(50) && max <= FRESHNESS, "p99 {p99:?}, max {max:?}");
}

/// Law 41, of tags: what is invalidated while the connection is lost is known after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tag_is_trusted_across_a_lost_connection() {
    let server = RedisServer::start();
    let proxy = FaultProxy::to(server.port());
    let (far, writer) = (node(proxy.port()).await, node(server.port()).await);
    for round in 0..6_u64 {
        put(&writer, "k", round, &["t"]).await;
        put(&writer, "kept", round, &["u"]).await;
        until_in_memory(&far, "k").await;
        until_in_memory(&far, "kept").await;
        match round % 3 {
            0 => proxy.set(Fault::Refuse),
            1 => proxy.drop_connections(),
            _ => proxy.set(Fault::Stall),
        }
        writer.invalidate_tag("t").await.unwrap();
        let watch = Stopwatch::start();
        while watch.elapsed() < ms(1200) {
            let begun = watch.elapsed();
            if let Some(seen) = look(&far, "k").await {
                assert!(begun <= FRESHNESS, "{seen:?} after {begun:?}");
            }
            pause(ms(5)).await;
        }
        proxy.set(Fault::Pass);
        until(&far, "kept", "read anew", |seen| seen.is_some()).await;
        assert_eq!(look(&far, "k").await, None);
    }
}

/// An invalidation that waits for the server is in force here, also of copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_that_is_pending_is_in_force_in_this_process() {
    let server = RedisServer::start();
    let proxy = FaultProxy::to(server.port());
    let (far, near) = (node(proxy.port()).await, node(server.port()).await);
    put(&near, "k", 1, &["t"]).await;
    until_in_memory(&far, "k").await;
    proxy.set(Fault::Stall);
    let error = far.invalidate_tag("t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pending);
    assert_eq!(look(&far, "k").await, None);
    proxy.set(Fault::Pass);
    until(&near, "k", "gone", |seen| seen.is_none()).await;
    assert_eq!(look(&far, "k").await, None);
}

/// Laws 37, 40 and 42, of tags: nodes load, invalidate and read the versions of a source; nobody is
/// shown one whose tag was invalidated before the read began, or as much before as the answer says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_shows_what_a_tag_took_away_longer_ago_than_it_says() {
    const KEYS: usize = 8;
    /// The version of a row, and the highest one whose tag was invalidated, with the time.
    #[derive(Default)]
    struct Row {
        version: AtomicU64,
        over: std::sync::Mutex<Vec<(u64, Duration)>>,
    }
    impl Row {
        /// When this version had been taken away.
        fn over_since(&self, version: u64) -> Option<Duration> {
            let over = self.over.lock().unwrap();
            over.iter().find(|(newer, _)| *newer > version).map(|(_, at)| *at)
        }
    }
    let server = RedisServer::start();
    let nodes = [node(server.port()).await, node(server.port()).await, node(server.port()).await];
    let rows: Arc<[Row; KEYS]> = Arc::default();
    let running = Arc::new(AtomicBool::new(true));
    let (reads, copies) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clock = Stopwatch::start();
    let mut tasks = Vec::new();
    for key in 0..KEYS {
        let (node, rows, running) = (nodes[key % 3].clone(), rows.clone(), running.clone());
        tasks.push(tokio::spawn(async move {
            while running.load(Ordering::Relaxed) {
                let version = rows[key].version.fetch_add(1, Ordering::SeqCst) + 1;
                if node.invalidate_tag(&format!("t{key}")).await.is_ok() {
                    rows[key].over.lock().unwrap().push((version, clock.elapsed()));
                }
                pause(ms(40)).await;
            }
        }));
    }
    for reader in 0..6 {
        let (node, rows, running) = (nodes[reader % 3].clone(), rows.clone(), running.clone());
        let (reads, copies) = (reads.clone(), copies.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0.. {
                if !running.load(Ordering::Relaxed) {
                    return;
                }
                let key = (round + reader) % KEYS;
                let (begun, row) = (clock.elapsed(), rows.clone());
                let load = move || async move {
                    let version = row[key].version.load(Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok::<u64, ()>(version)
                };
                let (name, tags) = (format!("k{key}"), [format!("t{key}"), "all".into()]);
                let hit = node.get_or_load(&name, load).ttl(MINUTE).tags(tags).await.unwrap();
                reads.fetch_add(1, Ordering::Relaxed);
                let allowed = match hit.guarantee() {
                    Guarantee::Within(within) => {
                        copies.fetch_add(1, Ordering::Relaxed);
                        within
                    }
                    _ => Duration::ZERO,
                };
                if let Some(over) = rows[key].over_since(*hit) {
                    assert!(over + allowed >= begun, "{}: {over:?}, {begun:?}", *hit);
                }
                if round % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    pause(Duration::from_secs(3)).await;
    running.store(false, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let (reads, copies) = (reads.load(Ordering::Relaxed), copies.load(Ordering::Relaxed));
    println!("{reads} reads, {copies} of them copies");
    assert!(reads > 1000 && copies > 200, "{copies} of {reads}");
}
