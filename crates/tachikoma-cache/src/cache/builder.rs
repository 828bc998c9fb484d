//! Builds a cache: settings with their defaults, checked once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Cache, Inner};
use crate::clock::{Clock, SystemClock};
use crate::codec::{Codec, Codecs};
use crate::custom_codec::CustomCodec;
use crate::error::{Error, ErrorKind};
use crate::events::{Event, Listeners, OnEvent};
use crate::expiry::Ttl;
use crate::key::Namespace;
use crate::load::bulkhead::{Bounds, Bulkhead};
use crate::load::flights::Flights;
use crate::load::lookups::Lookups;
use crate::load::options::{LoadOptions, option_methods};
use crate::load::throttle::Throttle;
use crate::runtime::Mutex;
use crate::shared::Shared;
use crate::stats::Counters;
use crate::store::Store;
use crate::store::observed::Observed;
use crate::ticket::Tickets;
use crate::top::Top;

/// The default of [`CacheBuilder::default_ttl`].
pub const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// The default of [`CacheBuilder::store_timeout`].
pub const DEFAULT_STORE_TIMEOUT: Duration = Duration::from_millis(250);

/// Settings of a cache on a store `S`. Made by [`Cache::on`], `Cache::memory`, [`Cache::connect`]
/// or [`Cache::from_config`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct CacheBuilder<S> {
    pub(super) store: S,
    namespace: Result<Namespace, String>,
    options: LoadOptions,
    pub(super) store_timeout: Duration,
    bounds: Bounds,
    codecs: Codecs,
    pub(super) clock: Arc<dyn Clock>,
    on_event: Vec<OnEvent>,
    track_top_keys: bool,
}

impl<S> CacheBuilder<S> {
    pub(super) fn with(store: S) -> Self {
        Self {
            store,
            namespace: Ok(Namespace::default()),
            options: LoadOptions::new(),
            store_timeout: DEFAULT_STORE_TIMEOUT,
            bounds: Bounds::default(),
            codecs: Codecs::default(),
            clock: Arc::new(SystemClock::new()),
            on_event: Vec::new(),
            track_top_keys: false,
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
        self.options = self.options.ttl(ttl);
        self
    }

    /// What loads do that do not say otherwise, in one value: it replaces the options set before.
    /// Its TTL, its time to idle and its stale windows also hold for what is
    /// [set](crate::Cache::set). Default: [`LoadOptions::new`].
    pub fn load_options(mut self, options: LoadOptions) -> Self {
        self.options = options;
        self
    }

    /// The options as `change` makes them.
    pub(super) fn change_options(
        mut self,
        change: impl FnOnce(LoadOptions) -> Result<LoadOptions, Error>,
    ) -> Result<Self, Error> {
        self.options = change(self.options)?;
        Ok(self)
    }

    fn change(mut self, change: impl FnOnce(LoadOptions) -> LoadOptions) -> Self {
        self.options = change(self.options);
        self
    }

    option_methods!("for loads that do not say otherwise");

    /// How long the store may take for one operation; for a load, how long looking up and storing
    /// may take together. Default: 250 ms.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// How many loads run at once, over all keys: one load per key does not protect a source when
    /// everything misses at once, as after a failover. Others wait their turn, in the order in
    /// which
    /// they came; waiting counts against the load timeout. A load inside of another load of this
    /// cache takes no turn, because the outer one keeps its own. 1 to 1,048,576.
    /// Default: no bound.
    pub fn max_concurrent_loads(mut self, loads: usize) -> Self {
        self.bounds.running = Some(loads);
        self
    }

    /// How many loads wait at most for their turn; one more fails at once with
    /// [`LoadError::Overloaded`](crate::LoadError::Overloaded), unless a stale value may be served
    /// instead. 0 to 1,048,576. Default: a hundred for each of
    /// [`max_concurrent_loads`](Self::max_concurrent_loads).
    pub fn max_queued_loads(mut self, loads: usize) -> Self {
        self.bounds.queued = Some(loads);
        self
    }

    /// How values are written where they are kept as bytes. Default: [`Codec::Json`]. What the
    /// other codecs wrote is read all the same.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codecs.write_with(codec);
        self
    }

    /// Reads what a codec of the application wrote, without writing with it: to change from it to
    /// another. Default: none.
    pub fn also_read(mut self, codec: &'static dyn CustomCodec) -> Self {
        self.codecs.also_read(codec);
        self
    }

    /// Where the cache gets its time from. Default: the machine's clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tells `listener` of what the cache does: see [`events`](crate::events) for what and when.
    /// Called again it adds another one. Default: nobody is told.
    ///
    /// It is called on the thread that did it, which waits: it must be quick. It may use the cache;
    /// what it does there is not told. A panic in it is contained and counted
    /// ([`hook_panics`](crate::CacheStats::hook_panics)).
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.on_event.push(Arc::new(listener));
        self
    }

    /// Counts which keys are asked for most and which values are largest, for
    /// [`Cache::top_keys`]. Default: off.
    ///
    /// It takes about 100 KiB, at most some tens of nanoseconds for each lookup (one in
    /// [`SAMPLE`](crate::top::SAMPLE) is counted) and less than a microsecond for each write.
    pub fn track_top_keys(mut self, on: bool) -> Self {
        self.track_top_keys = on;
        self
    }

    /// The same settings on another kind of store.
    pub(super) fn on_store<T>(self, store: T) -> CacheBuilder<T> {
        let Self { namespace, options, store_timeout, bounds, codecs, clock, .. } = self;
        let Self { on_event, track_top_keys, .. } = self;
        CacheBuilder {
            store,
            namespace,
            options,
            store_timeout,
            bounds,
            codecs,
            clock,
            on_event,
            track_top_keys,
        }
    }

    /// Who hears of events, for the store; the same for [`finish`](Self::finish).
    pub(super) fn listeners(&self) -> Option<Arc<Listeners>> {
        Listeners::of(self.on_event.clone())
    }

    /// Says which setting is not allowed, before anything is started or connected.
    pub(super) fn check(&self) -> Result<Namespace, Error> {
        self.options.check()?;
        let timeout = self.store_timeout;
        if timeout.is_zero() || timeout > Duration::from_secs(86_400) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("store_timeout is {timeout:?}; allowed is more than zero, at most a day"),
            ));
        }
        self.bounds.check()?;
        self.codecs.check()?;
        match &self.namespace {
            Ok(namespace) => Ok(namespace.clone()),
            Err(name) => Namespace::new(name),
        }
    }

    pub(super) fn finish(
        self,
        store: Arc<dyn Store>,
        listeners: Option<Arc<Listeners>>,
    ) -> Result<Cache, Error> {
        let namespace = self.check()?;
        let top = self.track_top_keys.then(|| Top::new(self.clock.now()));
        let wanted = listeners.is_some() || top.is_some();
        let observed =
            wanted.then(|| Arc::new(Observed::new(Arc::clone(&store), listeners.clone(), top)));
        let store = observed.clone().map_or(store, |observed| observed as Arc<dyn Store>);
        let options = match self.options.ttl {
            Ttl::Default => self.options.ttl(DEFAULT_TTL),
            _ => self.options,
        };
        let dependencies = store.has_dependencies();
        let shared = Arc::new(Shared {
            store,
            clock: self.clock,
            codecs: self.codecs,
            counters: Counters::default(),
            listeners,
            observed,
            bulkhead: Bulkhead::new(self.bounds),
            flights: Flights::new(),
            lookups: Lookups::new(),
            throttle: Throttle::new(),
            tickets: Mutex::new(Tickets::default()),
            options,
            store_timeout: self.store_timeout,
            dependencies,
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
        let (store, listeners) = (Arc::clone(&self.store), self.listeners());
        self.finish(store, listeners)
    }
}

impl<S: fmt::Debug> fmt::Debug for CacheBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("store", &self.store)
            .field("namespace", &self.namespace)
            .field("options", &self.options)
            .field("store_timeout", &self.store_timeout)
            .field("codecs", &self.codecs)
            .finish_non_exhaustive()
    }
}
