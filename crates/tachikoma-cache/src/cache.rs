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
mod hit;
mod invalidate;
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

use std::fmt;
use std::future::Future;
use std::sync::Arc;

pub use builder::{CacheBuilder, DEFAULT_LOAD_TIMEOUT, DEFAULT_STORE_TIMEOUT, DEFAULT_TTL};
#[cfg(feature = "macros")]
pub(crate) use config::duration_millis;
pub use config::{CacheConfig, parse_bytes, parse_duration};
pub use entries::{Entries, EntryLease};
pub use get_or_load::{Load, LoadFuture, NoTags};
pub use hit::{Hit, Source};
#[cfg(feature = "memory")]
pub use memory::{MemoryBuilder, MemoryCache};
#[cfg(feature = "redis")]
pub use redis::RedisCache;
pub use set::{Set, SetIfAbsent};

use crate::clock::Clock;
use crate::codec::{Cacheable, json_object};
use crate::entry::Entry;
use crate::error::Error;
use crate::expiry::{KeyTtl, Ttl};
use crate::key::{Key, Namespace};
use crate::shared::Shared;
use crate::stats::CacheStats;
use crate::store::{Cx, Guarantee, Health, Peek, Store};

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
        match shared.look::<T>(&key) {
            (Some(hit), _) => Ok(Some(hit)),
            (None, Peek::Ask) => shared.read(&key, &shared.cx()).await,
            (None, _) => Ok(None),
        }
    }

    /// The value of a key if that needs no waiting: from memory only. `None` may also mean that the
    /// store would have to be asked.
    pub fn try_get<T: Cacheable>(&self, key: &str) -> Option<Hit<T>> {
        self.shared().look(&self.key(key).ok()?).0
    }

    /// The value of a key, loaded if it is not there: `cache.get_or_load(key, loader).await`, with
    /// options in between ([`Load`]).
    ///
    /// One load runs per key and process, in a task of its own; who comes meanwhile waits for it.
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

    /// What is left of the key's life. Not counted as a lookup.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn ttl(&self, key: &str) -> Result<KeyTtl, Error> {
        let key = self.key(key)?;
        let shared = self.shared();
        let mut ttl = KeyTtl::NoKey;
        let now = shared.clock.now();
        let mut see = |entry: &Entry, guarantee| {
            if guarantee == Guarantee::Fresh {
                ttl = KeyTtl::of(entry.meta().soft_expiry, now);
            }
        };
        if shared.peek(&key, &mut see) == Peek::Ask {
            let cx = shared.cx();
            let found = shared.counted(shared.store.read(&[key], &cx).await)?.pop().flatten();
            if let Some((entry, guarantee)) = found {
                see(&entry, guarantee);
            }
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
        let expiry = crate::expiry::expiry(ttl.into(), shared.default_ttl, cx.now)?;
        shared.counted(shared.store.touch(&key, expiry, &cx).await)
    }

    /// What this cache did since it was built. Costs less than a microsecond.
    pub fn stats(&self) -> CacheStats {
        self.shared().counters.with(self.shared().store.stats())
    }

    /// Whether the store works. A cache whose store does not still loads.
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
    fn look<T: Cacheable>(&self, key: &Key<'_>) -> (Option<Hit<T>>, Peek) {
        let mut found = None;
        let peek = self.peek(key, &mut |entry, guarantee| {
            if guarantee == Guarantee::Fresh {
                found = Some(json_object::<T>(entry));
            }
        });
        let hit = match found {
            Some(Ok(value)) => Some(Hit::new(value, Guarantee::Fresh, Source::Hit)),
            Some(Err(error)) => {
                self.note("decode", key, &error);
                None
            }
            None => None,
        };
        match (&hit, peek) {
            (Some(_), _) => self.counters.hits.add_one(),
            (None, Peek::Ask) => {}
            (None, _) => self.counters.misses.add_one(),
        }
        (hit, peek)
    }

    /// Asks the store and counts the lookup.
    async fn read<T: Cacheable>(&self, key: &Key<'_>, cx: &Cx) -> Result<Option<Hit<T>>, Error> {
        let found = self.store.read(std::slice::from_ref(key), cx).await;
        let found = self.counted(found).map(|mut found| found.pop().flatten());
        let hit = self.judge(key, found.as_ref().ok().and_then(Option::as_ref));
        found.map(|_| hit)
    }

    /// Turns what a store answered into a hit or a miss, and counts it.
    fn judge<T: Cacheable>(
        &self,
        key: &Key<'_>,
        found: Option<&(Entry, Guarantee)>,
    ) -> Option<Hit<T>> {
        let hit = match found {
            Some((entry, Guarantee::Fresh)) => match json_object(entry) {
                Ok(value) => Some(Hit::new(value, Guarantee::Fresh, Source::Hit)),
                Err(error) => {
                    self.note("decode", key, &error);
                    None
                }
            },
            _ => None,
        };
        match hit {
            Some(_) => self.counters.hits.add_one(),
            None => self.counters.misses.add_one(),
        }
        hit
    }
}
