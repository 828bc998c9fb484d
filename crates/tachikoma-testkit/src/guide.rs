//! The README and the guide as documentation tests: what they show compiles and runs.
//!
//! Compiled for documentation tests only. A new page of the guide with Rust in it gets a line here.

#[doc = include_str!("../../../README.md")]
struct Readme;

#[doc = include_str!("../../../docs/src/getting-started.md")]
struct GettingStarted;

#[doc = include_str!("../../../docs/src/data-cache.md")]
struct DataCache;

#[doc = include_str!("../../../docs/src/loading.md")]
struct Loading;

#[doc = include_str!("../../../docs/src/redis.md")]
struct Redis;

#[doc = include_str!("../../../docs/src/tags.md")]
struct Tags;

#[doc = include_str!("../../../docs/src/failures.md")]
struct Failures;

#[doc = include_str!("../../../docs/src/observing.md")]
struct Observing;

#[doc = include_str!("../../../docs/src/snapshot.md")]
struct Snapshot;

#[doc = include_str!("../../../docs/src/response-cache.md")]
struct ResponseCache;
