//! What a caller can get wrong, entry by entry (catalogue §7, "Rust API"): never a panic, never a
//! hang, and an error that says what is allowed. Patterns and parts of keys are in `laws/names.rs`,
//! runtimes in `runtimes.rs`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tachikoma_cache::entry::Value;
use tachikoma_cache::{Cache, Cacheable, Error, ErrorKind, Namespace, Pattern, Ttl};
use tachikoma_testkit::RedisServer;
use tokio::sync::Notify;

const MINUTE: Duration = Duration::from_secs(60);

/// Nothing takes longer, also on a machine that does much else.
async fn soon<T>(operation: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), operation).await.expect("it hangs")
}

#[track_caller]
fn check(result: Result<impl Debug, Error>, kind: ErrorKind, words: &str) {
    let error = result.expect_err(words);
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}, without {words:?}");
}

struct Fails;

impl Serialize for Fails {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
}

struct Panics;

impl Serialize for Panics {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("in serialize");
    }
}

#[derive(Serialize)]
struct PanicsWhenRead(u8);

impl<'de> Deserialize<'de> for PanicsWhenRead {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("in deserialize");
    }
}

macro_rules! never_read {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Err(serde::de::Error::custom("it was never written"))
            }
        }
    )*};
}
never_read!(Fails, Panics);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nested {
    next: Option<Box<Nested>>,
}

/// It comes back as it was.
async fn keeps<T: Cacheable + Debug + PartialEq>(cache: &Cache, value: T, again: T) {
    let shown = format!("{again:?}");
    soon(cache.set("value", value, MINUTE)).await.unwrap();
    let read = soon(cache.get::<T>("value")).await.unwrap();
    assert_eq!(read.expect(&shown).into_arc(), Arc::new(again));
}

/// It comes back as it was, or is refused, or is a miss: never another value.
async fn never_changes<T: Cacheable>(cache: &Cache, value: T, is: impl Fn(&T) -> bool) {
    soon(cache.delete("value")).await.unwrap();
    let shown = std::any::type_name::<T>();
    match soon(cache.set("value", value, MINUTE)).await {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unencodable, "{shown}: {error}"),
    }
    let read = soon(cache.get::<T>("value")).await.unwrap();
    assert!(read.is_none_or(|read| is(&read)), "{shown}");
}

async fn is_unencodable<T: Cacheable>(cache: &Cache, make: impl Fn() -> T + Copy + Send + 'static) {
    soon(cache.set("value", 1_u8, MINUTE)).await.unwrap();
    check(soon(cache.set("value", make(), MINUTE)).await, ErrorKind::Unencodable, "encoded");
    let what = "a value that cannot be stored still takes the older one away";
    assert!(!soon(cache.exists("value")).await.unwrap(), "{what}");
    check(
        soon(cache.set_if_absent("value", make(), MINUTE)).await,
        ErrorKind::Unencodable,
        "encoded",
    );
    let many = soon(cache.set_many([("value", make())], MINUTE)).await;
    assert!(many.is_err());
    // A load is not failed by it.
    let loaded = soon(cache.get_or_load("value", move || async move { Ok::<T, ()>(make()) })).await;
    assert!(loaded.is_ok());
    assert!(!soon(cache.exists("value")).await.unwrap());
}

/// An object with a binary form of its own.
struct Text;

impl Value for Text {
    const TYPE: &'static str = "text";

    fn encode(&self) -> Result<Bytes, Error> {
        Ok(Bytes::from_static(b"text"))
    }

    fn decode(_: &Bytes) -> Result<Self, Error> {
        Ok(Self)
    }

    fn weight(&self) -> usize {
        4
    }
}

laws! {
    async fn keys_of_any_text_and_of_at_most_4096_bytes(b) {
        let longest = "k".repeat(4096);
        let keys = ["", "k", "\0", "a\r\nSET x y", "%00", "\u{1F996}", "\u{202E}abc", "e\u{301}",
            "*", &longest];
        for (number, key) in keys.iter().enumerate() {
            soon(b.cache.set(key, number, MINUTE)).await.unwrap();
        }
        for (number, key) in keys.iter().enumerate() {
            let read = soon(b.cache.get::<usize>(key)).await.unwrap();
            assert_eq!(read.as_deref(), Some(&number), "{key:?}");
        }
        assert!(!b.cache.exists("\u{e9}").await.unwrap(), "text is not normalised");
        let long = "k".repeat(4097);
        let (kind, words) = (ErrorKind::InvalidKey, "4097 bytes; at most 4096");
        check(soon(b.cache.get::<u8>(&long)).await, kind, words);
        check(soon(b.cache.set(&long, 1_u8, MINUTE)).await, kind, words);
        check(soon(b.cache.set_if_absent(&long, 1_u8, MINUTE)).await, kind, words);
        check(soon(b.cache.delete(&long)).await, kind, words);
        check(soon(b.cache.invalidate_strict(&long)).await, kind, words);
        check(soon(b.cache.exists(&long)).await, kind, words);
        check(soon(b.cache.ttl(&long)).await, kind, words);
        check(soon(b.cache.touch(&long, MINUTE)).await, kind, words);
        check(soon(b.cache.entry_info(&long)).await, kind, words);
        assert!(b.cache.try_get::<u8>(&long).is_none());
        let loaded = soon(b.cache.get_or_load(&long, || async { Ok::<u8, ()>(1) })).await;
        assert_eq!(*loaded.unwrap(), 1, "loaded, not stored");
    }

    async fn values_that_have_a_form_come_back_as_they_were(b) {
        keeps(&b.cache, String::new(), String::new()).await;
        keeps(&b.cache, u64::MAX, u64::MAX).await;
        keeps(&b.cache, i64::MIN, i64::MIN).await;
        keeps(&b.cache, i128::MIN, i128::MIN).await;
        keeps(&b.cache, u128::MAX, u128::MAX).await;
        keeps(&b.cache, (), ()).await;
        keeps(&b.cache, f64::MIN_POSITIVE, f64::MIN_POSITIVE).await;
        let map = || BTreeMap::from([(7_u64, "seven".to_owned()), (u64::MAX, String::new())]);
        keeps(&b.cache, map(), map()).await;
    }

    async fn values_without_a_form_are_refused_or_a_miss_and_never_another_value(b) {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            never_changes(&b.cache, number, |read| read.to_bits() == number.to_bits()).await;
        }
        let pairs = BTreeMap::from([((1_u8, 2_u8), 3_u8)]);
        never_changes(&b.cache, pairs.clone(), |read| *read == pairs).await;
        let mut nested = Nested { next: None };
        for _ in 0..1000 {
            nested = Nested { next: Some(Box::new(nested)) };
        }
        never_changes(&b.cache, nested, |read| {
            let (mut depth, mut at) = (0, read);
            while let Some(next) = &at.next {
                (depth, at) = (depth + 1, next);
            }
            depth == 1000
        }).await;
    }

    async fn a_type_that_fails_or_panics_is_an_error_of_its_value(b) {
        is_unencodable(&b.cache, || Fails).await;
        is_unencodable(&b.cache, || Panics).await;
        soon(b.cache.set("value", PanicsWhenRead(1), MINUTE)).await.unwrap();
        // In memory it is not read at all; from bytes it is a miss.
        let read = soon(b.cache.get::<PanicsWhenRead>("value")).await.unwrap();
        assert!(read.is_none_or(|read| read.0 == 1));
        let load = || async { Ok::<_, ()>(PanicsWhenRead(2)) };
        assert!(soon(b.cache.get_or_load("value", load)).await.is_ok());
    }

    async fn ttls_of_more_than_zero_and_at_most_ten_years(b) {
        let most = Duration::from_secs(10 * 365 * 86_400);
        for bad in [
            Duration::ZERO,
            Duration::MAX,
            Duration::from_millis(1 << 53),
            Duration::from_millis(i64::MAX as u64),
            most + Duration::from_nanos(1),
        ] {
            let kind = ErrorKind::InvalidTtl;
            check(soon(b.cache.set("k", 1_u8, bad)).await, kind, "allowed");
            check(soon(b.cache.set_if_absent("k", 1_u8, bad)).await, kind, "allowed");
            soon(b.cache.set("old", 1_u8, MINUTE)).await.unwrap();
            check(soon(b.cache.touch("old", bad)).await, kind, "allowed");
            let load = || async { Ok::<u8, ()>(1) };
            assert_eq!(*soon(b.cache.get_or_load("loaded", load).ttl(bad)).await.unwrap(), 1);
            assert!(!b.cache.exists("loaded").await.unwrap(), "{bad:?}");
        }
        for good in [Duration::from_nanos(1), Duration::from_millis(1), most] {
            soon(b.cache.set("k", 1_u8, good)).await.unwrap();
        }
        soon(b.cache.set("k", 1_u8, Ttl::Never)).await.unwrap();
    }

    async fn tags_of_1_to_256_bytes_and_at_most_64(b) {
        let kind = ErrorKind::InvalidTag;
        let (longest, long) = ("t".repeat(256), "t".repeat(257));
        for (tags, words) in
            [(vec![""], "0 bytes; allowed are 1 to 256"), (vec!["a", &long], "257 bytes")]
        {
            check(soon(b.cache.set("k", 1_u8, MINUTE).tags(&tags)).await, kind, words);
            check(soon(b.cache.invalidate_tags(&tags)).await, kind, words);
            check(soon(b.cache.invalidate_tags_strict(&tags)).await, kind, words);
            check(soon(b.cache.expire_tag(tags.last().unwrap())).await, kind, words);
        }
        let many: Vec<String> = (0..65).map(|number| format!("t{number}")).collect();
        check(soon(b.cache.set("k", 1_u8, MINUTE).tags(&many)).await, kind, "64");
        soon(b.cache.set("k", 1_u8, MINUTE).tags(&many[..64])).await.unwrap();
        for tag in ["a,b", "*", "\u{1F996}", "a b", "\0", &longest] {
            soon(b.cache.set("k", 1_u8, MINUTE).tags(["same", "same", tag])).await.unwrap();
            soon(b.cache.set("other", 1_u8, MINUTE).tags(["a", "b"])).await.unwrap();
            soon(b.cache.invalidate_tag(tag)).await.unwrap();
            assert!(!b.cache.exists("k").await.unwrap(), "{tag:?}");
            assert!(b.cache.exists("other").await.unwrap(), "{tag:?}");
        }
    }

    async fn each_refusal_is_counted_as_an_error(b) {
        let entries = b.cache.entries();
        soon(b.cache.set("k", 1_u8, MINUTE)).await.unwrap();
        let before = b.cache.stats().errors.total();
        soon(b.cache.touch("k", Duration::ZERO)).await.unwrap_err();
        soon(entries.put("k", Arc::new(Text), MINUTE, [""])).await.unwrap_err();
        let lease = soon(entries.begin("other")).await.unwrap();
        soon(entries.fill(lease, Arc::new(Text), MINUTE, [""])).await.unwrap_err();
        assert_eq!(b.cache.stats().errors.total() - before, 3);
    }

    async fn patterns_and_pages_that_are_not_allowed_are_named(b) {
        let long = "p".repeat(4097);
        let refused = match Pattern::raw(&long) {
            Ok(pattern) => soon(b.cache.delete_pattern(&pattern)).await,
            Err(error) => Err(error),
        };
        check(refused, ErrorKind::InvalidPattern, "4096");
        check(soon(b.cache.keys().limit(0)).await, ErrorKind::InvalidPage, "1000");
        check(soon(b.cache.keys().limit(usize::MAX)).await, ErrorKind::InvalidPage, "1000");
    }

    async fn ten_thousand_handles_are_one_cache(b) {
        let handles: Vec<Cache> = (0..10_000).map(|_| b.cache.clone()).collect();
        soon(handles[0].set("k", 1_u8, MINUTE)).await.unwrap();
        assert!(soon(handles[9_999].get::<u8>("k")).await.unwrap().is_some());
        // The same name twice is the same namespace.
        let (one, two) = (b.cache.namespace("n").unwrap(), b.cache.namespace("n").unwrap());
        soon(one.set("k", 2_u8, MINUTE)).await.unwrap();
        assert_eq!(soon(two.get::<u8>("k")).await.unwrap().as_deref(), Some(&2));
        check(b.cache.namespace("a:b"), ErrorKind::InvalidNamespace, "allowed");
        check(Namespace::new(&"n".repeat(129)), ErrorKind::InvalidNamespace, "128");
    }

    async fn handles_may_go_while_a_load_is_under_way(b) {
        let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let cache = b.cache.clone();
        let (begin, wait) = (Arc::clone(&began), Arc::clone(&go));
        let task = tokio::spawn(async move {
            let load = move || async move {
                begin.notify_one();
                wait.notified().await;
                Ok::<u8, ()>(1)
            };
            let loaded = cache.get_or_load("k", load).await.map(|hit| *hit);
            drop(cache);
            loaded
        });
        soon(began.notified()).await;
        drop(b);
        go.notify_one();
        assert_eq!(soon(task).await.unwrap().unwrap(), 1);
    }
}

/// Of texts of growing length one is the first that is too large, and the error names the limit.
async fn has_a_limit(cache: &Cache) {
    let mut first = None;
    for bytes in 400..1100 {
        match soon(cache.set("k", "x".repeat(bytes), MINUTE)).await {
            Ok(()) => assert!(first.is_none(), "{bytes} bytes are stored, fewer were refused"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TooLarge);
                assert!(error.to_string().contains("1000"), "{error}");
                first.get_or_insert(bytes);
                assert!(!cache.exists("k").await.unwrap(), "the older value is gone");
            }
        }
    }
    assert!(first.is_some_and(|first| (401..=1001).contains(&first)), "{first:?}");
    let loaded = soon(cache.get_or_load("k", || async { Ok::<_, ()>("x".repeat(5000)) })).await;
    assert_eq!(loaded.unwrap().len(), 5000);
}

mod memory_alone {
    use super::*;

    #[tokio::test]
    async fn a_value_above_the_limit_is_refused() {
        has_a_limit(&Cache::memory().max_value_bytes(1000).build().unwrap()).await;
    }

    #[tokio::test]
    async fn bounds_from_one_to_the_largest_number() {
        let config = ErrorKind::Config;
        check(Cache::memory().max_entries(0).build(), config, "max_entries is 0");
        check(Cache::memory().max_bytes(0).build(), config, "max_bytes is 0");
        check(Cache::memory().max_value_bytes(0).build(), config, "max_value_bytes is 0");
        check(Cache::memory().max_concurrent_loads(0).build(), config, "max_concurrent_loads");
        check(Cache::memory().max_queued_loads(usize::MAX).build(), config, "max_queued_loads");
        check(Cache::memory().default_ttl(Duration::MAX).build(), ErrorKind::InvalidTtl, "ttl is");
        let largest = Cache::memory().max_entries(u64::MAX).max_bytes(u64::MAX).build().unwrap();
        soon(largest.set("k", 1_u8, MINUTE)).await.unwrap();
        assert!(largest.try_get::<u8>("k").is_some());
        let smallest = Cache::memory().max_entries(1).build().unwrap();
        for number in 0..10_u8 {
            soon(smallest.set(&number.to_string(), number, MINUTE)).await.unwrap();
            assert!(smallest.stats().size.unwrap() <= 1);
        }
    }
}

mod redis_alone {
    use super::*;

    #[tokio::test]
    async fn a_value_above_the_limit_is_refused() {
        let server = RedisServer::start();
        let url = format!("{}?max_value_bytes=1000B&store_timeout=10s&memory=off", server.url());
        has_a_limit(&Cache::connect(&url).await.unwrap()).await;
    }
}
