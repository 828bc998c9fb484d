//! The `tachikoma` binary from outside: its arguments, its files, its ports and its signals.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panic")]

mod admin;
mod api;
mod cached;
mod cli;
mod config_file;
mod demo;
mod framing;
mod guide;
mod proxy;
mod redis;
mod shutdown;
mod support;
