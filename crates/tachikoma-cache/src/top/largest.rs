//! Remembers the largest of very many values, by their keys.
//!
//! Pure. It keeps a fixed number; of what it turned away it knows nothing, so after many large
//! values were removed a smaller one that was written before may be missing until it is written or
//! read again.

use super::{LargeKey, Name};
use crate::clock::Time;
use crate::key::Key;

pub(super) struct Largest {
    limit: usize,
    held: Vec<Held>,
}

struct Held {
    name: Name,
    bytes: u64,
    expiry: Option<Time>,
}

impl Largest {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, held: Vec::new() }
    }

    /// The value of this key has this size, until `expiry`.
    pub(super) fn set(&mut self, key: &Key<'_>, bytes: u64, expiry: Option<Time>) {
        if let Some(held) = self.held.iter_mut().find(|held| held.name.is(key)) {
            (held.bytes, held.expiry) = (bytes, expiry);
            return;
        }
        let held = || Held { name: Name::of(key), bytes, expiry };
        if self.held.len() < self.limit {
            return self.held.push(held());
        }
        let smallest = self.held.iter_mut().min_by_key(|held| held.bytes);
        if let Some(smallest) = smallest.filter(|smallest| smallest.bytes < bytes) {
            *smallest = held();
        }
    }

    /// This key has no value any more.
    pub(super) fn remove(&mut self, key: &Key<'_>) {
        if let Some(place) = self.held.iter().position(|held| held.name.is(key)) {
            self.held.swap_remove(place);
        }
    }

    /// All that have not expired, in no order.
    pub(super) fn live(&self, now: Time) -> Vec<LargeKey> {
        let live = self.held.iter().filter(|held| held.expiry.is_none_or(|at| at > now));
        live.map(|held| LargeKey {
            namespace: held.name.namespace.clone(),
            key: held.name.text.to_string(),
            bytes: held.bytes,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::key::Namespace;

    proptest! {
        /// Without removals and values that shrink it holds exactly the largest.
        #[test]
        fn it_holds_the_largest(
            sizes in prop::collection::btree_map(0_u16..500, 1_u64..1_000_000, 1..100),
            limit in 1_usize..20,
        ) {
            let (namespace, mut largest) = (Namespace::default(), Largest::new(limit));
            for (number, bytes) in &sizes {
                largest.set(&Key::new(&namespace, number.to_string()).unwrap(), *bytes, None);
            }
            let mut held: Vec<_> = largest.live(Time::EPOCH).iter().map(|l| l.bytes).collect();
            held.sort_unstable_by(|a, b| b.cmp(a));
            let mut real: Vec<_> = sizes.values().copied().collect();
            real.sort_unstable_by(|a, b| b.cmp(a));
            real.truncate(limit);
            prop_assert_eq!(held, real);
        }

        #[test]
        fn a_size_that_is_held_is_the_last_one_and_what_is_removed_or_expired_is_gone(
            acts in prop::collection::vec((0_u8..30, prop::option::of(1_u64..100)), 1..200),
        ) {
            let (namespace, mut largest) = (Namespace::default(), Largest::new(8));
            let mut last: BTreeMap<String, u64> = BTreeMap::new();
            for (number, bytes) in acts {
                let name = number.to_string();
                let key = Key::new(&namespace, name.clone()).unwrap();
                if let Some(bytes) = bytes {
                    last.insert(name, bytes);
                    let expiry = (bytes % 7 == 0).then_some(Time::from_millis(10));
                    largest.set(&key, bytes, expiry);
                } else {
                    last.remove(&name);
                    largest.remove(&key);
                }
            }
            prop_assert!(largest.held.len() <= 8);
            for large in largest.live(Time::from_millis(10)) {
                prop_assert_eq!(last.get(&large.key), Some(&large.bytes));
                prop_assert!(large.bytes % 7 != 0);
            }
        }
    }
}
