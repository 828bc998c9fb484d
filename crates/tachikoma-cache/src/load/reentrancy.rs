//! Finds a loader that asks for the key it is loading, itself or through loads that it started:
//! waiting for it would never end.
//!
//! Each load runs with the chain of loads that led to it. A loader that hides its call in a task of
//! its own leaves the chain; the load timeout ends that wait.

use std::sync::Arc;

use super::flight::Kind;
use crate::key::{Key, Namespace};
use crate::runtime::carried;
use crate::shared::Shared;

/// A load and the loads above it.
pub(super) struct Chain {
    cache: usize,
    namespace: String,
    /// Sorted; several if one loader loads several keys.
    names: Vec<String>,
    kind: Kind,
    above: Option<Arc<Chain>>,
}

impl Chain {
    /// The chain of a load that the running code waits for.
    pub(super) fn link(shared: &Arc<Shared>, key: &Key<'_>, kind: Kind) -> Self {
        let above = carried().and_then(|carried| carried.downcast().ok());
        Self { above, ..Self::begin(shared, key, kind) }
    }

    /// The chain of a load that nobody waits for.
    pub(super) fn begin(shared: &Arc<Shared>, key: &Key<'_>, kind: Kind) -> Self {
        Self::begin_many(shared, key.namespace(), vec![key.name().to_owned()], kind)
    }

    /// As [`link`](Self::link), of a load of several keys.
    pub(super) fn link_many(
        shared: &Arc<Shared>,
        namespace: &Namespace,
        names: Vec<String>,
        kind: Kind,
    ) -> Self {
        let above = carried().and_then(|carried| carried.downcast().ok());
        Self { above, ..Self::begin_many(shared, namespace, names, kind) }
    }

    /// As [`begin`](Self::begin), of a load of several keys.
    pub(super) fn begin_many(
        shared: &Arc<Shared>,
        namespace: &Namespace,
        mut names: Vec<String>,
        kind: Kind,
    ) -> Self {
        names.sort_unstable();
        Self {
            // Only compared: the running load keeps its cache alive.
            cache: Arc::as_ptr(shared) as usize,
            namespace: namespace.as_str().to_owned(),
            names,
            kind,
            above: None,
        }
    }

    /// Whether this load is one of those above it.
    pub(super) fn is_running(&self) -> bool {
        let mut above = self.above.as_ref();
        while let Some(load) = above {
            if load.loads_some_of(self) {
                return true;
            }
            above = load.above.as_ref();
        }
        false
    }

    /// Whether another load of this cache waits for this one.
    pub(super) fn is_nested(&self) -> bool {
        self.above.as_ref().is_some_and(|above| above.is_of(self.cache))
    }

    /// Whether the running code is part of a load of this cache.
    pub(super) fn is_inside(shared: &Arc<Shared>) -> bool {
        let above = carried().and_then(|carried| carried.downcast::<Self>().ok());
        above.is_some_and(|above| above.is_of(Arc::as_ptr(shared) as usize))
    }

    /// Whether this load or one above it is of the cache.
    fn is_of(&self, cache: usize) -> bool {
        self.cache == cache || self.above.as_ref().is_some_and(|above| above.is_of(cache))
    }

    fn loads_some_of(&self, other: &Self) -> bool {
        self.cache == other.cache
            && self.kind == other.kind
            && self.namespace == other.namespace
            && other.names.iter().any(|name| self.names.binary_search(name).is_ok())
    }
}
