use super::*;
use crate::history::Kind;

const INVALIDATED: u64 = 5_000_000;

const READ: Read = Read {
    class: Class::Tags,
    id: 1,
    begin: 0,
    end: 0,
    node: 0,
    version: 0,
    came: Came::Memory,
    promise: Promise::AtOnce,
};

fn write(begin: u64, end: u64, told: Option<u32>) -> Write {
    Write { class: Class::Tags, id: 1, begin, end, told }
}

/// Seven versions were written, the last two at once: 7 was answered at 5 s, 6 a little later.
fn history(reads: Vec<Read>) -> History {
    let pending = (1..=5).map(|at| write(at, at + 1, None));
    let told = [write(10, INVALIDATED + 9, Some(6)), write(11, INVALIDATED, Some(7))];
    History { reads, writes: pending.chain(told).collect(), ..History::default() }
}

#[track_caller]
fn check(promise: Promise, version: u32, begin: u64, violations: u64, late: u64) {
    let read = Read { begin, end: begin + 10, version, promise, ..READ };
    // Of another key, and of the same number in another class: nobody wrote them.
    let others =
        [Read { id: 2, version: 0, ..read }, Read { class: Class::Keys, version: 0, ..read }];
    let history = history([vec![read], others.to_vec()].concat());
    let checked = Checked::new(&history, &[]);
    let total = checked.total();
    assert_eq!((total.reads, total.violations, total.late), (3, violations, late));
    assert_eq!((checked.unwritten, checked.disordered), (0, 0));
    let worst: Vec<_> = checked.worst.iter().map(|one| one.read).collect();
    assert_eq!(worst, vec![read; usize::try_from(violations).unwrap_or(usize::MAX)]);
}

#[test]
fn a_read_that_began_after_the_answer_shows_that_version_or_a_later_one() {
    check(Promise::AtOnce, 6, INVALIDATED, 0, 0);
    check(Promise::AtOnce, 6, INVALIDATED + 1, 1, 0);
    check(Promise::AtOnce, 6, INVALIDATED + 10, 1, 0);
    check(Promise::AtOnce, 7, INVALIDATED + 1, 0, 0);
    check(Promise::AtOnce, 0, INVALIDATED + 900 * DELTA, 1, 0);
}

#[test]
fn what_is_promised_within_delta_may_be_late_but_no_longer() {
    check(Promise::Within, 6, INVALIDATED + 1, 0, 1);
    check(Promise::Within, 6, INVALIDATED + DELTA, 0, 1);
    check(Promise::Within, 6, INVALIDATED + DELTA + 1, 1, 0);
    check(Promise::Within, 7, INVALIDATED + DELTA + 1, 0, 0);
}

#[test]
fn what_says_that_it_is_stale_breaks_nothing() {
    check(Promise::None, 1, INVALIDATED + 2 * DELTA, 0, 0);
}

#[test]
fn a_write_that_was_not_answered_with_success_demands_nothing() {
    check(Promise::AtOnce, 0, INVALIDATED, 0, 0);
}

#[test]
fn an_old_version_is_found_again_after_newer_ones() {
    // As from a node that a restart brought back an old dump for.
    let read = |begin, version| Read { begin, end: begin + 1, version, ..READ };
    let reads =
        vec![read(INVALIDATED + 20, 7), read(INVALIDATED + 30, 7), read(INVALIDATED + 40, 3)];
    let checked = Checked::new(&history(reads), &[]);
    assert_eq!(checked.total().violations, 1);
    assert_eq!(checked.worst[0].after, 40);
}

#[test]
fn near_is_what_began_within_delta_of_an_invalidation_of_its_key() {
    for (begin, near) in [
        (INVALIDATED, 0),
        (INVALIDATED + 1, 1),
        (INVALIDATED + 9 + DELTA, 1),
        (INVALIDATED + 10 + DELTA, 0),
    ] {
        let read = Read { begin, end: begin, version: 7, ..READ };
        let checked = Checked::new(&history(vec![read, Read { id: 2, version: 0, ..read }]), &[]);
        assert_eq!(checked.total().near, near, "{}", begin - INVALIDATED);
    }
}

#[test]
fn counts_are_kept_apart_by_where_a_value_came_from() {
    let read = |came, promise| Read { begin: INVALIDATED + 50, version: 6, came, promise, ..READ };
    let reads = vec![
        read(Came::Redis, Promise::AtOnce),
        read(Came::Memory, Promise::Within),
        read(Came::Memory, Promise::Within),
        read(Came::Stale, Promise::None),
    ];
    let checked = Checked::new(&history(reads), &[]);
    let of = |wanted| checked.sum(|_, came| came == wanted);
    assert_eq!(of(Came::Redis), Tally { reads: 1, near: 1, violations: 1, late: 0 });
    assert_eq!(of(Came::Memory), Tally { reads: 2, near: 2, violations: 0, late: 2 });
    assert_eq!(of(Came::Loaded), Tally::default());
    assert_eq!(checked.calm_stale, 1);
}

#[test]
fn a_version_that_nobody_had_begun_to_write_is_not_believed() {
    let read = |end, version| Read { begin: 0, end, version, ..READ };
    for (end, version, unwritten) in [(1, 1, 1), (2, 1, 0), (2, 2, 1), (12, 7, 0), (12, 8, 1)] {
        let checked = Checked::new(&history(vec![read(end, version)]), &[]);
        assert_eq!(checked.unwritten, unwritten, "{version} at {end}");
    }
    let mut later = history(vec![read(12, 8)]);
    later.first.insert((Class::Tags, 1), 1);
    assert_eq!(Checked::new(&later, &[]).unwritten, 0);
}

#[test]
fn versions_that_do_not_rise_with_the_writes_are_not_believed() {
    for (begin, version, disordered) in [(5, 1, 0), (11, 3, 0), (11, 2, 1), (11, 1, 1)] {
        let writes = vec![write(0, 10, Some(2)), write(begin, 20, Some(version))];
        let checked = Checked::new(&History { writes, ..History::default() }, &[]);
        assert_eq!(checked.disordered, disordered, "{version} at {begin}");
        assert_eq!(checked.invalidations, 2);
    }
}

#[test]
fn hits_are_counted_by_node_while_nothing_is_broken() {
    let read = |begin, end, node, came| Read { begin, end, node, came, ..READ };
    let reads = vec![
        read(1, 2, 0, Came::Memory),
        read(1, 3, 0, Came::Loaded),
        read(1, 1, 1, Came::Redis),
        // In, into, out of and all over the fault.
        read(5, 5, 1, Came::Loaded),
        read(1, 4, 1, Came::Loaded),
        read(6, 9, 1, Came::Loaded),
        read(1, 9, 1, Came::Loaded),
    ];
    let history = History { reads, ..History::default() };
    let checked =
        Checked::new(&history, &[Window { begin: 4, end: 6 }, Window { begin: 20, end: 21 }]);
    let calm: Vec<_> = checked.calm.into_iter().collect();
    assert_eq!(calm, [(0, Calm { reads: 2, hits: 1 }), (1, Calm { reads: 1, hits: 1 })]);
}

#[test]
fn a_failure_is_explained_by_a_fault_at_any_time_of_it() {
    for (begin, end, explained) in
        [(1, 3, false), (1, 4, true), (6, 9, true), (1, 9, true), (7, 9, false)]
    {
        let what = String::new();
        let trouble = Trouble { kind: Kind::Write, class: Class::Api, begin, end, node: 0, what };
        let history = History { troubles: vec![trouble], ..History::default() };
        let checked = Checked::new(&history, &[Window { begin: 4, end: 6 }]);
        assert_eq!(checked.calm_troubles.is_empty(), explained, "{begin} to {end}");
        assert_eq!(checked.troubles.len(), 1);
    }
}
