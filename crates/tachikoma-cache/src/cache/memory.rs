//! Caches in the memory of this process: how they are built.

use std::ops::Deref;
use std::sync::Arc;

use super::config::setting;
use super::{Cache, CacheBuilder, CacheConfig};
use crate::error::{Error, ErrorKind};
use crate::store::memory::{EvictionListener, MemoryConfig, MemoryStore, SnapshotFile};
use crate::units::{parse_bytes, parse_duration};

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

    /// The most bytes of one value, as they are counted for [`max_bytes`](Self::max_bytes). A
    /// larger one is [`TooLarge`](crate::ErrorKind::TooLarge). Default: as much as the cache holds.
    pub fn max_value_bytes(mut self, bytes: u64) -> Self {
        self.store.max_value_bytes = bytes;
        self
    }

    /// Called with each entry that leaves the cache, and why. It must be quick; a panic in it is
    /// contained. Default: none.
    pub fn on_evict(mut self, listener: EvictionListener) -> Self {
        self.store.on_evict = Some(listener);
        self
    }

    /// Keeps a snapshot of the cache in a file, so that the next process starts warm: read by
    /// [`build`](Self::build), which blocks meanwhile, written when the last handle is dropped, by
    /// [`Cache::save_snapshot`], and every so often if [`SnapshotFile::every`] says so. Default:
    /// none.
    ///
    /// A file that is damaged or cannot be used is reported to the log and no error.
    pub fn snapshot(mut self, file: impl Into<SnapshotFile>) -> Self {
        self.store.snapshot = Some(file.into());
        self
    }

    /// Notes which keys and tags are read while something is recorded, so that what is made of them
    /// goes when they go: see [`dependencies`](crate::dependencies). Each removal and each write
    /// then counts an invalidation besides. Default: off.
    pub fn dependencies(mut self, on: bool) -> Self {
        self.store.dependencies = on;
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
        let listeners = self.listeners();
        let (config, clock) = (self.store.clone(), Arc::clone(&self.clock));
        let store = MemoryStore::observed(config, clock, listeners.clone())?;
        self.finish(store, listeners)
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
pub(super) fn build(config: &CacheConfig, builder: CacheBuilder<()>) -> Result<Cache, Error> {
    if config.lease.is_some() {
        return Err(Error::new(
            ErrorKind::Config,
            "lease: it is about loads of several processes; a cache in memory is of one",
        ));
    }
    let in_redis_only = [
        ("memory", config.memory.is_some()),
        ("freshness", config.freshness.is_some()),
        ("compression", config.compression.is_some()),
        ("compress_above", config.compress_above.is_some()),
        ("sign_key", config.sign_key.is_some()),
        ("accept_key", config.accept_key.is_some()),
    ];
    if let Some((name, _)) = in_redis_only.iter().find(|(_, set)| *set) {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "{name}: it is about bytes in Redis; a cache in memory keeps values as they are"
            ),
        ));
    }
    let mut builder = config.apply(builder.on_store(MemoryConfig::default()))?;
    builder = builder.dependencies(config.dependencies.unwrap_or_default());
    if let Some(bytes) = &config.max_value_bytes {
        builder = builder.max_value_bytes(setting("max_value_bytes", bytes, parse_bytes)?);
    }
    if let Some(entries) = config.max_entries {
        builder = builder.max_entries(entries);
    }
    if let Some(bytes) = &config.max_bytes {
        builder = builder.max_bytes(setting("max_bytes", bytes, parse_bytes)?);
    }
    if let Some(path) = &config.snapshot {
        let mut file = SnapshotFile::at(path);
        if let Some(interval) = &config.snapshot_interval {
            file = file.every(setting("snapshot_interval", interval, parse_duration)?);
        }
        builder = builder.snapshot(file);
    } else if config.snapshot_interval.is_some() {
        return Err(Error::new(
            ErrorKind::Config,
            "snapshot_interval: there is no snapshot; name its file",
        ));
    }
    builder.build()
}
