//! A cache from a URL or from a configuration file: which store it names.

use super::config::unknown_setting;
use super::{Cache, CacheConfig, memory, redis};
use crate::error::{Error, ErrorKind};

impl Cache {
    /// A cache by its URL: `memory:` or `redis://host:6379/0?namespace=shop`. Settings of
    /// [`CacheConfig`] may stand in its query.
    ///
    /// A server that cannot be reached is no error: the cache starts degraded, loads without
    /// storing, and connects as soon as it can.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the URL or a setting is not allowed; [`ErrorKind::Rejected`] if the
    /// server refuses the login.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::from_config(&CacheConfig { url: Some(url.to_owned()), ..CacheConfig::default() })
            .await
    }

    /// A cache by its configuration.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn from_config(config: &CacheConfig) -> Result<Self, Error> {
        let (url, query) = match config.url.as_deref().unwrap_or("memory").split_once('?') {
            Some((url, query)) => (url, query),
            None => (config.url.as_deref().unwrap_or("memory"), ""),
        };
        let mut config = config.clone();
        let rest = config.take_query(query)?;
        match url.split(':').next() {
            Some("memory") => {
                if let Some((name, _)) = rest.first() {
                    return Err(unknown_setting(name));
                }
                if !matches!(url, "memory" | "memory:" | "memory://") {
                    return Err(Error::new(
                        ErrorKind::Config,
                        "url: nothing may stand between \"memory:\" and its settings (\"?…\")",
                    ));
                }
                memory::build(&config)
            }
            Some("redis" | "rediss" | "valkey" | "valkeys" | "unix" | "redis+unix") => {
                redis::connect(&config, url, rest).await
            }
            _ => Err(Error::new(
                ErrorKind::Config,
                "url: the scheme is not known; allowed are memory, redis://, rediss:// and unix://",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wrong_url_is_refused_with_a_word_on_what_is_allowed_and_without_its_password() {
        for (url, word) in [
            ("http://h/?x", "scheme"),
            ("file:///etc/passwd", "scheme"),
            ("memory:?colour=red", "colour"),
            ("memory:?max_entries=many", "max_entries"),
            ("memory:?default_ttl=5", "default_ttl"),
            ("memory:?default_ttl=0s", "0ns"),
            ("memory://host", "between"),
            ("memory?namespace=a:b", "namespace"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?colour=red", "colour"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?max_bytes=1MiB", "maxmemory"),
        ] {
            let error = Cache::connect(url).await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(word), "{url}: {text}");
            assert!(!text.contains("s3ntinel"), "{url}: {text}");
        }
    }
}
