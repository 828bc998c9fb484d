//! Which loads may still store what they read.
//!
//! A lease of a key ends with each removal and each direct write of that key, so a value that was
//! read before is refused afterwards. The check and the write happen under one lock, or a removal
//! could slip between them.
//!
//! While a [guard](super::super::Store::guard) of a key is open no lease of it is given. Guards are
//! a set, so that one writer does not end another one's; of those that overlapped none may store,
//! nor may one whose key was removed or written meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use crate::clock::Time;
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

/// The open guards of one key.
struct Guarded {
    namespace: Namespace,
    name: Box<str>,
    /// Their tokens, and when they end by themselves.
    open: Vec<(u128, Time)>,
    /// Two of them were open at once, or the key was changed meanwhile.
    is_overtaken: bool,
}

/// The leases of one store in memory.
pub(super) struct Leases([Mutex<Shard>; SHARDS]);

/// The leases of some keys, locked.
#[derive(Default)]
pub(super) struct Shard {
    held: HashTable<Held>,
    /// Mostly none: one for each key whose source is being written.
    guarded: Vec<Guarded>,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(Shard::default())))
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

    /// The names of a namespace that match and have a lease or a guard.
    pub(super) fn matching(&self, namespace: &Namespace, glob: &Glob) -> Vec<String> {
        let mut names = Vec::new();
        for shard in &self.0 {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let matches =
                |held: &&Held| held.namespace == *namespace && glob.matches(held.name.as_bytes());
            names.extend(shard.held.iter().filter(matches).map(|held| held.name.to_string()));
            let matches = |guarded: &&Guarded| {
                guarded.namespace == *namespace && glob.matches(guarded.name.as_bytes())
            };
            let guarded = shard.guarded.iter().filter(matches);
            names.extend(guarded.map(|guarded| guarded.name.to_string()));
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

    /// Begins a guard, which ends the leases of all loads of the key.
    pub(super) fn guard(&mut self, key: &Key<'_>, token: u128, until: Time, now: Time) {
        self.forget_guards(now);
        self.end_leases(key);
        if let Some(guarded) = self.guarded.iter_mut().find(|guarded| guarded.is_of(key)) {
            guarded.is_overtaken = true;
            guarded.open.push((token, until));
        } else {
            let (namespace, name) = (key.namespace().clone(), key.name().into());
            let open = vec![(token, until)];
            self.guarded.push(Guarded { namespace, name, open, is_overtaken: false });
        }
    }

    pub(super) fn is_guarded(&self, key: &Key<'_>, now: Time) -> bool {
        let is_open = |guarded: &Guarded| guarded.open.iter().any(|(_, until)| *until > now);
        self.guarded.iter().any(|guarded| guarded.is_of(key) && is_open(guarded))
    }

    /// Ends a guard; whether it was open until now, no other one beside it at any time, and the key
    /// was not changed meanwhile.
    pub(super) fn end_guard(&mut self, key: &Key<'_>, token: u128, now: Time) -> bool {
        self.forget_guards(now);
        let of_key = self.guarded.iter_mut().find(|guarded| guarded.is_of(key));
        let alone = of_key.is_some_and(|guarded| {
            let before = guarded.open.len();
            guarded.open.retain(|(open, _)| *open != token);
            guarded.open.len() < before && !guarded.is_overtaken
        });
        self.forget_guards(now);
        alone
    }

    /// Forgets the guards whose time has passed, and the keys that have none any more.
    fn forget_guards(&mut self, now: Time) {
        self.guarded.retain_mut(|guarded| {
            guarded.open.retain(|(_, until)| *until > now);
            !guarded.open.is_empty()
        });
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

    /// Ends the leases of all loads of a key, which is removed or written: what a guard of it has
    /// to store is older.
    pub(super) fn end(&mut self, key: &Key<'_>) {
        self.end_leases(key);
        let of_key = self.guarded.iter_mut().filter(|guarded| guarded.is_of(key));
        of_key.for_each(|guarded| guarded.is_overtaken = true);
    }

    fn end_leases(&mut self, key: &Key<'_>) {
        if let Ok(found) = self.held.find_entry(key.hash(), |held| held.is_of(key)) {
            found.remove();
        }
    }
}

impl Guarded {
    fn is_of(&self, key: &Key<'_>) -> bool {
        self.namespace == *key.namespace() && *self.name == *key.name()
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
    fn of_guards_that_overlapped_none_was_alone() {
        let ns = Namespace::default();
        let key = Key::new(&ns, "k").unwrap();
        let leases = Leases::new();
        let mut shard = leases.lock(&key);
        let at = Time::from_millis;
        let old = shard.begin(&key);
        shard.guard(&key, 1, at(100), at(0));
        assert!(!shard.is_valid(&key, old), "a guard ends the leases");
        assert!(shard.is_guarded(&key, at(99)) && !shard.is_guarded(&key, at(100)));
        shard.guard(&key, 2, at(200), at(50));
        assert!(!shard.end_guard(&key, 1, at(60)));
        assert!(shard.is_guarded(&key, at(60)), "of the other one");
        assert!(!shard.end_guard(&key, 2, at(70)), "it was not alone");
        assert!(!shard.is_guarded(&key, at(70)));
        shard.guard(&key, 3, at(300), at(100));
        assert!(shard.end_guard(&key, 3, at(299)));
        shard.guard(&key, 4, at(400), at(300));
        assert!(!shard.end_guard(&key, 4, at(400)), "its time had passed");
        shard.guard(&key, 5, at(500), at(400));
        shard.end(&key);
        assert!(!shard.end_guard(&key, 5, at(450)), "the key was removed");
        assert!(shard.guarded.is_empty());
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
