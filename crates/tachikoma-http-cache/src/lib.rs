//! A shared HTTP cache (RFC 9110, 9111, 5861, 9211) as a [`tower`](tower_layer) layer.
//!
//! It stands in front of an axum router, or of any `http` service, a client to an upstream
//! included, and keeps its responses in a [`Cache`](tachikoma_cache::Cache): in memory or in Redis.
//!
//! ```
//! # use std::time::Duration;
//! # use axum::{Router, routing::get};
//! # use tachikoma_cache::Cache;
//! # use tachikoma_http_cache::HttpCacheLayer;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = Cache::memory().max_bytes(64 << 20).build()?;
//! let layer = HttpCacheLayer::new(cache).default_ttl(Duration::from_secs(5));
//! let http_cache = layer.handle();
//! let app: Router = Router::new()
//!     .route("/", get(|| async { ([("cache-control", "max-age=60")], "hello") }))
//!     .layer(layer);
//! # let _ = (app, http_cache.stats());
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is shared that does not allow it: see [`policy`], which decides, as pure functions of a
//! request, a response and the time. Each response says in `Cache-Status` what was decided.

mod answer;
mod body;
mod budget;
mod cache_status;
mod empty_body;
mod exchange;
mod explain;
mod feed;
mod fill;
mod flight;
mod future;
#[cfg(any(test, feature = "__fuzz"))]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod head;
mod judge;
mod key;
mod layer;
mod live;
mod multipart;
mod parts;
pub mod policy;
mod purge;
mod recorded;
mod rules;
mod service;
mod stats;
mod storage;
mod tags;
mod tickets;

pub use body::{CacheBody, Disconnected, EndUnproved};
pub use explain::{Explanation, Step};
pub use feed::BrokenOff;
pub use future::ResponseFuture;
pub use handle::HttpCache;
pub use layer::HttpCacheLayer;
pub use policy::Forwarded;
pub use purge::{Purge, PurgeError};
pub use rules::{Rule, RuleError};
pub use service::HttpCacheService;
pub use stats::HttpCacheStats;
pub use tickets::CACHE_TICKET;
