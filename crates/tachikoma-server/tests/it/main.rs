//! The `tachikoma` binary from outside: its arguments, its files, its ports and its signals.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panic")]

mod admin;
mod api;
mod bad_admin;
mod bad_cli;
mod bad_file;
mod cached;
mod cli;
mod config_file;
mod demo;
mod faults;
mod forwarding;
mod framing;
mod grammar;
mod guide;
mod hostile_origin;
mod http2;
mod kept;
mod large;
mod pages;
mod proxy;
mod redis;
mod responses;
mod secrets;
mod security;
mod shutdown;
mod slow_clients;
mod support;
#[cfg(feature = "tls")]
mod tickets;
mod tls;
mod two_servers;
mod upgrade;
mod upstreams;
mod warm;
