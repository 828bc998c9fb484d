//! A read that begins after an invalidation was answered, while another process still loads.

use std::time::Duration;

use tachikoma_cache::Cache;
use tachikoma_testkit::RedisServer;
use tokio::sync::oneshot;

/// One process loads; another invalidates and is told that it is done; then a second caller of the
/// first process asks. What the second caller gets: 1 is the old value, 2 the new one.
async fn second_caller_gets(by_tag: bool) -> u32 {
    let redis = RedisServer::start();
    let writer = Cache::connect(&redis.url_with("late")).await.unwrap();
    let reader = Cache::connect(&redis.url_with("late")).await.unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_delete_a_later_caller_gets_no_value_that_was_read_before_it() {
    assert_eq!(second_caller_gets(false).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_tag_a_later_caller_gets_no_value_that_was_read_before_it() {
    assert_eq!(second_caller_gets(true).await, 2);
}
