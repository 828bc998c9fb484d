//! The handle of an HTTP cache: purge and statistics, for who operates it.

use std::{
    error::Error as StdError,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tachikoma_cache::{Entries, Error, Removed};

use crate::{
    flight::Flights,
    key::{Key, Target},
    policy::{Options, decision::Decision},
    stats::{Counters, HttpCacheStats, add_one},
    storage::Storage,
};

/// What all clones of a layer and of its services share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) storage: Storage,
    pub(crate) options: Options,
    pub(crate) max_body_size: usize,
    pub(crate) wait_limit: Duration,
    pub(crate) flights: Arc<Flights>,
    pub(crate) counters: Counters,
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

    /// Counts and logs a decision; the response says it itself.
    pub(crate) fn decided(&self, decision: &Decision) {
        self.counters.count(decision);
        tracing::debug!(decision = decision.name(), ?decision, "response cache");
    }

    /// Removes what an unsafe request made invalid. A store that fails keeps the removal and
    /// retries it; the request does not fail for it.
    pub(crate) async fn invalidate(&self, keys: &[Key]) {
        add_one(&self.counters.invalidations);
        if let Err(error) = self.remove(keys).await {
            add_one(&self.counters.pending_invalidations);
            // Counted; while the store is away, a line for each would be a flood.
            tracing::debug!(%error, "an invalidation is not in yet");
        }
    }

    async fn remove(&self, keys: &[Key]) -> Result<Removed, Error> {
        let detach = || {
            for key in keys {
                self.flights.detach(key.url());
            }
        };
        // What was asked for before is brought to nobody who comes after, store or no store: those
        // who come while this waits included.
        detach();
        let removed = self.storage.remove(keys).await;
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
        let target = Target::parse(url).ok_or_else(|| PurgeError::Url(url.to_owned()))?;
        self.shared.remove(&[target.key()]).await.map_err(PurgeError::Store)
    }

    /// How many responses [`purge_url`](Self::purge_url) would remove now.
    ///
    /// # Errors
    ///
    /// [`PurgeError::Url`], and [`PurgeError::Store`] if the store failed.
    pub async fn count_url(&self, url: &str) -> Result<u64, PurgeError> {
        let target = Target::parse(url).ok_or_else(|| PurgeError::Url(url.to_owned()))?;
        self.shared.storage.count(&target.key()).await.map_err(PurgeError::Store)
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
        self.shared.counters.read()
    }
}

/// A purge failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum PurgeError {
    /// Not an absolute `http` or `https` URL, nor a path.
    Url(String),
    /// The store says why.
    Store(Error),
}

impl fmt::Display for PurgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(
                f,
                "{url:?} is not a URL; allowed are an absolute one (http://host/path?query) and a \
                 path (/path)"
            ),
            Self::Store(_) => f.write_str("the store did not take the purge"),
        }
    }
}

impl StdError for PurgeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Url(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}
