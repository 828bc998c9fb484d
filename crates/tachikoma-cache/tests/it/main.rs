//! The library as its users see it, on real parts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[macro_use]
mod bench;
mod bad_inputs;
mod batch;
mod bulkhead;
mod cached;
mod collisions;
mod connect;
mod elsewhere;
mod equal;
mod events;
mod exact;
mod faults;
mod footprint;
mod glob;
mod guard;
mod idle;
mod laws;
mod many;
mod memory;
mod nodes;
mod outage;
mod peers_loads;
mod runtimes;
mod secrets;
mod snapshot;
mod stampede;
mod tagged;
mod tier;
mod top_keys;
