//! Several keys in one call: `get_many`, `set_many`, `delete_many`.
//!
//! Decides how a list is divided and what one bad item does to the others. A server is asked once
//! for each [`AT_ONCE`] keys, so that neither it nor its other clients wait for one huge command.

use std::future::IntoFuture;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Cache, Hit};
use crate::clock::Deadline;
use crate::codec::{Cacheable, TypeOps};
use crate::dependencies::Unknown;
use crate::entry::Object;
use crate::error::{BatchError, Error, ErrorKind};
use crate::expiry::{Life, Ttl};
use crate::invalidation::{Group, Marks};
use crate::key::Key;
use crate::load::batch::AT_ONCE;
use crate::store::{Cx, Removed, When, Write, Written};

/// Values to store; `.await` it. Made by [`Cache::set_many`].
#[must_use = "it does nothing until it is awaited"]
pub struct SetMany<'a, T> {
    cache: &'a Cache,
    items: Vec<(String, Arc<T>)>,
    ttl: Ttl,
    tags: Result<Vec<Group>, Error>,
}

impl<T> SetMany<'_, T> {
    /// The tags of all these values: as [`Set::tags`](super::Set::tags).
    pub fn tags<S: AsRef<str>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.tags = Group::tags(tags);
        self
    }
}

impl<'a, T: Cacheable> IntoFuture for SetMany<'a, T> {
    type Output = Result<(), BatchError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, items, ttl, tags } = self;
        let items = items.into_iter().map(|(key, value)| (key, value as Object)).collect();
        let ops = TypeOps::by::<T>(&cache.shared().codecs);
        let life = cache.shared().life(ttl);
        Box::pin(cache.put_many(items, ops, life, tags))
    }
}

impl Cache {
    /// The values of these keys, in their order: each as [`get`](Self::get) gives it, and counted
    /// so. One round trip to a server for each thousand keys (two if entries have tags).
    ///
    /// A key may come twice; no keys give no values, without asking the store.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`], before anything is asked; its message has the index. Otherwise as
    /// [`get`](Self::get): without all answers there is none.
    pub async fn get_many<T: Cacheable>(
        &self,
        keys: &[impl AsRef<str>],
    ) -> Result<Vec<Option<Hit<T>>>, Error> {
        let shared = self.shared();
        let keys = self.keys_of(keys)?;
        let mut reading = shared.reading(self.namespace_ref());
        let mut asked = Vec::new();
        let mut hits: Vec<Option<Hit<T>>> = Vec::with_capacity(keys.len());
        for key in &keys {
            let (hit, peek) = shared.look(key, reading.as_ref());
            if hit.is_none() && peek.asks() {
                asked.push((hits.len(), key));
            }
            hits.push(hit);
        }
        let mut failure = None;
        if !asked.is_empty() {
            shared.settle(&mut reading, self.namespace_ref()).await;
        }
        for chunk in asked.chunks(AT_ONCE) {
            let wanted: Vec<_> = chunk.iter().map(|(_, key)| (*key).clone()).collect();
            let found = match &failure {
                None => shared.store.read(&wanted, &shared.cx()).await,
                Some(_) => Ok(Vec::new()),
            };
            let found = found.unwrap_or_else(|error| {
                failure = Some(error);
                Vec::new()
            });
            let mut found = found.into_iter();
            for (place, key) in chunk {
                // Counted also if the store failed: then it is a miss.
                let hit = shared.judge(key, found.next().flatten().as_ref(), reading.as_ref());
                if let Some(slot) = hits.get_mut(*place) {
                    *slot = hit;
                }
            }
        }
        match failure {
            Some(error) => {
                if let Some(reading) = reading {
                    reading.spoil(Unknown::NoCounter);
                }
                shared.counted(Err(error))
            }
            None => Ok(hits),
        }
    }

    /// Stores values with one time to live: `cache.set_many(items, ttl).await`, maybe with tags
    /// ([`SetMany`]). Each is stored as [`set`](Self::set) would, in the order of the list, so of a
    /// key that comes twice the last value counts. One round trip to a server for each thousand
    /// (one more with tags).
    ///
    /// ```
    /// # use {std::time::Duration, tachikoma_cache::Cache};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tachikoma_cache::Error> {
    /// let cache = Cache::memory().build()?;
    /// let crew = [("user:1", "Motoko".to_owned()), ("user:2", "Batou".to_owned())];
    /// cache.set_many(crew, Duration::from_secs(60)).tags(["users"]).await?;
    /// let found = cache.get_many::<String>(&["user:2", "user:3"]).await?;
    /// assert_eq!(found[0].as_deref().map(String::as_str), Some("Batou"));
    /// assert!(found[1].is_none());
    /// assert_eq!(cache.delete_many(&["user:1", "user:2", "user:3"]).await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`BatchError`] names each item that is not in, by its index, and why: a key or value that is
    /// not allowed spoils none of the others. It turns into an [`Error`] with `?`. As with `set`, a
    /// value that cannot be stored still takes the older one away.
    pub fn set_many<K: Into<String>, T: Cacheable>(
        &self,
        items: impl IntoIterator<Item = (K, T)>,
        ttl: impl Into<Ttl>,
    ) -> SetMany<'_, T> {
        let items = items.into_iter().map(|(key, value)| (key.into(), Arc::new(value))).collect();
        SetMany { cache: self, items, ttl: ttl.into(), tags: Ok(Vec::new()) }
    }

    /// Removes these keys; how many had a value. A key that comes twice counts once. One round
    /// trip to a server for each thousand.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`], before anything is removed; its message has the index.
    /// [`ErrorKind::Pending`] as [`delete`](Self::delete): what could not be removed is kept and
    /// retried, all of it.
    pub async fn delete_many(&self, keys: &[impl AsRef<str>]) -> Result<u64, Error> {
        Ok(self.remove_many(self.keys_of(keys)?).await?.total())
    }

    /// The keys of these names, or which of them is none.
    pub(super) fn keys_of<'a>(
        &'a self,
        names: &'a [impl AsRef<str>],
    ) -> Result<Vec<Key<'a>>, Error> {
        let keys = names.iter().enumerate().map(|(index, name)| {
            self.key(name.as_ref()).map_err(|error| error.at(index, names.len()))
        });
        keys.collect()
    }

    pub(super) async fn remove_many(&self, mut keys: Vec<Key<'_>>) -> Result<Removed, Error> {
        keys.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        keys.dedup_by(|a, b| a.name() == b.name());
        let mut removed = Removed::default();
        let mut failure: Option<Error> = None;
        let shared = self.shared();
        shared.flights.detach_all(&keys);
        // No keys: zero in the tiers there are, and the store knows which.
        let none = keys.is_empty().then_some(&keys[..]);
        for chunk in none.into_iter().chain(keys.chunks(AT_ONCE)) {
            let cx = match &failure {
                // A store that is away is told of the rest, so that it can keep it, but not waited
                // for again.
                Some(error) if error.kind().is_transient() => {
                    Cx { deadline: Deadline::after(std::time::Duration::ZERO), ..shared.cx() }
                }
                _ => shared.cx(),
            };
            match shared.store.remove(chunk, &cx).await {
                Ok(more) => removed = removed.and(more),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        shared.flights.detach_all(&keys);
        failure.map_or(Ok(removed), |error| shared.counted(Err(error)))
    }

    /// Stores objects, each as [`put`](Self::put) would.
    pub(super) async fn put_many(
        &self,
        items: Vec<(String, Object)>,
        ops: TypeOps,
        life: impl Into<Life>,
        tags: Result<Vec<Group>, Error>,
    ) -> Result<(), BatchError> {
        let (life, total) = (life.into(), items.len());
        let mut failed: Vec<(usize, Error)> = Vec::new();
        let mut items = items.into_iter().enumerate();
        let mut rest = match self.marks_of(tags).await {
            Ok(marks) => {
                let mut stopped = None;
                while stopped.is_none() {
                    let chunk: Vec<_> = items.by_ref().take(AT_ONCE).collect();
                    if chunk.is_empty() {
                        break;
                    }
                    stopped = self.put_chunk(chunk, ops, life, &marks, &mut failed).await;
                }
                stopped
            }
            Err(error) => Some(error),
        };
        // A store that is away is not waited for once more for each thousand.
        if let Some(error) = rest.take() {
            failed.extend(items.map(|(index, _)| (index, error.again())));
        }
        for (_, error) in &failed {
            self.shared().counters.errors.count(error.kind());
        }
        BatchError::check(total, failed)
    }

    async fn marks_of(&self, tags: Result<Vec<Group>, Error>) -> Result<Marks, Error> {
        let tags = tags?;
        if tags.is_empty() {
            return Ok(Marks::default());
        }
        let shared = self.shared();
        let at = shared.store.groups().snapshot(self.namespace_ref(), &shared.cx()).await?;
        Ok(Marks::new(&tags, at))
    }

    /// Stores some objects; why the next ones need not be tried.
    async fn put_chunk(
        &self,
        items: Vec<(usize, (String, Object))>,
        ops: TypeOps,
        life: Life,
        marks: &Marks,
        failed: &mut Vec<(usize, Error)>,
    ) -> Option<Error> {
        let shared = self.shared();
        let cx = shared.cx();
        let (mut places, mut writes) = (Vec::new(), Vec::new());
        for (index, (name, object)) in items {
            let entry = shared.entry(life, ops, object, marks.clone(), cx.now);
            match Key::new(self.namespace_ref(), name).and_then(|key| Ok((key, entry?))) {
                Ok((key, entry)) => {
                    places.push(index);
                    writes.push(Write { key, entry, when: When::Always });
                }
                Err(error) => failed.push((index, error)),
            }
        }
        let written = match shared.store.write_many(&writes, &cx).await {
            Ok(written) => written,
            Err(error) => {
                failed.extend(places.into_iter().map(|index| (index, error.again())));
                return Some(error);
            }
        };
        let mut outdated = Vec::new();
        for ((index, one), written) in places.into_iter().zip(&writes).zip(written) {
            match written {
                Ok(Written::Stored | Written::Refused) => shared.flights.detach(&one.key),
                Err(error) => {
                    // As in `put`: nobody wants the older value any more.
                    if matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Unencodable) {
                        outdated.push(one.key.clone());
                    }
                    failed.push((index, error));
                }
            }
        }
        if !outdated.is_empty()
            && let Err(error) = self.remove_many(outdated).await
        {
            return Some(error);
        }
        None
    }
}
