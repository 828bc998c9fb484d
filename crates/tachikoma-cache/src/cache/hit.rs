//! A value as a caller gets it, with what is known of it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::store::Guarantee;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// It was in the cache.
    Hit,
    /// It was in the cache, but past its time.
    Stale,
    /// This caller's loader made it.
    Loaded,
    /// Another caller's load, under way already, made it.
    Coalesced,
}

/// A value from a cache. Dereferences to `T`; a clone shares it.
pub struct Hit<T> {
    value: Arc<T>,
    guarantee: Guarantee,
    source: Source,
}

impl<T> Hit<T> {
    pub(crate) fn new(value: Arc<T>, guarantee: Guarantee, source: Source) -> Self {
        Self { value, guarantee, source }
    }

    /// The shared value.
    pub fn into_arc(self) -> Arc<T> {
        self.value
    }

    /// The shared value.
    pub fn as_arc(&self) -> &Arc<T> {
        &self.value
    }

    /// What its freshness is known to be.
    pub fn guarantee(&self) -> Guarantee {
        self.guarantee
    }

    /// Where it came from.
    pub fn source(&self) -> Source {
        self.source
    }
}

impl<T: Clone> Hit<T> {
    /// The value itself, copied only if others share it.
    pub fn into_inner(self) -> T {
        Arc::unwrap_or_clone(self.value)
    }
}

impl<T> Clone for Hit<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), ..*self }
    }
}

impl<T> Deref for Hit<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> AsRef<T> for Hit<T> {
    fn as_ref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq<T> for Hit<T> {
    fn eq(&self, other: &T) -> bool {
        *self.value == *other
    }
}

impl<T: fmt::Debug> fmt::Debug for Hit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("value", &self.value)
            .field("guarantee", &self.guarantee)
            .field("source", &self.source)
            .finish()
    }
}
