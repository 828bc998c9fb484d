//! Builds a cache: settings with their defaults, checked once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Cache, Inner};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind};
use crate::expiry::{Ttl, check_ttl};
use crate::key::Namespace;
use crate::load::flights::Flights;
use crate::load::lookups::Lookups;
use crate::shared::Shared;
use crate::stats::Counters;
use crate::store::Store;

/// The default of [`CacheBuilder::default_ttl`].
pub const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// The default of [`CacheBuilder::load_timeout`].
pub const DEFAULT_LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The default of [`CacheBuilder::store_timeout`].
pub const DEFAULT_STORE_TIMEOUT: Duration = Duration::from_millis(250);

/// Settings of a cache on a store `S`. Made by [`Cache::on`] or
/// `Cache::memory`.
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct CacheBuilder<S> {
    pub(super) store: S,
    namespace: Result<Namespace, String>,
    default_ttl: Ttl,
    load_timeout: Duration,
    store_timeout: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

impl<S> CacheBuilder<S> {
    pub(super) fn with(store: S) -> Self {
        Self {
            store,
            namespace: Ok(Namespace::default()),
            default_ttl: Ttl::After(DEFAULT_TTL),
            load_timeout: DEFAULT_LOAD_TIMEOUT,
            store_timeout: DEFAULT_STORE_TIMEOUT,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// The namespace of the keys. Default: `tachikoma`.
    pub fn namespace(mut self, name: &str) -> Self {
        self.namespace = Namespace::new(name).map_err(|_| name.to_owned());
        self
    }

    /// How long values live that are stored without a time of their own: a [`Duration`] of more
    /// than zero and at most ten years, or [`Ttl::Never`]. Default: five minutes.
    pub fn default_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.default_ttl = match ttl.into() {
            Ttl::Default => Ttl::After(DEFAULT_TTL),
            ttl => ttl,
        };
        self
    }

    /// How long a loader may take before those who wait for it get
    /// [`LoadError::TimedOut`](crate::LoadError::TimedOut). Default: 30 s.
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.load_timeout = timeout;
        self
    }

    /// How long the store may take for one operation; for a load, how long looking up and storing
    /// may take together. Default: 250 ms.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// Where the cache gets its time from. Default: the machine's clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Says which setting is not allowed, before anything is started or connected.
    pub(super) fn check(&self) -> Result<Namespace, Error> {
        if let Ttl::After(ttl) = self.default_ttl {
            check_ttl(ttl)?;
        }
        for (name, timeout) in
            [("load_timeout", self.load_timeout), ("store_timeout", self.store_timeout)]
        {
            if timeout.is_zero() || timeout > Duration::from_secs(86_400) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("{name} is {timeout:?}; allowed is more than zero and at most a day"),
                ));
            }
        }
        match &self.namespace {
            Ok(namespace) => Ok(namespace.clone()),
            Err(name) => Namespace::new(name),
        }
    }

    pub(super) fn finish(self, store: Arc<dyn Store>) -> Result<Cache, Error> {
        let namespace = self.check()?;
        let shared = Arc::new(Shared {
            store,
            clock: self.clock,
            counters: Counters::default(),
            flights: Flights::new(),
            lookups: Lookups::new(),
            default_ttl: self.default_ttl,
            load_timeout: self.load_timeout,
            store_timeout: self.store_timeout,
        });
        Ok(Cache { inner: Arc::new(Inner { shared, namespace }) })
    }
}

impl CacheBuilder<Arc<dyn Store>> {
    /// The cache.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], [`ErrorKind::InvalidTtl`] or [`ErrorKind::InvalidNamespace`] if a
    /// setting is not allowed; the message names it.
    pub fn build(self) -> Result<Cache, Error> {
        let store = Arc::clone(&self.store);
        self.finish(store)
    }
}

impl<S: fmt::Debug> fmt::Debug for CacheBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("store", &self.store)
            .field("namespace", &self.namespace)
            .field("default_ttl", &self.default_ttl)
            .field("load_timeout", &self.load_timeout)
            .field("store_timeout", &self.store_timeout)
            .finish_non_exhaustive()
    }
}
