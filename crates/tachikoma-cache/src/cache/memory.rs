//! Caches in the memory of this process: how they are built.

use std::ops::Deref;
use std::sync::Arc;

use super::config::{parse_bytes, setting};
use super::{Cache, CacheBuilder, CacheConfig};
use crate::error::Error;
use crate::store::memory::{EvictionListener, MemoryConfig, MemoryStore};

/// Settings of a cache in memory. Made by [`Cache::memory`].
pub type MemoryBuilder = CacheBuilder<MemoryConfig>;

impl Cache {
    /// A cache in the memory of this process.
    pub fn memory() -> MemoryBuilder {
        MemoryBuilder::default()
    }
}

impl CacheBuilder<MemoryConfig> {
    /// The most entries. Default: 100,000.
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.store.max_entries = entries;
        self
    }

    /// The most bytes, with keys and bookkeeping. Never exceeded. Default: 64 MiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.store.max_bytes = bytes;
        self
    }

    /// Called with each entry that leaves the cache, and why. It must be quick; a panic in it is
    /// contained. Default: none.
    pub fn on_evict(mut self, listener: EvictionListener) -> Self {
        self.store.on_evict = Some(listener);
        self
    }

    /// The cache. It needs no runtime; loads do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config),
    /// [`ErrorKind::InvalidTtl`](crate::ErrorKind::InvalidTtl) or
    /// [`ErrorKind::InvalidNamespace`](crate::ErrorKind::InvalidNamespace) if a setting is not
    /// allowed; the message names it.
    pub fn build(self) -> Result<Cache, Error> {
        self.check()?;
        let store = MemoryStore::new(self.store.clone(), Arc::clone(&self.clock))?;
        self.finish(store)
    }
}

impl Default for CacheBuilder<MemoryConfig> {
    fn default() -> Self {
        Self::with(MemoryConfig::default())
    }
}

/// A cache in the memory of this process. It is a [`Cache`], and turns into one.
///
/// ```
/// # use {std::time::Duration, tachikoma_cache::MemoryCache};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tachikoma_cache::Error> {
/// let cache = MemoryCache::new(10_000)?;
/// cache.set("answer", 42_u32, Duration::from_secs(60)).await?;
/// assert!(cache.exists("answer").await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryCache(Cache);

impl MemoryCache {
    /// A cache of at most `max_entries` entries and the default number of bytes; everything else is
    /// set by [`Cache::memory`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `max_entries` is zero.
    pub fn new(max_entries: u64) -> Result<Self, Error> {
        Cache::memory().max_entries(max_entries).build().map(Self)
    }
}

impl Deref for MemoryCache {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        &self.0
    }
}

impl From<MemoryCache> for Cache {
    fn from(cache: MemoryCache) -> Self {
        cache.0
    }
}

/// A cache in memory by its configuration.
pub(super) fn build(config: &CacheConfig) -> Result<Cache, Error> {
    let mut builder = config.apply(Cache::memory())?;
    if let Some(entries) = config.max_entries {
        builder = builder.max_entries(entries);
    }
    if let Some(bytes) = &config.max_bytes {
        builder = builder.max_bytes(setting("max_bytes", bytes, parse_bytes)?);
    }
    builder.build()
}
