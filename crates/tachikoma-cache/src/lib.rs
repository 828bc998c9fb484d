//! A caching layer for Rust servers.
//!
//! One [`Store`](store::Store) seam below, one typed handle above: entries with a time to live in
//! memory or in Redis, loads that cannot stampede, tags, patterns and statistics. Begin with
//! [`Cache`].
//!
//! # Features
//!
//! | Feature | Default | |
//! |---|---|---|
//! | `memory` | yes | The store in the memory of the process |
//! | `redis` | yes | The store in Redis or Valkey |
//! | `macros` | yes | The attribute [`cached`](macro@cached) |
//! | `redis-tls` | | TLS to the Redis server (`rediss://`) |
//! | `msgpack` | | [`Codec::MessagePack`] |
//! | `lz4`, `zstd` | | `Compression` of values in Redis; `zstd` builds the C library |
//! | `sign` | | Signed values in Redis: `SignKey` |
//! | `metrics` | | Statistics through the `metrics` facade |
//!
//! Without any of them there is the handle and the [`Store`](store::Store) trait, for a store of
//! your own. Features that begin with `__` are for this project's tests.

mod aside;
mod cache;
pub mod clock;
mod closed;
mod codec;
#[cfg(feature = "redis")]
mod compression;
mod custom_codec;
pub mod dependencies;
mod edition;
pub mod entry;
#[cfg(feature = "redis")]
mod envelope;
pub mod error;
pub mod events;
pub mod expiry;
#[cfg(feature = "metrics")]
pub mod export;
#[cfg(any(test, feature = "__fuzz"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod glob;
pub mod invalidation;
pub mod key;
mod load;
#[cfg(feature = "macros")]
#[doc(hidden)]
pub mod macros_support;
mod pattern;
mod reading;
mod runtime;
mod shared;
#[cfg(all(feature = "redis", feature = "sign"))]
mod signature;
#[cfg(all(feature = "redis", not(feature = "sign")))]
#[path = "signature_off.rs"]
mod signature;
pub mod stats;
pub mod store;
mod ticket;
pub mod top;
#[doc(hidden)]
pub mod units;
mod weight;

pub use aside::cache_aside;
#[cfg(feature = "redis")]
pub use cache::RedisCache;
pub use cache::gives;
pub use cache::{
    BeginGuard, Cache, CacheBuilder, CacheConfig, DEFAULT_GUARD_LIFE, DEFAULT_STORE_TIMEOUT,
    DEFAULT_TTL, Entries, EntryInfo, EntryLease, Hit, KeyCursor, KeyPage, Keys, Load, LoadCx,
    LoadFuture, LoadMany, Loaded, NoTags, Set, SetIfAbsent, SetMany, Source, WriteGuard,
};
#[cfg(feature = "memory")]
pub use cache::{MemoryBuilder, MemoryCache};
pub use clock::{Clock, SystemClock, TestClock, Time};
pub use codec::{Cacheable, Codec};
#[cfg(feature = "redis")]
pub use compression::Compression;
pub use custom_codec::{CustomCodec, Plain, Slot};
pub use entry::Value;
pub use error::{BatchError, BoxError, CacheError, CacheResult, Error, ErrorKind, LoadError};
pub use events::{Event, EventKind};
pub use expiry::{KeyTtl, Ttl};
#[cfg(feature = "metrics")]
pub use export::MetricsExporter;
#[cfg(feature = "sign")]
pub use key::KeyHasher;
pub use key::{CacheKeyBuilder, Namespace};
pub use load::options::{DEFAULT_LOAD_TIMEOUT, DEFAULT_RETRY_AFTER, LoadOptions};
pub use pattern::Pattern;
#[cfg(feature = "redis")]
pub use signature::SignKey;
pub use stats::CacheStats;
pub use store::{Guarantee, Health, Removed, StaleReason};
#[cfg(feature = "macros")]
pub use tachikoma_cache_macros::cached;
pub use ticket::{ParseTicketError, Ticket};
pub use top::TopKeys;
pub use units::{parse_bytes, parse_duration};
