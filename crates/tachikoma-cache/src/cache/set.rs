//! `set` and `set_if_absent` as a caller writes them.

use std::future::IntoFuture;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Cache;
use crate::codec::{Cacheable, TypeOps};
use crate::dependencies::Dependencies;
use crate::entry::Object;
use crate::error::{Error, ErrorKind};
use crate::expiry::{Life, Ttl};
use crate::invalidation::{Group, Marks};
use crate::store::{When, Written};

/// A value to store; `.await` it. Made by [`Cache::set`].
#[must_use = "it does nothing until it is awaited"]
pub struct Set<'a, T> {
    cache: &'a Cache,
    key: &'a str,
    value: T,
    ttl: Ttl,
    tags: Result<Vec<Group>, Error>,
}

impl<'a, T> Set<'a, T> {
    pub(super) fn new(cache: &'a Cache, key: &'a str, value: T, ttl: Ttl) -> Self {
        Self { cache, key, value, ttl, tags: Ok(Vec::new()) }
    }

    /// The tags of the value: [`Cache::invalidate_tag`] of any of them takes it away.
    pub fn tags<S: AsRef<str>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.tags = Group::tags(tags);
        self
    }
}

impl<'a, T: Cacheable> IntoFuture for Set<'a, T> {
    type Output = Result<(), Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { write(self, When::Always).await.map(|_| ()) })
    }
}

/// A value to store if the key has none; `.await` it. Made by [`Cache::set_if_absent`].
#[must_use = "it does nothing until it is awaited"]
pub struct SetIfAbsent<'a, T>(Set<'a, T>);

impl<'a, T> SetIfAbsent<'a, T> {
    pub(super) fn new(set: Set<'a, T>) -> Self {
        Self(set)
    }

    /// As [`Set::tags`].
    pub fn tags<S: AsRef<str>>(self, tags: impl IntoIterator<Item = S>) -> Self {
        Self(self.0.tags(tags))
    }
}

impl<'a, T: Cacheable> IntoFuture for SetIfAbsent<'a, T> {
    type Output = Result<bool, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(write(self.0, When::Absent).await? == Written::Stored) })
    }
}

async fn write<T: Cacheable>(set: Set<'_, T>, when: When<'_>) -> Result<Written, Error> {
    let Set { cache, key, value, ttl, tags } = set;
    let object = Arc::new(value) as Object;
    let tags = cache.shared().counted(tags)?;
    let life = cache.shared().life(ttl);
    let ops = TypeOps::by::<T>(&cache.shared().codecs);
    cache.put(key, object, ops, life, &tags, when).await
}

impl Cache {
    /// Stores an object. Loads of the key that are under way are no longer joined: what they read
    /// is older.
    pub(super) async fn put(
        &self,
        key: &str,
        object: Object,
        ops: TypeOps,
        life: impl Into<Life>,
        tags: &[Group],
        when: When<'_>,
    ) -> Result<Written, Error> {
        self.put_made(key, object, ops, life, tags, &Dependencies::default(), when).await
    }

    /// The same with what the object was made of.
    #[expect(clippy::too_many_arguments, reason = "they are the parts of one write")]
    pub(super) async fn put_made(
        &self,
        key: &str,
        object: Object,
        ops: TypeOps,
        life: impl Into<Life>,
        tags: &[Group],
        read: &Dependencies,
        when: When<'_>,
    ) -> Result<Written, Error> {
        let key = self.key(key)?;
        let shared = self.shared();
        let cx = shared.cx();
        let marks = match when {
            _ if tags.is_empty() => Marks::default(),
            When::Leased(lease) => Marks::new(tags, lease.groups),
            When::Always | When::Absent => {
                let groups = shared.store.groups();
                let at = shared.counted(groups.snapshot(key.namespace(), &cx).await)?;
                Marks::new(tags, at)
            }
        };
        let marks = marks.and(read.parts(), key.namespace());
        let entry = shared.counted(shared.entry(life, ops, object, marks, cx.now))?;
        let written = shared.store.write(&key, entry, when, &cx).await;
        if matches!(when, When::Always)
            && let Err(error) = &written
            && matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Unencodable)
        {
            // The value that is there is an older one, and nobody wants that any more.
            self.remove_keys(std::slice::from_ref(&key)).await?;
        }
        let written = shared.counted(written)?;
        if written == Written::Stored && !matches!(when, When::Leased(_)) {
            shared.flights.detach(&key);
        }
        Ok(written)
    }
}
