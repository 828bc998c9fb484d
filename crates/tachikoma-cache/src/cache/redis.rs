//! Caches in a Redis or Valkey server: how they are built.

use std::ops::Deref;
use std::sync::Arc;

use super::config::{parse_duration, setting, unknown_setting};
use super::{Cache, CacheBuilder, CacheConfig};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind};
use crate::store::Store;
use crate::store::redis::{RedisConfig, RedisStore};

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
/// A cache in the server of `url`; `rest` are the settings of its query that are not the cache's.
pub(super) async fn connect(
    config: &CacheConfig,
    url: &str,
    rest: Vec<(String, String)>,
) -> Result<Cache, Error> {
    let bounds =
        [("max_entries", config.max_entries.is_some()), ("max_bytes", config.max_bytes.is_some())];
    if let Some((name, _)) = bounds.iter().find(|(_, set)| *set) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{name}: it bounds a cache in memory; a Redis server has a maxmemory"),
        ));
    }
    let query: Vec<_> = rest.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (mut redis, unknown) = RedisConfig::from_url(&format!("{url}?{}", query.join("&")))?;
    if let Some((name, _)) = unknown.first() {
        return Err(unknown_setting(name));
    }
    if let Some(timeout) = &config.store_timeout {
        redis = redis.timeout(setting("store_timeout", timeout, parse_duration)?);
    }
    if let Some(timeout) = &config.load_timeout {
        redis = redis.lease(setting("load_timeout", timeout, parse_duration)?);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let builder =
        config.apply(CacheBuilder::with(())).map(|builder| builder.clock(clock.clone()))?;
    builder.check()?;
    let store: Arc<dyn Store> = Arc::new(RedisStore::connect(redis, clock).await?);
    builder.finish(store)
}
