//! The Redis store on real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bench;
mod connect;
mod groups;
mod leases;
mod operations;
mod outage;
mod pending;
mod protocol;
mod restart;
