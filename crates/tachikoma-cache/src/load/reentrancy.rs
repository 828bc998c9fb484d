//! Finds a loader that asks for the key it is loading, itself or through loads that it started:
//! waiting for it would never end.
//!
//! Each load runs with the chain of loads that led to it. A loader that hides its call in a task of
//! its own leaves the chain; the load timeout ends that wait.

use std::sync::Arc;

use super::flight::Kind;
use crate::key::Key;
use crate::runtime::carried;
use crate::shared::Shared;

/// A load and the loads above it.
pub(super) struct Chain {
    cache: usize,
    namespace: String,
    name: String,
    kind: Kind,
    above: Option<Arc<Chain>>,
}

impl Chain {
    /// The chain of a load that the running code wants.
    pub(super) fn link(shared: &Arc<Shared>, key: &Key<'_>, kind: Kind) -> Self {
        Self {
            // Only compared: the running load keeps its cache alive.
            cache: Arc::as_ptr(shared) as usize,
            namespace: key.namespace().as_str().to_owned(),
            name: key.name().to_owned(),
            kind,
            above: carried().and_then(|carried| carried.downcast().ok()),
        }
    }

    /// Whether this load is one of those above it.
    pub(super) fn is_running(&self) -> bool {
        let mut above = self.above.as_ref();
        while let Some(load) = above {
            if load.is_same(self) {
                return true;
            }
            above = load.above.as_ref();
        }
        false
    }

    fn is_same(&self, other: &Self) -> bool {
        self.cache == other.cache
            && self.kind == other.kind
            && self.namespace == other.namespace
            && self.name == other.name
    }
}
