//! The reference API as its clients see it: the router on real SQLite files, with a data cache in
//! memory or in a real Redis.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod caching;
mod concurrency;
mod late_joiners;
mod missions;
mod openapi;
mod problems;
mod redis;
mod sessions;
mod socket;
mod specs;
mod support;
