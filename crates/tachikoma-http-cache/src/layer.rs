//! The layer: an HTTP cache with its options, to put in front of a service.

use std::{sync::Arc, time::Duration};

use http::HeaderName;
use tachikoma_cache::Cache;
use tower_layer::Layer;

use crate::{
    budget::Budget,
    empty_body::EmptyBody,
    flight::Flights,
    handle::{HttpCache, Shared},
    policy::Forwarded,
    rules::{Base, Rule, RuleError, Rules, query_names},
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
    tickets: bool,
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
            storage: Storage::new(cache.entries(), 256 << 20),
            options: Base::default(),
            rules: Rules::default(),
            max_body_size: 8 << 20,
            wait_limit: Duration::from_secs(10),
            finish_limit: Duration::from_secs(10),
            fills: Budget::new(128 << 20),
            flights: Arc::new(Flights::default()),
            counters: Counters::default(),
            empty_body: None,
            dependencies: false,
        })
    }

    fn with(shared: Shared) -> Self {
        Self { shared: Arc::new(shared), tickets: false }
    }

    /// An option is set before the layer is shared; else it begins anew, with the same store.
    fn set(self, change: impl FnOnce(&mut Shared)) -> Self {
        let tickets = self.tickets;
        let mut shared = Arc::try_unwrap(self.shared).unwrap_or_else(|shared| Shared {
            storage: Storage::new(
                shared.storage.entries().clone(),
                shared.storage.max_large_bytes(),
            ),
            options: shared.options.clone(),
            rules: shared.rules.anew(),
            max_body_size: shared.max_body_size,
            wait_limit: shared.wait_limit,
            finish_limit: shared.finish_limit,
            fills: Budget::new(shared.fills.limit()),
            flights: Arc::new(Flights::default()),
            counters: Counters::default(),
            empty_body: shared.empty_body.clone(),
            dependencies: shared.dependencies,
        });
        change(&mut shared);
        // What rules make of the options is known anew.
        shared.rules = shared.rules.anew();
        Self { tickets, ..Self::with(shared) }
    }

    /// The largest body that is stored, in bytes; larger ones stream through.
    ///
    /// In a store behind a network, as Redis, the body of a response over 8 MiB is not stored: each
    /// process keeps it in its own memory (see [`max_large_bytes`](Self::max_large_bytes)), and the
    /// store has the head.
    ///
    /// Default: 8 MiB.
    #[must_use]
    pub fn max_body_size(self, bytes: usize) -> Self {
        self.set(|shared| shared.max_body_size = bytes)
    }

    /// The most bytes of bodies over 8 MiB that this process keeps in memory where the store is
    /// behind a network, with their heads and bookkeeping. One that is larger is not kept.
    ///
    /// Default: 256 MiB.
    #[must_use]
    pub fn max_large_bytes(self, bytes: u64) -> Self {
        self.set(|shared| shared.storage = Storage::new(shared.entries().clone(), bytes))
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

    /// Does not heed `Cache-Control` and `Pragma` of requests, which are advisory (RFC 9111
    /// §5.2.1): no client can then make its requests reach the inner service.
    ///
    /// Default: off, they are heeded. A browser's reload brings what is stored where it is on.
    #[must_use]
    pub fn ignore_request_directives(self, on: bool) -> Self {
        self.set(|shared| shared.options.ignore_request_directives = on)
    }

    /// Response fields that stand in for `Cache-Control` and `Expires` (RFC 9213), the most
    /// specific
    /// one first: the first that is a valid Structured Field governs.
    ///
    /// Default: `CDN-Cache-Control`. An own name before it speaks to this cache alone.
    #[must_use]
    pub fn targeted(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.set(|shared| shared.options.targeted = names.into_iter().collect())
    }

    /// Compares the request fields that `Vary` names in their normal form (RFC 9111 §4.1):
    /// `Accept-Language: en, de` and `DE,en;q=1.0` select the same variant.
    ///
    /// Default: on. Switch it off for an origin that takes the order of equally weighted languages
    /// for a preference, which RFC 9110 §12.5.4 says nobody can rely on.
    #[must_use]
    pub fn normalize(self, on: bool) -> Self {
        self.set(|shared| shared.options.normalize = on)
    }

    /// How long past its freshness a response may be sent because the origin cannot be reached
    /// (RFC 9111 §4.2.4): the inner service failed, or its answer is marked
    /// [`Disconnected`](crate::Disconnected). Never what says `must-revalidate`,
    /// `proxy-revalidate`, `s-maxage` or `no-cache`.
    ///
    /// Default: one hour. Zero: only as `stale-if-error` allows.
    #[must_use]
    pub fn stale_if_disconnected(self, time: Duration) -> Self {
        self.set(|shared| shared.options.stale_if_disconnected = time)
    }

    /// Parameters of the query that are taken away from every request, by name or pattern
    /// (`utm_*`): neither the key nor the inner service sees them.
    ///
    /// Default: none.
    ///
    /// # Errors
    ///
    /// A pattern is empty or over 4,096 bytes.
    pub fn ignore_query<S: AsRef<str>>(
        self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<Self, RuleError> {
        let names = query_names(names)?;
        Ok(self.set(|shared| shared.options.ignore_query = names))
    }

    /// Response headers that name tags, separated by commas or spaces, beside `Surrogate-Key` and
    /// `Cache-Tag`.
    ///
    /// Default: none.
    #[must_use]
    pub fn tags_from_header(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.set(|shared| shared.options.tag_headers = names.into_iter().collect())
    }

    /// One more rule, about some hosts and paths. Every rule that matches a request holds; a later
    /// one overrules an earlier one.
    ///
    /// # Errors
    ///
    /// It would be the 65th.
    pub fn rule(self, rule: Rule) -> Result<Self, RuleError> {
        let rules = self.shared.rules.and(rule)?;
        Ok(self.set(|shared| shared.rules = rules))
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

    /// How long a request waits for the head of what another one fetches, before it asks itself.
    ///
    /// Default: 10 seconds.
    #[must_use]
    pub fn wait_limit(self, time: Duration) -> Self {
        self.set(|shared| shared.wait_limit = time)
    }

    /// How long a response that is being stored is read on when every client that read it has
    /// gone; zero gives it up at once. What is given up is not stored.
    ///
    /// Default: 10 seconds.
    #[must_use]
    pub fn finish_limit(self, time: Duration) -> Self {
        self.set(|shared| shared.finish_limit = time)
    }

    /// The most bytes that all responses under way hold together before they are stored. What
    /// finds no room is streamed through and not stored. Where it finds none, what arrived at less
    /// than 64 KiB a second for 10 seconds or more gives way, and is not stored itself.
    ///
    /// Default: 128 MiB.
    #[must_use]
    pub fn max_fill_bytes(self, bytes: usize) -> Self {
        self.set(|shared| shared.fills = Budget::new(bytes))
    }

    /// How to make the body of a request that the cache sends by itself, after the client's: to
    /// complete a stored part (RFC 9111 §3.3), where the origin answers with what does not belong
    /// to it, and the whole is to be asked for. `B` is the body of the requests of the inner
    /// service: `.empty_body(axum::body::Body::empty)`.
    ///
    /// Default: none. Then a stored part answers requests for what it has, parts under one strong
    /// `ETag` are combined as they come, and whoever wants the whole has all of it fetched.
    #[must_use]
    pub fn empty_body<B: 'static>(self, make: fn() -> B) -> Self {
        self.set(|shared| shared.empty_body = Some(EmptyBody::new(make)))
    }

    /// Heeds [`Cache-Ticket`](crate::CACHE_TICKET) of requests: whoever brings a ticket
    /// ([`Cache::ticket`]) is answered with nothing that was invalidated before it was given, by
    /// whichever process, and its handler reads nothing older through the same cache. It is an
    /// option of this layer and not of its clones: switch it on where the service behind it gives
    /// tickets, and not for a proxy, whose origin's tickets mean nothing here.
    ///
    /// A ticket that this process meets for the first time costs one round trip to Redis, shared by
    /// all who come at the same time, so a forged one costs no more. What is no ticket counts as a
    /// new one.
    ///
    /// Default: off.
    #[must_use]
    pub fn tickets(mut self, on: bool) -> Self {
        self.tickets = on;
        self
    }

    /// Stores each response with what the inner service read through caches of the same store while
    /// it made it, so that it goes when any of that goes. The caches must have their own switch on
    /// (`Cache::memory().dependencies(true)`, `?dependencies=true`); what is read in spawned tasks
    /// counts if it is [carried](tachikoma_cache::dependencies::carry) there. A response of which
    /// it is not known what it shows is not stored.
    ///
    /// Default: off.
    #[must_use]
    pub fn dependencies(self, on: bool) -> Self {
        self.set(|shared| shared.dependencies = on)
    }

    /// The handle of this cache, to purge it and to read its statistics. Set the options first.
    pub fn handle(&self) -> HttpCache {
        HttpCache::new(Arc::clone(&self.shared))
    }
}

impl<S> Layer<S> for HttpCacheLayer {
    type Service = HttpCacheService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpCacheService::new(inner, Arc::clone(&self.shared), self.tickets)
    }
}
