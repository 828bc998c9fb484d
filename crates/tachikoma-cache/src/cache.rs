//! The typed handle: what an application calls.
//!
//! Decides what counts as a hit, turns values into entries and back, and tells loads under way of
//! each invalidation. It never talks to a server and never evicts: that is its
//! [`Store`]'s business.

mod builder;
mod config;
mod connect;
mod entries;
mod get_or_load;
pub mod gives;
mod guard;
mod hit;
mod invalidate;
mod list;
mod load_many;
mod loaded;
mod many;
#[cfg(feature = "memory")]
mod memory;
#[cfg(not(feature = "memory"))]
#[path = "cache/memory_off.rs"]
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(not(feature = "redis"))]
#[path = "cache/redis_off.rs"]
mod redis;
mod set;
mod ticket;
#[cfg(all(feature = "memory", feature = "redis"))]
mod tier;
#[cfg(all(not(feature = "memory"), feature = "redis"))]
#[path = "cache/tier_off.rs"]
mod tier;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

pub use builder::{CacheBuilder, DEFAULT_STORE_TIMEOUT, DEFAULT_TTL};
pub use config::CacheConfig;
pub use entries::{Entries, EntryLease};
pub use get_or_load::{Load, LoadFuture, NoTags};
use gives::{Adaptive, Optional};
pub use guard::{BeginGuard, DEFAULT_GUARD_LIFE, WriteGuard};
pub use hit::{Hit, Source};
pub use list::{EntryInfo, KeyCursor, KeyPage, Keys};
pub use load_many::LoadMany;
pub use loaded::{LoadCx, Loaded};
pub use many::SetMany;
#[cfg(feature = "memory")]
pub use memory::{MemoryBuilder, MemoryCache};
#[cfg(feature = "redis")]
pub use redis::RedisCache;
pub use set::{Set, SetIfAbsent};

use crate::clock::Clock;
use crate::codec::Cacheable;
use crate::dependencies::Unknown;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::expiry::{KeyTtl, Ttl};
use crate::key::{Key, Namespace};
use crate::load::options::LoadOptions;
use crate::reading::Reading;
use crate::shared::Shared;
use crate::stats::CacheStats;
use crate::store::observed::Observed;
use crate::store::{Guarantee, Health, Peek, Store};
use crate::top::{Top, TopKeys};

/// A cache: typed values by key, with a time to live, on any [`Store`].
///
/// Clones are cheap and share everything. Values of any type that implements [`Cacheable`] may live
/// side by side; what was stored as one type is a miss for another.
///
/// ```
/// # use {std::time::Duration, tachikoma_cache::Cache};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::memory().max_entries(10_000).build()?;
/// let user = cache
///     .get_or_load("user:42", || async { Ok::<_, std::io::Error>("Motoko".to_string()) })
///     .ttl(Duration::from_secs(60))
///     .tags(["users"])
///     .await?;
/// assert_eq!(*user, "Motoko");
/// assert!(cache.get::<String>("user:42").await?.is_some());
/// cache.invalidate_tag("users").await?;
/// assert!(cache.get::<String>("user:42").await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    namespace: Namespace,
}

impl Cache {
    /// A cache on any store.
    pub fn on(store: Arc<dyn Store>) -> CacheBuilder<Arc<dyn Store>> {
        CacheBuilder::with(store)
    }

    /// The same store and settings, another namespace below this one; the keys are disjoint.
    /// Statistics are counted together.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidNamespace`](crate::ErrorKind::InvalidNamespace) as [`Namespace::child`].
    pub fn namespace(&self, name: &str) -> Result<Self, Error> {
        let namespace = self.inner.namespace.child(name)?;
        let shared = Arc::clone(&self.inner.shared);
        Ok(Self { inner: Arc::new(Inner { shared, namespace }) })
    }

    /// Whether what was made of its entries can go when these go
    /// ([`dependencies`](crate::dependencies)).
    pub fn has_dependencies(&self) -> bool {
        self.shared().dependencies
    }

    /// The namespace of this handle.
    pub fn namespace_ref(&self) -> &Namespace {
        &self.inner.namespace
    }

    /// The value of a key, if it is there, fresh and of this type.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable),
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) or
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) if the store failed;
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey). A value that cannot be decoded is a
    /// miss, and counted.
    pub async fn get<T: Cacheable>(&self, key: &str) -> Result<Option<Hit<T>>, Error> {
        let key = self.key(key)?;
        let shared = self.shared();
        let reading = shared.reading(key.namespace());
        match shared.look::<T>(&key, reading.as_ref()) {
            (Some(hit), _) => Ok(Some(hit)),
            // In a box, so that the future of a hit in memory stays small.
            (None, peek) if peek.asks() => {
                Box::pin(async move { shared.read(&key, reading).await }).await
            }
            (None, _) => Ok(None),
        }
    }

    /// The value of a key if that needs no waiting: from memory only. `None` may also mean that the
    /// store would have to be asked.
    pub fn try_get<T: Cacheable>(&self, key: &str) -> Option<Hit<T>> {
        let key = self.key(key).ok()?;
        let reading = self.shared().reading(key.namespace());
        let (hit, peek) = self.shared().look(&key, reading.as_ref());
        if let Some(reading) = reading.filter(|_| peek.asks()) {
            reading.key(key.namespace(), key.name());
        }
        hit
    }

    /// The value of a key, loaded if it is not there: `cache.get_or_load(key, loader).await`, with
    /// options in between ([`Load`]).
    ///
    /// One load runs per key and process, in a task of its own; who comes meanwhile waits for it.
    /// Processes on one Redis server wait for each other's.
    /// The cache never makes it fail: whatever the store does, the loader's value is returned.
    ///
    /// # Errors
    ///
    /// [`LoadError`](crate::LoadError), mostly the loader's own.
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes nobody along: the load goes on and its value is stored.
    pub fn get_or_load<'a, T, E, F, Fut>(
        &'a self,
        key: &'a str,
        load: F,
    ) -> Load<'a, T, E, F, NoTags>
    where
        T: Cacheable,
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        Load::new(self, key, load)
    }

    /// As [`get_or_load`](Self::get_or_load), for a source that may have no value. That it has none
    /// is remembered for [`negative_ttl`](LoadOptions::negative_ttl), which is not set by default:
    /// then it is asked each time. For all other calls a key that is remembered to have no value
    /// has none: `get` and `exists` find nothing, and `get_or_load` loads.
    ///
    /// ```
    /// # use {std::time::Duration, tachikoma_cache::Cache};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::memory().negative_ttl(Duration::from_secs(5)).build()?;
    /// for _ in 0..2 {
    ///     let load = || async { Ok::<Option<String>, std::io::Error>(None) };
    ///     assert!(cache.get_or_load_optional("user:7", load).await?.is_none());
    /// }
    /// assert_eq!(cache.stats().loads, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoadError`](crate::LoadError), mostly the loader's own.
    pub fn get_or_load_optional<'a, T, E, F, Fut>(
        &'a self,
        key: &'a str,
        load: F,
    ) -> Load<'a, T, E, F, NoTags, Optional>
    where
        T: Cacheable,
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
    {
        Load::new(self, key, load)
    }

    /// As [`get_or_load`](Self::get_or_load), for a loader that decides by what it finds: it is
    /// given the value that is to be replaced, and says of the new one how long it is fresh, which
    /// tags it has, and whether it is stored at all.
    ///
    /// ```
    /// # use {std::time::Duration, tachikoma_cache::{Cache, Loaded}};
    /// # async fn fetch(_: Option<u64>) -> Result<Option<(u64, String)>, std::io::Error> {
    /// #     Ok(Some((7, "text".to_owned())))
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::memory().stale_if_error(Duration::from_secs(3600)).build()?;
    /// let page = cache
    ///     .get_or_load_with("page:7", |cx| async move {
    ///         let known = cx.stale().map(|page: &std::sync::Arc<(u64, String)>| page.0);
    ///         Ok::<_, std::io::Error>(match fetch(known).await? {
    ///             Some(page) => Loaded::new(page).ttl(Duration::from_secs(60)).tags(["pages"]),
    ///             None => Loaded::not_modified(),
    ///         })
    ///     })
    ///     .await?;
    /// assert_eq!(page.1, "text");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoadError`](crate::LoadError), mostly the loader's own.
    pub fn get_or_load_with<'a, T, E, F, Fut>(
        &'a self,
        key: &'a str,
        load: F,
    ) -> Load<'a, T, E, F, NoTags, Adaptive>
    where
        T: Cacheable,
        E: Send + Sync + 'static,
        F: FnOnce(LoadCx<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<T>, E>> + Send + 'static,
    {
        Load::new(self, key, load)
    }

    /// What loads of this cache do that do not say otherwise: to begin from for
    /// [`Load::options`].
    pub fn load_options(&self) -> LoadOptions {
        self.shared().options
    }

    /// Stores a value: `cache.set(key, value, ttl).await`, maybe with tags ([`Set`]). It replaces
    /// value, time to live and tags of the key; a load of the key that is under way will not. A
    /// value that cannot be stored still takes the older one away.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); also [`ErrorKind::InvalidTtl`](crate::ErrorKind::InvalidTtl),
    /// [`ErrorKind::InvalidTag`](crate::ErrorKind::InvalidTag),
    /// [`ErrorKind::Unencodable`](crate::ErrorKind::Unencodable),
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge).
    pub fn set<'a, T: Cacheable>(
        &'a self,
        key: &'a str,
        value: T,
        ttl: impl Into<Ttl>,
    ) -> Set<'a, T> {
        Set::new(self, key, value, ttl.into())
    }

    /// Stores a value if the key has none: of many callers exactly one gets `true`. Otherwise as
    /// [`set`](Self::set).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn set_if_absent<'a, T: Cacheable>(
        &'a self,
        key: &'a str,
        value: T,
        ttl: impl Into<Ttl>,
    ) -> SetIfAbsent<'a, T> {
        SetIfAbsent::new(self.set(key, value, ttl))
    }

    /// Whether the key has a fresh value, of any type. Not counted as a lookup.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.ttl(key).await? != KeyTtl::NoKey)
    }

    /// What is left of the key's life: of its TTL, or of its time to idle, which begins anew with
    /// this call. Not counted as a lookup.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn ttl(&self, key: &str) -> Result<KeyTtl, Error> {
        let key = self.key(key)?;
        let shared = self.shared();
        let mut ttl = KeyTtl::NoKey;
        let mut reading = shared.reading(key.namespace());
        let mut seen = None;
        let now = shared.clock.now();
        let mut see = |entry: &Entry, guarantee: Guarantee| {
            if guarantee.is_fresh() && !entry.meta().negative {
                // This is a read too, so the idle time begins anew.
                let idle = entry.meta().idle.map(|idle| now.saturating_add(idle));
                let over = [entry.meta().soft_expiry, idle].into_iter().flatten().min();
                ttl = KeyTtl::of(over, now);
                seen = Some(entry.clone());
            }
        };
        if shared.peek(&key, &mut see).asks() {
            shared.settle(&mut reading, key.namespace()).await;
            let (cx, keys) = (shared.cx(), std::slice::from_ref(&key));
            let found = shared.counted(shared.store.read(keys, &cx).await)?.pop().flatten();
            if let Some((entry, guarantee)) = found {
                see(&entry, guarantee);
            }
        }
        match (reading, seen) {
            (Some(reading), Some(entry)) => reading.entry(key.namespace(), key.name(), &entry),
            (Some(reading), None) => reading.key(key.namespace(), key.name()),
            (None, _) => {}
        }
        Ok(ttl)
    }

    /// Gives a key a new time to live from now on; false if it has no value.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub async fn touch(&self, key: &str, ttl: impl Into<Ttl>) -> Result<bool, Error> {
        let key = self.key(key)?;
        let shared = self.shared();
        let cx = shared.cx();
        let expiry = crate::expiry::expiry(ttl.into(), shared.options.ttl, cx.now);
        let expiry = shared.counted(expiry)?;
        shared.counted(shared.store.touch(&key, expiry, &cx).await)
    }

    /// Gives a key a moment at which its value expires, by the wall clock; false if it has none. A
    /// moment that has passed removes the value, as [`delete`](Self::delete).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set) and [`delete`](Self::delete).
    pub async fn expire_at(&self, key: &str, at: SystemTime) -> Result<bool, Error> {
        match at.duration_since(self.clock().wall()) {
            Ok(left) if !left.is_zero() => self.touch(key, left).await,
            _ => self.delete(key).await,
        }
    }

    /// What this cache did since it was built. Costs less than a microsecond.
    pub fn stats(&self) -> CacheStats {
        let shared = self.shared();
        let mut stats = shared.counters.with(&shared.store.stats());
        let bulkhead = &shared.bulkhead;
        (stats.loads_running, stats.loads_queued) = (bulkhead.running(), bulkhead.queued());
        stats.loads_rejected = bulkhead.rejected();
        stats.hook_panics += shared.listeners.as_ref().map_or(0, |listeners| listeners.panics());
        stats
    }

    /// The `n` keys of all namespaces that are asked for most (at most
    /// [`HEAVY_SLOTS`](crate::top::HEAVY_SLOTS)) and the `n` with the largest values (at most
    /// [`LARGE_SLOTS`](crate::top::LARGE_SLOTS)), since the cache was built or
    /// [reset](Self::reset_top_keys). By this process: what others ask Redis for is not seen.
    ///
    /// Hits are estimates with a bound on their error. Sizes are those of values that this process
    /// wrote or read; a store in memory is asked again, so what has left it is not listed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`track_top_keys`](CacheBuilder::track_top_keys).
    pub fn top_keys(&self, n: usize) -> Result<TopKeys, Error> {
        let shared = self.shared();
        let now = shared.clock.now();
        let (observed, top) = shared.counted(self.counted_keys())?;
        Ok(top.first(n, now, |key| observed.size_now(key, now)))
    }

    /// Begins anew with what [`top_keys`](Self::top_keys) counts.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn reset_top_keys(&self) -> Result<(), Error> {
        let (_, top) = self.shared().counted(self.counted_keys())?;
        top.reset(self.shared().clock.now());
        Ok(())
    }

    fn counted_keys(&self) -> Result<(&Observed, &Top), Error> {
        let observed = self.shared().observed.as_deref();
        observed.and_then(|observed| Some((observed, observed.top()?))).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "top keys are not counted: see track_top_keys")
        })
    }

    /// Writes what the memory holds to the snapshot file that the builder named; how many entries.
    /// The work is done on a thread for blocking work, a slice at a time: others hardly wait.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) without a snapshot file;
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the file cannot be written: the
    /// one that was there stays.
    pub async fn save_snapshot(&self) -> Result<u64, Error> {
        self.shared().counted(self.shared().store.save_snapshot().await)
    }

    /// Whether the store works. A cache whose store does not still loads. What a memory tier does,
    /// [`CacheStats::tier`] says.
    pub fn health(&self) -> Health {
        self.shared().store.health()
    }

    /// The same cache at the level of entries, for layers that keep objects with a binary form of
    /// their own.
    pub fn entries(&self) -> Entries {
        Entries::new(self.clone())
    }

    /// The clock that this cache goes by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared().clock
    }

    /// For this project's own tests: how many loads and lookups have not ended.
    #[cfg(any(test, feature = "__shuttle"))]
    #[doc(hidden)]
    pub fn loads_under_way(&self) -> usize {
        self.shared().flights.len() + self.shared().lookups.len()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    fn key<'a>(&'a self, name: &'a str) -> Result<Key<'a>, Error> {
        self.shared().counted(Key::new(&self.inner.namespace, name))
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("namespace", &self.inner.namespace)
            .field("store", &self.shared().store)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Looks into memory and counts what it finds; a lookup that has to go on is not counted yet.
    fn look<T: Cacheable>(
        &self,
        key: &Key<'_>,
        reading: Option<&Reading>,
    ) -> (Option<Hit<T>>, Peek) {
        let (mut found, mut undecoded, mut bytes, mut read) = (None, None, None, None);
        let mut fresh = Guarantee::Fresh;
        let peek = self.peek(key, &mut |entry, guarantee| {
            if !guarantee.is_fresh() || entry.meta().negative {
                return;
            }
            fresh = guarantee;
            // Code of the type does not run under a lock: it may be slow, or use the cache.
            found = entry.decoded::<T>();
            if found.is_none() {
                undecoded = Some(entry.clone());
            }
            if self.listeners.is_some() {
                bytes = entry.known_bytes();
            }
            if reading.is_some() {
                read = Some(entry.clone());
            }
        });
        if let Some(entry) = undecoded {
            found = self.decode(key, &entry);
        }
        match (reading, read) {
            (Some(reading), Some(entry)) => reading.entry(key.namespace(), key.name(), &entry),
            (Some(reading), None) if !peek.asks() => reading.key(key.namespace(), key.name()),
            _ => {}
        }
        let hit = found.map(|value| Hit::new(value, fresh, Source::Hit));
        match (&hit, peek) {
            (Some(_), _) => self.hit(key, bytes),
            (None, peek) if peek.asks() => {}
            (None, _) => self.miss(key),
        }
        (hit, peek)
    }

    /// The object of an entry that has none of this type yet.
    #[cold]
    fn decode<T: Cacheable>(&self, key: &Key<'_>, entry: &Entry) -> Option<Arc<T>> {
        let decoded = self.codecs.object::<T>(entry);
        decoded.inspect_err(|error| self.note("decode", key, error)).ok()
    }

    /// Asks the store and counts the lookup.
    async fn read<T: Cacheable>(
        &self,
        key: &Key<'_>,
        mut reading: Option<Reading>,
    ) -> Result<Option<Hit<T>>, Error> {
        self.settle(&mut reading, key.namespace()).await;
        let found = self.store.read(std::slice::from_ref(key), &self.cx()).await;
        let found = self.counted(found).map(|mut found| found.pop().flatten());
        let known = found.as_ref().ok().and_then(Option::as_ref);
        if let (Some(reading), Err(_)) = (&reading, &found) {
            reading.spoil(Unknown::NoCounter);
        }
        let hit = self.judge(key, known, reading.as_ref());
        found.map(|_| hit)
    }

    /// Turns what a store answered into a hit or a miss, and counts it.
    fn judge<T: Cacheable>(
        &self,
        key: &Key<'_>,
        found: Option<&(Entry, Guarantee)>,
        reading: Option<&Reading>,
    ) -> Option<Hit<T>> {
        match (reading, found) {
            (Some(reading), Some((entry, guarantee))) if guarantee.is_fresh() => {
                reading.entry(key.namespace(), key.name(), entry);
            }
            // What is not fresh is as if it were not there.
            (Some(reading), _) => reading.key(key.namespace(), key.name()),
            (None, _) => {}
        }
        let hit = match found {
            Some((entry, guarantee)) if guarantee.is_fresh() && !entry.meta().negative => {
                match self.codecs.object(entry) {
                    Ok(value) => Some(Hit::new(value, *guarantee, Source::Hit)),
                    Err(error) => {
                        self.note("decode", key, &error);
                        None
                    }
                }
            }
            _ => None,
        };
        match hit {
            Some(_) => self.hit(key, found.and_then(|(entry, _)| entry.known_bytes())),
            None => self.miss(key),
        }
        hit
    }
}
