//! What a loader of `get_or_load_with` is given, and what it may say of its value.

use std::fmt;
use std::sync::Arc;

use crate::entry::Object;
use crate::error::Error;
use crate::expiry::Ttl;
use crate::invalidation::Group;
use crate::load::outcome::{Made, Product};

/// What a loader is given by [`Cache::get_or_load_with`](crate::Cache::get_or_load_with).
pub struct LoadCx<T> {
    stale: Option<Arc<T>>,
}

impl<T: Send + Sync + 'static> LoadCx<T> {
    pub(super) fn new(held: Option<Object>) -> Self {
        Self { stale: held.and_then(|object| object.downcast().ok()) }
    }

    /// The value that this load is to replace, if the store still has it: to ask the source only
    /// for what has changed, and answer [`Loaded::not_modified`] if nothing has. It is kept for as
    /// long after its TTL as the longer of the two stale windows of its load says
    /// ([`LoadOptions`](crate::LoadOptions)).
    pub fn stale(&self) -> Option<&Arc<T>> {
        self.stale.as_ref()
    }
}

impl<T: fmt::Debug> fmt::Debug for LoadCx<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadCx").field("stale", &self.stale).finish()
    }
}

/// What a loader says of its value: the value itself, and how it is to be kept.
#[derive(Debug)]
#[must_use = "a loader returns it"]
pub struct Loaded<T> {
    /// `None`: the one at hand.
    value: Option<T>,
    ttl: Option<Ttl>,
    tags: Result<Vec<Group>, Error>,
    store: bool,
}

impl<T> Loaded<T> {
    /// A value.
    pub fn new(value: T) -> Self {
        Self { value: Some(value), ttl: None, tags: Ok(Vec::new()), store: true }
    }

    /// The value at hand ([`LoadCx::stale`]) is still what the source has: it begins a new life,
    /// with the tags that it had. If there is none, the load fails with
    /// [`LoadError::NotModified`](crate::LoadError::NotModified).
    pub fn not_modified() -> Self {
        Self { value: None, ttl: None, tags: Ok(Vec::new()), store: true }
    }

    /// How long this value is fresh. Default: what the load was asked for with.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// Tags that only the value tells, beside those of the load. An invalidation of any of them
    /// while it was being loaded counts.
    pub fn tags<S: AsRef<str>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.tags = Group::tags(tags);
        self
    }

    /// It goes to those who wait for it and is not stored; an older value of the key goes.
    pub fn do_not_store(mut self) -> Self {
        self.store = false;
        self
    }
}

impl<T: Send + Sync + 'static> Loaded<T> {
    pub(super) fn erased(self) -> Product {
        let Self { value, ttl, tags, store } = self;
        let made = value.map_or(Made::NotModified, |value| Made::Value(Arc::new(value)));
        Product { ttl, tags, store, ..Product::of(made) }
    }
}
