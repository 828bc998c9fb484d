//! Who loads a key and who waits for it.
//!
//! Pure: a table that is changed by one call at a time and knows neither tasks nor time. `W` is
//! what the members of one flight share. Several types or error types of one key fly apart.

use std::any::TypeId;

use hashbrown::HashTable;

use crate::invalidation::Group;
use crate::key::{Key, Namespace};

/// The value type and the error type of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(TypeId);

impl Kind {
    pub(crate) fn of<T: 'static, E: 'static>() -> Self {
        Self(TypeId::of::<(T, E)>())
    }
}

/// Names one flight for ever: numbers are not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlightId(u64);

/// How a caller takes part in a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined<W> {
    /// It must load and then [`finish`](FlightTable::finish).
    Lead(FlightId, W),
    /// Another one loads.
    Follow(W),
}

struct Flight<W> {
    hash: u64,
    namespace: Namespace,
    name: Box<str>,
    kind: Kind,
    id: FlightId,
    tags: Box<[Group]>,
    shared: W,
}

impl<W> Flight<W> {
    fn is_of(&self, key: &Key<'_>) -> bool {
        self.hash == key.hash() && self.namespace == *key.namespace() && *self.name == *key.name()
    }
}

/// The loads under way.
pub(crate) struct FlightTable<W> {
    flights: HashTable<Flight<W>>,
    next: u64,
}

impl<W: Clone> FlightTable<W> {
    pub(crate) fn new() -> Self {
        Self { flights: HashTable::new(), next: 0 }
    }

    /// Joins the load of a key or starts one; `tags` count for the one who starts.
    pub(crate) fn join(
        &mut self,
        key: &Key<'_>,
        kind: Kind,
        tags: &[Group],
        start: impl FnOnce() -> W,
    ) -> Joined<W> {
        let hash = key.hash();
        let same = |flight: &Flight<W>| flight.kind == kind && flight.is_of(key);
        if let Some(flight) = self.flights.find(hash, same) {
            return Joined::Follow(flight.shared.clone());
        }
        self.next += 1;
        let (id, shared) = (FlightId(self.next), start());
        let flight = Flight {
            hash,
            namespace: key.namespace().clone(),
            name: key.name().into(),
            kind,
            id,
            tags: tags.into(),
            shared: shared.clone(),
        };
        self.flights.insert_unique(hash, flight, |flight| flight.hash);
        Joined::Lead(id, shared)
    }

    /// Whether a load of the key is under way, of whatever type, of which `counts` holds.
    pub(crate) fn has(&self, key: &Key<'_>, counts: impl Fn(&W) -> bool) -> bool {
        let is_it = |flight: &Flight<W>| flight.is_of(key) && counts(&flight.shared);
        self.flights.find(key.hash(), is_it).is_some()
    }

    /// Ends a flight; nothing happens if it was detached before.
    pub(crate) fn finish(&mut self, key: &Key<'_>, id: FlightId) {
        let same = |flight: &Flight<W>| flight.id == id;
        if let Ok(found) = self.flights.find_entry(key.hash(), same) {
            found.remove();
        }
    }

    /// Takes the loads of a key out: who is in them stays, who comes later loads anew.
    pub(crate) fn detach(&mut self, key: &Key<'_>) {
        while let Ok(found) = self.flights.find_entry(key.hash(), |flight| flight.is_of(key)) {
            found.remove();
        }
    }

    /// Takes out each load of a namespace that `select` picks by name and tags; their names.
    pub(crate) fn detach_where(
        &mut self,
        namespace: &Namespace,
        select: impl Fn(&str, &[Group]) -> bool,
    ) -> Vec<String> {
        let picked = |flight: &mut Flight<W>| {
            flight.namespace == *namespace && select(&flight.name, &flight.tags)
        };
        self.flights.extract_if(picked).map(|flight| flight.name.into()).collect()
    }

    /// How many loads are under way.
    #[cfg(any(test, feature = "__shuttle"))]
    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key<'a>(ns: &'a Namespace, name: &'a str) -> Key<'a> {
        Key::new(ns, name).unwrap()
    }

    fn lead(joined: Joined<u32>) -> FlightId {
        match joined {
            Joined::Lead(id, _) => id,
            Joined::Follow(_) => panic!("it should lead"),
        }
    }

    #[test]
    fn the_first_leads_and_the_others_follow_until_it_ends() {
        let ns = Namespace::default();
        let mut table = FlightTable::new();
        let kind = Kind::of::<u8, ()>();
        assert!(!table.has(&key(&ns, "a"), |_| true));
        let id = lead(table.join(&key(&ns, "a"), kind, &[], || 1));
        assert!(table.has(&key(&ns, "a"), |_| true) && !table.has(&key(&ns, "b"), |_| true));
        assert!(table.has(&key(&ns, "a"), |w| *w == 1) && !table.has(&key(&ns, "a"), |w| *w == 2));
        assert_eq!(table.join(&key(&ns, "a"), kind, &[], || 2), Joined::Follow(1));
        lead(table.join(&key(&ns, "b"), kind, &[], || 3));
        table.finish(&key(&ns, "a"), id);
        assert_eq!(table.len(), 1);
        lead(table.join(&key(&ns, "a"), kind, &[], || 4));
    }

    #[test]
    fn two_types_of_one_key_fly_apart_and_are_detached_together() {
        let ns = Namespace::default();
        let mut table = FlightTable::new();
        lead(table.join(&key(&ns, "a"), Kind::of::<u8, ()>(), &[], || 1));
        lead(table.join(&key(&ns, "a"), Kind::of::<u16, ()>(), &[], || 2));
        lead(table.join(&key(&ns, "a"), Kind::of::<u8, u8>(), &[], || 3));
        table.detach(&key(&ns, "a"));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_end_of_a_detached_flight_does_not_end_its_successor() {
        let ns = Namespace::default();
        let mut table = FlightTable::new();
        let kind = Kind::of::<u8, ()>();
        let old = lead(table.join(&key(&ns, "a"), kind, &[], || 1));
        table.detach(&key(&ns, "a"));
        lead(table.join(&key(&ns, "a"), kind, &[], || 2));
        table.finish(&key(&ns, "a"), old);
        assert_eq!(table.join(&key(&ns, "a"), kind, &[], || 3), Joined::Follow(2));
    }

    #[test]
    fn a_tag_detaches_its_own_loads_only_in_its_namespace() {
        let (ns, other) = (Namespace::default(), Namespace::new("other").unwrap());
        let mut table = FlightTable::new();
        let kind = Kind::of::<u8, ()>();
        let tags = Group::tags(["users"]).unwrap();
        lead(table.join(&key(&ns, "a"), kind, &tags, || 1));
        lead(table.join(&key(&ns, "b"), kind, &[], || 2));
        lead(table.join(&key(&other, "a"), kind, &tags, || 3));
        let names = table.detach_where(&ns, |_, its| its.contains(&tags[0]));
        assert_eq!(names, ["a"]);
        assert_eq!(table.len(), 2);
    }
}
