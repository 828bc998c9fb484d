//! Guards of keys whose source is being written.
//!
//! Decides what becomes of a guard that its holder drops, and of one that the store could not be
//! told of: its keys are removed, now or as soon as that can be. What holds loads back is the
//! store's business; the protocol is in `docs/src/consistency.md` and is searched by the model
//! `guard` of `tachikoma-models`.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Cache;
use crate::codec::{Cacheable, TypeOps};
use crate::entry::{Entry, Object};
use crate::error::{Error, ErrorKind};
use crate::expiry::Ttl;
use crate::invalidation::{Group, Marks, Snapshot};
use crate::key::Key;
use crate::load::batch::AT_ONCE;
use crate::store::{Guard, Written};

/// The default of [`BeginGuard::at_most`].
pub const DEFAULT_GUARD_LIFE: Duration = Duration::from_secs(30);

/// What [`BeginGuard::at_most`] may be.
const LIVES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// A guard to begin; `.await` it. Made by [`Cache::write_guard`].
#[must_use = "it does nothing until it is awaited"]
pub struct BeginGuard<'a> {
    cache: &'a Cache,
    names: Vec<String>,
    life: Duration,
}

impl BeginGuard<'_> {
    /// When the guard ends by itself, so that a process that dies keeps no key out of the cache:
    /// longer than the write of the source can take. A guard whose time has passed removes its keys
    /// when it ends, and stores nothing. Default: 30 s; allowed are 1 s to 10 min.
    pub fn at_most(mut self, life: Duration) -> Self {
        self.life = life;
        self
    }
}

impl<'a> IntoFuture for BeginGuard<'a> {
    type Output = Result<WriteGuard, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, names, life } = self;
        Box::pin(async move { cache.shared().counted(begin(cache, names, life).await) })
    }
}

async fn begin(cache: &Cache, mut names: Vec<String>, life: Duration) -> Result<WriteGuard, Error> {
    names.sort_unstable();
    names.dedup();
    if !(1..=AT_ONCE).contains(&names.len()) {
        let text = format!("a guard of {} keys; allowed are 1 to {AT_ONCE}", names.len());
        return Err(Error::new(ErrorKind::InvalidKey, text));
    }
    if !LIVES.contains(&life) {
        let text = format!("at_most is {life:?}; allowed are {LIVES:?}");
        return Err(Error::new(ErrorKind::Config, text));
    }
    let keys = cache.keys_of(&names)?;
    let shared = cache.shared();
    shared.flights.detach_all(&keys);
    let begun = shared.store.guard(&keys, life, &shared.cx()).await;
    shared.flights.detach_all(&keys);
    let (guard, is_held) = match begun {
        Ok(guard) => (guard, true),
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
        Err(error) => {
            for key in &keys {
                shared.note("guard", key, &error);
            }
            let groups = Snapshot { epoch: 0, counter: 0 };
            (Guard { token: rand::random(), groups }, false)
        }
    };
    drop(keys);
    let (cache, values) = (cache.clone(), BTreeMap::new());
    Ok(WriteGuard { cache, names, guard, is_held, values, is_over: false })
}

/// Keys whose source is being written: [`Cache::write_guard`].
///
/// Dropped without [`commit`](Self::commit) it removes its keys, as soon as the store can be
/// reached.
#[must_use = "it ends when it is dropped"]
#[derive(Debug)]
pub struct WriteGuard {
    cache: Cache,
    /// In order, each once.
    names: Vec<String>,
    guard: Guard,
    is_held: bool,
    /// What is to be stored at the end.
    values: BTreeMap<String, Entry>,
    is_over: bool,
}

impl WriteGuard {
    /// Whether the store knows of it. If it could not be reached, loads of other processes may
    /// store meanwhile; the end of the guard removes that too, and says `Pending` while it cannot.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// What the source has for this key after the write: stored by [`commit`](Self::commit), so
    /// that nobody needs to load it. If another guard of the key overlapped with this one, or the
    /// key was removed or written meanwhile, nobody can tell whose value is newer: then the key is
    /// removed instead.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] if it is no key of this guard; [`ErrorKind::InvalidTtl`].
    pub fn publish<T: Cacheable>(
        &mut self,
        key: &str,
        value: T,
        ttl: impl Into<Ttl>,
    ) -> Result<(), Error> {
        self.publish_tagged(key, value, ttl, [] as [&str; 0])
    }

    /// [`publish`](Self::publish) with tags: as [`Set::tags`](super::Set::tags).
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and [`ErrorKind::InvalidTag`].
    pub fn publish_tagged<T: Cacheable, S: AsRef<str>>(
        &mut self,
        key: &str,
        value: T,
        ttl: impl Into<Ttl>,
        tags: impl IntoIterator<Item = S>,
    ) -> Result<(), Error> {
        let shared = self.cache.shared();
        if self.names.binary_search_by(|name| name.as_str().cmp(key)).is_err() {
            let text = "it is none of the keys of this guard";
            return shared.counted(Err(Error::new(ErrorKind::InvalidKey, text)));
        }
        let marks = Marks::new(&shared.counted(Group::tags(tags))?, self.guard.groups);
        let (life, ops) = (shared.life(ttl.into()), TypeOps::by::<T>(&shared.codecs));
        let object = Arc::new(value) as Object;
        let entry = shared.counted(shared.entry(life, ops, object, marks, shared.clock.now()))?;
        self.values.insert(key.to_owned(), entry);
        Ok(())
    }

    /// Ends the guard after the source was written: stores what was
    /// [published](Self::publish) and removes the other keys. How many values were stored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Pending`] as [`delete`](Cache::delete): all keys of the guard are removed as
    /// soon as the store can be reached.
    pub async fn commit(mut self) -> Result<u64, Error> {
        let cache = self.cache.clone();
        let shared = cache.shared();
        let values = std::mem::take(&mut self.values);
        let keys = cache.keys_of(&self.names)?;
        if !self.is_held {
            let removed = cache.remove_keys(&keys).await.map(|_| 0);
            self.is_over = true;
            return removed;
        }
        let ends = keys.iter().map(|key| (key.clone(), values.get(key.name()).cloned()));
        let ends: Vec<(Key<'_>, Option<Entry>)> = ends.collect();
        shared.flights.detach_all(&keys);
        let written = shared.store.end_guard(&self.guard, &ends, &shared.cx()).await;
        shared.flights.detach_all(&keys);
        self.is_over = true;
        let stored = |written: Vec<Written>| {
            written.iter().filter(|written| **written == Written::Stored).count() as u64
        };
        shared.counted(written.map(stored))
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let shared = self.cache.shared();
        if let Ok(keys) = self.cache.keys_of(&self.names) {
            shared.flights.detach_all(&keys);
            shared.store.abandon_guard(&self.guard, &keys);
            shared.flights.detach_all(&keys);
        }
    }
}

impl Cache {
    /// Guards keys while their source is written: `cache.write_guard(["user:7"]).await?`. Their
    /// values are removed, and until the guard ends nothing that a load brings is stored: who asks
    /// gets what the source has at that moment, before the write and after it.
    ///
    /// `delete` after the write leaves a moment in which the source has the new value and the cache
    /// shows the old one; with a guard there is none (in a memory tier: none after its
    /// `freshness`). It costs loads while it is open. Direct writes (`set`) are not held back; the
    /// end of the guard removes them.
    ///
    /// ```
    /// # use {std::time::Duration, tachikoma_cache::Cache};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tachikoma_cache::Error> {
    /// # let cache = Cache::memory().build()?;
    /// let mut guard = cache.write_guard(["user:7", "users"]).await?;
    /// // … write the database and commit …
    /// guard.publish("user:7", "Motoko".to_owned(), Duration::from_secs(60))?;
    /// assert_eq!(guard.commit().await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] of the names, of none or of more than 1,000 of them;
    /// [`ErrorKind::Config`] of the time; [`ErrorKind::Unsupported`] by a store of the application
    /// that has no guards. That the store is away is no error:
    /// [`WriteGuard::is_held`] is false, and the end of the guard says `Pending`.
    pub fn write_guard<S: Into<String>>(
        &self,
        keys: impl IntoIterator<Item = S>,
    ) -> BeginGuard<'_> {
        let names = keys.into_iter().map(Into::into).collect();
        BeginGuard { cache: self, names, life: DEFAULT_GUARD_LIFE }
    }
}
