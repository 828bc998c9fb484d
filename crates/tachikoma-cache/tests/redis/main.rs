//! The Redis store on real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bench;
mod connect;
mod faults;
#[cfg(all(feature = "lz4", feature = "msgpack", feature = "sign", feature = "zstd"))]
mod form;
mod groups;
mod leases;
mod mutated;
mod operations;
mod outage;
mod pending;
mod protocol;
mod restart;
mod stub;
