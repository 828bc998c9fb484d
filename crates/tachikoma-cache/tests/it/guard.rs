//! Write guards on Redis: several processes, one that dies, and a server that is away.

use std::time::Duration;

use tachikoma_cache::{Cache, Clock as _, ErrorKind, SystemClock};
use tachikoma_testkit::{RedisServer, Stopwatch};

use crate::bench::Bench;
use crate::laws::MINUTE;

const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(server: &RedisServer) -> Cache {
    // What another process changes is seen at once only where it is asked for each time.
    let url = format!("{}&store_timeout=10s&memory=off", server.url_with("shop"));
    Cache::connect(&url).await.unwrap()
}

async fn load(cache: &Cache, value: u32) -> u32 {
    *cache.get_or_load("k", move || async move { Ok::<_, ()>(value) }).ttl(MINUTE).await.unwrap()
}

/// Loads until a value is stored; how long that took.
async fn stored_at_last(cache: &Cache) -> Duration {
    let watch = Stopwatch::start();
    while watch.elapsed() < PATIENCE {
        load(cache, 1).await;
        if cache.exists("k").await.unwrap() {
            return watch.elapsed();
        }
        SystemClock::new().sleep(Duration::from_millis(5)).await;
    }
    panic!("nothing was stored within {PATIENCE:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_holds_back_the_loads_of_another_process() {
    let server = RedisServer::start();
    let (cache, other) = (connect(&server).await, connect(&server).await);
    assert_eq!(load(&other, 1).await, 1);
    let mut guard = cache.write_guard(["k"]).await.unwrap();
    for value in 2..5 {
        assert_eq!(load(&other, value).await, value);
        assert!(!other.exists("k").await.unwrap());
    }
    guard.publish("k", 9_u32, MINUTE).unwrap();
    assert_eq!(guard.commit().await.unwrap(), 1);
    assert_eq!(load(&other, 5).await, 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guard_of_a_process_that_dies_ends_by_itself() {
    let server = RedisServer::start();
    let (cache, other) = (connect(&server).await, connect(&server).await);
    let guard = cache.write_guard(["k"]).at_most(Duration::from_secs(1)).await.unwrap();
    // As if its process had been killed.
    std::mem::forget(guard);
    let took = stored_at_last(&other).await;
    assert!(took > Duration::from_millis(500), "after {took:?}");
    assert_eq!(server.command(&["EXISTS", "shop:{vk}:w"]).integer(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_slower_than_its_guard_publishes_nothing() {
    let server = RedisServer::start();
    let (cache, other) = (connect(&server).await, connect(&server).await);
    let mut guard = cache.write_guard(["k"]).at_most(Duration::from_secs(1)).await.unwrap();
    guard.publish("k", 9_u32, MINUTE).unwrap();
    stored_at_last(&other).await;
    assert_eq!(guard.commit().await.unwrap(), 0);
    assert!(!other.exists("k").await.unwrap(), "what was loaded before its end is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_too_a_guard_ends_by_itself() {
    let b = Bench::memory();
    let mut guard = b.cache.write_guard(["k"]).at_most(Duration::from_secs(5)).await.unwrap();
    guard.publish("k", 9_u32, MINUTE).unwrap();
    b.advance(4999);
    load(&b.cache, 1).await;
    assert!(!b.cache.exists("k").await.unwrap());
    b.advance(1);
    load(&b.cache, 1).await;
    assert!(b.cache.exists("k").await.unwrap());
    assert_eq!(guard.commit().await.unwrap(), 0);
    assert!(!b.cache.exists("k").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_the_server_was_not_told_of_still_removes_its_keys() {
    let mut server = RedisServer::start();
    let cache = Cache::connect(&server.url_with("shop")).await.unwrap();
    server.kill();
    while cache.get::<u32>("k").await.is_ok() {
        SystemClock::new().sleep(Duration::from_millis(5)).await;
    }
    let mut guard = cache.write_guard(["k"]).await.unwrap();
    assert!(!guard.is_held());
    guard.publish("k", 9_u32, MINUTE).unwrap();
    let dropped = cache.write_guard(["k"]).await.unwrap();
    assert_eq!(guard.commit().await.unwrap_err().kind(), ErrorKind::Pending);
    drop(dropped);
    assert_eq!(load(&cache, 2).await, 2, "callers are served all the same");
    server.restart();
    server.command(&["SET", "shop:{vk}", "what somebody left here"]);
    let watch = Stopwatch::start();
    while server.command(&["EXISTS", "shop:{vk}"]).integer() == 1 {
        assert!(watch.elapsed() < PATIENCE, "the removal did not come");
        SystemClock::new().sleep(Duration::from_millis(5)).await;
    }
    stored_at_last(&cache).await;
}

/// It counts as dropped, also if the server had done it already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_waits_for_removes() {
    let server = RedisServer::start();
    let cache = connect(&server).await;
    for _ in 0..50 {
        let mut guard = cache.write_guard(["k"]).await.unwrap();
        guard.publish("k", 9_u32, MINUTE).unwrap();
        let commit = tokio::spawn(guard.commit());
        tokio::task::yield_now().await;
        commit.abort();
        let committed = commit.await;
        let found = cache.get::<u32>("k").await.unwrap().map(|hit| *hit);
        match committed {
            // Not stored: the guard that was dropped before it had not ended yet.
            Ok(stored) => assert!(matches!((stored.unwrap(), found), (1, Some(9)) | (0, None))),
            Err(_aborted) => assert_eq!(found, None),
        }
    }
    stored_at_last(&cache).await;
}
