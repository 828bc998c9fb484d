//! The `#[cached]` attribute.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tachikoma_cache::{Cache, KeyTtl, LoadError, LoadOptions, Source, TestClock, cached};

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::memory().build().unwrap());
static CALLS: AtomicU32 = AtomicU32::new(0);

/// A user's name.
#[cached(cache = CACHE, key = "user:{id}", ttl = "60s", tags("users", "team:{team}"))]
async fn user(id: u64, team: String) -> Result<String, io::Error> {
    CALLS.fetch_add(1, Ordering::SeqCst);
    if id == 0 {
        return Err(io::Error::other("no such user"));
    }
    let text = io::Result::Ok(format!("{id} of {team}"))?;
    Ok(text)
}

#[cached(cache = &*CACHE, key = "pair:{a}:{b}")]
async fn pair<T>(a: T, b: &'static str) -> usize
where
    T: std::fmt::Display + Send + 'static,
{
    a.to_string().len() + b.len()
}

static LOOKS: AtomicU32 = AtomicU32::new(0);

/// An agent's badge, if there is such an agent.
#[cached(cache = CACHE, key = "badge:{id}", ttl = "60s", negative_ttl = "5s", tags("badges"))]
async fn badge(id: u64) -> Result<Option<String>, io::Error> {
    LOOKS.fetch_add(1, Ordering::SeqCst);
    match id {
        0 => Err(io::Error::other("no database")),
        1..10 => Ok(Some(format!("badge {id}"))),
        _ => Ok(None),
    }
}

#[cached(cache = CACHE, key = "rank:{id}", negative_ttl = "5s")]
async fn rank(id: u64) -> Option<u32> {
    LOOKS.fetch_add(1, Ordering::SeqCst);
    (id < 10).then_some(7)
}

/// Without `negative_ttl` an option is a value as any other.
#[cached(cache = CACHE, key = "maybe:{id}")]
async fn maybe(id: u64) -> Option<u32> {
    (id < 10).then_some(7)
}

type Adverse = Result<u32, io::Error>;

static CLOCK: LazyLock<TestClock> = LazyLock::new(TestClock::new);
static TIMED: LazyLock<Cache> =
    LazyLock::new(|| Cache::memory().clock(Arc::new(CLOCK.clone())).build().unwrap());

#[cached(
    cache = TIMED,
    key = "price",
    ttl = "1s",
    stale_while_revalidate = "10s",
    stale_if_error = "1h",
    soft_timeout = "50ms",
    load_timeout = "2s",
    retry_after = "0s",
    time_to_idle = "1d",
    early_refresh = 1,
    jitter = 0.0
)]
async fn price() -> io::Result<u32> {
    match LOADED.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(5),
        _ => Adverse::Err(io::Error::other("down")),
    }
}

static LOADED: AtomicU32 = AtomicU32::new(0);

fn catalogue() -> LoadOptions {
    LoadOptions::new().ttl(Duration::from_secs(9)).stale_if_error(Duration::from_secs(3600))
}

#[cached(cache = TIMED, key = "name", options = catalogue(), ttl = "2s")]
async fn name() -> String {
    "Batou".to_owned()
}

/// Names that the attribute might use itself.
#[cached(cache = CACHE, key = "names:{key}:{cache}:{tags}:{load}:{text}", tags("t:{tags}"))]
async fn names(key: String, cache: u32, tags: String, load: bool, mut text: String) -> String {
    text.push_str(&key);
    format!("{text}{cache}{tags}{load}")
}

mod memory {
    use super::*;

    #[tokio::test]
    async fn arguments_may_have_any_name() {
        let ask = || names("k".to_owned(), 1, "g".to_owned(), true, "t".to_owned());
        assert_eq!(*ask().await.unwrap(), "tk1gtrue");
        assert_eq!(ask().await.unwrap().source(), Source::Hit);
        CACHE.invalidate_tag("t:g").await.unwrap();
        assert_eq!(ask().await.unwrap().source(), Source::Loaded);
    }

    #[tokio::test]
    async fn a_cached_function_runs_once_and_goes_with_its_tags() {
        let first = user(1, "red".to_owned()).await.unwrap();
        assert_eq!((first.as_str(), first.source()), ("1 of red", Source::Loaded));
        assert_eq!(user(1, "red".to_owned()).await.unwrap().source(), Source::Hit);
        let ttl = CACHE.ttl("user:1").await.unwrap();
        assert!(matches!(ttl, KeyTtl::Expires(left) if left <= Duration::from_secs(60)), "{ttl:?}");
        CACHE.invalidate_tag("team:red").await.unwrap();
        assert_eq!(user(1, "red".to_owned()).await.unwrap().source(), Source::Loaded);
        assert_eq!(CALLS.load(Ordering::SeqCst), 2);

        let error = user(0, "red".to_owned()).await.unwrap_err();
        assert!(matches!(&error, LoadError::Source(e) if e.to_string() == "no such user"));
    }

    #[tokio::test]
    async fn arguments_cannot_pass_for_each_other() {
        pair("a:b", "c").await.unwrap();
        pair("a", "b:c").await.unwrap();
        assert!(CACHE.exists("pair:a%3Ab:c").await.unwrap());
        assert!(CACHE.exists("pair:a:b%3Ac").await.unwrap());
    }

    #[tokio::test]
    async fn that_there_is_no_value_is_remembered() {
        assert_eq!(badge(1).await.unwrap().unwrap().as_str(), "badge 1");
        assert_eq!(badge(1).await.unwrap().unwrap().source(), Source::Hit);
        let before = LOOKS.load(Ordering::SeqCst);
        for _ in 0..3 {
            assert!(badge(99).await.unwrap().is_none());
        }
        for _ in 0..3 {
            assert!(rank(99).await.unwrap().is_none());
        }
        assert_eq!(LOOKS.load(Ordering::SeqCst), before + 2, "each was asked once");
        assert_eq!(*rank(1).await.unwrap().unwrap(), 7);
        assert!(matches!(badge(0).await.unwrap_err(), LoadError::Source(_)));
        assert_eq!((*maybe(1).await.unwrap(), *maybe(99).await.unwrap()), (Some(7), None));
        assert_eq!(maybe(99).await.unwrap().source(), Source::Hit);
        CACHE.invalidate_tag("badges").await.unwrap();
        assert_eq!(badge(1).await.unwrap().unwrap().source(), Source::Loaded);
    }

    #[tokio::test]
    async fn the_options_of_loads_may_be_named() {
        assert_eq!(price().await.unwrap().source(), Source::Loaded);
        CLOCK.advance(Duration::from_secs(2));
        let stale = price().await.unwrap();
        assert_eq!((*stale, stale.source()), (5, Source::Stale), "while it is renewed");
        CLOCK.advance(Duration::from_secs(60));
        let stale = price().await.unwrap();
        assert_eq!((*stale, stale.source()), (5, Source::Stale), "because it cannot be");

        assert_eq!(name().await.unwrap().as_str(), "Batou");
        let ttl = TIMED.ttl("name").await.unwrap();
        assert!(matches!(ttl, KeyTtl::Expires(left) if left <= Duration::from_secs(2)), "{ttl:?}");
    }
}
