//! A cache from a URL or from a configuration file: which store it names.
//!
//! A setting that stands there goes before one that the program says.

use std::future::IntoFuture;

use futures_util::future::BoxFuture;

use super::config::unknown_setting;
use super::{Cache, CacheBuilder, CacheConfig, memory, redis};
use crate::error::{Error, ErrorKind};

impl Cache {
    /// A cache by its URL: `memory:` or `redis://host:6379/0?namespace=shop`. Settings of
    /// [`CacheConfig`] may stand in its query. One in Redis keeps copies of what it reads in the
    /// memory of this process, which Redis keeps in step; `memory=off` keeps none.
    ///
    /// `.await` it, or say more before as with every [`CacheBuilder`]: a listener, a clock, options
    /// of loads, a codec. What stands in the URL goes before what is said there: the code has the
    /// defaults, and the operator the last word.
    ///
    /// A server that cannot be reached is no error: the cache starts degraded, loads without
    /// storing, and connects as soon as it can.
    ///
    /// ```no_run
    /// # use {std::time::Duration, tachikoma_cache::{Cache, EventKind}};
    /// # async fn example() -> Result<(), tachikoma_cache::Error> {
    /// let cache = Cache::connect("redis://127.0.0.1:6379/0?namespace=shop")
    ///     .stale_if_error(Duration::from_secs(3600))
    ///     .on_event(|event| {
    ///         if let EventKind::LoadFailed { why, .. } = event.kind {
    ///             eprintln!("{:?}: {why:?}", event.key);
    ///         }
    ///     })
    ///     .await?;
    /// # drop(cache);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the URL or a setting is not allowed; [`ErrorKind::Rejected`] if the
    /// server refuses the login.
    pub fn connect(url: &str) -> CacheBuilder<CacheConfig> {
        CacheBuilder::with(CacheConfig { url: Some(url.to_owned()), ..CacheConfig::default() })
    }

    /// A cache by its configuration, otherwise as [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn from_config(config: &CacheConfig) -> CacheBuilder<CacheConfig> {
        CacheBuilder::with(config.clone())
    }
}

impl IntoFuture for CacheBuilder<CacheConfig> {
    type Output = Result<Cache, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(connect(self))
    }
}

async fn connect(builder: CacheBuilder<CacheConfig>) -> Result<Cache, Error> {
    let mut config = builder.store.clone();
    let builder = builder.on_store(());
    let whole = config.url.take().unwrap_or_else(|| "memory".to_owned());
    let (url, query) = whole.split_once('?').unwrap_or((&whole, ""));
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
            memory::build(&config, builder)
        }
        Some("redis" | "rediss" | "valkey" | "valkeys" | "unix" | "redis+unix") => {
            redis::connect(&config, builder, url, rest).await
        }
        _ => Err(Error::new(
            ErrorKind::Config,
            "url: the scheme is not known; allowed are memory, redis://, rediss:// and unix://",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::LoadOptions;

    #[tokio::test]
    async fn the_options_of_loads_may_stand_in_the_url() {
        let url = "memory:?default_ttl=1m&time_to_idle=2m&stale_while_revalidate=3s\
                   &stale_if_error=4h&soft_timeout=5ms&load_timeout=6s&retry_after=7s\
                   &negative_ttl=8s&early_refresh=1.5&jitter=0.1";
        let (seconds, millis) = (Duration::from_secs, Duration::from_millis);
        let expected = LoadOptions::new()
            .ttl(seconds(60))
            .time_to_idle(seconds(120))
            .stale_while_revalidate(seconds(3))
            .stale_if_error(seconds(4 * 3600))
            .soft_timeout(millis(5))
            .load_timeout(seconds(6))
            .retry_after(seconds(7))
            .negative_ttl(seconds(8))
            .early_refresh(1.5)
            .jitter(0.1);
        assert_eq!(Cache::connect(url).await.unwrap().load_options(), expected);
        let defaults = Cache::connect("memory:").await.unwrap().load_options();
        assert_eq!(defaults, LoadOptions::new().ttl(crate::DEFAULT_TTL));
    }

    #[tokio::test]
    async fn a_wrong_url_is_refused_with_a_word_on_what_is_allowed_and_without_its_password() {
        for (url, word) in [
            ("http://h/?x", "scheme"),
            ("file:///etc/passwd", "scheme"),
            ("memory:?colour=red", "colour"),
            ("memory:?max_entries=many", "max_entries"),
            ("memory:?default_ttl=5", "default_ttl"),
            ("memory:?default_ttl=0s", "0ns"),
            ("memory:?jitter=1.01", "jitter is 1.01; allowed is 0 to 1"),
            ("memory:?jitter=much", "jitter"),
            ("memory:?stale_if_error=1", "stale_if_error"),
            ("memory:?soft_timeout=0ms", "soft_timeout is 0ns"),
            ("memory:?early_refresh=-1", "early_refresh is -1"),
            ("memory:?time_to_idle=0s", "time_to_idle is 0ns"),
            ("memory:?negative_ttl=0s", "negative_ttl is 0ns"),
            ("memory:?retry_after=48h", "retry_after"),
            ("memory:?codec=yaml", "json and msgpack"),
            ("memory:?max_value_bytes=0B", "max_value_bytes is 0"),
            ("memory:?compression=lz4", "bytes in Redis"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?compression=gzip", "lz4, zstd"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?compress_above=x", "compress_above"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?max_value_bytes=1GiB", "max_value_bytes is"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?sign_key=s3ntinel", "sign_key"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?lease=50ms", "lease is 50ms; allowed is 100 ms"),
            ("memory:?lease=3s", "several processes"),
            ("memory://host", "between"),
            ("memory?namespace=a:b", "namespace"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?colour=red", "colour"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?memory=off&max_bytes=1MiB", "maxmemory"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?memory=off&freshness=1s", "memory=off"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?memory=yes", "on and off"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?freshness=100ms", "200ms"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?max_bytes=0B", "max_bytes is 0"),
            ("redis://u:s3ntinel@127.0.0.1:1/0?memory=on&max_entries=0", "max_entries is 0"),
            ("memory:?memory=on", "in Redis"),
        ] {
            let error = Cache::connect(url).await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(word), "{url}: {text}");
            assert!(!text.contains("s3ntinel"), "{url}: {text}");
        }
    }
}
