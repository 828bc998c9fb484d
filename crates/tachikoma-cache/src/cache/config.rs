//! The settings of a cache, in a configuration file or in the query of a URL.
//!
//! Decides what each setting may be and says so when it is not. Never shows a password.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::CacheBuilder;
use crate::error::{Error, ErrorKind};
use crate::key::Shown;
use crate::load::options::LoadOptions;
use crate::units::parse_duration;

/// The settings of a cache, for a configuration file. What is left out has its default.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// `memory`, or the URL of a Redis or Valkey server: `redis://user:password@host:6379/0`,
    /// `rediss://…` (TLS), `unix:///path/to/socket`. Default: `memory`. Its query may hold the
    /// settings below: `redis://host/0?namespace=shop&default_ttl=60s`. It is serialised without
    /// its login: `redis://***@host/0`.
    #[serde(serialize_with = "without_login")]
    pub url: Option<String>,
    /// The namespace of the keys. Default: `tachikoma`.
    pub namespace: Option<String>,
    /// How long values live by default: `60s`, `5m`. Default: `5m`.
    pub default_ttl: Option<String>,
    /// For a Redis cache: `on` keeps copies of what is read in the memory of this process, in step
    /// with the server, within `max_entries` and `max_bytes` ([`TieredStore`]); `off` asks the
    /// server each time. Default: `on`; `off` in a build without the feature `memory`.
    ///
    /// [`TieredStore`]: crate::store::tiered::TieredStore
    pub memory: Option<String>,
    /// How long after an invalidation such a copy may be shown at most, the same in all processes:
    /// `200ms` to `60s`. Default: `1s`.
    pub freshness: Option<String>,
    /// The most entries in memory. Default: 100000.
    pub max_entries: Option<u64>,
    /// The most bytes in memory: `64MiB`. Default: `64MiB`.
    pub max_bytes: Option<String>,
    /// How long a loader may take. Default: `30s`.
    pub load_timeout: Option<String>,
    /// How many loads run at once. Default: no bound.
    pub max_concurrent_loads: Option<usize>,
    /// How many loads wait at most. Default: a hundred for each that may run.
    pub max_queued_loads: Option<usize>,
    /// How long the store may take for an operation. Default: `250ms`.
    pub store_timeout: Option<String>,
    /// How long after a process that loads a key has died another one may load it, in Redis: `3s`.
    /// Default: `3s`.
    pub lease: Option<String>,
    /// A value goes when nobody has looked it up for so long: `10m`. Default: only its TTL counts.
    pub time_to_idle: Option<String>,
    /// For so long after its TTL a value is served while it is renewed: `30s`. Default: `0ms`.
    pub stale_while_revalidate: Option<String>,
    /// For so long after its TTL a value is served if its load fails: `1h`. Default: `0ms`.
    pub stale_if_error: Option<String>,
    /// With a stale value at hand nobody waits longer than this for a load: `50ms`. Default: none.
    pub soft_timeout: Option<String>,
    /// After a failed load the source is left alone for so long, if there is a stale value:
    /// Default: `1s`.
    pub retry_after: Option<String>,
    /// How long it is remembered that the source has no value: `5s`. Default: not at all.
    pub negative_ttl: Option<String>,
    /// Renews values before their TTL ends, by chance; 1 is the usual factor. Default: no.
    pub early_refresh: Option<f64>,
    /// Shortens each TTL of a load by a random part of up to this fraction, 0 to 1. Default: 0.
    pub jitter: Option<f64>,
    /// How values are written where they are kept as bytes: `json` or `msgpack` (feature
    /// `msgpack`). Default: `json`.
    pub codec: Option<String>,
    /// A file to keep a snapshot of a cache in memory in, so that the next process starts warm.
    pub snapshot: Option<String>,
    /// How often it is written, at least `1s`. Default: when the cache is dropped.
    pub snapshot_interval: Option<String>,
    /// Whether to count which keys are asked for most and which values are largest. Default: no.
    pub track_top_keys: Option<bool>,
    /// Whether what was made of entries goes when these go ([`dependencies`](crate::dependencies));
    /// the same in all processes that share a server. Default: no.
    pub dependencies: Option<bool>,
    /// The most bytes of one value: `64MiB`. A larger one is loaded and not stored. Default:
    /// `64MiB` in Redis; in memory as much as the cache holds.
    pub max_value_bytes: Option<String>,
    /// How values are compressed in Redis: `none`, `lz4` (feature `lz4`), `zstd` or `zstd:1` to
    /// `zstd:19` (feature `zstd`). Default: `none`.
    pub compression: Option<String>,
    /// Only values of more bytes are compressed: `1KiB`. Default: `1KiB`.
    pub compress_above: Option<String>,
    /// Signs what is written to Redis with this key of 16 bytes or more, and reads only what is
    /// signed (feature `sign`). It is a secret: not shown, not serialised, and not allowed in the
    /// URL. Default: nothing is signed.
    #[serde(skip_serializing)]
    pub sign_key: Option<String>,
    /// Reads what is signed with this key, too, while keys are rotated.
    #[serde(skip_serializing)]
    pub accept_key: Option<String>,
}

impl std::fmt::Debug for CacheConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password, and the keys are secret.
        f.debug_struct("CacheConfig")
            .field("namespace", &self.namespace)
            .field("default_ttl", &self.default_ttl)
            .field("memory", &self.memory)
            .field("freshness", &self.freshness)
            .field("max_entries", &self.max_entries)
            .field("max_bytes", &self.max_bytes)
            .field("load_timeout", &self.load_timeout)
            .field("max_concurrent_loads", &self.max_concurrent_loads)
            .field("max_queued_loads", &self.max_queued_loads)
            .field("store_timeout", &self.store_timeout)
            .field("lease", &self.lease)
            .field("time_to_idle", &self.time_to_idle)
            .field("stale_while_revalidate", &self.stale_while_revalidate)
            .field("stale_if_error", &self.stale_if_error)
            .field("soft_timeout", &self.soft_timeout)
            .field("retry_after", &self.retry_after)
            .field("negative_ttl", &self.negative_ttl)
            .field("early_refresh", &self.early_refresh)
            .field("jitter", &self.jitter)
            .field("codec", &self.codec)
            .field("snapshot", &self.snapshot)
            .field("snapshot_interval", &self.snapshot_interval)
            .field("track_top_keys", &self.track_top_keys)
            .field("max_value_bytes", &self.max_value_bytes)
            .field("compression", &self.compression)
            .field("compress_above", &self.compress_above)
            .finish_non_exhaustive()
    }
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn without_login<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(shown).serialize(serializer)
}

/// A URL without user and password. It may be a wrong one, so all before the last `@` goes, and
/// all of a query that a socket's login may stand in.
fn shown(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let rest = rest.rsplit_once('@').map_or(rest.to_owned(), |(_, place)| format!("***@{place}"));
    match rest.split_once('?') {
        Some((place, query)) if query.contains("pass=") || query.contains('%') => {
            format!("{scheme}{place}?***")
        }
        _ => scheme + &rest,
    }
}

impl CacheConfig {
    /// Takes the settings that a query holds; what it does not know is returned.
    pub(super) fn take_query(&mut self, query: &str) -> Result<Vec<(String, String)>, Error> {
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.to_owned();
            match name {
                "namespace" => self.namespace = Some(value),
                "default_ttl" => self.default_ttl = Some(value),
                "memory" => self.memory = Some(value),
                "freshness" => self.freshness = Some(value),
                "max_entries" => self.max_entries = Some(number("max_entries", &value)?),
                "max_concurrent_loads" => {
                    self.max_concurrent_loads = Some(number("max_concurrent_loads", &value)?);
                }
                "max_queued_loads" => {
                    self.max_queued_loads = Some(number("max_queued_loads", &value)?);
                }
                "max_bytes" => self.max_bytes = Some(value),
                "load_timeout" => self.load_timeout = Some(value),
                "store_timeout" => self.store_timeout = Some(value),
                "lease" => self.lease = Some(value),
                "time_to_idle" => self.time_to_idle = Some(value),
                "stale_while_revalidate" => self.stale_while_revalidate = Some(value),
                "stale_if_error" => self.stale_if_error = Some(value),
                "soft_timeout" => self.soft_timeout = Some(value),
                "retry_after" => self.retry_after = Some(value),
                "negative_ttl" => self.negative_ttl = Some(value),
                "early_refresh" => {
                    self.early_refresh = Some(setting("early_refresh", &value, parse_number)?);
                }
                "jitter" => self.jitter = Some(setting("jitter", &value, parse_number)?),
                "codec" => self.codec = Some(value),
                "snapshot" => self.snapshot = Some(value),
                "snapshot_interval" => self.snapshot_interval = Some(value),
                "track_top_keys" => {
                    self.track_top_keys = Some(setting("track_top_keys", &value, parse_switch)?);
                }
                "dependencies" => {
                    self.dependencies = Some(setting("dependencies", &value, parse_switch)?);
                }
                "max_value_bytes" => self.max_value_bytes = Some(value),
                "compression" => self.compression = Some(value),
                "compress_above" => self.compress_above = Some(value),
                _ => rest.push((name.to_owned(), value)),
            }
        }
        Ok(rest)
    }

    /// These settings on a builder, but for the URL and the bounds of a cache in memory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names the setting and what is allowed.
    pub fn apply<S>(&self, mut builder: CacheBuilder<S>) -> Result<CacheBuilder<S>, Error> {
        if let Some(namespace) = &self.namespace {
            builder = builder.namespace(namespace);
        }
        if let Some(ttl) = &self.default_ttl {
            builder = builder.default_ttl(setting("default_ttl", ttl, parse_duration)?);
        }
        if let Some(timeout) = &self.load_timeout {
            builder = builder.load_timeout(setting("load_timeout", timeout, parse_duration)?);
        }
        if let Some(loads) = self.max_concurrent_loads {
            builder = builder.max_concurrent_loads(loads);
        }
        if let Some(loads) = self.max_queued_loads {
            builder = builder.max_queued_loads(loads);
        }
        if let Some(timeout) = &self.store_timeout {
            builder = builder.store_timeout(setting("store_timeout", timeout, parse_duration)?);
        }
        builder = builder.change_options(|options| self.apply_to_loads(options))?;
        if let Some(codec) = &self.codec {
            builder = builder.codec(setting("codec", codec, str::parse)?);
        }
        if let Some(on) = self.track_top_keys {
            builder = builder.track_top_keys(on);
        }
        Ok(builder)
    }
}

impl CacheConfig {
    /// The settings of loads on these options.
    fn apply_to_loads(&self, mut options: LoadOptions) -> Result<LoadOptions, Error> {
        type Set = fn(LoadOptions, Duration) -> LoadOptions;
        let durations: [(&'static str, &Option<String>, Set); 6] = [
            ("time_to_idle", &self.time_to_idle, LoadOptions::time_to_idle),
            (
                "stale_while_revalidate",
                &self.stale_while_revalidate,
                LoadOptions::stale_while_revalidate,
            ),
            ("stale_if_error", &self.stale_if_error, LoadOptions::stale_if_error),
            ("soft_timeout", &self.soft_timeout, LoadOptions::soft_timeout),
            ("retry_after", &self.retry_after, LoadOptions::retry_after),
            ("negative_ttl", &self.negative_ttl, LoadOptions::negative_ttl::<Duration>),
        ];
        for (name, text, set) in durations {
            if let Some(text) = text {
                options = set(options, setting(name, text, parse_duration)?);
            }
        }
        if let Some(beta) = self.early_refresh {
            options = options.early_refresh(beta);
        }
        if let Some(fraction) = self.jitter {
            options = options.jitter(fraction);
        }
        Ok(options)
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "allowed are true and false".to_owned())
}

fn parse_number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "it is a number, like 0.1".to_owned())
}

pub(super) fn unknown_setting(name: &str) -> Error {
    let shown = Shown(name);
    Error::new(
        ErrorKind::Config,
        format!(
            "url: the setting \"{shown}\" is not known; allowed are namespace, default_ttl, \
             max_entries, max_bytes, load_timeout, max_concurrent_loads, max_queued_loads, \
             store_timeout, time_to_idle, stale_while_revalidate, stale_if_error, soft_timeout, \
             retry_after, negative_ttl, early_refresh, jitter, codec, track_top_keys, \
             dependencies, max_value_bytes, and for Redis memory, freshness, lease, compression, \
             compress_above, password_file, and for memory snapshot, snapshot_interval"
        ),
    )
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Error> {
    let refused = |_| {
        Error::new(
            ErrorKind::Config,
            format!("{name} is \"{}\"; allowed is a whole number", Shown(value)),
        )
    };
    value.parse().map_err(refused)
}

pub(super) fn setting<T>(
    name: &'static str,
    value: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, Error> {
    let refused = |allowed| {
        Error::new(ErrorKind::Config, format!("{name} is \"{}\"; {allowed}", Shown(value)))
    };
    parse(value).map_err(refused)
}
