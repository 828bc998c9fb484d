//! The layer as its users run it: in front of an axum app, and of a hyper client to a real origin
//! over loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panic")]

mod arriving;
mod bodies;
mod broken;
mod collapse;
mod completing;
mod dependencies;
mod explain;
mod http2;
mod large;
mod laws;
mod layer;
mod methods;
mod peers;
mod purge;
mod ranges;
mod redis;
mod rules;
mod security;
mod site;
mod sizes;
mod stale;
mod tickets;
