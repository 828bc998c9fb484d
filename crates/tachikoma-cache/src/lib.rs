//! A caching layer for Rust servers.
//!
//! One [`Store`](store::Store) seam below, one typed handle above: entries with a time to live in
//! memory or in Redis, loads that cannot stampede, tags, patterns and statistics.

pub mod clock;
pub mod entry;
pub mod error;
pub mod expiry;
pub mod glob;
pub mod invalidation;
pub mod key;
mod pattern;
pub mod stats;
pub mod store;
mod weight;

pub use clock::{Clock, SystemClock, TestClock, Time};
pub use error::{CacheError, CacheResult, Error, ErrorKind, LoadError};
pub use expiry::{KeyTtl, Ttl};
pub use key::{CacheKeyBuilder, Namespace};
pub use pattern::Pattern;
pub use stats::CacheStats;
pub use store::{Guarantee, Health, Removed};
