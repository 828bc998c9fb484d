use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::{Deadline, TestClock};
use crate::entry::{CodecId, Meta, TypeTag};
use crate::invalidation::Marks;

fn store(max_entries: u64) -> Arc<MemoryStore> {
    let config = MemoryConfig { max_entries, ..MemoryConfig::default() };
    MemoryStore::new(config, Arc::new(TestClock::new())).unwrap()
}

fn meta(marks: Marks) -> Meta {
    Meta { marks, ..Meta::new(Time::EPOCH, TypeTag::of::<u64>(), CodecId::Json) }
}

fn entry(number: u64) -> Entry {
    Entry::from_bytes(meta(Marks::default()), Bytes::from(number.to_string()))
}

fn number(entry: &Entry) -> u64 {
    std::str::from_utf8(&entry.bytes().unwrap()).unwrap().parse().unwrap()
}

fn lead(store: &MemoryStore, key: &Key<'_>) -> Lease {
    store.begin_one(key, Time::EPOCH).lease.unwrap()
}

/// Says that it is over, also when a check fails: the other threads would never end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The promise: whoever asks after a removal has ended sees nothing that was read before it.
/// With pressure, another thread takes the room away, so that loads have to make room between the
/// question whether they may store and the storing.
#[track_caller]
fn check_removals(rounds: u64, pressure: bool) {
    let store = store(2);
    let ns = Namespace::default();
    let key = Key::new(&ns, "k").unwrap();
    let (source, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let stored = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _over = Over(&done);
            // At least until the first load was in the game.
            for version in (1..).take_while(|v| *v <= rounds || stored.load(SeqCst) == 0) {
                source.store(version, SeqCst);
                store.remove_one(&key, Time::EPOCH);
                // The load gets some way on, each time another.
                for _ in 0..version % 64 {
                    std::hint::spin_loop();
                }
                if let Some((entry, _)) = store.find(&key, Time::EPOCH) {
                    let shown = number(&entry);
                    assert!(shown >= version, "{shown} after the removal at {version}");
                }
            }
        });
        scope.spawn(|| {
            for i in 0_u64.. {
                if !pressure || done.load(SeqCst) {
                    break;
                }
                let other = Key::new(&ns, format!("o{}", i % 8)).unwrap();
                store.write_one(&other, entry(0), When::Always, Time::EPOCH).unwrap();
            }
        });
        while !done.load(SeqCst) {
            let lease = lead(&store, &key);
            let read = entry(source.load(SeqCst));
            match store.write_one(&key, read, When::Leased(&lease), Time::EPOCH).unwrap() {
                Written::Stored => drop(stored.fetch_add(1, SeqCst)),
                Written::Refused => {}
            }
        }
    });
    assert!(store.leases.matching(&ns, &Glob::new("*").unwrap()).is_empty());
}

#[test]
fn a_removal_is_never_followed_by_a_value_that_was_read_before_it() {
    check_removals(20_000, false);
    check_removals(500, true);
}

/// The same, with the one interleaving that a store gets wrong which asks before it locks.
#[test]
fn whether_a_load_may_store_is_asked_under_the_lock_that_a_removal_takes() {
    let store = store(2);
    let ns = Namespace::default();
    let (key, other) = (Key::new(&ns, "k").unwrap(), Key::new(&ns, "other").unwrap());
    store.write_one(&other, entry(0), When::Always, Time::EPOCH).unwrap();
    let lease = lead(&store, &key);
    let (locked, is_locked) = mpsc::channel();
    let (unlock, may_unlock) = mpsc::channel();
    std::thread::scope(|scope| {
        let (store, key, lease) = (&store, &key, &lease);
        scope.spawn(move || {
            store.engine.walk(0, 10, Time::EPOCH, |_, _, _| {
                locked.send(()).unwrap();
                may_unlock.recv_timeout(Duration::from_secs(10)).unwrap();
            });
        });
        is_locked.recv_timeout(Duration::from_secs(10)).unwrap();
        let load = scope.spawn(move || {
            store.write_one(key, entry(1), When::Leased(lease), Time::EPOCH).unwrap()
        });
        // The load gets as far as it can.
        std::thread::sleep(Duration::from_millis(100));
        let removal = scope.spawn(move || store.remove_one(key, Time::EPOCH));
        while store.leases.lock(key).is_valid(key, lease.token) {
            std::thread::yield_now();
        }
        unlock.send(()).unwrap();
        assert_eq!(load.join().unwrap(), Written::Refused);
        removal.join().unwrap();
    });
    assert!(store.find(&key, Time::EPOCH).is_none());
}

#[test]
fn a_direct_write_ends_the_leases_and_a_conditional_one_only_if_it_takes_place() {
    let store = store(10);
    let ns = Namespace::default();
    let key = Key::new(&ns, "k").unwrap();
    let write =
        |number, when: When<'_>| store.write_one(&key, entry(number), when, Time::EPOCH).unwrap();
    let before = lead(&store, &key);
    assert_eq!(write(1, When::Absent), Written::Stored);
    assert_eq!(write(0, When::Leased(&before)), Written::Refused);

    let during = lead(&store, &key);
    assert_eq!(write(2, When::Absent), Written::Refused);
    assert_eq!(write(3, When::Leased(&during)), Written::Stored);

    let before = lead(&store, &key);
    assert_eq!(write(4, When::Always), Written::Stored);
    assert_eq!(write(0, When::Leased(&before)), Written::Refused);
    assert_eq!(number(&store.find(&key, Time::EPOCH).unwrap().0), 4);
}

#[test]
fn a_load_whose_tag_was_invalidated_meanwhile_is_not_stored() {
    let store = store(10);
    let ns = Namespace::default();
    let key = Key::new(&ns, "k").unwrap();
    let tags = Group::tags(["t"]).unwrap();
    for (how, expected) in [(How::Soft, Written::Stored), (How::Hard, Written::Refused)] {
        let lease = lead(&store, &key);
        store.groups.invalidate(&ns, &tags, how);
        let marks = Marks::new(&tags, lease.groups);
        let loaded = Entry::from_bytes(meta(marks), Bytes::from_static(b"1"));
        let written = store.write_one(&key, loaded, When::Leased(&lease), Time::EPOCH).unwrap();
        assert_eq!(written, expected, "{how:?}");
    }
}

#[test]
fn a_weigher_that_panics_is_an_error() {
    fn encode(_: &(dyn Any + Send + Sync)) -> Result<Bytes, Error> {
        Err(ErrorKind::Unencodable.into())
    }
    fn weigh(_: &(dyn Any + Send + Sync)) -> Result<usize, Error> {
        panic!("a bug in a weigher")
    }

    let store = store(10);
    let ns = Namespace::default();
    let key = Key::new(&ns, "k").unwrap();
    let entry = Entry::from_object(meta(Marks::default()), Arc::new(1), encode, weigh);
    let error = store.write_one(&key, entry, When::Always, Time::EPOCH).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unencodable);
    assert!(store.find(&key, Time::EPOCH).is_none());
}

#[tokio::test]
async fn a_scan_for_names_finds_keys_that_only_have_a_load_under_way() {
    let store = store(10);
    let ns = Namespace::default();
    let key = Key::new(&ns, "loading").unwrap();
    let lease = lead(&store, &key);
    let cx = Cx { now: Time::EPOCH, deadline: Deadline::after(Duration::from_secs(1)) };
    let glob = Glob::new("load*").unwrap();
    let names = async |want| {
        let page = store.scan(&ns, Cursor::START, &glob, want, 10, &cx).await.unwrap();
        assert!(page.next.is_none());
        page.items.into_iter().map(|item| item.name).collect::<Vec<_>>()
    };
    assert_eq!(names(Want::Names).await, ["loading"]);
    assert!(names(Want::Entries).await.is_empty());
    store.abandon(&key, lease);
    assert!(names(Want::Names).await.is_empty());
}

/// A load stores while a removal of everything goes on, in a place where that has been already.
#[test]
fn what_was_loaded_before_a_removal_of_everything_is_not_left_by_it() {
    let store = store(10_000);
    let ns = Namespace::default();
    for i in 0..2000 {
        let key = Key::new(&ns, i.to_string()).unwrap();
        store.write_one(&key, entry(0), When::Always, Time::EPOCH).unwrap();
    }
    let loading: Vec<_> = (0..200).map(|i| Key::new(&ns, format!("load {i}")).unwrap()).collect();
    let mut loads: Vec<_> = loading.iter().map(|key| (key, lead(&store, key))).collect();
    let (glob, mut at) = (Glob::everything(), Some(Cursor::START));
    while let Some(from) = at {
        let page = store.page(&ns, from, &glob, Want::Names, 100, Time::EPOCH);
        for item in &page.items {
            store.remove_one(&Key::new(&ns, item.name.as_str()).unwrap(), Time::EPOCH);
        }
        at = page.next;
        for (key, lease) in loads.drain(..loads.len().min(20)) {
            store.write_one(key, entry(1), When::Leased(&lease), Time::EPOCH).unwrap();
        }
    }
    assert!(loads.is_empty(), "they are stored meanwhile");
    for key in &loading {
        assert!(store.find(key, Time::EPOCH).is_none(), "{key:?}");
    }
}
