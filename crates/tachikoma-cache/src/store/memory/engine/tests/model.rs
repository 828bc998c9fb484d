//! The engine against a map that a child could read, with time that only moves when told.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Set { key: u8, weight: u64, ttl: Option<u64> },
    SetIfAbsent { key: u8, weight: u64, ttl: Option<u64> },
    Get { key: u8 },
    Remove { key: u8 },
    Touch { key: u8, ttl: Option<u64> },
    Advance { by: u64 },
    Sweep { limit: usize },
    Walk { limit: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..12_u8;
    let weight = || 0..60_u64;
    let ttl = || prop::option::of(1..40_u64);
    prop_oneof![
        5 => (key(), weight(), ttl()).prop_map(|(key, weight, ttl)| Step::Set { key, weight, ttl }),
        2 => (key(), weight(), ttl())
            .prop_map(|(key, weight, ttl)| Step::SetIfAbsent { key, weight, ttl }),
        5 => key().prop_map(|key| Step::Get { key }),
        2 => key().prop_map(|key| Step::Remove { key }),
        1 => (key(), ttl()).prop_map(|(key, ttl)| Step::Touch { key, ttl }),
        3 => (0..20_u64).prop_map(|by| Step::Advance { by }),
        1 => (0..6_usize).prop_map(|limit| Step::Sweep { limit }),
        1 => (1..6_usize).prop_map(|limit| Step::Walk { limit }),
    ]
}

/// Key → value and expiry.
type Model = BTreeMap<u8, (u32, Option<u64>)>;

struct Run {
    engine: Engine<u32>,
    model: Model,
    now: u64,
    next_value: u32,
    /// Whether entries may be evicted: then the engine may have less than the model, but never
    /// anything else.
    tight: bool,
}

impl Run {
    fn new(bounds: Bounds, tight: bool) -> Self {
        let engine = Engine::new(bounds, None);
        Self { engine, model: Model::new(), now: 0, next_value: 0, tight }
    }

    fn live(&self, key: u8) -> Option<u32> {
        let (value, expiry) = self.model.get(&key)?;
        expiry.is_none_or(|expiry| self.now < expiry).then_some(*value)
    }

    fn step(&mut self, step: &Step) {
        let ns = namespace();
        let key_of = |key: u8| Key::new(&ns, char::from(b'a' + key).to_string()).unwrap();
        let expiry_of = |ttl: Option<u64>| ttl.map(|ttl| self.now + ttl);
        let now = at(self.now);
        match *step {
            Step::Set { key, weight, ttl } => {
                self.insert(&key_of(key), key, weight, expiry_of(ttl), false);
            }
            Step::SetIfAbsent { key, weight, ttl } => {
                self.insert(&key_of(key), key, weight, expiry_of(ttl), true);
            }
            Step::Get { key } => self.check(key, &key_of(key)),
            Step::Remove { key } => {
                let removed = self.engine.remove_if(&key_of(key), now, |_| true);
                assert!(!removed || self.live(key).is_some());
                assert!(removed || self.tight || self.live(key).is_none());
                self.model.remove(&key);
            }
            Step::Touch { key, ttl } => {
                let expiry = expiry_of(ttl);
                let touched = self.engine.update(&key_of(key), now, |v| Some((*v, expiry.map(at))));
                assert!(!touched || self.live(key).is_some());
                assert!(touched || self.tight || self.live(key).is_none());
                match self.model.get_mut(&key) {
                    Some(entry) if touched => entry.1 = expiry,
                    // Evicted, or expired: gone in the model too from now on.
                    _ => drop(self.model.remove(&key)),
                }
            }
            Step::Advance { by } => self.now += by,
            Step::Sweep { limit } => {
                let before = self.engine.census(now).live;
                self.engine.sweep(now, limit);
                assert_eq!(
                    self.engine.census(now).live,
                    before,
                    "a sweep frees only what has expired"
                );
            }
            Step::Walk { limit } => self.walk(limit),
        }
        self.check_bounds();
    }

    fn insert(
        &mut self,
        key: &Key<'_>,
        short: u8,
        weight: u64,
        expiry: Option<u64>,
        if_absent: bool,
    ) {
        self.next_value += 1;
        let value = self.next_value;
        let now = at(self.now);
        let when = |old: Option<&u32>| !if_absent || old.is_none();
        match self.engine.insert(key, value, weight, expiry.map(at), now, when) {
            Insertion::Stored => {
                assert!(!if_absent || self.tight || self.live(short).is_none());
                self.model.insert(short, (value, expiry));
                self.check(short, key);
                let shown = self.engine.peek(key, now, |value| *value);
                assert_eq!(shown, self.live(short), "what was just stored is there");
            }
            Insertion::Refused => assert!(if_absent && self.live(short).is_some()),
            Insertion::TooLarge => {
                let (cost, max) = (weight + 1 + Engine::<u32>::OVERHEAD, self.engine.budget.max());
                assert!(cost > max.bytes || max.entries == 0);
            }
        }
    }

    fn check(&self, short: u8, key: &Key<'_>) {
        let shown = self.engine.peek(key, at(self.now), |value| *value);
        if shown.is_some() || !self.tight {
            assert_eq!(shown, self.live(short));
        }
    }

    fn walk(&self, limit: usize) {
        let (mut cursor, mut seen) = (Some(0), BTreeMap::new());
        while let Some(from) = cursor {
            cursor = self.engine.walk(from, limit, at(self.now), |_, name, value| {
                let twice = seen.insert(name.as_bytes()[0] - b'a', *value);
                assert_eq!(twice, None);
            });
        }
        assert_eq!(seen.len() as u64, self.engine.census(at(self.now)).live);
        for (key, value) in &seen {
            assert_eq!(self.live(*key), Some(*value));
        }
        if !self.tight {
            let live = self.model.keys().filter(|key| self.live(**key).is_some());
            assert_eq!(seen.len(), live.count());
        }
    }

    fn check_bounds(&self) {
        let (used, max) = (self.engine.budget.used(), self.engine.budget.max());
        assert!(used.bytes <= max.bytes && used.entries <= max.entries);
        check_law(&self.engine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn with_room_for_all_it_is_a_map_with_times(steps in prop::collection::vec(step(), 0..200)) {
        let mut run = Run::new(Bounds { bytes: 1 << 20, entries: 1000 }, false);
        for step in &steps {
            run.step(step);
        }
        let counts = run.engine.census(at(0)).counts;
        prop_assert_eq!(counts.gone(EvictionCause::Size) + counts.gone(EvictionCause::Count), 0);
    }

    #[test]
    fn within_narrow_bounds_it_forgets_and_never_lies(
        bytes in 0..1200_u64, entries in 0..8_u64,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut run = Run::new(Bounds { bytes, entries }, true);
        for step in &steps {
            run.step(step);
        }
    }
}
