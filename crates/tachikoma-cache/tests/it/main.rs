//! The library as its users see it, on real parts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[macro_use]
mod bench;
mod cached;
mod equal;
mod glob;
mod laws;
mod many;
mod memory;
mod outage;
mod stampede;
