//! Caches in a Redis or Valkey server with copies in memory: how they are built.

use std::sync::Arc;

use super::CacheConfig;
use super::config::setting;
use crate::clock::Clock;
use crate::error::Error;
use crate::store::Store;
use crate::store::redis::RedisConfig;
use crate::store::tiered::{TierConfig, TieredStore};
use crate::units::{parse_bytes, parse_duration};

/// Whether there are copies where nobody says otherwise.
pub(super) const IS_DEFAULT: bool = true;

/// The store of these settings.
pub(super) async fn connect(
    config: &CacheConfig,
    redis: RedisConfig,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Store>, Error> {
    let mut tier = TierConfig::default();
    if let Some(entries) = config.max_entries {
        tier.max_entries = entries;
    }
    if let Some(bytes) = &config.max_bytes {
        tier.max_bytes = setting("max_bytes", bytes, parse_bytes)?;
    }
    if let Some(freshness) = &config.freshness {
        tier.freshness = setting("freshness", freshness, parse_duration)?;
    }
    Ok(Arc::new(TieredStore::connect(redis, tier, clock).await?))
}
