//! What one source may say, and what holds after all have spoken.
//!
//! [`Settings`] is what a source may say (flags and variables through `clap`, a file through
//! `serde`); [`Config`] is what a server runs with. Whether the settings go together is decided in
//! `check`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tachikoma_cache::Cache;
use tachikoma_http_cache::{Forwarded, HttpCacheLayer};

use super::error::ConfigError;
use super::networks::{Network, TrustedProxies};
use super::responses::{Responses, RuleSettings};
use super::sections::{LimitSettings, Limits, Proxy, ProxySettings};
use super::units::Span;
use super::upstreams::{self, Origin, UpstreamSettings};
use super::values::{
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
    /// Proxies in front that are believed who the client is: addresses, networks [default: none]
    #[arg(long, env = "TACHIKOMA_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',')]
    pub trusted_proxies: Option<Vec<Network>>,
    /// Several origin servers, by host and path; only a file can say them.
    #[arg(skip)]
    pub upstreams: Option<Vec<UpstreamSettings>>,
    /// What the response cache does; only a file can say it.
    #[arg(skip)]
    pub responses: Option<Responses>,
    /// What it does for some URLs; only a file can say it.
    #[arg(skip)]
    pub rules: Option<Vec<RuleSettings>>,
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
    /// Whether it has the queries of targets and Referers [default: true]
    #[arg(
        long,
        env = "TACHIKOMA_ACCESS_LOG_QUERY",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub access_log_query: Option<bool>,
    /// How long open requests may go on after SIGTERM [default: 30s]
    #[arg(long, env = "TACHIKOMA_DRAIN", value_name = "DURATION")]
    pub drain: Option<Span>,
    /// Waits on the upstream.
    #[command(flatten)]
    pub proxy: ProxySettings,
    /// Bounds on clients.
    #[command(flatten)]
    pub limits: LimitSettings,
    /// Certificates.
    #[command(flatten)]
    pub tls: TlsSettings,
}

/// What one source says about TLS.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "TLS")]
pub struct TlsSettings {
    /// Certificate chain of the public listener, in PEM; with it, that speaks TLS only
    #[arg(id = "tls_cert", long = "tls-cert", env = "TACHIKOMA_TLS_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(id = "tls_key", long = "tls-key", env = "TACHIKOMA_TLS_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Certificates that https:// upstreams may show, beside those the system trusts
    #[arg(
        id = "tls_upstream_ca",
        long = "tls-upstream-ca",
        env = "TACHIKOMA_TLS_UPSTREAM_CA",
        value_name = "FILE"
    )]
    pub upstream_ca: Option<PathBuf>,
}

/// The settings a server runs with.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// Address of the public listener. Default: `127.0.0.1:8080`.
    pub listen: Listen,
    /// The origin server behind the response cache. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// Proxies in front that are believed what they say of the client. Default: none.
    pub trusted_proxies: TrustedProxies,
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
    /// Whether it has the queries of targets and `Referer`s. Default: yes.
    pub access_log_query: bool,
    /// How long open requests may go on after SIGTERM. Default: 30 s.
    pub drain: Span,
    /// Waits on the upstream.
    pub proxy: Proxy,
    /// Bounds on clients.
    pub limits: Limits,
    /// Certificates. Default: none, no TLS.
    #[serde(skip_serializing_if = "Tls::is_empty")]
    pub tls: Tls,
    /// Several origin servers, by host and path. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<UpstreamSettings>,
    /// What the response cache does.
    pub responses: Responses,
    /// What it does for some URLs. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSettings>,
    /// The secrets, read from their files or variables. Never printed.
    #[serde(skip)]
    pub secrets: Secrets,
}

/// Certificates, as files in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tls {
    /// The certificate chain that clients see. Default: none, the public listener speaks no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its private key. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// What `https://` upstreams may show, beside what the system trusts. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ca: Option<PathBuf>,
}

impl Tls {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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
            upstreams: Vec::new(),
            responses: Responses::default(),
            rules: Vec::new(),
            trusted_proxies: TrustedProxies::default(),
            api: false,
            database: DatabaseUrl::default(),
            cache: CacheUrl::default(),
            admin: Admin::At(local(9090)),
            admin_token_file: None,
            admin_read_token_file: None,
            log: LogFilter::default(),
            log_format: LogFormat::Auto,
            access_log: AccessLog::Off,
            access_log_query: true,
            drain: Span(Duration::from_secs(30)),
            proxy: Proxy::default(),
            limits: Limits::default(),
            tls: Tls::default(),
            secrets: Secrets::default(),
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
    /// Lets a source overrule what it speaks of.
    pub(super) fn apply(&mut self, said: Settings) {
        take!(said => self;
            listen, upstream, trusted_proxies, upstreams, responses, rules, api, database, cache,
            admin, admin_token_file, admin_read_token_file, log, log_format, access_log,
            access_log_query, drain,
        );
        self.proxy.apply(&said.proxy);
        self.limits.apply(&said.limits);
        take!(said.tls => self.tls; cert, key, upstream_ca);
    }

    /// The settings as a file that reads back equal, with `***` for each password.
    pub fn to_toml(&self) -> String {
        // Only a key that is not text, or a value TOML has no form for, can fail: there is none.
        toml::to_string(self).unwrap_or_default()
    }

    /// The origin servers: that of `upstream`, or those of `[[upstreams]]`.
    pub fn origins(&self) -> Vec<Origin> {
        upstreams::origins(self.upstream.as_ref(), &self.upstreams, &self.proxy)
    }

    /// The response cache that these settings describe, on a cache.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work, by name.
    pub fn response_cache(&self, cache: Cache) -> Result<HttpCacheLayer, ConfigError> {
        let dependencies = self.api && cache.has_dependencies();
        let layer = self.responses.layer(cache, &self.rules, self.api)?.dependencies(dependencies);
        // The host that a proxy in front names goes on to the upstream, so it is part of the key.
        let is_behind = !self.trusted_proxies.is_empty();
        Ok(if is_behind { layer.forwarded(Forwarded::Keyed) } else { layer })
    }
}
