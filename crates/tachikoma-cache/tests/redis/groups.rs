//! Tags: many entries invalidated at once.

use tachikoma_cache::invalidation::How;
use tachikoma_cache::store::{Store, When};
use tachikoma_cache::{ErrorKind, Guarantee, Namespace};
use tachikoma_testkit::RedisServer;

use crate::bench::{Client, INVALIDATED, MINUTE};

async fn put(c: &Client, name: &str, tags: &[&str]) {
    let entry = c.tagged(name, tags, None).await;
    c.write(name, entry, When::Always).await.unwrap();
}

#[tokio::test]
async fn an_invalidated_tag_takes_its_entries_and_no_others() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    put(&c, "a", &["x"]).await;
    put(&c, "b", &["x", "y"]).await;
    put(&c, "c", &["y"]).await;
    put(&c, "d", &[]).await;
    c.invalidate(&["x"], How::Hard).await.unwrap();
    let found = c.read(&["a", "b", "c", "d"]).await.unwrap();
    let found: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(found, [false, false, true, true]);
    put(&c, "a", &["x"]).await;
    assert_eq!(c.guarantee("a").await, Some(Guarantee::Fresh));
    let absent = server.command(&["HLEN", "test:g"]).integer();
    assert_eq!(absent, 3, "epoch, counter and one tag");
}

#[tokio::test]
async fn a_softly_invalidated_entry_is_stale_and_is_loaded_anew() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    put(&c, "a", &["x"]).await;
    c.invalidate(&["x"], How::Soft).await.unwrap();
    assert_eq!(c.guarantee("a").await, INVALIDATED);
    let found = c.begin("a").await.unwrap().found;
    assert_eq!(found.map(|(_, guarantee)| guarantee), INVALIDATED, "for who accepts it");
    c.invalidate(&["x"], How::Hard).await.unwrap();
    assert_eq!(c.guarantee("a").await, None);
}

#[tokio::test]
async fn another_process_sees_the_invalidation() {
    let server = RedisServer::start();
    let (c, other) = (Client::new(&server).await, Client::new(&server).await);
    put(&c, "a", &["x"]).await;
    assert_eq!(other.get("a").await.unwrap(), "a");
    other.invalidate(&["x"], How::Hard).await.unwrap();
    assert_eq!(c.get("a").await, None);
}

#[tokio::test]
async fn counters_that_are_lost_take_all_entries_with_tags() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    put(&c, "a", &["x"]).await;
    put(&c, "b", &[]).await;
    server.command(&["DEL", "test:g"]);
    assert_eq!(c.get("a").await, None);
    assert_eq!(c.get("b").await.unwrap(), "b");
    put(&c, "a", &["x"]).await;
    assert_eq!(c.get("a").await.unwrap(), "a");
    server.command(&["DEL", "test:g"]);
    c.invalidate(&["other"], How::Hard).await.unwrap();
    assert_eq!(c.get("a").await, None, "the new counters must not revive it");
}

#[tokio::test]
async fn tags_of_two_namespaces_are_apart() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let other = Client { space: Namespace::new("g").unwrap(), ..Client::new(&server).await };
    put(&c, "a", &["x"]).await;
    put(&other, "a", &["x"]).await;
    c.invalidate(&["x"], How::Hard).await.unwrap();
    assert_eq!(c.get("a").await, None);
    assert_eq!(other.get("a").await.unwrap(), "a");
}

#[tokio::test]
async fn tags_may_have_any_name() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    for tag in ["@e", "@c", "h:t:x", "'", "\"\\", "\0", "\r\n", "é", " ", "]]"] {
        put(&c, "a", &[tag]).await;
        assert_eq!(c.guarantee("a").await, Some(Guarantee::Fresh), "{tag:?}");
        c.invalidate(&[tag], How::Hard).await.unwrap();
        assert_eq!(c.get("a").await, None, "{tag:?}");
    }
}

#[tokio::test]
async fn too_many_tags_raise_the_floor_and_revive_nothing() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    put(&c, "a", &["x"]).await;
    put(&c, "b", &["y"]).await;
    c.invalidate(&["x"], How::Hard).await.unwrap();
    let fields: Vec<String> = (0..100_000).flat_map(|i| [format!("h:t:{i}"), "1".into()]).collect();
    let mut command = vec!["HSET".to_owned(), "test:g".to_owned()];
    command.extend(fields);
    server.command(&command);
    c.invalidate(&["z"], How::Hard).await.unwrap();
    assert_eq!(server.command(&["HLEN", "test:g"]).integer(), 3);
    assert_eq!(c.get("a").await, None);
    assert_eq!(c.get("b").await, None, "below the floor");
    put(&c, "b", &["y"]).await;
    assert_eq!(c.guarantee("b").await, Some(Guarantee::Fresh));
}

#[tokio::test]
async fn out_of_memory_does_not_stop_an_invalidation() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    put(&c, "a", &["x"]).await;
    put(&c, "b", &[]).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(c.get("a").await.unwrap(), "a", "reads go on");
    let error = c.write("k", c.entry("v", Some(MINUTE)), When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    c.invalidate(&["x"], How::Hard).await.unwrap();
    assert_eq!(c.get("a").await, None);
    assert_eq!(c.remove(&["b"]).await, 1, "removals go on");
    assert_eq!(c.store.stats().pending, 0);
}
