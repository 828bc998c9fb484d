//! Many keys in one call to a real server: how often it is asked, and what happens when it is away.

use std::time::Duration;

use tachikoma_cache::{Cache, ErrorKind, Health};
use tachikoma_testkit::{Fault, FaultProxy, RedisServer, Stopwatch, wait_until};

const MINUTE: Duration = Duration::from_secs(60);

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("k{i}")).collect()
}

async fn through(server: &RedisServer, timeout: &str) -> (FaultProxy, Cache) {
    let proxy = FaultProxy::to(server.port());
    let port = proxy.port();
    let url =
        format!("redis://127.0.0.1:{port}/0?namespace=shop&memory=off&store_timeout={timeout}");
    let cache = Cache::connect(&url).await.unwrap();
    (proxy, cache)
}

/// How many late answers a call waits for. A heartbeat in between counts too, so the best of three.
async fn trips(proxy: &FaultProxy, call: impl AsyncFn()) -> u128 {
    const LATE: Duration = Duration::from_millis(100);
    let mut fewest = u128::MAX;
    for _ in 0..3 {
        proxy.set(Fault::Delay(LATE));
        let watch = Stopwatch::start();
        call().await;
        let took = watch.elapsed();
        proxy.set(Fault::Pass);
        fewest = fewest.min(took.as_millis() / LATE.as_millis());
        if fewest == 1 {
            break;
        }
    }
    fewest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_keys_are_one_round_trip() {
    let server = RedisServer::start();
    let (proxy, cache) = through(&server, "5s").await;
    let keys = names(100);
    let items = || keys.iter().cloned().zip(0_u32..);
    let set = async || cache.set_many(items(), MINUTE).await.unwrap();
    let set_tagged = async || cache.set_many(items(), MINUTE).tags(["t"]).await.unwrap();
    let get = async || {
        let found = cache.get_many::<u32>(&keys).await.unwrap();
        assert_eq!(found.iter().flatten().count(), 100);
    };
    let delete = async || assert!(cache.delete_many(&keys).await.unwrap() <= 100);
    assert_eq!(trips(&proxy, set).await, 1, "set_many");
    assert_eq!(trips(&proxy, get).await, 1, "get_many");
    // The counters of a namespace are made with its first tag.
    cache.set("first", 1_u8, MINUTE).tags(["t"]).await.unwrap();
    assert_eq!(trips(&proxy, set_tagged).await, 2, "set_many with tags");
    assert_eq!(trips(&proxy, get).await, 1, "get_many with tags");
    cache.set_many(items(), MINUTE).await.unwrap();
    assert_eq!(trips(&proxy, delete).await, 1, "delete_many");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_waited_for_once_and_told_of_all_deletions_later() {
    let server = RedisServer::start();
    let (proxy, cache) = through(&server, "300ms").await;
    let keys = names(5000);
    cache.set_many(keys.iter().cloned().zip(0_u32..), MINUTE).await.unwrap();
    proxy.set(Fault::Stall);
    let watch = Stopwatch::start();
    assert_eq!(cache.get_many::<u32>(&keys).await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(cache.stats().misses, 5000);
    let error = cache.set_many(keys.iter().cloned().zip(1_u32..), MINUTE).await.unwrap_err();
    assert_eq!((error.failed().len(), error.total()), (5000, 5000));
    assert_eq!(cache.delete_many(&keys).await.unwrap_err().kind(), ErrorKind::Pending);
    watch.within(Duration::from_secs(3));
    assert_eq!(cache.stats().pending_invalidations, 5000);
    proxy.set(Fault::Pass);
    let back = || cache.health() == Health::Up && cache.stats().pending_invalidations == 0;
    assert!(wait_until(Duration::from_secs(20), back));
    assert_eq!(server.command(&["EXISTS", "shop:{vk0}", "shop:{vk4999}"]).integer(), 0);
    let found = cache.get_many::<u32>(&keys).await.unwrap();
    assert_eq!(found.iter().flatten().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_replaces_what_is_no_entry_and_fails_item_by_item_where_it_may_not_write() {
    let server = RedisServer::start();
    let (_proxy, cache) = through(&server, "5s").await;
    server.command(&["LPUSH", "shop:{va}", "a list"]);
    cache.set_many([("a", 1_u8), ("b", 2)], MINUTE).await.unwrap();
    assert_eq!(cache.get::<u8>("a").await.unwrap().unwrap(), 1);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = cache.set_many([("c", 1_u8), ("d", 2)], MINUTE).await.unwrap_err();
    assert_eq!((error.kind(), error.failed().len()), (ErrorKind::Rejected, 2), "{error}");
    assert_eq!(cache.delete_many(&["a", "b", "c"]).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_after_a_deletion_that_is_pending_stays() {
    let server = RedisServer::start();
    let (proxy, cache) = through(&server, "300ms").await;
    let keys = names(50);
    let set = async |from: u32| cache.set_many(keys.iter().cloned().zip(from..), MINUTE).await;
    set(0).await.unwrap();
    proxy.set(Fault::Refuse);
    assert_eq!(cache.delete_many(&keys).await.unwrap_err().kind(), ErrorKind::Pending);
    proxy.set(Fault::Pass);
    while set(100).await.is_err() {
        tokio::task::yield_now().await;
    }
    let settled = || cache.stats().pending_invalidations == 0;
    assert!(wait_until(Duration::from_secs(20), settled));
    let found = cache.get_many::<u32>(&keys).await.unwrap();
    assert_eq!(
        found.iter().flatten().map(|hit| **hit).collect::<Vec<_>>(),
        (100..150).collect::<Vec<_>>()
    );
}
