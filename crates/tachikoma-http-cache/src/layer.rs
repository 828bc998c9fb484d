//! The layer: an HTTP cache with its options, to put in front of a service.

use std::{sync::Arc, time::Duration};

use http::HeaderName;
use tachikoma_cache::Cache;
use tower_layer::Layer;

use crate::{
    flight::Flights,
    handle::{HttpCache, Shared},
    policy::{Forwarded, Options},
    service::HttpCacheService,
    stats::Counters,
    storage::Storage,
};

/// A shared HTTP cache as a [`Layer`]. Clones share one cache.
///
/// The inner service must be `Clone`: it is called only when the store has no answer, each time as
/// a clone that was polled ready for that call.
#[derive(Debug, Clone)]
pub struct HttpCacheLayer {
    shared: Arc<Shared>,
}

impl HttpCacheLayer {
    /// A cache that keeps responses in `cache`, with the default of each option.
    ///
    /// Responses lie in its namespace, under keys that begin with `GET`: to keep them apart from
    /// other values, give it [`cache.namespace("http")?`](Cache::namespace). In the same namespace
    /// as an application's data, its tags invalidate both.
    #[allow(clippy::needless_pass_by_value, reason = "a cache is a handle, given away as one")]
    pub fn new(cache: Cache) -> Self {
        Self::with(Shared {
            storage: Storage::new(cache.entries()),
            options: Options::default(),
            max_body_size: 8 << 20,
            wait_limit: Duration::from_secs(10),
            flights: Arc::new(Flights::default()),
            counters: Counters::default(),
        })
    }

    fn with(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// An option is set before the layer is shared; else it begins anew, with the same store.
    fn set(self, change: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = Arc::try_unwrap(self.shared).unwrap_or_else(|shared| Shared {
            storage: Storage::new(shared.storage.entries().clone()),
            options: shared.options.clone(),
            max_body_size: shared.max_body_size,
            wait_limit: shared.wait_limit,
            flights: Arc::new(Flights::default()),
            counters: Counters::default(),
        });
        change(&mut shared);
        Self::with(shared)
    }

    /// The largest body that is stored, in bytes; larger ones stream through.
    ///
    /// Default: 8 MiB.
    #[must_use]
    pub fn max_body_size(self, bytes: usize) -> Self {
        self.set(|shared| shared.max_body_size = bytes)
    }

    /// The lifetime of a response that states none, if its status may be cached by default.
    ///
    /// Default: none; such a response is at most stored to be validated. It never applies to
    /// errors, nor to what says `no-store`, `private` or `Set-Cookie`.
    #[must_use]
    pub fn default_ttl(self, ttl: Duration) -> Self {
        self.set(|shared| shared.options.default_ttl = Some(ttl))
    }

    /// Guesses a lifetime from `Last-Modified` where the response states none: a tenth of the time
    /// since, at most a day (RFC 9111 §4.2.2).
    ///
    /// Default: off.
    #[must_use]
    pub fn heuristic(self, on: bool) -> Self {
        self.set(|shared| shared.options.heuristic = on)
    }

    /// Request headers that always select a variant, as if each `Vary` named them.
    ///
    /// Default: none. For an origin that forgets `Vary: Accept`, say.
    #[must_use]
    pub fn key_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.set(|shared| shared.options.key_headers = names.into_iter().collect())
    }

    /// Shares responses between requests with different `Cookie`s: for routes that do not look at
    /// them.
    ///
    /// Default: off; a request with `Cookie` shares only what says `public` or `s-maxage`.
    #[must_use]
    pub fn ignore_cookies(self, on: bool) -> Self {
        self.set(|shared| shared.options.ignore_cookies = on)
    }

    /// Who wrote `X-Forwarded-*`, `Forwarded` and their kin.
    ///
    /// Default: [`Forwarded::Bypass`], anybody. Behind a proxy that sets them, say
    /// [`Forwarded::Keyed`], or each request passes the cache by.
    #[must_use]
    pub fn forwarded(self, forwarded: Forwarded) -> Self {
        self.set(|shared| shared.options.forwarded = forwarded)
    }

    /// The longest lifetime of a 4xx or 5xx response that states one.
    ///
    /// Default: 10 seconds.
    #[must_use]
    pub fn max_error_ttl(self, ttl: Duration) -> Self {
        self.set(|shared| shared.options.max_error_ttl = ttl)
    }

    /// How long a stale response stays stored, to be validated instead of fetched.
    ///
    /// Default: one hour.
    #[must_use]
    pub fn keep_stale(self, time: Duration) -> Self {
        self.set(|shared| shared.options.keep_stale = time)
    }

    /// How long a request waits for another one that fetches the same, before it asks itself.
    ///
    /// Default: 10 seconds.
    #[must_use]
    pub fn wait_limit(self, time: Duration) -> Self {
        self.set(|shared| shared.wait_limit = time)
    }

    /// The handle of this cache, to purge it and to read its statistics. Set the options first.
    pub fn handle(&self) -> HttpCache {
        HttpCache::new(Arc::clone(&self.shared))
    }
}

impl<S> Layer<S> for HttpCacheLayer {
    type Service = HttpCacheService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpCacheService::new(inner, Arc::clone(&self.shared))
    }
}
