//! Values of every form on a real server: codecs, compression, signatures, limits, and bytes that
//! somebody else wrote.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tachikoma_cache::entry::Entry;
use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_cache::store::{Store as _, When};
use tachikoma_cache::{Cache, Codec, Compression, ErrorKind, SignKey, SystemClock};
use tachikoma_testkit::{RedisServer, Resp};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::bench::{Client, MINUTE, config, ms, soon};

/// About as repetitive as JSON is.
fn long_text(rows: usize) -> String {
    let ids = (0..rows).map(|row| row * 7919 % 1009);
    ids.fold(String::new(), |text, id| text + &format!("{{\"id\":{id},\"status\":\"open\"}},"))
}

fn stored(server: &RedisServer, key: &str) -> Vec<u8> {
    match server.command(&["GET", key]) {
        Resp::Bulk(bytes) => bytes,
        other => panic!("no entry: {other:?}"),
    }
}

fn undecodable(c: &Client) -> u64 {
    c.store.stats().errors.of(ErrorKind::Undecodable)
}

async fn client(config: RedisConfig) -> Client {
    Client::with(config, Arc::new(SystemClock::new())).await
}

async fn cache(config: RedisConfig, codec: Codec) -> Cache {
    let store = RedisStore::connect(config, Arc::new(SystemClock::new())).await.unwrap();
    let cache = Cache::on(Arc::new(store)).codec(codec).store_timeout(ms(10_000));
    cache.build().unwrap()
}

#[tokio::test]
async fn compressed_values_are_smaller_and_read_by_all() {
    let server = RedisServer::start();
    let text = long_text(2000);
    let plain = client(config(&server)).await;
    for compression in [Compression::Lz4, Compression::ZSTD, Compression::Zstd { level: 19 }] {
        let c = client(config(&server).compression(compression)).await;
        c.set("short", "value").await;
        c.set("long", &text).await;
        let bytes = stored(&server, "test:{vlong}").len();
        assert!(bytes * 2 < text.len(), "{compression:?}: {bytes}");
        for reader in [&c, &plain] {
            assert_eq!(reader.get("long").await.unwrap(), text, "{compression:?}");
            assert_eq!(reader.get("short").await.unwrap(), "value", "{compression:?}");
        }
        let later = c.clock.now().saturating_add(MINUTE * 10);
        assert!(plain.touch("long", Some(later)).await);
        assert_eq!(stored(&server, "test:{vlong}").len(), bytes, "{compression:?} after a touch");
        assert_eq!(c.get("long").await.unwrap(), text);
        assert_eq!(undecodable(&c) + undecodable(&plain), 0);
    }
}

#[tokio::test]
async fn a_setting_that_is_not_allowed_is_refused_before_anything_is_connected() {
    let server = RedisServer::start();
    for wrong in [
        config(&server).compression(Compression::Zstd { level: 0 }),
        config(&server).compression(Compression::Zstd { level: 20 }),
        config(&server).max_value_bytes(0),
        config(&server).max_value_bytes(512 << 20),
        config(&server).accept_key(SignKey::new("sixteen bytes...").unwrap()),
    ] {
        let error = RedisStore::connect(wrong, Arc::new(SystemClock::new())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}

/// DS-28.
#[tokio::test]
async fn a_value_of_more_than_max_value_bytes_is_refused_and_takes_the_old_one_away() {
    let server = RedisServer::start();
    let settings = config(&server).max_value_bytes(1000).compression(Compression::Lz4);
    let cache = cache(settings, Codec::Json).await;
    // Two more for the quotation marks.
    cache.set("k", "x".repeat(998), MINUTE).await.unwrap();
    let error = cache.set("k", "x".repeat(999), MINUTE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("1001 bytes; max_value_bytes allows 1000"), "{error}");
    assert!(cache.get::<String>("k").await.unwrap().is_none());
    let loaded = cache
        .get_or_load("k", || async { Ok::<_, std::io::Error>("x".repeat(999)) })
        .await
        .unwrap();
    assert_eq!(loaded.len(), 999, "loaded all the same");
    soon("counted", ms(5000), async || cache.stats().errors.of(ErrorKind::TooLarge) == 2).await;
    assert!(cache.get::<String>("k").await.unwrap().is_none());
}

/// What the process holds, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// An entry whose payload is these bytes, said to be compressed and of this length: a good entry of
/// the value `value` with other bytes in it.
fn forged(name: &str, mut bytes: Vec<u8>, form: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    bytes.truncate(bytes.len() - 8 - "value".len());
    bytes[5] = form;
    let mut rest = length;
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7F).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes.extend_from_slice(payload);
    sealed(bytes, name)
}

/// With the checksum that an entry of this key has in the namespace of the tests.
fn sealed(mut bytes: Vec<u8>, name: &str) -> Vec<u8> {
    let seed = xxh3_64_with_seed(name.as_bytes(), xxh3_64(b"test"));
    bytes.extend_from_slice(&xxh3_64_with_seed(&bytes, seed).to_le_bytes());
    bytes
}

/// 100 kB that want to be 10 GiB, or say so: refused with the memory of the limit at most.
#[tokio::test]
async fn ds_19_a_bomb_is_refused_within_the_limit() {
    const LIMIT: usize = 64 << 20;
    let server = RedisServer::start();
    let c = client(config(&server)).await;
    // What nobody may inflate is made from blocks: a frame of 10 GiB would have to be held here.
    let zeros = zstd::bulk::compress(&vec![0; 16 << 20], 19).unwrap();
    let zstd_bomb: Vec<u8> = zeros.iter().copied().cycle().take(zeros.len() * 640).collect();
    let lz4_bomb = lz4_flex::block::compress(&vec![0; 24 << 20]);
    let before = resident();
    let mut read = 0;
    for (form, bomb) in [(2, &zstd_bomb), (1, &lz4_bomb)] {
        assert!(bomb.len() < 1 << 20, "{}", bomb.len());
        for length in [10 << 30, LIMIT as u64, bomb.len() as u64 * 200, 1 << 20, 1] {
            let name = format!("{form} {length}");
            c.set(&name, "value").await;
            let place = format!("test:{{v{name}}}");
            let entry = forged(&name, stored(&server, &place), form, length, bomb);
            server.command(&[b"SET", place.as_bytes(), &entry]);
            assert_eq!(c.get(&name).await, None, "{form}, {length}");
            read += 1;
            assert_eq!(undecodable(&c), read, "{form}, {length}");
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown <= LIMIT + (8 << 20), "{grown} bytes more");
}

#[tokio::test]
async fn ds_23_a_value_that_somebody_else_wrote_is_a_counted_miss() {
    let server = RedisServer::start();
    let key = |name: &str| SignKey::new(format!("s3ntinel key {name}...")).unwrap();
    let old = client(config(&server).sign_key(key("old"))).await;
    let new = client(config(&server).sign_key(key("new")).accept_key(key("old"))).await;
    let foreign = client(config(&server)).await;
    old.set("k", "by the old key").await;
    assert_eq!(old.get("k").await.unwrap(), "by the old key");
    assert_eq!(new.get("k").await.unwrap(), "by the old key");
    assert_eq!(foreign.get("k").await.unwrap(), "by the old key", "reading needs no key");
    new.set("k", "by the new key").await;
    assert_eq!(old.get("k").await, None);
    assert_eq!(new.get("k").await.unwrap(), "by the new key");
    assert_eq!(undecodable(&new), 0);

    // Moved to another key, or to another namespace.
    let mut signed = stored(&server, "test:{vk}");
    signed.truncate(signed.len() - 8);
    server.command(&[b"SET", &b"test:{vl}"[..], &sealed(signed, "l")]);
    assert_eq!(new.get("l").await, None);
    foreign.set("m", "by nobody").await;
    assert_eq!(new.get("m").await, None);
    assert_eq!(undecodable(&new), 2);
    // It stays for those who can read it, and a load replaces it.
    assert_eq!(foreign.get("m").await.unwrap(), "by nobody");
    let lease = Client::lead(new.begin("m").await.unwrap());
    new.fill("m", "by us", &lease).await;
    assert_eq!(new.get("m").await.unwrap(), "by us");
    // A touch signs again.
    assert!(new.touch("m", Some(new.clock.now().saturating_add(MINUTE * 9))).await);
    assert_eq!(new.get("m").await.unwrap(), "by us");
    let shown = format!("{:?} {:#?}", config(&server).sign_key(key("x")), new.store);
    assert!(!shown.contains("s3ntinel"), "{shown}");
}

#[derive(Serialize, Deserialize)]
struct User {
    id: u32,
}

#[derive(Serialize, Deserialize)]
struct Order {
    id: u32,
}

#[tokio::test]
async fn ds_21_a_value_of_another_type_is_a_miss() {
    let server = RedisServer::start();
    let cache = cache(config(&server), Codec::Json).await;
    cache.set("k", User { id: 1 }, MINUTE).await.unwrap();
    assert!(cache.get::<Order>("k").await.unwrap().is_none());
    assert_eq!(cache.stats().errors.of(ErrorKind::Undecodable), 1);
    assert_eq!(cache.get::<User>("k").await.unwrap().unwrap().id, 1);
}

/// An entry as this version would never write it: of a later format, codec or compression.
#[tokio::test]
async fn ds_20_what_a_later_version_wrote_is_a_counted_miss_and_stays() {
    let server = RedisServer::start();
    let c = client(config(&server)).await;
    for (place, value) in [(3, 2), (4, 77), (5, 9)] {
        let before = undecodable(&c);
        c.set("k", "value").await;
        let mut bytes = stored(&server, "test:{vk}");
        bytes[place] = value;
        bytes.truncate(bytes.len() - 8);
        let bytes = sealed(bytes, "k");
        server.command(&[b"SET", &b"test:{vk}"[..], &bytes]);
        assert_eq!(c.get("k").await, None);
        assert_eq!(undecodable(&c), before + 1);
        c.clock.sleep(ms(50)).await;
        assert_eq!(stored(&server, "test:{vk}"), bytes, "its writer can still read it");
        let begun = c.begin("k").await.unwrap();
        c.fill("k", "ours", &Client::lead(begun)).await;
        assert_eq!(c.get("k").await.unwrap(), "ours");
    }
}

/// What a node of a fleet did.
#[derive(Debug)]
struct Tally {
    type_name: &'static str,
    calls: u64,
    found: u64,
}

/// A program that knows `User` as it is given here: it loads, reads, writes and deletes for a while
/// and fails if it gets an error or a wrong value.
macro_rules! node {
    ($cache:expr, $lasts:expr, $user:item, $make:expr) => {{
        $user
        let (cache, make): (Cache, fn(u32, String) -> User) = ($cache.clone(), $make);
        let watch = tachikoma_testkit::Stopwatch::start();
        let mut tally = Tally { type_name: std::any::type_name::<User>(), calls: 0, found: 0 };
        tokio::spawn(async move {
            while watch.elapsed() < $lasts {
                for id in 0..16_u32 {
                    let name = format!("user:{id}");
                    let value = make(id, "Motoko ".repeat(20));
                    let load = cache.get_or_load(&name, move || async move {
                        Ok::<_, std::io::Error>(value)
                    });
                    let user = load.tags(["users"]).await.expect("a load never fails");
                    assert_eq!((user.id, user.bio.len()), (id, 140));
                    if let Some(user) = cache.get::<User>(&name).await.expect("it can be read") {
                        assert_eq!((user.id, user.bio.len()), (id, 140));
                        tally.found += 1;
                    }
                    match (tally.calls + u64::from(id)) % 3 {
                        0 => {
                            let value = make(id, "Motoko ".repeat(20));
                            cache.set(&name, value, MINUTE).await.expect("it can be written");
                        }
                        1 => drop(cache.delete(&name).await.expect("it can be deleted")),
                        _ => (),
                    }
                    tally.calls += 3;
                }
            }
            tally
        })
    }};
}

/// Two programs of one fleet on one server: another codec, another compression, and a type that got
/// a field. `TACHIKOMA_FLEET_SECONDS` sets for how long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ds_20_old_and_new_nodes_run_together_without_an_error_to_a_caller() {
    let seconds = std::env::var("TACHIKOMA_FLEET_SECONDS").ok();
    let lasts = Duration::from_secs(seconds.map_or(2, |text| text.parse().expect("a number")));
    let server = RedisServer::start();
    let before = cache(config(&server), Codec::Json).await;
    let after = config(&server).compression(Compression::ZSTD).compress_above(64);
    let after = cache(after, Codec::MessagePack).await;
    let old = node!(
        before,
        lasts,
        #[derive(Serialize, Deserialize)]
        struct User {
            id: u32,
            bio: String,
        },
        |id, bio| User { id, bio }
    );
    let new = node!(
        after,
        lasts,
        #[derive(Serialize, Deserialize)]
        struct User {
            #[serde(default)]
            roles: Vec<String>,
            bio: String,
            id: u32,
        },
        |id, bio| User { id, bio, roles: vec!["major".to_owned()] }
    );
    let (old, new) = (old.await.unwrap(), new.await.unwrap());
    assert_eq!(old.type_name, new.type_name, "or they would only miss each other's values");
    assert!(old.found.min(new.found) > 100, "{old:?} {new:?}");
    for cache in [&before, &after] {
        assert_eq!(cache.stats().errors.total(), 0, "{:?}", cache.stats());
    }
    println!("{} and {} calls, 0 errors", old.calls, new.calls);
}

#[tokio::test]
async fn a_huge_value_is_refused_before_it_is_sent() {
    let server = RedisServer::start();
    let c = client(config(&server).max_value_bytes(1 << 20)).await;
    let huge = Entry::from_bytes(c.meta(None), Bytes::from(vec![0; (1 << 20) + 1]));
    let error = c.write("k", huge, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let fits = Entry::from_bytes(c.meta(None), Bytes::from(vec![b' '; 1 << 20]));
    c.write("k", fits, When::Always).await.unwrap();
    assert_eq!(c.get("k").await.unwrap().len(), 1 << 20);
}
