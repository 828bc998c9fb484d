//! A caching layer for Rust servers.
//!
//! One [`Store`](store::Store) seam below, one typed handle above: entries with a time to live in
//! memory or in Redis, loads that cannot stampede, tags, patterns and statistics. Begin with
//! [`Cache`].

mod aside;
mod cache;
pub mod clock;
mod codec;
pub mod entry;
#[cfg(feature = "redis")]
mod envelope;
pub mod error;
pub mod expiry;
pub mod glob;
pub mod invalidation;
pub mod key;
mod load;
#[cfg(feature = "macros")]
#[doc(hidden)]
pub mod macros_support;
mod pattern;
mod runtime;
mod shared;
pub mod stats;
pub mod store;
mod weight;

pub use aside::cache_aside;
#[cfg(feature = "redis")]
pub use cache::RedisCache;
pub use cache::{
    Cache, CacheBuilder, CacheConfig, DEFAULT_LOAD_TIMEOUT, DEFAULT_STORE_TIMEOUT, DEFAULT_TTL,
    Entries, EntryLease, Hit, Load, LoadFuture, NoTags, Set, SetIfAbsent, Source, parse_bytes,
    parse_duration,
};
#[cfg(feature = "memory")]
pub use cache::{MemoryBuilder, MemoryCache};
pub use clock::{Clock, SystemClock, TestClock, Time};
pub use codec::Cacheable;
pub use entry::Value;
pub use error::{CacheError, CacheResult, Error, ErrorKind, LoadError};
pub use expiry::{KeyTtl, Ttl};
pub use key::{CacheKeyBuilder, Namespace};
pub use pattern::Pattern;
pub use stats::CacheStats;
pub use store::{Guarantee, Health, Removed};
#[cfg(feature = "macros")]
pub use tachikoma_cache_macros::cached;
