//! Counts the most frequent of very many keys with a fixed number of counters.
//!
//! Pure. A key that has no counter takes that of the rarest and starts where that one stood, which
//! is its possible error. With `m` counters after `n` additions: a count is never too small, never
//! too large by more than its error, no error exceeds `n / m`, and every key that came more than
//! `n / m` times has a counter.
//!
//! Space-Saving: Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k
//! elements in data streams" (ICDT 2005).

use hashbrown::HashTable;

use super::{HotKey, Name, SAMPLE};
use crate::key::Key;

pub(super) struct SpaceSaving {
    limit: usize,
    places: HashTable<usize>,
    names: Vec<Name>,
    /// Apart from the names, so that looking for the smallest reads little memory.
    counts: Vec<u64>,
    errors: Vec<u64>,
    /// The smallest count, and no place before `rarest_from` has it: counts only grow.
    rarest: u64,
    rarest_from: usize,
}

impl SpaceSaving {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            places: HashTable::new(),
            names: Vec::new(),
            counts: Vec::new(),
            errors: Vec::new(),
            rarest: 0,
            rarest_from: 0,
        }
    }

    /// The key came once more.
    pub(super) fn add(&mut self, key: &Key<'_>) {
        let names = &self.names;
        if let Some(&place) = self.places.find(key.hash(), |&place| names[place].is(key)) {
            self.counts[place] += 1;
            return;
        }
        if self.names.len() < self.limit {
            self.names.push(Name::of(key));
            self.counts.push(1);
            self.errors.push(0);
            self.put(self.names.len() - 1);
            return;
        }
        let Some(place) = self.rarest() else { return };
        let count = self.counts[place];
        let hash = self.names[place].hash;
        if let Ok(found) = self.places.find_entry(hash, |&other| other == place) {
            found.remove();
        }
        self.names[place] = Name::of(key);
        (self.counts[place], self.errors[place]) = (count + 1, count);
        self.put(place);
    }

    /// The `n` most frequent, in lookups: each addition stands for [`SAMPLE`] of them.
    pub(super) fn first(&self, n: usize) -> Vec<HotKey> {
        let mut places: Vec<usize> = (0..self.names.len()).collect();
        places.sort_by_key(|&place| std::cmp::Reverse(self.counts[place]));
        let sampled = u64::from(SAMPLE);
        let hot = |place: usize| HotKey {
            namespace: self.names[place].namespace.clone(),
            key: self.names[place].text.to_string(),
            hits: self.counts[place].saturating_mul(sampled),
            error: self.errors[place].saturating_mul(sampled),
        };
        places.into_iter().take(n).map(hot).collect()
    }

    /// A place with the smallest count. Amortised it looks at one place.
    fn rarest(&mut self) -> Option<usize> {
        let rest = self.counts.get(self.rarest_from..).unwrap_or_default();
        if let Some(ahead) = rest.iter().position(|count| *count == self.rarest) {
            self.rarest_from += ahead;
            return Some(self.rarest_from);
        }
        self.rarest = *self.counts.iter().min()?;
        self.rarest_from = self.counts.iter().position(|count| *count == self.rarest)?;
        Some(self.rarest_from)
    }

    fn put(&mut self, place: usize) {
        let names = &self.names;
        self.places.insert_unique(names[place].hash, place, |&other| names[other].hash);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::key::Namespace;

    proptest! {
        /// The bounds of the paper (its lemmas 3.3 and 3.4, theorem 3.5), for streams in which some
        /// keys are frequent.
        #[test]
        fn counts_are_within_the_bound_and_no_frequent_key_is_missed(
            stream in prop::collection::vec(
                prop_oneof![2 => 0_u32..4, 1 => 0_u32..40, 1 => 0_u32..400], 1..800,
            ),
            limit in 1_usize..24,
        ) {
            let namespace = Namespace::default();
            let (mut sketch, mut real) = (SpaceSaving::new(limit), HashMap::new());
            for number in &stream {
                let name = number.to_string();
                sketch.add(&Key::new(&namespace, name.as_str()).unwrap());
                *real.entry(name).or_insert(0_u64) += 1;
            }
            let bound = stream.len() as u64 / limit as u64;
            let counted: HashMap<_, _> = sketch.first(usize::MAX).into_iter().map(|hot| {
                let sample = u64::from(SAMPLE);
                (hot.key, (hot.hits / sample, hot.error / sample))
            }).collect();
            prop_assert!(counted.len() <= limit);
            for (name, (count, error)) in &counted {
                prop_assert!(*error <= bound);
                prop_assert!(real[name] <= *count && *count <= real[name] + error);
            }
            for (name, times) in real {
                prop_assert!(times <= bound || counted.contains_key(&name), "{name}: {times}");
            }
            let total: u64 = counted.values().map(|(count, _)| count).sum();
            prop_assert_eq!(total, stream.len() as u64);
        }
    }

    #[test]
    fn the_most_frequent_come_first() {
        let (namespace, mut sketch) = (Namespace::default(), SpaceSaving::new(8));
        for name in ["a", "b", "b", "c", "c", "c"] {
            sketch.add(&Key::new(&namespace, name).unwrap());
        }
        let first: Vec<_> = sketch.first(2).into_iter().map(|hot| (hot.key, hot.hits)).collect();
        assert_eq!(first, [("c".to_owned(), 48), ("b".to_owned(), 32)]);
    }
}
