//! Caches in a Redis or Valkey server: how they are built.

use std::ops::Deref;

use super::config::unknown_setting;
use super::{Cache, CacheConfig};
use crate::error::{Error, ErrorKind};

/// A cache in a Redis or Valkey server. It is a [`Cache`], and turns into one.
#[derive(Debug, Clone)]
pub struct RedisCache(Cache);

impl RedisCache {
    /// Connects to the server of `url`; `prefix` is the namespace of the keys. Everything else is
    /// set by [`Cache::connect`].
    ///
    /// # Errors
    ///
    /// As [`Cache::connect`].
    pub async fn new(url: &str, prefix: &str) -> Result<Self, Error> {
        let config = super::CacheConfig {
            url: Some(url.to_owned()),
            namespace: Some(prefix.to_owned()),
            ..super::CacheConfig::default()
        };
        Cache::from_config(&config).await.map(Self)
    }
}

impl Deref for RedisCache {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        &self.0
    }
}

impl From<RedisCache> for Cache {
    fn from(cache: RedisCache) -> Self {
        cache.0
    }
}
/// A cache in the server of `url`; `rest` are the settings of its query that no cache has.
#[allow(clippy::unused_async)]
pub(super) async fn connect(
    config: &CacheConfig,
    _url: &str,
    rest: Vec<(String, String)>,
) -> Result<Cache, Error> {
    if let Some((name, _)) = rest.first() {
        return Err(unknown_setting(name));
    }
    let bounds =
        [("max_entries", config.max_entries.is_some()), ("max_bytes", config.max_bytes.is_some())];
    if let Some((name, _)) = bounds.iter().find(|(_, set)| *set) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{name}: it bounds a cache in memory; a Redis server has a maxmemory"),
        ));
    }
    Err(Error::new(ErrorKind::Config, "url: Redis is not wired yet"))
}
