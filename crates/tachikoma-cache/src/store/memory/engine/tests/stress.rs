//! Many threads at once: the bounds hold at every moment, and nothing is lost from the books.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::ScopedJoinHandle;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Runs `writers` threads over the engine, with one that looks at the books all the time, one that
/// sweeps and one that walks.
fn run(engine: &Engine<Vec<u8>>, writers: u64, work: impl Fn(&Engine<Vec<u8>>, u64) + Sync) {
    let done = AtomicBool::new(false);
    let max = engine.budget.max();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..writers)
            .map(|number| {
                let work = &work;
                scope.spawn(move || work(engine, number))
            })
            .collect();
        scope.spawn(|| {
            let mut looks = 0_u64;
            while !done.load(Relaxed) {
                let used = engine.budget.used();
                assert!(used.bytes <= max.bytes && used.entries <= max.entries, "{used:?}");
                looks += 1;
            }
            assert!(looks > 0);
        });
        scope.spawn(|| {
            let mut cursor = Some(0);
            while !done.load(Relaxed) {
                engine.sweep(at(50), 10);
                cursor = engine.walk(cursor.unwrap_or(0), 50, at(0), |_, _, _| {});
            }
        });
        // Joined before the flag is set, and looked at after it: the others would never end.
        let outcomes: Vec<_> = workers.into_iter().map(ScopedJoinHandle::join).collect();
        done.store(true, Relaxed);
        assert!(outcomes.iter().all(Result::is_ok), "a writer failed");
    });
    check_law(engine);
}

#[test]
fn two_threads_that_write_100_kb_values_never_exceed_10_mib() {
    let engine = Engine::new(Bounds { bytes: 10 << 20, entries: 1 << 20 }, None);
    run(&engine, 2, |engine, writer| {
        let ns = namespace();
        for i in 0..20_000_u64 {
            let key = Key::new(&ns, format!("{writer}:{}", i % 500)).unwrap();
            // The value itself is small, so that the threads meet more often.
            let stored = engine.insert(&key, vec![1], 100_000, None, at(0), |_| true);
            assert_eq!(stored, Insertion::Stored);
        }
    });
    assert!(engine.census(at(0)).live > 90, "it is well filled: {}", engine.census(at(0)).live);
}

#[test]
fn values_of_half_the_cache_from_many_threads_all_get_their_room() {
    // Two that need more than half at once can only succeed one after the other.
    let bytes = 64 << 20;
    let engine = Engine::new(Bounds { bytes, entries: 1 << 20 }, None);
    run(&engine, 4, |engine, writer| {
        let ns = namespace();
        let mut random = StdRng::seed_from_u64(writer);
        for _ in 0..3_000_u64 {
            let key = Key::new(&ns, random.random_range(0..20).to_string()).unwrap();
            let weight = random.random_range(bytes / 3..bytes - 1000);
            let stored = engine.insert(&key, vec![1], weight, None, at(0), |_| true);
            assert_eq!(stored, Insertion::Stored);
        }
    });
}

#[test]
fn mixed_work_keeps_the_books() {
    let engine = Engine::new(Bounds { bytes: 16 << 20, entries: 2_000 }, None);
    assert!(engine.cells.len() > 1);
    run(&engine, 4, |engine, writer| {
        let ns = namespace();
        let mut random = StdRng::seed_from_u64(100 + writer);
        for _ in 0..20_000_u32 {
            let number: u32 = random.random_range(0..4_000);
            let key = Key::new(&ns, number.to_string()).unwrap();
            match random.random_range(0..10) {
                0..4 => {
                    let expiry = random.random_bool(0.5).then(|| at(random.random_range(1..100)));
                    let value = number.to_le_bytes().to_vec();
                    let weight = random.random_range(0..20_000);
                    engine.insert(&key, value, weight, expiry, at(0), |_| true);
                }
                4 => drop(engine.remove_if(&key, at(0), |_| true)),
                5 => drop(engine.update(&key, at(0), |value| Some((value.clone(), Some(at(60)))))),
                _ => {
                    // A value is never found under another key.
                    let shown = engine.peek(&key, at(0), Vec::clone);
                    assert!(shown.is_none_or(|value| value == number.to_le_bytes()));
                }
            }
        }
    });
}
