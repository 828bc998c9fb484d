//! No secret in what people and programs read (DS-12, DS-13, DS-14): the sinks of the library. The
//! server's have their test there.

use std::fmt::{Debug, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tachikoma_cache::store::redis::RedisConfig;
use tachikoma_cache::{Cache, CacheConfig, RedisCache};
use tachikoma_testkit::RedisServer;

const SENTINEL: &str = "s3ntinel-pw";

/// A URL with the sentinel for a server that wants another password.
fn wrong(server: &RedisServer) -> String {
    format!("redis://default:{SENTINEL}@127.0.0.1:{}/0", server.port())
}

#[track_caller]
fn check(sink: &str, shown: impl AsRef<str>) {
    let shown = shown.as_ref();
    assert!(!shown.is_empty(), "{sink} shows nothing");
    assert!(!shown.contains(SENTINEL), "{sink}: {shown}");
}

/// An error with all its causes, both ways.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut shown = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(shown, " {error} {error:?}").unwrap();
        cause = error.source();
    }
    shown
}

#[test]
fn debug_shows_no_password() {
    let url = format!("redis://user:{SENTINEL}@127.0.0.1:1/0?timeout=1s");
    let config = CacheConfig { url: Some(url.clone()), ..CacheConfig::default() };
    let (redis, _) = RedisConfig::from_url(&url.replace("?timeout=1s", "")).unwrap();
    let all: [&dyn Debug; 2] = [&config, &redis];
    for shown in all {
        check("Debug", format!("{shown:?} {shown:#?}"));
    }
}

#[test]
fn what_is_serialised_of_a_configuration_shows_no_password() {
    for (url, expected) in [
        (format!("redis://user:{SENTINEL}@host:6379/0?timeout=1s"), "redis://***@host:6379/0"),
        (format!("redis://:{SENTINEL}/x@y@host/0"), "redis://***@host/0"),
        (format!("user:{SENTINEL}@host"), "***@host"),
        (format!("unix:///r.sock?user=me&pass={SENTINEL}"), "unix:///r.sock?***"),
        (format!("unix:///r.sock?p%61ss={SENTINEL}"), "unix:///r.sock?***"),
        ("redis://host/0?namespace=shop".to_owned(), "redis://host/0?namespace=shop"),
        ("memory".to_owned(), "memory"),
    ] {
        let config = CacheConfig {
            url: Some(url),
            sign_key: Some(SENTINEL.to_owned()),
            accept_key: Some(SENTINEL.to_owned()),
            ..CacheConfig::default()
        };
        let json = serde_json::to_string(&config).unwrap();
        check("a serialised configuration", &json);
        assert!(json.contains(expected), "{json}");
    }
}

#[tokio::test]
async fn errors_and_a_cache_that_is_away_show_no_password() {
    let server = RedisServer::builder().password("another-password").start();
    let refused = Cache::connect(&wrong(&server)).await.unwrap_err();
    check("the error of a refused login", whole(&refused));
    let refused = RedisCache::new(&wrong(&server), "ns").await.unwrap_err();
    check("the error of a refused login", whole(&refused));
    let port = tachikoma_testkit::free_port();
    let away = Cache::connect(&format!("redis://u:{SENTINEL}@127.0.0.1:{port}/0")).await.unwrap();
    check("Debug of a cache", format!("{away:?} {away:#?}"));
    check("its health", format!("{:?}", away.health()));
    check("its statistics", format!("{:?}", away.stats()));
    let error = away.get::<u32>("k").await.unwrap_err();
    check("the error of a lookup", whole(&error));
    for url in [
        format!("redis://u:{SENTINEL}@127.0.0.1:99999/0"),
        format!("redis://u:{SENTINEL}@[::1/0"),
        format!("redis://u:{SENTINEL}@/x/y"),
        format!("redis://u:{SENTINEL}@h/0?{SENTINEL}"),
        format!("http://u:{SENTINEL}@h/"),
        format!("u:{SENTINEL}@h"),
    ] {
        if let Err(error) = Cache::connect(&url.replace(&format!("?{SENTINEL}"), "?x=y")).await {
            check("the error of a wrong URL", whole(&error));
        }
    }
}

#[test]
fn the_message_of_a_panic_shows_no_password() {
    let url = format!("redis://user:{SENTINEL}@127.0.0.1:1/0");
    let config = CacheConfig { url: Some(url), ..CacheConfig::default() };
    let panic = catch_unwind(AssertUnwindSafe(|| panic!("as the test wants: {config:?}")));
    let message = panic.unwrap_err().downcast::<String>().unwrap();
    check("a panic", *message);
}

/// Values and long keys with control characters, in everything that is made to be shown.
#[tokio::test]
async fn what_is_shown_of_entries_has_no_value_and_short_escaped_keys() {
    let shown = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let ears = std::sync::Arc::clone(&shown);
    let cache = Cache::memory()
        .track_top_keys(true)
        .on_event(move |event| writeln!(ears.lock().unwrap(), "{event:?}").unwrap())
        .build()
        .unwrap();
    let key = format!("\x1b[31m{}", "k".repeat(200));
    let minute = Duration::from_secs(60);
    cache.set(&key, SENTINEL.to_owned(), minute).tags(["t"]).await.unwrap();
    cache.get::<String>(&key).await.unwrap();
    cache.get::<u32>(&key).await.unwrap();
    cache.invalidate_tag("t").await.unwrap();
    let mut shown = shown.lock().unwrap().clone();
    write!(shown, "{:?} {:?} {cache:?}", cache.top_keys(10).unwrap(), cache.stats()).unwrap();
    let key = tachikoma_cache::key::Key::new(cache.namespace_ref(), key.as_str()).unwrap();
    write!(shown, "{key:?}").unwrap();
    check("events, top keys, statistics", &shown);
    assert!(!shown.contains('\x1b'), "{shown:?}");
    assert!(!shown.contains(&"k".repeat(65)), "{shown}");
}

#[cfg(feature = "sign")]
#[tokio::test]
async fn a_token_that_is_hashed_is_found_nowhere() {
    use tachikoma_cache::{CacheKeyBuilder, KeyHasher};

    let (server, token) = (RedisServer::start(), SENTINEL);
    let cache = Cache::connect(&server.url()).await.unwrap();
    let hasher = KeyHasher::new("the secret of the application").unwrap();
    let key = CacheKeyBuilder::new("session").add(hasher.hash(token)).build();
    cache.set(&key, "Motoko".to_owned(), Duration::from_secs(60)).tags(["s"]).await.unwrap();
    assert!(cache.get::<String>(&key).await.unwrap().is_some());
    let all = server.command(&["SCAN", "0", "COUNT", "1000"]);
    check("the keys of the server", format!("{all:?}"));
    check("the key", key);
}
