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
    let absent = server.command(&["ZCARD", "test:g"]).integer();
    assert_eq!(absent, 2, "the epoch and one tag");
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
    for tag in ["@e", "@f", "h:t:x", "'", "\"\\", "\0", "\r\n", "é", " ", "]]"] {
        put(&c, "a", &[tag]).await;
        assert_eq!(c.guarantee("a").await, Some(Guarantee::Fresh), "{tag:?}");
        c.invalidate(&[tag], How::Hard).await.unwrap();
        assert_eq!(c.get("a").await, None, "{tag:?}");
    }
}

/// Law 32: the numbers of tags do not grow without bound.
#[tokio::test]
async fn of_too_many_tags_the_oldest_are_forgotten_and_nothing_is_revived() {
    const MOST: u64 = 200_000;
    let server = RedisServer::start();
    let (c, other) = (Client::new(&server).await, Client::new(&server).await);
    put(&c, "a", &["x"]).await;
    put(&c, "b", &["y"]).await;
    c.invalidate(&["x"], How::Hard).await.unwrap();
    put(&c, "late", &["x"]).await;
    // What each invalidation of another tag leaves.
    let script = "local at = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
        local epoch = redis.call('ZRANGE', KEYS[1], -1, -1)[1]
        for i = 0, 199997 do redis.call('ZADD', KEYS[1], at + i, 'h:t:' .. i) end
        redis.call('ZADD', KEYS[1], at + 199998, epoch)
        return redis.call('ZCARD', KEYS[1])";
    assert_eq!(server.command(&["EVAL", script, "1", "test:g"]).integer(), 200_000);
    put(&c, "kept", &["99000"]).await;
    put(&c, "gone", &["99001"]).await;
    c.invalidate(&["99001"], How::Hard).await.unwrap();
    c.invalidate(&["z"], How::Hard).await.unwrap();
    let left = u64::try_from(server.command(&["ZCARD", "test:g"]).integer()).unwrap();
    assert!((MOST * 98 / 100..=MOST).contains(&left), "{left}");
    for c in [&c, &other] {
        assert_eq!(c.get("a").await, None);
        assert_eq!(c.get("b").await, None, "below the floor");
        assert_eq!(c.get("gone").await, None);
        assert_eq!(c.get("kept").await.unwrap(), "kept");
    }
    put(&c, "b", &["y"]).await;
    assert_eq!(other.guarantee("b").await, Some(Guarantee::Fresh));
}

/// How often the server has run a command.
fn seen(server: &RedisServer, command: &str) -> i64 {
    let stats = server.command(&["INFO", "commandstats"]).text();
    let line = format!("cmdstat_{command}:calls=");
    let count = stats.lines().find_map(|stat| stat.strip_prefix(&line)?.split(',').next());
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn an_entry_with_tags_is_read_in_one_round_trip() {
    let server = RedisServer::start();
    let (c, other) = (Client::new(&server).await, Client::new(&server).await);
    for i in 0..20 {
        put(&c, &format!("k{i}"), &["all", &format!("own{i}")]).await;
    }
    assert_eq!(other.get("k0").await.unwrap(), "k0", "from here on it follows the namespace");
    let commands = ["get", "mget", "zrevrangebyscore", "zscore", "zrange"];
    let counts = || commands.map(|command| seen(&server, command));
    let before = counts();
    let mut found = 0;
    for round in 0..5 {
        for i in 0..20 {
            found += i64::from(other.get(&format!("k{i}")).await.is_some());
        }
        assert_eq!(other.read(&["k18", "k19"]).await.unwrap().iter().flatten().count(), 2);
        c.invalidate(&[&format!("own{round}")], How::Hard).await.unwrap();
    }
    assert_eq!(found, 20 + 19 + 18 + 17 + 16);
    let counts = counts();
    let [get, mget, questions, one, top] = std::array::from_fn(|at| counts[at] - before[at]);
    // The last are of the invalidations.
    assert_eq!((get, mget, questions, one, top), (100, 5, 105, 0, 5));
}

#[tokio::test]
async fn what_a_process_missed_of_tags_it_asks_for() {
    let server = RedisServer::start();
    let (c, other) = (Client::new(&server).await, Client::new(&server).await);
    for name in ["a", "b", "c"] {
        put(&c, name, &[name]).await;
    }
    assert_eq!(other.get("a").await.unwrap(), "a");
    // More than one answer has.
    let tags: Vec<String> = (0..12_000).map(|i| i.to_string()).collect();
    c.invalidate(&["b"], How::Hard).await.unwrap();
    for tags in tags.chunks(60) {
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        c.invalidate(&tags, How::Soft).await.unwrap();
    }
    assert_eq!(other.get("a").await.unwrap(), "a");
    assert_eq!(other.get("b").await, None);
    assert_eq!(other.get("c").await.unwrap(), "c");
    c.invalidate(&["c"], How::Soft).await.unwrap();
    assert_eq!(other.guarantee("c").await, INVALIDATED);
    // Another epoch with lower numbers, and then with higher ones.
    server.command(&["DEL", "test:g"]);
    assert_eq!(other.get("a").await, None);
    put(&c, "a", &["a"]).await;
    assert_eq!(other.get("a").await.unwrap(), "a");
    server.command(&["DEL", "test:g"]);
    for _ in 0..3 {
        c.invalidate(&["z"], How::Hard).await.unwrap();
    }
    assert_eq!(other.get("a").await, None);
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
