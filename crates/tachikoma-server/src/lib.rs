//! The `tachikoma` server: a caching reverse proxy, the reference API and the admin API.
//!
//! [`Server::start`] binds what a [`Config`](config::Config) asks for, [`Server::run`] serves until
//! it is told to stop. The binary does no more than that, so tests start the same server in their
//! own process. What is cached and for how long is not decided here: the rules of HTTP are in
//! `tachikoma-http-cache`, values and stores in [`cache`].

mod access_log;
mod admin;
pub mod api;
pub mod cli;
pub mod config;
mod demo;
mod front;
mod listener;
mod observed;
mod problem;
mod proxy;
mod server;
pub mod shutdown;
pub mod telemetry;
mod throttle;
mod timed;
#[cfg_attr(not(feature = "tls"), path = "tls_off.rs")]
mod tls;
mod traffic;

pub use server::Server;
pub use tachikoma_cache as cache;

/// Serves as `config` says until `shutdown` is asked for and open requests are done.
///
/// # Errors
///
/// An address cannot be listened on, or the cache or the database cannot be opened.
pub async fn run(config: config::Config, shutdown: shutdown::Shutdown) -> anyhow::Result<()> {
    Server::start(config).await?.run(shutdown).await
}

/// Prints what was asked for. Whoever closed the pipe has seen enough.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
