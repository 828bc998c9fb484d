mod model;
mod policy;
mod stress;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;

fn namespace() -> Namespace {
    Namespace::new("t").unwrap()
}

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// An engine whose bound in bytes allows values of `bytes` beside `entries` names of one letter.
fn engine<V>(bytes: u64, entries: u64) -> Engine<V> {
    let bytes = bytes + entries * (Engine::<V>::OVERHEAD + 1);
    Engine::new(Bounds { bytes, entries }, None)
}

/// The plain calls, with names for keys and no conditions.
struct Plain<V>(Engine<V>);

impl<V: Clone> Plain<V> {
    fn set(&self, name: &str, value: V, weight: u64, expiry: Option<u64>) -> Insertion {
        let ns = namespace();
        let key = Key::new(&ns, name).unwrap();
        self.0.insert(&key, value, weight, expiry.map(at), at(0), |_| true)
    }

    fn get(&self, name: &str, now: u64) -> Option<V> {
        let ns = namespace();
        self.0.peek(&Key::new(&ns, name).unwrap(), at(now), V::clone)
    }

    fn remove(&self, name: &str, now: u64) -> bool {
        let ns = namespace();
        self.0.remove_if(&Key::new(&ns, name).unwrap(), at(now), |_| true)
    }
}

fn check_law<V>(engine: &Engine<V>) {
    let counts = engine.census(at(0)).counts;
    let gone: u64 = counts.gone.iter().sum();
    let here: u64 = engine.cells.iter().map(|cell| cell.room().entries).sum();
    assert_eq!(counts.inserted, gone + here, "{counts:?}");
    assert_eq!(engine.budget.used().entries, here);
    for cell in &engine.cells {
        cell.read().check();
    }
}

#[test]
fn what_was_set_is_there_until_it_is_removed() {
    let engine = Plain(engine(100, 10));
    assert_eq!(engine.set("a", 1, 1, None), Insertion::Stored);
    assert_eq!(engine.get("a", 0), Some(1));
    assert_eq!(engine.set("a", 2, 1, None), Insertion::Stored);
    assert_eq!(engine.get("a", 0), Some(2));
    assert!(engine.remove("a", 0));
    assert!(!engine.remove("a", 0));
    assert_eq!(engine.get("a", 0), None);
    check_law(&engine.0);
}

#[test]
fn the_same_name_in_two_namespaces_is_two_entries() {
    let engine = engine::<u32>(100, 10);
    let (one, other) = (Namespace::new("one").unwrap(), Namespace::new("other").unwrap());
    let key = |ns| Key::new(ns, "k").unwrap();
    engine.insert(&key(&one), 1, 1, None, at(0), |_| true);
    engine.insert(&key(&other), 2, 1, None, at(0), |_| true);
    assert_eq!(engine.peek(&key(&one), at(0), |value| *value), Some(1));
    assert!(engine.remove_if(&key(&other), at(0), |_| true));
    assert_eq!(engine.peek(&key(&one), at(0), |value| *value), Some(1));
}

#[test]
fn an_entry_ends_at_its_expiry_to_the_millisecond() {
    let engine = Plain(engine(100, 10));
    engine.set("a", 1, 1, Some(1500));
    assert_eq!(engine.get("a", 1499), Some(1));
    assert_eq!(engine.0.census(at(1499)).live, 1);
    assert_eq!(engine.0.census(at(1500)).live, 0);
    assert_eq!(engine.get("a", 1500), None);
    assert_eq!(engine.0.census(at(0)).counts.gone(EvictionCause::Expired), 1);
    assert_eq!(engine.0.bytes(), 0, "an expired entry that is asked for is freed");
    check_law(&engine.0);
}

#[test]
fn a_sweep_frees_what_expired_and_says_when_to_come_back() {
    let engine = Plain(engine(1000, 500));
    for i in 0..300 {
        engine.set(&char::from_u32(1000 + i).unwrap().to_string(), i, 1, Some(10));
    }
    engine.set("later", 1, 1, Some(20));
    engine.set("never", 1, 1, None);
    let sweep = |now, limit| engine.0.sweep(at(now), limit);
    assert_eq!(sweep(9, 1000), Sweep { freed: 0, next: Some(at(10)) });
    assert_eq!(sweep(10, 100), Sweep { freed: 100, next: Some(at(10)) });
    assert_eq!(sweep(10, 1000), Sweep { freed: 200, next: Some(at(20)) });
    assert_eq!(sweep(20, 1000), Sweep { freed: 1, next: None });
    assert_eq!(engine.get("never", u64::MAX - 1), Some(1));
    check_law(&engine.0);
}

#[test]
fn a_new_expiry_takes_the_place_of_the_old_one() {
    let engine = Plain(engine(100, 10));
    let ns = namespace();
    let key = Key::new(&ns, "a").unwrap();
    engine.set("a", 1, 1, Some(10));
    assert!(engine.0.update(&key, at(5), |value| Some((value + 1, Some(at(50))))));
    assert_eq!(engine.0.sweep(at(40), 10).freed, 0);
    assert_eq!(engine.get("a", 49), Some(2));
    assert!(engine.0.update(&key, at(49), |value| Some((*value, None))));
    assert_eq!(engine.0.sweep(at(50), 10), Sweep { freed: 0, next: None });
    assert!(engine.0.update(&key, at(50), |value| Some((*value, Some(at(60))))));
    assert!(!engine.0.update(&key, at(60), |value| Some((*value, None))), "it is gone");
    check_law(&engine.0);
}

#[test]
fn a_condition_sees_what_is_there_and_decides() {
    let engine = engine::<u32>(100, 10);
    let ns = namespace();
    let key = Key::new(&ns, "a").unwrap();
    let put = |value, now, when: &dyn Fn(Option<&u32>) -> bool| {
        engine.insert(&key, value, 1, Some(at(10)), at(now), when)
    };
    assert_eq!(put(1, 0, &|old| old.is_none()), Insertion::Stored);
    assert_eq!(put(2, 0, &|old| old.is_none()), Insertion::Refused);
    assert_eq!(put(3, 0, &|old| old == Some(&1)), Insertion::Stored);
    assert!(!engine.remove_if(&key, at(0), |value| *value == 1));
    assert_eq!(put(4, 10, &|old| old.is_none()), Insertion::Stored, "3 has expired");
    assert!(engine.remove_if(&key, at(0), |value| *value == 4));
    check_law(&engine);
}

#[test]
fn nothing_comes_between_the_condition_and_the_storing() {
    let engine = engine::<u32>(100, 10);
    let ns = namespace();
    let key = Key::new(&ns, "a").unwrap();
    let (asked, start) = std::sync::mpsc::channel();
    let (removed, end) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (engine, key) = (&engine, &key);
        scope.spawn(move || {
            start.recv().unwrap();
            removed.send(engine.remove_if(key, at(0), |_| true)).unwrap();
        });
        engine.insert(key, 1, 1, None, at(0), |_| {
            asked.send(()).unwrap();
            // A removal that came in now would find nothing, and the value would stay.
            assert!(end.recv_timeout(Duration::from_millis(100)).is_err());
            true
        });
        assert!(end.recv_timeout(Duration::from_secs(10)).unwrap(), "it found the value");
    });
    assert_eq!(engine.census(at(0)).live, 0);
}

#[test]
fn a_value_larger_than_the_cache_is_refused_and_the_others_stay() {
    let engine = Plain(engine(100, 10));
    engine.set("a", 1, 50, None);
    assert_eq!(engine.set("b", 2, 100_000, None), Insertion::TooLarge);
    assert_eq!(engine.set("b", 2, u64::MAX, None), Insertion::TooLarge);
    assert_eq!(engine.get("a", 0), Some(1));
    assert_eq!(Plain(super::tests::engine(100, 0)).set("a", 1, 1, None), Insertion::TooLarge);
}

#[test]
fn a_value_as_large_as_the_cache_fits_whatever_the_shards_hold() {
    let bytes = 64 << 20;
    let engine = Plain(Engine::new(Bounds { bytes, entries: 1 << 20 }, None));
    assert!(engine.0.cells.len() > 1, "the point is that a shard's part is smaller");
    for i in 0..1000 {
        engine.set(&i.to_string(), 0, 60_000, None);
    }
    let largest = bytes - Engine::<i32>::OVERHEAD - 3;
    assert_eq!(engine.set("big", 1, largest, None), Insertion::Stored);
    assert_eq!((engine.get("big", 0), engine.0.bytes()), (Some(1), bytes));
    // It is replaced in place by one as large, and makes room for a small one.
    assert_eq!(engine.set("big", 2, largest, None), Insertion::Stored);
    assert_eq!(engine.get("big", 0), Some(2));
    assert_eq!(engine.0.census(at(0)).counts.gone(EvictionCause::Replaced), 1);
    assert_eq!(engine.set("tiny", 3, 1, None), Insertion::Stored);
    assert_eq!(engine.get("big", 0), None);
    check_law(&engine.0);
}

#[test]
fn the_bound_that_is_reached_is_the_cause() {
    let by_count = Plain(engine(1000, 3));
    let by_size = Plain(engine(30, 10));
    for name in ["a", "b", "c", "d"] {
        by_count.set(name, 0, 1, None);
        by_size.set(name, 0, 500, None);
    }
    assert_eq!(by_count.0.census(at(0)).counts.gone(EvictionCause::Count), 1);
    assert!(by_size.0.census(at(0)).counts.gone(EvictionCause::Size) > 0);
    assert_eq!(by_size.0.census(at(0)).counts.gone(EvictionCause::Count), 0);
}

#[test]
fn what_has_expired_goes_before_what_has_not() {
    let engine = Plain(engine(1000, 2));
    let ns = namespace();
    engine.set("a", 1, 1, None);
    engine.set("b", 2, 1, Some(10));
    let key = Key::new(&ns, "c").unwrap();
    engine.0.insert(&key, 3, 1, None, at(10), |_| true);
    assert_eq!(engine.get("a", 10), Some(1));
    assert_eq!(engine.0.census(at(0)).counts.gone(EvictionCause::Expired), 1);
    assert_eq!(engine.0.census(at(0)).counts.gone(EvictionCause::Count), 0);
}

#[test]
fn the_listener_hears_of_every_departure_with_its_cause() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = Arc::clone(&heard);
    let listener: Listener<i32> = Box::new(move |ns, name, value, cause| {
        ears.lock().unwrap().push((format!("{}/{name}", ns.as_str()), *value, cause));
    });
    let bounds = Bounds { bytes: 1 << 20, entries: 2 };
    let engine = Plain(Engine::new(bounds, Some(listener)));
    engine.set("a", 1, 1, None);
    engine.set("a", 2, 1, None);
    engine.remove("a", 0);
    engine.set("b", 3, 1, Some(5));
    engine.0.sweep(at(5), 10);
    for (name, value) in [("c", 4), ("d", 5), ("e", 6)] {
        engine.set(name, value, 1, None);
    }
    let expected = [
        ("t/a".to_owned(), 1, EvictionCause::Replaced),
        ("t/a".to_owned(), 2, EvictionCause::Removed),
        ("t/b".to_owned(), 3, EvictionCause::Expired),
        ("t/c".to_owned(), 4, EvictionCause::Count),
    ];
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[test]
fn a_listener_may_use_the_cache_and_may_panic() {
    let engine: Arc<std::sync::OnceLock<Plain<i32>>> = Arc::default();
    let inner = Arc::clone(&engine);
    let listener: Listener<i32> = Box::new(move |_, name, value, _| {
        assert!(name != "bad", "a bug in a listener");
        if let Some(engine) = inner.get()
            && name != "echo"
        {
            engine.set("echo", *value, 1, None);
        }
    });
    let bounds = Bounds { bytes: 1 << 20, entries: 10 };
    let engine = engine.get_or_init(|| Plain(Engine::new(bounds, Some(listener))));
    engine.set("a", 1, 1, None);
    engine.remove("a", 0);
    assert_eq!(engine.get("echo", 0), Some(1));
    engine.set("bad", 2, 1, None);
    assert!(engine.remove("bad", 0));
    assert_eq!(engine.get("bad", 0), None);
    check_law(&engine.0);
}

#[test]
fn a_panic_in_a_visitor_or_in_drop_leaves_a_cache_that_works() {
    #[derive(Clone)]
    struct Bomb(Arc<str>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(&*self.0 != "armed" || Arc::strong_count(&self.0) > 1, "a bug in Drop");
        }
    }

    let engine = Plain(engine(1000, 10));
    engine.set("a", Bomb("armed".into()), 1, None);
    let ns = namespace();
    let key = Key::new(&ns, "a").unwrap();
    let visit = || engine.0.peek(&key, at(0), |_| panic!("a bug in a visitor"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(visit)).is_err());
    assert!(engine.remove("a", 0));
    engine.set("b", Bomb("quiet".into()), 1, None);
    assert!(engine.get("b", 0).is_some());
    check_law(&engine.0);
    engine.set("c", Bomb("armed".into()), 1, None);
    drop(engine);
}

#[test]
fn a_walk_shows_what_is_there_all_the_time_once() {
    let engine = Plain(Engine::new(Bounds { bytes: 64 << 20, entries: 1 << 20 }, None));
    let ns = namespace();
    for i in 0..1000 {
        engine.set(&format!("stays{i}"), i, 1, None);
        engine.set(&format!("goes{i}"), i, 1, None);
    }
    let (mut cursor, mut seen, mut step) = (Some(0), Vec::new(), 0);
    while let Some(from) = cursor {
        cursor = engine.0.walk(from, 7, at(0), |namespace, name, _| {
            assert_eq!(*namespace, ns);
            if name.starts_with("stays") {
                seen.push(name.to_owned());
            }
        });
        // Meanwhile others come and go and some are replaced.
        engine.remove(&format!("goes{step}"), 0);
        engine.set(&format!("comes{step}"), 0, 1, None);
        engine.set(&format!("stays{}", step % 1000), step, 1, None);
        step += 1;
    }
    seen.sort();
    let mut expected: Vec<_> = (0..1000).map(|i| format!("stays{i}")).collect();
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(engine.0.walk(u64::MAX, 7, at(0), |_, _, _| panic!("nothing there")), None);
}

#[test]
fn a_shard_that_is_empty_gives_its_storage_back() {
    let engine = Plain(engine(1 << 20, 200));
    for i in 0..200 {
        engine.set(&char::from_u32(1000 + i).unwrap().to_string(), 0, 1, Some(10));
    }
    assert!(engine.0.cells.iter().any(|cell| cell.read().slots() > 0));
    engine.0.sweep(at(10), usize::MAX);
    assert!(engine.0.cells.iter().all(|cell| cell.read().slots() == 0));
    assert_eq!((engine.0.bytes(), engine.0.census(at(10)).live), (0, 0));
}

#[test]
fn small_caches_have_one_shard_and_large_ones_several() {
    let many = Room::new(1 << 30, 1 << 20);
    assert_eq!(shards(many, 2), 8);
    assert_eq!(shards(many, 1000), 64);
    assert_eq!(shards(Room::new(10 << 20, 1 << 20), 2), 2);
    assert_eq!(shards(Room::new(1 << 30, 100), 2), 1);
    assert_eq!(shards(Room::new(0, 0), 2), 1);
}
