//! Real servers for the tests of this workspace: Redis, nginx, and a proxy that breaks connections.
//!
//! Everything here is synchronous and runs in its own process or thread, so that plain and async
//! tests use it alike. A server lives in a temporary directory on a port of 127.0.0.1 that no
//! other test of this machine holds; dropping its handle kills it and waits until it is gone. A
//! handle must not be kept in a `static`: statics are never dropped.
//!
//! A test never skips: when a program is missing or a server does not start, these functions
//! panic and say what to do. Every wait has an end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails by panic")]

mod fault;
#[cfg(doctest)]
mod guide;
mod nginx;
mod pace;
mod port;
mod process;
mod redis;
mod resp;
mod rows;
mod stopwatch;

pub use fault::{Fault, FaultProxy};
pub use nginx::NginxServer;
pub use pace::{allowed, pace};
pub use port::free_port;
pub use process::wait_until;
pub use redis::{RedisBuilder, RedisServer};
pub use resp::{Connection, Resp};
pub use rows::{FAULT_ROWS, FaultRow};
pub use stopwatch::Stopwatch;
