//! What the order of eviction is worth: hit ratios against plain LRU.

use std::collections::{BTreeMap, HashMap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

struct Lru {
    capacity: usize,
    turn: u64,
    last_use: HashMap<u32, u64>,
    order: BTreeMap<u64, u32>,
}

impl Lru {
    fn new(capacity: usize) -> Self {
        Self { capacity, turn: 0, last_use: HashMap::new(), order: BTreeMap::new() }
    }

    /// Whether it was a hit.
    fn access(&mut self, key: u32) -> bool {
        self.turn += 1;
        let before = self.last_use.insert(key, self.turn);
        if let Some(turn) = before {
            self.order.remove(&turn);
        } else if self.order.len() == self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.last_use.remove(&oldest);
        }
        self.order.insert(self.turn, key);
        before.is_some()
    }
}

/// Hits of the engine and of LRU, both with room for `capacity` entries.
fn hits(trace: &[u32], capacity: u32) -> (u32, u32) {
    let engine = engine::<u32>(1 << 30, u64::from(capacity));
    let mut lru = Lru::new(capacity as usize);
    let ns = namespace();
    let (mut ours, mut theirs) = (0, 0);
    for &number in trace {
        let key = Key::new(&ns, number.to_string()).unwrap();
        if engine.peek(&key, at(0), |_| ()).is_some() {
            ours += 1;
        } else {
            engine.insert(&key, number, 4, None, at(0), |_| true);
        }
        theirs += u32::from(lru.access(number));
    }
    check_law(&engine);
    (ours, theirs)
}

/// Numbers of which a few come often: a Zipf-like distribution over `keys`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a distribution")]
fn skewed(random: &mut StdRng, keys: u32) -> u32 {
    let uniform: f64 = random.random();
    (f64::from(keys).powf(uniform) - 1.0) as u32
}

#[test]
fn it_beats_lru_when_scans_come_between() {
    let mut random = StdRng::seed_from_u64(1);
    let mut trace = Vec::new();
    let mut scanned = 1_000_000;
    for _ in 0..20 {
        trace.extend((0..4_000).map(|_| skewed(&mut random, 20_000)));
        trace.extend(scanned..scanned + 2_000);
        scanned += 2_000;
    }
    let (ours, lru) = hits(&trace, 1_000);
    assert!(ours > lru + lru / 20, "{ours} hits, LRU {lru}");
}

#[test]
fn it_is_not_worse_than_lru_on_a_skewed_load() {
    let mut random = StdRng::seed_from_u64(2);
    let trace: Vec<u32> = (0..80_000).map(|_| skewed(&mut random, 20_000)).collect();
    for capacity in [50, 500, 2_000] {
        let (ours, lru) = hits(&trace, capacity);
        assert!(ours >= lru, "capacity {capacity}: {ours} hits, LRU {lru}");
    }
}

#[test]
fn an_entry_that_is_read_outlives_any_number_that_are_not() {
    let engine = Plain(engine(1 << 20, 20));
    engine.set("h", 0, 1, None);
    for i in 0..10_000_u32 {
        assert!(engine.get("h", 0).is_some(), "gone after {i}");
        engine.set(&i.to_string(), i, 1, None);
        if i < 10 {
            engine.get("h", 0);
        }
    }
}
