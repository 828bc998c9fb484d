mod schedules;

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::{Clock, TestClock};
use crate::entry::{CodecId, TypeTag};
use crate::invalidation::{Group, Marks, Snapshot};
use crate::key::Namespace;
use crate::store::StaleReason;
use crate::store::memory::MemoryConfig;

struct Rig {
    near: Near,
    clock: TestClock,
    space: Namespace,
}

impl Rig {
    fn new() -> Self {
        let clock = TestClock::new();
        // Small, since it is made anew for each schedule.
        let bounds = MemoryConfig { max_entries: 100, ..MemoryConfig::default() };
        let memory = MemoryStore::new(bounds, Arc::new(clock.clone())).unwrap();
        let (floor, waiters) = (Floor::new(Duration::from_secs(1)), Waiters::default());
        let near = Near { memory, floor, groups: Arc::default(), waiters };
        near.confirmed(clock.now());
        Self { near, clock, space: Namespace::default() }
    }

    fn key(&self, name: &'static str) -> [Key<'_>; 1] {
        [Key::new(&self.space, name).unwrap()]
    }

    fn meta(&self) -> Meta {
        Meta::new(self.clock.now(), TypeTag(1), CodecId::Json)
    }

    /// Reads a key; `meanwhile` happens between the question and the answer.
    fn read(&self, meta: Meta, guarantee: Guarantee, meanwhile: impl FnOnce(&Key<'_>)) -> bool {
        let key = self.key("k");
        let marked = self.near.mark(&key, None, self.clock.now());
        meanwhile(&key[0]);
        let mut found = Some((Entry::from_bytes(meta, Bytes::from_static(b"7")), guarantee));
        marked.keep(0, &mut found, self.clock.now());
        self.shown("k").is_some()
    }

    fn shown(&self, name: &'static str) -> Option<Guarantee> {
        let mut shown = None;
        let see = &mut |_: &Entry, guarantee| shown = Some(guarantee);
        let peek = self.near.peek(&self.key(name)[0], self.clock.now(), |_| false, see);
        assert_eq!(peek == Peek::Seen, shown.is_some());
        shown
    }
}

#[test]
fn what_was_read_undisturbed_is_kept_and_shown_with_its_promise() {
    let rig = Rig::new();
    assert!(rig.read(rig.meta(), Guarantee::Fresh, |_| {}));
    assert_eq!(rig.shown("k"), Some(Guarantee::Within(Duration::from_secs(1))));
    assert_eq!(rig.shown("other"), None);
}

#[track_caller]
fn check_refused(what: &str, meanwhile: impl FnOnce(&Rig, &Key<'_>)) {
    let rig = Rig::new();
    assert!(!rig.read(rig.meta(), Guarantee::Fresh, |key| meanwhile(&rig, key)), "{what}");
    assert!(rig.read(rig.meta(), Guarantee::Fresh, |_| {}), "{what}: the next answer is kept");
}

#[test]
fn a_change_between_question_and_answer_keeps_the_answer_out() {
    check_refused("a push of the key", |rig, key| rig.near.changed(key));
    check_refused("a flush", |rig, _| rig.near.forget());
    check_refused("a change from here", |rig, key| {
        drop(rig.near.changing(std::slice::from_ref(key)));
    });
    let rig = Rig::new();
    let other = rig.key("other");
    assert!(rig.read(rig.meta(), Guarantee::Fresh, |_| rig.near.changed(&other[0])));
}

#[test]
fn a_change_after_the_answer_takes_the_copy_away() {
    let changes: [fn(&Rig, &Key<'_>); 3] = [
        |rig, key| rig.near.changed(key),
        |rig, _| rig.near.forget(),
        |rig, key| drop(rig.near.changing(std::slice::from_ref(key))),
    ];
    for change in changes {
        let rig = Rig::new();
        assert!(rig.read(rig.meta(), Guarantee::Fresh, |_| {}));
        change(&rig, &rig.key("k")[0]);
        assert_eq!(rig.shown("k"), None);
        assert_eq!(rig.near.memory.stats().bytes, Some(0));
    }
}

#[test]
fn what_nobody_tells_of_is_not_kept() {
    let rig = Rig::new();
    let at = Snapshot { epoch: 1, counter: 1 };
    let marks = Marks::new(&Group::tags(["t"]).unwrap(), at);
    let tagged = rig.read(Meta { marks, ..rig.meta() }, Guarantee::Fresh, |_| {});
    assert!(!tagged, "nothing is known of its namespace");
    let idle = Some(Duration::from_secs(60));
    assert!(!rig.read(Meta { idle, ..rig.meta() }, Guarantee::Fresh, |_| {}));
    let stale = Guarantee::Stale { reason: StaleReason::Invalidated, age: Duration::ZERO };
    assert!(!rig.read(rig.meta(), stale, |_| {}));
    rig.near.lost();
    assert!(!rig.read(rig.meta(), Guarantee::Fresh, |_| {}), "nobody tells of anything");
}

#[test]
fn a_copy_lives_no_longer_than_its_entry() {
    let rig = Rig::new();
    let at = |millis| Some(rig.clock.now().saturating_add(Duration::from_millis(millis)));
    let meta = Meta { soft_expiry: at(100), hard_expiry: at(200), ..rig.meta() };
    assert!(rig.read(meta, Guarantee::Fresh, |_| {}));
    rig.clock.advance(Duration::from_millis(99));
    assert!(rig.shown("k").is_some());
    rig.clock.advance(Duration::from_millis(1));
    assert_eq!(rig.shown("k"), None, "a stale one is the server's to show");
}

#[test]
fn a_copy_that_nobody_follows_is_stale_for_as_long_as_that_is_so_and_goes_before_more_is_heard() {
    let rig = Rig::new();
    let stale = |name| {
        let mut shown = None;
        let mut see = |_: &Entry, guarantee| shown = Some(guarantee);
        let now = rig.clock.now();
        let seen = rig.near.peek_stale(&rig.key(name)[0], now, |_| false, &mut see);
        assert_eq!(seen, shown.is_some());
        shown
    };
    let at = |millis| Some(rig.clock.now().saturating_add(Duration::from_millis(millis)));
    let meta = Meta { soft_expiry: at(500), hard_expiry: at(9000), ..rig.meta() };
    assert!(rig.read(meta, Guarantee::Fresh, |_| {}));
    rig.clock.advance(Duration::from_millis(400));
    rig.near.confirmed(rig.clock.now());
    rig.near.lost();
    let disconnected = |millis| {
        let age = Duration::from_millis(millis);
        Some(Guarantee::Stale { reason: StaleReason::Disconnected, age })
    };
    rig.clock.advance(Duration::from_millis(50));
    assert_eq!((stale("k"), stale("other")), (disconnected(50), None), "within its time to live");
    rig.clock.advance(Duration::from_millis(950));
    assert_eq!(stale("k"), disconnected(1000));
    rig.near.changed(&rig.key("k")[0]);
    assert_eq!(stale("k"), None, "a late push counts all the same");
    assert!(!rig.read(rig.meta(), Guarantee::Fresh, |_| {}));
}

#[test]
fn marks_are_given_up_also_when_nobody_waits_for_the_answer() {
    let rig = Rig::new();
    let key = rig.key("k");
    let first = rig.near.memory.mark(&key[0]);
    rig.near.memory.unmark(&key[0], first);
    drop(rig.near.mark(&key, None, rig.clock.now()));
    let marked = rig.near.mark(&key, None, rig.clock.now());
    assert_ne!(marked.marks[0].1, first, "else one was left over");
}
