//! A value as a caller gets it, with what is known of it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::store::{Guarantee, StaleReason};

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// It was in the cache.
    Hit,
    /// It was in the cache and is stale; [`Hit::guarantee`] says why it is served.
    Stale,
    /// This caller's loader made it.
    Loaded,
    /// Another caller's load, under way already in this process or another one, made it.
    Coalesced,
}

/// A value from a cache. Dereferences to `T`; a clone shares it.
pub struct Hit<T> {
    value: Arc<T>,
    /// In a box, which only a stale one has: a fresh hit is three words.
    stale: Option<Box<(StaleReason, Duration)>>,
    /// Of one from a memory tier, how many milliseconds it may be behind; else zero.
    within: u32,
    source: Source,
}

impl<T> Hit<T> {
    pub(crate) fn new(value: Arc<T>, guarantee: Guarantee, source: Source) -> Self {
        let (stale, within) = match guarantee {
            Guarantee::Fresh => (None, 0),
            Guarantee::Within(within) => {
                (None, u32::try_from(within.as_millis()).unwrap_or(u32::MAX))
            }
            Guarantee::Stale { reason, age } => (Some(Box::new((reason, age))), 0),
        };
        Self { value, stale, within, source }
    }

    /// The shared value.
    pub fn into_arc(self) -> Arc<T> {
        self.value
    }

    /// The shared value.
    pub fn as_arc(&self) -> &Arc<T> {
        &self.value
    }

    /// Whether it is fresh or stale; if it is stale, why the caller gets it.
    pub fn guarantee(&self) -> Guarantee {
        match self.stale.as_deref() {
            None if self.within > 0 => {
                Guarantee::Within(Duration::from_millis(u64::from(self.within)))
            }
            None => Guarantee::Fresh,
            Some(&(reason, age)) => Guarantee::Stale { reason, age },
        }
    }

    /// Whether it is stale; [`guarantee`](Self::guarantee) says why, and for how long.
    pub fn is_stale(&self) -> bool {
        self.stale.is_some()
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
        let (value, stale) = (Arc::clone(&self.value), self.stale.clone());
        Self { value, stale, within: self.within, source: self.source }
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

#[expect(clippy::missing_fields_in_debug, reason = "the guarantee shows it")]
impl<T: fmt::Debug> fmt::Debug for Hit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("value", &self.value)
            .field("guarantee", &self.guarantee())
            .field("source", &self.source)
            .finish()
    }
}
