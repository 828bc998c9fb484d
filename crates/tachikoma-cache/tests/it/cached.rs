//! The `#[cached]` attribute.

use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tachikoma_cache::{Cache, KeyTtl, LoadError, Source, cached};

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

mod memory {
    use super::*;

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
}
