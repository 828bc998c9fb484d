//! A cache from a URL or a configuration takes everything that a builder in code takes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tachikoma_cache::{
    BoxError, Cache, CacheConfig, Codec, CustomCodec, ErrorKind, EventKind, KeyTtl, LoadOptions,
    Plain, Slot, TestClock,
};
use tachikoma_testkit::RedisServer;

const SECOND: Duration = Duration::from_secs(1);

/// JSON that counts what it wrote.
#[derive(Debug)]
struct Counted;

static ENCODED: AtomicUsize = AtomicUsize::new(0);

impl CustomCodec for Counted {
    fn id(&self) -> u8 {
        200
    }

    fn name(&self) -> &'static str {
        "counted"
    }

    fn encode(&self, value: Plain<'_>) -> Result<Vec<u8>, BoxError> {
        ENCODED.fetch_add(1, Ordering::SeqCst);
        Ok(serde_json::to_vec(&value)?)
    }

    fn decode(&self, bytes: &[u8], slot: Slot<'_>) -> Result<(), BoxError> {
        slot.read(&mut serde_json::Deserializer::from_slice(bytes))
    }
}

async fn takes_all(url: &str) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (clock, heard) = (TestClock::new(), Arc::clone(&seen));
    let cache = Cache::connect(url)
        .namespace("said-in-code")
        .default_ttl(60 * SECOND)
        .stale_if_error(3600 * SECOND)
        .store_timeout(10 * SECOND)
        .max_concurrent_loads(4)
        .codec(Codec::Custom(&Counted))
        .clock(Arc::new(clock.clone()))
        .on_event(move |event| {
            let what = match event.kind {
                EventKind::Hit { .. } => "hit",
                EventKind::Miss => "miss",
                EventKind::Stored { .. } => "stored",
                EventKind::Loaded { .. } => "loaded",
                EventKind::Stale { .. } => "stale",
                _ => return,
            };
            heard.lock().unwrap().push(what);
        })
        .track_top_keys(true)
        .await
        .unwrap();
    let expected = LoadOptions::new().ttl(60 * SECOND).stale_if_error(3600 * SECOND);
    assert_eq!(cache.load_options(), expected, "{url}");
    assert_eq!(cache.namespace_ref().as_str(), "said-in-code");

    cache.set("k", 7_u32, SECOND).await.unwrap();
    assert_eq!(*cache.get::<u32>("k").await.unwrap().unwrap(), 7);
    assert!(matches!(cache.ttl("k").await.unwrap(), KeyTtl::Expires(left) if left <= SECOND));
    clock.advance(2 * SECOND);
    assert!(cache.get::<u32>("k").await.unwrap().is_none(), "{url}: its clock is this one");
    let stale = cache.get_or_load("k", || async { Err::<u32, ()>(()) }).await.unwrap();
    assert!(stale.guarantee().is_stale());
    assert_eq!(*seen.lock().unwrap(), ["stored", "hit", "miss", "miss", "stale"], "{url}");
    assert!(cache.top_keys(1).is_ok());
}

/// The operator's URL goes before what the program says, in every store.
async fn the_url_goes_first(url: &str) {
    let joint = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{joint}namespace=in-url&default_ttl=5s");
    let cache = Cache::connect(&url).namespace("in-code").default_ttl(SECOND).jitter(0.5);
    let cache = cache.await.unwrap();
    let expected = LoadOptions::new().ttl(5 * SECOND).jitter(0.5);
    assert_eq!((cache.namespace_ref().as_str(), cache.load_options()), ("in-url", expected));
    let config = CacheConfig {
        url: Some(url.clone()),
        negative_ttl: Some("2s".to_owned()),
        ..CacheConfig::default()
    };
    let cache = Cache::from_config(&config).negative_ttl(SECOND).await.unwrap();
    assert_eq!(cache.load_options().negative_ttl(2 * SECOND), cache.load_options());
}

/// What is wrong is said before anything is connected.
async fn a_wrong_word_is_refused(url: &str) {
    for (builder, word) in [
        (Cache::connect(url).jitter(1.5), "jitter is 1.5"),
        (Cache::connect(url).store_timeout(Duration::ZERO), "store_timeout is 0ns"),
        (Cache::connect(url).max_concurrent_loads(0), "max_concurrent_loads"),
    ] {
        let shown = format!("{builder:?}");
        assert!(!shown.contains("s3ntinel"), "{shown}");
        let error = builder.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = format!("{error} {error:?}");
        assert!(text.contains(word) && !text.contains("s3ntinel"), "{text}");
    }
    let error = Cache::connect(url).namespace("a:b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidNamespace);
}

mod memory {
    #[tokio::test]
    async fn a_url_takes_what_a_builder_takes() {
        super::takes_all("memory:").await;
        super::the_url_goes_first("memory:").await;
        super::a_wrong_word_is_refused("memory:").await;
    }
}

mod redis {
    use super::*;

    #[tokio::test]
    async fn a_url_takes_what_a_builder_takes() {
        let server = RedisServer::start();
        let before = ENCODED.load(Ordering::SeqCst);
        takes_all(&server.url()).await;
        assert!(ENCODED.load(Ordering::SeqCst) > before, "the codec wrote it");
        the_url_goes_first(&server.url()).await;
        a_wrong_word_is_refused("redis://u:s3ntinel@127.0.0.1:1/0").await;
    }
}
