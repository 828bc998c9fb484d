//! The settings of a cache, in a configuration file or in the query of a URL.
//!
//! Decides what each setting may be and says so when it is not. Never shows a password.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::CacheBuilder;
use crate::error::{Error, ErrorKind};

/// The settings of a cache, for a configuration file. What is left out has its default.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// `memory`, or the URL of a Redis or Valkey server: `redis://user:password@host:6379/0`,
    /// `rediss://…` (TLS), `unix:///path/to/socket`. Default: `memory`. Its query may hold the
    /// settings below: `redis://host/0?namespace=shop&default_ttl=60s`.
    pub url: Option<String>,
    /// The namespace of the keys. Default: `tachikoma`.
    pub namespace: Option<String>,
    /// How long values live by default: `60s`, `5m`. Default: `5m`.
    pub default_ttl: Option<String>,
    /// The most entries in memory. Default: 100000.
    pub max_entries: Option<u64>,
    /// The most bytes in memory: `64MiB`. Default: `64MiB`.
    pub max_bytes: Option<String>,
    /// How long a loader may take. Default: `30s`.
    pub load_timeout: Option<String>,
    /// How long the store may take for an operation. Default: `250ms`.
    pub store_timeout: Option<String>,
}

impl std::fmt::Debug for CacheConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("CacheConfig")
            .field("namespace", &self.namespace)
            .field("default_ttl", &self.default_ttl)
            .field("max_entries", &self.max_entries)
            .field("max_bytes", &self.max_bytes)
            .field("load_timeout", &self.load_timeout)
            .field("store_timeout", &self.store_timeout)
            .finish_non_exhaustive()
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
                "max_entries" => {
                    let entries = value.parse().map_err(|_| {
                        Error::new(
                            ErrorKind::Config,
                            format!("max_entries: {value:?} is not a number of entries"),
                        )
                    })?;
                    self.max_entries = Some(entries);
                }
                "max_bytes" => self.max_bytes = Some(value),
                "load_timeout" => self.load_timeout = Some(value),
                "store_timeout" => self.store_timeout = Some(value),
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
        if let Some(timeout) = &self.store_timeout {
            builder = builder.store_timeout(setting("store_timeout", timeout, parse_duration)?);
        }
        Ok(builder)
    }
}

pub(super) fn unknown_setting(name: &str) -> Error {
    let shown = crate::key::Shown(name);
    Error::new(
        ErrorKind::Config,
        format!(
            "url: the setting \"{shown}\" is not known; allowed are namespace, default_ttl, \
             max_entries, max_bytes, load_timeout, store_timeout"
        ),
    )
}

pub(super) fn setting<T>(
    name: &'static str,
    value: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, Error> {
    parse(value).map_err(|problem| Error::new(ErrorKind::Config, format!("{name}: {problem}")))
}

/// Reads a duration: a whole number and its unit, `ms`, `s`, `m`, `h` or `d`.
///
/// ```
/// # use {std::time::Duration, tachikoma_cache::parse_duration};
/// assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
/// assert!(parse_duration("5 parsecs").is_err());
/// ```
///
/// # Errors
///
/// What is wrong and what is allowed, as a sentence.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration_millis(text).map(Duration::from_millis).ok_or_else(|| {
        format!("{text:?} is not a duration; write a number and its unit: 250ms, 30s, 5m, 2h, 1d")
    })
}

/// The milliseconds of a duration as text; the `cached` attribute calls it at compile time.
pub(crate) const fn duration_millis(text: &str) -> Option<u64> {
    let text = text.as_bytes();
    let (mut number, mut at) = (0_u64, 0);
    while at < text.len() && text[at].is_ascii_digit() {
        let Some(tens) = number.checked_mul(10) else { return None };
        let Some(sum) = tens.checked_add((text[at] - b'0') as u64) else { return None };
        number = sum;
        at += 1;
    }
    if at == 0 {
        return None;
    }
    let (_, unit) = text.split_at(at);
    let unit_millis = match unit {
        b"ms" => 1,
        b"s" => 1_000,
        b"m" => 60_000,
        b"h" => 3_600_000,
        b"d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_millis)
}

/// Reads a size: a whole number of bytes, or one with `B`, `kB`, `MB`, `GB` (powers of 1000),
/// `KiB`, `MiB` or `GiB` (powers of 1024).
///
/// # Errors
///
/// What is wrong and what is allowed, as a sentence.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let problem = || {
        format!("{text:?} is not a size; write a number and its unit: 512KiB, 64MiB, 2GiB, 10MB")
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| problem())?;
    let unit_bytes: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(problem()),
    };
    number.checked_mul(unit_bytes).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, millis) in
            [("0ms", 0), ("1500ms", 1500), ("60s", 60_000), ("5m", 300_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in
            ["", "5", "s", "-1s", "1.5s", "5 s", "1e400s", "99999999999999999999d", "5 parsec"]
        {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_may_have_a_unit() {
        for (text, bytes) in
            [("0", 0), ("10B", 10), ("1KiB", 1024), ("2MB", 2_000_000), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "10XB", "-1", "1.5MiB", "99999999999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
