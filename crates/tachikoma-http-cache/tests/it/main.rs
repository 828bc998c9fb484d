//! The layer as its users run it: in front of an axum app, and of a hyper client to a real origin
//! over loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panic")]

mod bodies;
mod collapse;
mod layer;
mod peers;
mod redis;
mod security;
mod site;
mod stale;
