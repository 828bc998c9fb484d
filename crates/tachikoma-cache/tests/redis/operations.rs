//! Every operation of the store on a healthy server.

use std::sync::Arc;

use bytes::Bytes;
use tachikoma_cache::entry::Entry;
use tachikoma_cache::invalidation::How;
use tachikoma_cache::store::{Item, Peek, Store, Want, When, Written};
use tachikoma_cache::{Cache, ErrorKind, Guarantee, TestClock};
use tachikoma_testkit::{RedisServer, Resp};

use crate::bench::{Client, MINUTE, config, ms, soon, text};

#[tokio::test]
async fn what_is_written_is_read_in_the_order_of_the_keys() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    for name in ["a", "b", "c"] {
        c.set(name, &format!("value of {name}")).await;
    }
    assert_eq!(c.get("a").await.unwrap(), "value of a");
    assert_eq!(c.get("x").await, None);
    let found = c.read(&["c", "x", "a", "a", "b"]).await.unwrap();
    let found: Vec<_> = found.iter().map(|f| f.as_ref().map(|(entry, _)| text(entry))).collect();
    let value = |name: &str| Some(format!("value of {name}"));
    assert_eq!(found, [value("c"), None, value("a"), value("a"), value("b")]);
    assert_eq!(c.guarantee("a").await, Some(Guarantee::Fresh));
    assert_eq!(c.store.peek(&c.key("a"), c.clock.now(), &mut |_, _| ()), Peek::Ask);
    assert!(c.store.read(&[], &c.cx()).await.unwrap().is_empty());
}

#[tokio::test]
async fn everything_that_a_store_knows_of_an_entry_comes_back() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let entry = c.tagged("v", &["a", "b"], None).await;
    c.write("k", entry.clone(), When::Always).await.unwrap();
    let (read, _) = c.read(&["k"]).await.unwrap().remove(0).unwrap();
    assert_eq!(read.meta(), entry.meta());
}

#[tokio::test]
async fn a_time_to_live_is_kept_to_the_millisecond() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    c.write("k", c.entry("v", Some(ms(1900))), When::Always).await.unwrap();
    let left = server.command(&["PTTL", "test:{vk}"]).integer();
    assert!((1600..=1900).contains(&left), "{left}");
    c.write("k", c.entry("v", None), When::Always).await.unwrap();
    assert_eq!(server.command(&["PTTL", "test:{vk}"]).integer(), -1);
    c.write("k", c.entry("v", Some(ms(30))), When::Always).await.unwrap();
    soon("expired", ms(5000), async || c.get("k").await.is_none()).await;
    c.write("k", c.entry("v", Some(ms(0))), When::Always).await.unwrap();
    assert_eq!(server.command(&["EXISTS", "test:{vk}"]).integer(), 0);
}

/// FM-15.
#[tokio::test]
async fn an_entry_expires_by_the_clock_of_the_cache_whatever_redis_thinks() {
    let server = RedisServer::start();
    let clock = TestClock::new();
    let c = Client::with(config(&server), Arc::new(clock.clone())).await;
    c.set("k", "v").await;
    c.set("l", "v").await;
    server.command(&["PERSIST", "test:{vk}"]);
    clock.advance(ms(59_999));
    assert_eq!(c.get("k").await.unwrap(), "v");
    clock.advance(ms(1));
    assert_eq!(c.get("k").await, None);
    assert!(c.scan("*", Want::Entries).await.is_empty());
    assert!(!c.touch("k", None).await);
    assert_eq!(c.remove(&["k"]).await, 0, "what has expired does not count");
    let absent = c.write("l", c.entry("w", Some(MINUTE)), When::Absent).await.unwrap();
    assert_eq!(absent, Written::Stored);
    assert_eq!(c.get("l").await.unwrap(), "w");
}

#[tokio::test]
async fn absent_writes_only_where_nothing_lives() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let write =
        async |value: &str| c.write("k", c.entry(value, Some(MINUTE)), When::Absent).await.unwrap();
    assert_eq!(write("one").await, Written::Stored);
    assert_eq!(write("two").await, Written::Refused);
    assert_eq!(c.get("k").await.unwrap(), "one");
    let tagged = c.tagged("three", &["t"], None).await;
    c.write("k", tagged, When::Always).await.unwrap();
    c.invalidate(&["t"], How::Soft).await.unwrap();
    assert_eq!(write("four").await, Written::Stored, "what is stale is not there");
    let tagged = c.tagged("five", &["t"], None).await;
    c.write("k", tagged, When::Always).await.unwrap();
    c.invalidate(&["t"], How::Hard).await.unwrap();
    assert_eq!(write("six").await, Written::Stored);
    assert_eq!(c.get("k").await.unwrap(), "six");
    server.command(&["SET", "test:{vk}", "no envelope"]);
    assert_eq!(write("seven").await, Written::Stored);
    server.command(&["DEL", "test:{vk}"]);
    server.command(&["LPUSH", "test:{vk}", "a list"]);
    assert_eq!(write("eight").await, Written::Stored);
    assert_eq!(c.get("k").await.unwrap(), "eight");
}

/// Something else may stand at the key: a text without a checksum, one that is shorter than a
/// checksum, none at all, or no text.
#[tokio::test]
async fn one_of_many_stores_where_something_else_stands() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    for (i, command) in ["SET no envelope", "SET abc", "SET ", "LPUSH list"].iter().enumerate() {
        let name = format!("k{i}");
        let (command, value) = command.split_once(' ').unwrap();
        server.command(&[command, &format!("test:{{v{name}}}"), value]);
        let write = async |i: u32| {
            let entry = c.entry(&i.to_string(), Some(MINUTE));
            c.write(&name, entry, When::Absent).await.unwrap()
        };
        let written = futures_util::future::join_all((0..20).map(write)).await;
        let stored = written.iter().filter(|written| **written == Written::Stored).count();
        assert_eq!(stored, 1, "{command} {value}");
        assert!(c.get(&name).await.is_some());
    }
}

/// Others may have written names that are too long for a key.
#[tokio::test]
async fn a_name_that_is_too_long_is_skipped_and_goes_with_the_namespace() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    c.set("k", "v").await;
    let long = format!("test:{{v{}}}", "x".repeat(5000));
    server.command(&["SET", &long, "v"]);
    let names = |items: Vec<Item>| items.into_iter().map(|item| item.name).collect::<Vec<_>>();
    assert_eq!(names(c.scan("*", Want::Entries).await), ["k"]);
    assert_eq!(names(c.scan("*", Want::Live).await), ["k"]);
    let (clock, space) = (Arc::clone(&c.clock), c.space.as_str());
    let cache = Cache::on(Arc::new(c.store)).clock(clock).namespace(space);
    let cache = cache.store_timeout(ms(5000)).build().unwrap();
    assert_eq!(cache.entries().count_tagged("t").await.unwrap(), 0);
    assert_eq!(cache.clear().await.unwrap().redis, Some(1));
    assert_eq!(server.command(&["EXISTS", &long]).integer(), 0);
}

#[tokio::test]
async fn touch_moves_the_expiry_of_entry_and_key() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    assert!(!c.touch("k", None).await);
    c.set("k", "v").await;
    let later = c.clock.now().saturating_add(MINUTE * 10);
    assert!(c.touch("k", Some(later)).await);
    let left = server.command(&["PTTL", "test:{vk}"]).integer();
    assert!((590_000..=600_000).contains(&left), "{left}");
    let (entry, _) = c.read(&["k"]).await.unwrap().remove(0).unwrap();
    assert_eq!(entry.meta().hard_expiry, Some(later));
    assert_eq!(text(&entry), "v");
    assert!(c.touch("k", None).await);
    assert_eq!(server.command(&["PTTL", "test:{vk}"]).integer(), -1);
    assert!(c.touch("k", Some(c.clock.now())).await);
    assert_eq!(c.get("k").await, None);
}

#[tokio::test]
async fn touches_and_writes_at_once_never_bring_an_old_value_back() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    c.set("k", "0").await;
    for i in 1..200 {
        let value = i.to_string();
        let touch = async {
            let later = c.clock.now().saturating_add(MINUTE * 2);
            // Losing every attempt to the writer is allowed; writing is not.
            match c.store.touch(&c.key("k"), Some(later), &c.cx()).await {
                Ok(touched) => assert!(touched),
                Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
            }
        };
        tokio::join!(touch, c.set("k", &value));
        assert_eq!(c.get("k").await.unwrap(), value);
    }
}

#[tokio::test]
async fn remove_counts_what_could_be_seen() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    for name in ["a", "b", "c"] {
        c.set(name, "v").await;
    }
    for (name, tag) in [("d", "gone"), ("e", "stale"), ("f", "kept")] {
        let entry = c.tagged("v", &[tag], None).await;
        c.write(name, entry, When::Always).await.unwrap();
    }
    c.invalidate(&["gone"], How::Hard).await.unwrap();
    c.invalidate(&["stale"], How::Soft).await.unwrap();
    assert_eq!(c.remove(&["a", "x", "b", "d", "e", "f"]).await, 4);
    assert_eq!(c.remove(&["a"]).await, 0);
    assert_eq!(c.remove(&[]).await, 0);
    assert_eq!(c.get("a").await, None);
    assert_eq!(c.get("c").await.unwrap(), "v");
    assert_eq!(c.store.stats().pending, 0);
}

#[tokio::test]
async fn a_scan_finds_each_match_and_stays_in_its_namespace() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let other = Client { space: c.space.child("child").unwrap(), ..Client::new(&server).await };
    for name in ["user:1", "user:2", "order:1", "a}:l", "a[b]", "", "é"] {
        c.set(name, name).await;
        other.set(name, name).await;
    }
    server.command(&["SET", "test:{vbroken", "x"]);
    server.command(&["SET", "test:other", "x"]);
    Client::lead(c.begin("user:3").await.unwrap());
    assert_eq!(c.names("user:*").await, ["user:1", "user:2", "user:3"]);
    assert_eq!(c.names("user:[12]").await, ["user:1", "user:2"]);
    assert_eq!(c.names("*1").await, ["order:1", "user:1"]);
    assert_eq!(c.names(r"a\[b\]").await, ["a[b]"]);
    assert_eq!(c.names("a}:l").await, ["a}:l"]);
    assert_eq!(c.names("*").await.len(), 8);
    let entries = c.scan("*", Want::Entries).await;
    assert_eq!(entries.len(), 7);
    for item in entries {
        assert_eq!(text(&item.entry.unwrap()), item.name);
    }
    assert_eq!(other.names("*").await.len(), 7);
}

#[tokio::test]
async fn a_scan_finds_all_of_many() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let mut names: Vec<String> = (0..3000).map(|i| format!("k{i}")).collect();
    names.sort();
    for chunk in names.chunks(100) {
        let writes = chunk.iter().map(|name| c.set(name, "v"));
        futures_util::future::join_all(writes).await;
    }
    assert_eq!(c.names("*").await, names);
    assert_eq!(c.names("k29*").await.len(), 111);
}

#[tokio::test]
async fn something_else_at_the_key_is_a_counted_miss_and_is_overwritten() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    for (count, value) in ["", "text", "{\"json\":1}", "\u{0}"].iter().enumerate() {
        server.command(&["SET", "test:{vk}", value]);
        assert_eq!(c.get("k").await, None, "{value:?}");
        assert_eq!(undecodable(&c), count as u64 + 1, "{value:?}");
    }
    server.command(&["DEL", "test:{vk}"]);
    server.command(&["LPUSH", "test:{vk}", "a list"]);
    assert_eq!(c.get("k").await, None);
    assert_eq!(undecodable(&c), 5);
    assert_eq!(c.read(&["k", "x"]).await.unwrap().iter().flatten().count(), 0);
    let lease = Client::lead(c.begin("k").await.unwrap());
    assert_eq!(c.fill("k", "v", &lease).await, Written::Stored);
    assert_eq!(c.get("k").await.unwrap(), "v");
}

fn undecodable(c: &Client) -> u64 {
    c.store.stats().errors.of(ErrorKind::Undecodable)
}

#[tokio::test]
async fn a_corrupt_entry_is_a_counted_miss_and_goes() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    c.set("k", "some value").await;
    let Resp::Bulk(good) = server.command(&["GET", "test:{vk}"]) else { panic!("no entry") };
    let last = good.len() - 12;
    let mut bad = good.clone();
    bad[last] ^= 1;
    for stored in [bad, good[..good.len() - 1].to_vec(), good[..10].to_vec()] {
        server.command(&[b"SET", b"test:{vk}".as_slice(), &stored]);
        assert_eq!(c.get("k").await, None);
        soon("removed", ms(5000), async || server.command(&["EXISTS", "test:{vk}"]).integer() == 0)
            .await;
    }
    assert_eq!(undecodable(&c), 3);
    // A later version can read its own entry; this one must leave it alone.
    let mut newer = good;
    newer[3] = 2;
    server.command(&[b"SET", b"test:{vk}".as_slice(), &newer]);
    assert_eq!(c.get("k").await, None);
    Client::lead(c.begin("other").await.unwrap());
    assert_eq!(server.command(&["EXISTS", "test:{vk}"]).integer(), 1);
}

#[tokio::test]
async fn a_value_that_redis_can_never_hold_is_refused_and_the_old_one_stays() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    c.set("k", "old").await;
    let huge = Entry::from_bytes(c.meta(None), Bytes::from(vec![0; 512 * 1024 * 1024]));
    let error = c.write("k", huge, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(c.get("k").await.unwrap(), "old");
}

#[tokio::test]
async fn a_fresh_entry_is_found_when_a_load_begins_and_no_lease_stays() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    c.set("k", "v").await;
    let begun = c.begin("k").await.unwrap();
    match begun.found {
        Some((ref entry, Guarantee::Fresh)) => assert_eq!(text(entry), "v"),
        other => panic!("{other:?}"),
    }
    c.store.abandon(&c.key("k"), begun.lease.unwrap());
    soon("lease released", ms(5000), async || {
        server.command(&["EXISTS", "test:{vk}:l"]).integer() == 0
    })
    .await;
}
