//! The loads of one cache that are under way, behind locks: several tables, so that loads of
//! different keys hardly wait for each other.

use std::sync::Arc;

use super::crew::Crew;
use super::flight::FlightTable;
use crate::glob::Glob;
use crate::invalidation::Group;
use crate::key::{Key, Namespace};
use crate::runtime::{Mutex, lock};

const SHARDS: usize = 16;

/// The loads of one cache that are under way.
pub(crate) struct Flights([Mutex<FlightTable<Arc<Crew>>>; SHARDS]);

impl Flights {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(FlightTable::new())))
    }

    pub(super) fn shard(&self, key: &Key<'_>) -> &Mutex<FlightTable<Arc<Crew>>> {
        // The table uses the low bits.
        &self.0[(key.hash() >> 56) as usize % SHARDS]
    }

    /// Who asks for the key from now on loads it anew.
    pub(crate) fn detach(&self, key: &Key<'_>) {
        lock(self.shard(key)).detach(key);
    }

    /// The same for each of these keys.
    pub(crate) fn detach_all(&self, keys: &[Key<'_>]) {
        for key in keys {
            self.detach(key);
        }
    }

    /// The same for each key that matches; the names of those that were under way.
    pub(crate) fn detach_matching(&self, namespace: &Namespace, glob: &Glob) -> Vec<String> {
        self.detach_where(namespace, |name, _| glob.matches(name.as_bytes()))
    }

    /// The same for each load that was started with one of these tags.
    pub(crate) fn detach_tagged(&self, namespace: &Namespace, groups: &[Group]) {
        self.detach_where(namespace, |_, tags| tags.iter().any(|tag| groups.contains(tag)));
    }

    fn detach_where(
        &self,
        namespace: &Namespace,
        select: impl Fn(&str, &[Group]) -> bool,
    ) -> Vec<String> {
        self.0.iter().flat_map(|shard| lock(shard).detach_where(namespace, &select)).collect()
    }

    #[cfg(any(test, feature = "__shuttle"))]
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|shard| lock(shard).len()).sum()
    }
}
