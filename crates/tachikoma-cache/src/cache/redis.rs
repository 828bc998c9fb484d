//! Caches in a Redis or Valkey server: how they are built.

use std::ops::Deref;
use std::sync::Arc;

use super::config::{setting, unknown_setting};
use super::{Cache, CacheBuilder, CacheConfig, tier};
use crate::error::{Error, ErrorKind};
use crate::signature::SignKey;
use crate::store::Store;
use crate::store::redis::{RedisConfig, RedisStore};
use crate::units::{parse_bytes, parse_duration};

/// A cache in a Redis or Valkey server, with copies in the memory of this process. It is a
/// [`Cache`], and turns into one.
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
    builder: CacheBuilder<()>,
    url: &str,
    rest: Vec<(String, String)>,
) -> Result<Cache, Error> {
    if config.snapshot.is_some() || config.snapshot_interval.is_some() {
        return Err(Error::new(
            ErrorKind::Config,
            "snapshot: it keeps a cache in memory; a Redis server keeps its own",
        ));
    }
    let has_tier = has_tier(config)?;
    let of_tier = [
        ("max_entries", config.max_entries.is_some()),
        ("max_bytes", config.max_bytes.is_some()),
        ("freshness", config.freshness.is_some()),
    ];
    if let Some((name, _)) = of_tier.iter().find(|(_, set)| *set && !has_tier) {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "{name}: it is about copies in memory, and there are none: memory=off, or a build \
                 without the feature `memory`; a Redis server has a maxmemory"
            ),
        ));
    }
    let query: Vec<_> = rest.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (mut redis, unknown) = RedisConfig::from_url(&format!("{url}?{}", query.join("&")))?;
    if let Some((name, _)) = unknown.first() {
        return Err(unknown_setting(name));
    }
    let builder = config.apply(builder)?;
    redis = redis.timeout(builder.store_timeout);
    if let Some(lease) = &config.lease {
        redis = redis.lease(setting("lease", lease, parse_duration)?);
    }
    redis = form(config, redis)?.dependencies(config.dependencies.unwrap_or_default());
    builder.check()?;
    let (clock, listeners) = (Arc::clone(&builder.clock), builder.listeners());
    let store: Arc<dyn Store> = if has_tier {
        tier::connect(config, redis, clock).await?
    } else {
        Arc::new(RedisStore::connect(redis, clock).await?)
    };
    builder.finish(store, listeners)
}

/// Whether copies are kept in memory, too.
fn has_tier(config: &CacheConfig) -> Result<bool, Error> {
    match config.memory.as_deref() {
        None => Ok(tier::IS_DEFAULT),
        Some("off") => Ok(false),
        Some("on") => Ok(true),
        Some(other) => {
            Err(Error::new(ErrorKind::Config, format!("memory: {other:?}; allowed are on and off")))
        }
    }
}

/// In what form values are kept.
fn form(config: &CacheConfig, mut redis: RedisConfig) -> Result<RedisConfig, Error> {
    let size = |name, text: &str| -> Result<usize, Error> {
        let bytes = setting(name, text, parse_bytes)?;
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    };
    if let Some(bytes) = &config.max_value_bytes {
        redis = redis.max_value_bytes(size("max_value_bytes", bytes)?);
    }
    if let Some(compression) = &config.compression {
        redis = redis.compression(setting("compression", compression, str::parse)?);
    }
    if let Some(bytes) = &config.compress_above {
        redis = redis.compress_above(size("compress_above", bytes)?);
    }
    if let Some(key) = &config.sign_key {
        redis = redis.sign_key(SignKey::new(key)?);
    }
    if let Some(key) = &config.accept_key {
        redis = redis.accept_key(SignKey::new(key)?);
    }
    Ok(redis)
}
