//! The handle of an HTTP cache: purge and statistics, for who operates it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Request};
use tachikoma_cache::{Entries, Error, Removed};

use crate::{
    PurgeError,
    budget::Budget,
    cache_status,
    empty_body::EmptyBody,
    flight::Flights,
    key::{Key, Target, rewrite},
    policy::{Options, decision::Decision},
    rules::{Base, Rules, without},
    stats::{Counters, HttpCacheStats, add_one},
    storage::Storage,
};

/// What all clones of a layer and of its services share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) storage: Storage,
    pub(crate) options: Base,
    pub(crate) rules: Rules,
    pub(crate) max_body_size: usize,
    pub(crate) wait_limit: Duration,
    pub(crate) finish_limit: Duration,
    /// The bytes of all bodies that are arriving to be stored.
    pub(crate) fills: Budget,
    pub(crate) flights: Arc<Flights>,
    pub(crate) counters: Counters,
    /// Without it, nothing is asked for a second time.
    pub(crate) empty_body: Option<EmptyBody>,
    /// Whether responses go when what they were made of goes.
    pub(crate) dependencies: bool,
}

impl Shared {
    pub(crate) fn entries(&self) -> &Entries {
        self.storage.entries()
    }

    /// Now, by the clock that never steps back.
    pub(crate) fn now(&self) -> SystemTime {
        let millis = self.entries().clock().now().as_millis();
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    /// What a request is about, and the options that hold for it. What is to be ignored of its
    /// query is taken away here.
    pub(crate) fn target<B>(&self, request: &mut Request<B>) -> (Option<Target>, Arc<Options>) {
        let of = |request: &Request<B>| {
            Target::of(request.uri(), request.headers(), request.extensions())
        };
        let target = of(request);
        let (host, path) = match &target {
            Some(target) => (target.host(), target.path()),
            None => ("", request.uri().path()),
        };
        let options = self.rules.options(&self.options, host, path, request.headers());
        if options.ignore_query.is_empty() || request.uri().query().is_none() {
            return (target, options);
        }
        rewrite(request, |uri| without(uri, &options.ignore_query));
        (of(request), options)
    }

    /// Counts and logs a decision; the response says it itself.
    pub(crate) fn decided(&self, decision: &Decision) {
        self.counters.count(decision);
        let said = || cache_status::member(decision).unwrap_or_default();
        tracing::debug!(decision = decision.name(), cache_status = said(), "response cache");
    }

    /// Removes what an unsafe request made invalid, or what is no longer current. A store that
    /// fails keeps the removal and retries it; the request does not fail for it.
    ///
    /// Returns whether it is done, in a store that no other process has.
    pub(crate) async fn invalidate(&self, keys: &[Key]) -> bool {
        match self.remove(keys).await {
            Ok(removed) => removed.redis.is_none(),
            Err(error) => {
                add_one(&self.counters.pending_invalidations);
                // Counted; while the store is away, a line for each would be a flood.
                tracing::debug!(%error, "an invalidation is not in yet");
                false
            }
        }
    }

    /// The target that a request for this one has, when what is to be ignored is taken away.
    pub(crate) fn as_requested(&self, target: Target) -> Target {
        let none = HeaderMap::new();
        let options = self.rules.options(&self.options, target.host(), target.path(), &none);
        let left = target.uri().and_then(|uri| without(&uri, &options.ignore_query));
        left.as_ref().and_then(Target::from_uri).unwrap_or(target)
    }

    /// Makes what is stored under these keys stale; see [`Storage::soften`].
    pub(crate) async fn soften(&self, keys: &[Key], tag: Option<&str>) -> Result<Removed, Error> {
        for key in keys {
            self.flights.detach(key.url());
        }
        let softened = self.storage.soften(keys, tag, &self.options, self.now()).await;
        for key in keys {
            self.flights.detach(key.url());
        }
        softened
    }

    pub(crate) async fn remove(&self, keys: &[Key]) -> Result<Removed, Error> {
        let detach = || {
            for key in keys {
                self.flights.detach(key.url());
            }
        };
        // What was asked for before is brought to nobody who comes after, store or no store: those
        // who come while this waits included.
        detach();
        let removed = self.storage.remove(keys).await;
        self.storage.forget_bodies(keys).await;
        detach();
        removed
    }
}

/// A handle of an HTTP cache; clones are cheap and share everything.
#[derive(Debug, Clone)]
pub struct HttpCache {
    shared: Arc<Shared>,
}

impl HttpCache {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Removes all that is stored for a URL, each variant; how many responses, in each tier.
    ///
    /// The URL is absolute, as its requests name it (`http://shop.test/cart?id=1`): its path and
    /// query byte for byte. A path alone (`/cart`) is what requests without `Host` asked for.
    ///
    /// # Errors
    ///
    /// [`PurgeError::Url`], and [`PurgeError::Store`] if the store failed; with the kind
    /// [`Pending`](tachikoma_cache::ErrorKind::Pending) the removal is kept and retried.
    pub async fn purge_url(&self, url: &str) -> Result<Removed, PurgeError> {
        let key = self.key_of(url)?;
        self.shared.remove(&[key]).await.map_err(PurgeError::Store)
    }

    /// How many responses [`purge_url`](Self::purge_url) would remove now.
    ///
    /// # Errors
    ///
    /// [`PurgeError::Url`], and [`PurgeError::Store`] if the store failed.
    pub async fn count_url(&self, url: &str) -> Result<u64, PurgeError> {
        let key = self.key_of(url)?;
        self.shared.storage.count(&key).await.map_err(PurgeError::Store)
    }

    /// Invalidates all responses with a tag (`Surrogate-Key`, `Cache-Tag`).
    ///
    /// # Errors
    ///
    /// [`PurgeError::Store`]: the tag is not valid, or the store failed, as for
    /// [`purge_url`](Self::purge_url).
    pub async fn purge_tag(&self, tag: &str) -> Result<(), PurgeError> {
        self.shared.flights.detach_all();
        let invalidated = self.shared.entries().invalidate_tags([tag]).await;
        // Nobody knows the tags of what is being fetched.
        self.shared.flights.detach_all();
        invalidated.map_err(PurgeError::Store)
    }

    /// How many responses [`purge_tag`](Self::purge_tag) would invalidate now. It looks at every
    /// stored response.
    ///
    /// # Errors
    ///
    /// [`PurgeError::Store`]: the tag is not valid, or the store failed.
    pub async fn count_tag(&self, tag: &str) -> Result<u64, PurgeError> {
        self.shared.entries().count_tagged(tag).await.map_err(PurgeError::Store)
    }

    /// What this cache did since it was built. Costs less than a microsecond.
    pub fn stats(&self) -> HttpCacheStats {
        let fill_bytes = self.shared.fills.used() as u64;
        let large_bytes = self.shared.storage.large_bytes();
        HttpCacheStats { fill_bytes, large_bytes, ..self.shared.counters.read() }
    }
}
