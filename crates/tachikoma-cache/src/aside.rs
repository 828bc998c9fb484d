//! The free function of the specification.

use std::future::Future;

use crate::cache::{Cache, Hit};
use crate::codec::Cacheable;
use crate::error::LoadError;
use crate::expiry::Ttl;

/// The value of a key, fetched and stored if it is not there:
/// `cache.get_or_load(key, fetch).ttl(ttl)` under the name that the pattern is known by.
///
/// ```
/// # use {std::time::Duration, tachikoma_cache::{Cache, cache_aside}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::memory().build()?;
/// let fetch = || async { Ok::<_, std::io::Error>(42_u32) };
/// assert_eq!(*cache_aside(&cache, "answer", Duration::from_secs(60), fetch).await?, 42);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`LoadError`], mostly the error of `fetch`; never an error of the cache.
pub async fn cache_aside<T, E, F, Fut>(
    cache: &Cache,
    key: &str,
    ttl: impl Into<Ttl>,
    fetch: F,
) -> Result<Hit<T>, LoadError<E>>
where
    T: Cacheable,
    E: Send + Sync + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    cache.get_or_load(key, fetch).ttl(ttl).await
}
