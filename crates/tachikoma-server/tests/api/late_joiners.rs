//! A read that begins after an invalidation was answered, while another process still loads.

use std::time::Duration;

use tachikoma_cache::{Cache, Health};
use tachikoma_testkit::{Fault, FaultProxy, RedisServer};
use tokio::sync::oneshot;

/// One process loads; another invalidates and is told that it is done; then a second caller of the
/// first process asks. What the second caller gets: 1 is the old value, 2 the new one.
///
/// `away`: the first process cannot reach Redis when it begins to load, and can again afterwards.
async fn second_caller_gets(by_tag: bool, away: bool) -> u32 {
    let redis = RedisServer::start();
    let proxy = FaultProxy::to(redis.port());
    let writer = Cache::connect(&redis.url_with("late")).await.unwrap();
    let url = format!("redis://127.0.0.1:{}/0?namespace=late", proxy.port());
    let reader = Cache::connect(&url).await.unwrap();
    if away {
        proxy.set(Fault::Refuse);
        until(&reader, |health| *health != Health::Up).await;
    }
    let (started, has_started) = oneshot::channel();
    let (gate, opened) = oneshot::channel::<()>();
    let cache = reader.clone();
    let first = tokio::spawn(async move {
        let load = move || async move {
            started.send(()).unwrap();
            opened.await.unwrap();
            Ok::<u32, std::io::Error>(1)
        };
        cache.get_or_load("key", load).tags(["tag"]).await.map(|hit| *hit).ok()
    });
    has_started.await.unwrap();
    proxy.set(Fault::Pass);
    until(&reader, |health| *health == Health::Up).await;
    if by_tag {
        writer.invalidate_tag("tag").await.unwrap();
    } else {
        writer.delete("key").await.unwrap();
    }
    let mut second = tokio::spawn(async move {
        let load = || async { Ok::<u32, std::io::Error>(2) };
        reader.get_or_load("key", load).tags(["tag"]).await.map(|hit| *hit).unwrap()
    });
    // Time to join the load, which cannot end before the gate opens; or not to join and be done.
    if let Ok(done) = tokio::time::timeout(Duration::from_millis(300), &mut second).await {
        return done.unwrap();
    }
    gate.send(()).unwrap();
    first.await.unwrap();
    second.await.unwrap()
}

/// Waits until the cache finds its store so.
async fn until(cache: &Cache, wanted: impl Fn(&Health) -> bool) {
    for _ in 0..1000 {
        if wanted(&cache.health()) {
            return;
        }
        let _ = cache.exists("anything").await;
        let _ = tokio::time::timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
    }
    panic!("the store is {:?}", cache.health());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_delete_a_later_caller_gets_no_value_that_was_read_before_it() {
    assert_eq!(second_caller_gets(false, false).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_tag_a_later_caller_gets_no_value_that_was_read_before_it() {
    assert_eq!(second_caller_gets(true, false).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_began_without_redis_is_not_for_those_who_came_after_an_invalidation() {
    assert_eq!(second_caller_gets(false, true).await, 2);
    assert_eq!(second_caller_gets(true, true).await, 2);
}
