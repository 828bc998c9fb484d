//! Which loads may still store what they read.
//!
//! A lease of a key ends with each removal and each direct write of that key, so a value that was
//! read before is refused afterwards. The check and the write happen under one lock, or a removal
//! could slip between them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use crate::glob::Glob;
use crate::key::{Key, Namespace};

const SHARDS: usize = 16;

/// The loads of one key that may store: their common token, and how many they are.
struct Held {
    hash: u64,
    namespace: Namespace,
    name: Box<str>,
    token: u128,
    holders: u32,
}

/// The leases of one store in memory.
pub(super) struct Leases([Mutex<Shard>; SHARDS]);

/// The leases of some keys, locked.
pub(super) struct Shard {
    held: HashTable<Held>,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(Shard { held: HashTable::new() })))
    }

    /// Locks the part of the table that has this key.
    pub(super) fn lock(&self, key: &Key<'_>) -> MutexGuard<'_, Shard> {
        let shard = &self.0[(key.hash() >> 56) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the leases of all loads of all keys.
    #[cfg(feature = "redis")]
    pub(super) fn end_all(&self) {
        for shard in &self.0 {
            shard.lock().unwrap_or_else(PoisonError::into_inner).held.clear();
        }
    }

    /// The names of a namespace that match and have a lease.
    pub(super) fn matching(&self, namespace: &Namespace, glob: &Glob) -> Vec<String> {
        let mut names = Vec::new();
        for shard in &self.0 {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let matches =
                |held: &&Held| held.namespace == *namespace && glob.matches(held.name.as_bytes());
            names.extend(shard.held.iter().filter(matches).map(|held| held.name.to_string()));
        }
        names
    }
}

impl Shard {
    /// Another load of the key begins; all that begin without a removal in between share a token.
    pub(super) fn begin(&mut self, key: &Key<'_>) -> u128 {
        if let Some(held) = self.held.find_mut(key.hash(), |held| held.is_of(key)) {
            held.holders += 1;
            return held.token;
        }
        let held = Held {
            hash: key.hash(),
            namespace: key.namespace().clone(),
            name: key.name().into(),
            token: rand::random(),
            holders: 1,
        };
        let token = held.token;
        self.held.insert_unique(key.hash(), held, |held| held.hash);
        token
    }

    /// Whether a load with this token may store.
    pub(super) fn is_valid(&self, key: &Key<'_>, token: u128) -> bool {
        self.held.find(key.hash(), |held| held.is_of(key) && held.token == token).is_some()
    }

    /// One load gives its lease back; nothing happens if it had ended.
    pub(super) fn give_back(&mut self, key: &Key<'_>, token: u128) {
        let same = |held: &Held| held.is_of(key) && held.token == token;
        if let Ok(mut found) = self.held.find_entry(key.hash(), same) {
            found.get_mut().holders -= 1;
            if found.get().holders == 0 {
                found.remove();
            }
        }
    }

    /// Ends the leases of all loads of a key.
    pub(super) fn end(&mut self, key: &Key<'_>) {
        if let Ok(found) = self.held.find_entry(key.hash(), |held| held.is_of(key)) {
            found.remove();
        }
    }
}

impl Held {
    fn is_of(&self, key: &Key<'_>) -> bool {
        self.hash == key.hash() && self.namespace == *key.namespace() && *self.name == *key.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_ends_the_leases_that_were_given_before_it() {
        let ns = Namespace::default();
        let key = Key::new(&ns, "k").unwrap();
        let leases = Leases::new();
        let old = leases.lock(&key).begin(&key);
        leases.lock(&key).end(&key);
        let new = leases.lock(&key).begin(&key);
        assert!(!leases.lock(&key).is_valid(&key, old));
        assert!(leases.lock(&key).is_valid(&key, new));
        leases.lock(&key).give_back(&key, old);
        assert!(leases.lock(&key).is_valid(&key, new));
    }

    #[test]
    fn the_table_is_empty_once_all_gave_back() {
        let ns = Namespace::default();
        let key = Key::new(&ns, "k").unwrap();
        let leases = Leases::new();
        let token = leases.lock(&key).begin(&key);
        assert_eq!(leases.lock(&key).begin(&key), token);
        leases.lock(&key).give_back(&key, token);
        assert!(leases.lock(&key).is_valid(&key, token));
        assert_eq!(leases.matching(&ns, &Glob::new("*").unwrap()), ["k"]);
        leases.lock(&key).give_back(&key, token);
        assert!(leases.matching(&ns, &Glob::new("*").unwrap()).is_empty());
    }
}
