//! Decides the settings a server runs with, and refuses those that cannot work.
//!
//! Sources, the stronger first: flags, `TACHIKOMA_*` variables, the file, the defaults written
//! here. One struct, [`Settings`], is what a source may say (flags and variables through `clap`,
//! the file through `serde`); [`Config`] is what holds after all have spoken. Nothing is opened or
//! bound here except the files that are named.

mod check;
mod error;
pub mod file;
mod suggest;
pub mod units;
pub mod values;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use check::same_place;
pub use error::ConfigError;
use units::{Size, Span};
use values::{
    AccessLog, Admin, CacheUrl, DatabaseUrl, Listen, LogFilter, LogFormat, Secret, Upstream,
};

/// What one source says. Everything may be left out.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of the public listener [default: 127.0.0.1:8080]
    #[arg(long, env = "TACHIKOMA_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<Listen>,
    /// Origin server to cache: http://host:port
    #[arg(long, env = "TACHIKOMA_UPSTREAM", value_name = "URL")]
    pub upstream: Option<Upstream>,
    /// Serve the reference API under /api
    #[arg(
        long,
        env = "TACHIKOMA_API",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub api: Option<bool>,
    /// Database of the reference API [default: `sqlite://tachikoma.db`]
    #[arg(long, env = "TACHIKOMA_DATABASE", value_name = "URL")]
    pub database: Option<DatabaseUrl>,
    /// Where values are cached: memory, redis://host:port/0 [default: memory]
    #[arg(long, env = "TACHIKOMA_CACHE", value_name = "URL", hide_env_values = true)]
    pub cache: Option<CacheUrl>,
    /// Address of the admin listener, or off [default: 127.0.0.1:9090]
    #[arg(long, env = "TACHIKOMA_ADMIN", value_name = "ADDRESS")]
    pub admin: Option<Admin>,
    /// File with the token that may do everything on the admin listener
    #[arg(long, env = "TACHIKOMA_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// File with the token that may only read on the admin listener
    #[arg(long, env = "TACHIKOMA_ADMIN_READ_TOKEN_FILE", value_name = "FILE")]
    pub admin_read_token_file: Option<PathBuf>,
    /// What to log: a level or tracing directives [default: info]
    #[arg(long, env = "TACHIKOMA_LOG", value_name = "FILTER")]
    pub log: Option<LogFilter>,
    /// Form of the log on standard error: auto, pretty, json [default: auto]
    #[arg(long, env = "TACHIKOMA_LOG_FORMAT", value_name = "FORM")]
    pub log_format: Option<LogFormat>,
    /// Form of the access log on standard output: off, common, json [default: off]
    #[arg(long, env = "TACHIKOMA_ACCESS_LOG", value_name = "FORM")]
    pub access_log: Option<AccessLog>,
    /// How long open requests may go on after SIGTERM [default: 30s]
    #[arg(long, env = "TACHIKOMA_DRAIN", value_name = "DURATION")]
    pub drain: Option<Span>,
    /// Waits on the upstream.
    #[command(flatten)]
    pub proxy: ProxySettings,
    /// Bounds on clients.
    #[command(flatten)]
    pub limits: LimitSettings,
}

/// What one source says about the waits on the upstream.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Waits on the upstream")]
pub struct ProxySettings {
    /// Until the upstream takes a connection [default: 5s]
    #[arg(
        id = "proxy_connect_timeout",
        long = "proxy-connect-timeout",
        env = "TACHIKOMA_PROXY_CONNECT_TIMEOUT",
        value_name = "DURATION"
    )]
    pub connect_timeout: Option<Span>,
    /// Until the head of its response is in [default: 30s]
    #[arg(
        id = "proxy_head_timeout",
        long = "proxy-head-timeout",
        env = "TACHIKOMA_PROXY_HEAD_TIMEOUT",
        value_name = "DURATION"
    )]
    pub head_timeout: Option<Span>,
    /// Between two pieces of its response body [default: 30s]
    #[arg(
        id = "proxy_body_timeout",
        long = "proxy-body-timeout",
        env = "TACHIKOMA_PROXY_BODY_TIMEOUT",
        value_name = "DURATION"
    )]
    pub body_timeout: Option<Span>,
}

/// What one source says about the bounds on clients.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Bounds on clients")]
pub struct LimitSettings {
    /// Bytes of a request head [default: 32KiB]
    #[arg(
        id = "limit_head_bytes",
        long = "limit-head-bytes",
        env = "TACHIKOMA_LIMITS_HEAD_BYTES",
        value_name = "SIZE"
    )]
    pub head_bytes: Option<Size>,
    /// Fields in a request head [default: 100]
    #[arg(
        id = "limit_head_fields",
        long = "limit-head-fields",
        env = "TACHIKOMA_LIMITS_HEAD_FIELDS",
        value_name = "NUMBER",
        value_parser = units::whole::<u16>
    )]
    pub head_fields: Option<u16>,
    /// Until a request head is in, or the next one on a kept connection [default: 15s]
    #[arg(
        id = "limit_head_timeout",
        long = "limit-head-timeout",
        env = "TACHIKOMA_LIMITS_HEAD_TIMEOUT",
        value_name = "DURATION"
    )]
    pub head_timeout: Option<Span>,
    /// Between two pieces of a body that a client sends or takes [default: 30s]
    #[arg(
        id = "limit_body_timeout",
        long = "limit-body-timeout",
        env = "TACHIKOMA_LIMITS_BODY_TIMEOUT",
        value_name = "DURATION"
    )]
    pub body_timeout: Option<Span>,
    /// Connections open at once; more wait to be taken [default: 10000]
    #[arg(
        id = "limit_connections",
        long = "limit-connections",
        env = "TACHIKOMA_LIMITS_CONNECTIONS",
        value_name = "NUMBER",
        value_parser = units::whole::<u32>
    )]
    pub connections: Option<u32>,
}

/// The settings a server runs with.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// Address of the public listener. Default: `127.0.0.1:8080`.
    pub listen: Listen,
    /// The origin server behind the response cache. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// Whether `/api` is the reference API. Default: no.
    pub api: bool,
    /// Database of the reference API. Default: `sqlite://tachikoma.db`.
    pub database: DatabaseUrl,
    /// Where values are cached. Default: this process's memory.
    pub cache: CacheUrl,
    /// Where the admin API answers. Default: `127.0.0.1:9090`.
    pub admin: Admin,
    /// File of the token that may do everything on the admin listener. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token_file: Option<PathBuf>,
    /// File of the token that may only read on the admin listener. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_read_token_file: Option<PathBuf>,
    /// What is logged. Default: `info`.
    pub log: LogFilter,
    /// Form of the log. Default: pretty on a terminal, JSON otherwise.
    pub log_format: LogFormat,
    /// Form of the access log. Default: off.
    pub access_log: AccessLog,
    /// How long open requests may go on after SIGTERM. Default: 30 s.
    pub drain: Span,
    /// Waits on the upstream.
    pub proxy: Proxy,
    /// Bounds on clients.
    pub limits: Limits,
    /// The secrets, read from their files or variables. Never printed.
    #[serde(skip)]
    pub secrets: Secrets,
}

/// Waits on the upstream.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Proxy {
    /// Until it takes a connection. Default: 5 s.
    pub connect_timeout: Span,
    /// Until the head of its response is in. Default: 30 s.
    pub head_timeout: Span,
    /// Between two pieces of its response body. Default: 30 s.
    pub body_timeout: Span,
}

/// Bounds on clients.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limits {
    /// Bytes of a request head. Default: 32 KiB.
    pub head_bytes: Size,
    /// Fields in a request head. Default: 100.
    pub head_fields: u16,
    /// Until a request head is in, or the next one on a kept connection. Default: 15 s.
    pub head_timeout: Span,
    /// Between two pieces of a body that a client sends or takes. Default: 30 s.
    pub body_timeout: Span,
    /// Connections open at once; more wait to be taken. Default: 10,000.
    pub connections: u32,
}

/// The secrets a server runs with.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// May do everything on the admin listener.
    pub admin: Option<Secret>,
    /// May only read on the admin listener.
    pub admin_read: Option<Secret>,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            listen: Listen(local(8080)),
            upstream: None,
            api: false,
            database: DatabaseUrl::default(),
            cache: CacheUrl::default(),
            admin: Admin::At(local(9090)),
            admin_token_file: None,
            admin_read_token_file: None,
            log: LogFilter::default(),
            log_format: LogFormat::Auto,
            access_log: AccessLog::Off,
            drain: Span(Duration::from_secs(30)),
            proxy: Proxy::default(),
            limits: Limits::default(),
            secrets: Secrets::default(),
        }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            connect_timeout: Span(Duration::from_secs(5)),
            head_timeout: Span(Duration::from_secs(30)),
            body_timeout: Span(Duration::from_secs(30)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: Size(32 << 10),
            head_fields: 100,
            head_timeout: Span(Duration::from_secs(15)),
            body_timeout: Span(Duration::from_secs(30)),
            connections: 10_000,
        }
    }
}

/// Overwrites the fields a source speaks of.
macro_rules! take {
    ($from:expr => $to:expr; $($field:ident),* $(,)?) => {
        $(if let Some(value) = $from.$field { $to.$field = value.into(); })*
    };
}

impl Config {
    /// Lets `file` and then `flags` (which hold the variables too) overrule the defaults, reads
    /// the secrets that are named, and checks that it all fits together.
    ///
    /// `variable` reads an environment variable: the secrets that no flag may carry, because
    /// flags show in the list of processes.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work, by name, with what is allowed.
    pub fn resolve(
        file: Settings,
        flags: Settings,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.apply(file);
        config.apply(flags);
        config.secrets = check::secrets(&config, variable)?;
        check::together(&config)?;
        Ok(config)
    }

    fn apply(&mut self, said: Settings) {
        take!(said => self;
            listen, upstream, api, database, cache, admin, admin_token_file, admin_read_token_file,
            log, log_format, access_log, drain,
        );
        take!(said.proxy => self.proxy; connect_timeout, head_timeout, body_timeout);
        take!(said.limits => self.limits;
            head_bytes, head_fields, head_timeout, body_timeout, connections,
        );
    }

    /// The settings as a file that reads back equal, with `***` for each password.
    pub fn to_toml(&self) -> String {
        // Only a key that is not text, or a value TOML has no form for, can fail: there is none.
        toml::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
