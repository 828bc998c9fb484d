use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::list::MAX_GLOBS;
use super::*;
use crate::glob::Glob;

fn space() -> Namespace {
    Namespace::default()
}

fn keys(names: &[&str]) -> Work {
    Work::Keys(names.iter().map(|name| (*name).to_owned()).collect())
}

fn groups(names: &[&str], how: How) -> Work {
    Work::Groups(Group::tags(names).unwrap(), how)
}

fn matching(glob: &str) -> Work {
    Work::Matching(Glob::new(glob).unwrap())
}

fn group(tag: &str) -> Group {
    Group::tag(tag).unwrap()
}

#[test]
fn what_is_entered_is_pending_until_it_is_confirmed() {
    let book = Book::default();
    let sending = book.enter(&space(), keys(&["a", "b"]));
    assert!(book.covers(&space(), "a") && !book.covers(&space(), "c"));
    assert!(!book.covers(&Namespace::new("other").unwrap(), "a"));
    assert_eq!(book.len(), 2);
    sending.confirm();
    assert!(!book.covers(&space(), "a"));
    assert_eq!(book.len(), 0);
}

#[test]
fn what_its_caller_dropped_is_sent_again_and_only_once_at_a_time() {
    let book = Book::default();
    let sending = book.enter(&space(), keys(&["a"]));
    assert!(book.take(u64::MAX).is_none(), "its caller is sending it");
    drop(sending);
    let again = book.take(u64::MAX).unwrap();
    assert_eq!(again.claim().unwrap().work, keys(&["a"]));
    assert!(book.take(u64::MAX).is_none());
    drop(again);
    book.take(u64::MAX).unwrap().confirm();
    assert_eq!(book.len(), 0);
}

#[test]
fn a_confirmation_does_not_reach_what_was_entered_later() {
    let book = Book::default();
    let first = book.enter(&space(), keys(&["a", "b"]));
    let second = book.enter(&space(), keys(&["a"]));
    first.confirm();
    assert!(book.covers(&space(), "a") && !book.covers(&space(), "b"));
    second.confirm();
    assert!(!book.covers(&space(), "a"));
}

#[test]
fn a_hard_invalidation_is_not_weakened_by_a_soft_one() {
    let book = Book::default();
    book.defer(&space(), groups(&["a"], How::Hard));
    book.defer(&space(), groups(&["a", "b"], How::Soft));
    assert_eq!(book.of_group(&space(), &group("a")), Some(How::Hard));
    assert_eq!(book.of_group(&space(), &group("b")), Some(How::Soft));
    assert_eq!(book.of_group(&space(), &group("c")), None);
    let hard = book.take(u64::MAX).unwrap();
    assert_eq!(hard.claim().unwrap().work, groups(&["a"], How::Hard));
    let soft = book.take(u64::MAX).unwrap();
    assert_eq!(soft.claim().unwrap().work, groups(&["b"], How::Soft));
    hard.confirm();
    soft.confirm();
    assert_eq!(book.len(), 0);
}

#[test]
fn a_pattern_covers_what_it_matches_and_is_kept_once() {
    let book = Book::default();
    book.defer(&space(), matching("user:*"));
    book.defer(&space(), matching("user:*"));
    assert_eq!(book.len(), 1);
    assert!(book.covers(&space(), "user:1") && !book.covers(&space(), "order:1"));
    book.take(u64::MAX).unwrap().confirm();
    assert!(!book.covers(&space(), "user:1"));
}

#[test]
fn a_full_list_makes_the_whole_namespace_pending() {
    let mut list = Pending::new(10);
    let other = Namespace::new("other").unwrap();
    list.enter(&other, keys(&["x"]));
    let mut claims = Vec::new();
    for i in 0..10 {
        claims.push(list.enter(&space(), keys(&[&i.to_string()])));
    }
    assert_eq!(list.len(), 3);
    assert!(list.covers(&space(), "never named"));
    assert_eq!(list.of_group(&space(), &group("any")), Some(How::Hard));
    assert!(!list.covers(&other, "never named"));
    for claim in &claims {
        list.confirm(claim);
    }
    assert!(list.covers(&space(), "0"), "one of them is in, the others are forgotten");
    let floor = list.take(u64::MAX).unwrap();
    assert_eq!(floor.work, Work::Floor, "one step, before the scan");
    list.confirm(&floor);
    let everything = list.take(u64::MAX).unwrap();
    assert_eq!(everything.work, matching("*"));
    list.confirm(&everything);
    assert!(!list.covers(&space(), "0"));
}

#[test]
fn many_patterns_become_one_for_everything() {
    let mut list = Pending::new(MAX_PENDING);
    for i in 0..=MAX_GLOBS {
        list.enter(&space(), matching(&format!("{i}:*")));
    }
    assert_eq!(list.len(), 2);
    assert!(list.covers(&space(), "x"));
}

#[test]
fn a_pattern_leaves_alone_what_was_written_after_it() {
    let book = Book::default();
    book.defer(&space(), matching("user:*"));
    book.enter(&space(), keys(&["user:1"])).confirm();
    assert!(!book.covers(&space(), "user:1") && book.covers(&space(), "user:2"));
    let sweep = book.take(u64::MAX).unwrap();
    let found = ["user:1", "user:2"].map(str::to_owned).to_vec();
    let page = book.take_found(&space(), found);
    assert_eq!(page.claim().unwrap().work, keys(&["user:2"]));
    page.confirm();
    book.defer(&space(), matching("user:*"));
    assert!(book.covers(&space(), "user:1"), "it was asked for again");
    sweep.confirm();
    assert!(book.covers(&space(), "user:1"), "the sweep began before it was asked for again");
}

#[test]
fn what_a_pattern_may_spare_is_bounded_and_the_rest_is_removed() {
    let mut list = Pending::new(3);
    let sweep = list.enter(&space(), matching("k*"));
    list.release(&sweep);
    for i in 0..5 {
        let claim = list.enter(&space(), keys(&[&format!("k{i}")]));
        list.confirm(&claim);
    }
    let covered = (0..5).filter(|i| list.covers(&space(), &format!("k{i}"))).count();
    assert_eq!(covered, 2);
}

#[test]
fn what_failed_in_a_round_is_not_sent_twice_in_it() {
    let book = Book::default();
    book.defer(&space(), keys(&["a"]));
    let round = book.round();
    drop(book.take(round).unwrap());
    assert!(book.take(round).is_none());
    assert!(book.take(book.round()).is_some());
}

#[tokio::test]
async fn a_write_waits_while_the_removal_is_sent_again() {
    let book = Book::default();
    let name = || vec!["a".to_owned()];
    let soon = || Deadline::after(std::time::Duration::from_millis(20));
    let first = book.enter(&space(), keys(&["a"]));
    let beside = book.enter_in_order(&space(), name(), soon()).await;
    assert!(beside.is_some(), "they are concurrent: either may come last");
    drop((first, beside));
    let again = book.take(u64::MAX).unwrap();
    assert!(book.enter_in_order(&space(), name(), soon()).await.is_none());
    let later = Deadline::after(std::time::Duration::from_secs(10));
    let space = space();
    let write = book.enter_in_order(&space, name(), later);
    let (write, ()) = futures_util::future::join(write, async { again.confirm() }).await;
    write.unwrap().confirm();
    assert_eq!(book.len(), 0);
}

#[tokio::test]
async fn groups_that_are_left_over_are_sent_before_counters_are_read() {
    let book = Book::default();
    let soon = || Deadline::after(std::time::Duration::from_millis(20));
    let first = book.enter(&space(), groups(&["a"], How::Hard));
    assert!(book.take_groups(&space(), soon()).await.is_none(), "it is concurrent");
    drop(first);
    book.defer(&space(), matching("*"));
    let floor = book.take_groups(&space(), soon()).await.unwrap();
    assert_eq!(floor.claim().unwrap().work, Work::Floor);
    let group = book.take_groups(&space(), soon()).await.unwrap();
    assert_eq!(group.claim().unwrap().work, groups(&["a"], How::Hard));
    assert!(book.take_groups(&space(), soon()).await.is_none(), "others send it, for too long");
    floor.confirm();
    group.confirm();
    assert!(book.take_groups(&space(), soon()).await.is_none());
    assert_eq!(book.len(), 1, "the pattern");
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u8),
    Confirm(usize),
    Release(usize),
    Take,
}

proptest! {
    /// Whatever the order of entering, sending, failing and confirming: a key is pending exactly
    /// as long as its last invalidation has not been confirmed.
    #[test]
    fn nothing_is_lost_and_nothing_stays(
        steps in prop::collection::vec(
            prop_oneof![
                (0_u8..4).prop_map(Step::Enter),
                (0_usize..6).prop_map(Step::Confirm),
                (0_usize..6).prop_map(Step::Release),
                Just(Step::Take),
            ],
            0..40,
        ),
    ) {
        let mut list = Pending::new(1000);
        let mut claims: Vec<Claim> = Vec::new();
        // For each key, the ticket that must be confirmed.
        let mut model: HashMap<String, u64> = HashMap::new();
        let named = |claim: &Claim| match &claim.work {
            Work::Keys(names) => names.clone(),
            _ => Vec::new(),
        };
        for step in steps {
            match step {
                Step::Enter(name) => {
                    let claim = list.enter(&space(), keys(&[&name.to_string()]));
                    model.insert(name.to_string(), claim.ticket);
                    claims.push(claim);
                }
                Step::Take => {
                    if let Some(claim) = list.take(u64::MAX) {
                        for name in named(&claim) {
                            model.insert(name, claim.ticket);
                        }
                        claims.push(claim);
                    }
                }
                Step::Confirm(at) | Step::Release(at) if at >= claims.len() => {}
                Step::Confirm(at) => {
                    let claim = claims.remove(at);
                    model.retain(|_, ticket| *ticket != claim.ticket);
                    list.confirm(&claim);
                }
                Step::Release(at) => {
                    let claim = claims.remove(at);
                    list.release(&claim);
                }
            }
            for name in 0..4 {
                let name = name.to_string();
                prop_assert_eq!(list.covers(&space(), &name), model.contains_key(&name));
            }
        }
        for claim in claims.drain(..) {
            list.release(&claim);
        }
        while let Some(claim) = list.take(u64::MAX) {
            list.confirm(&claim);
        }
        prop_assert_eq!(list.len(), 0);
    }
}

#[tokio::test]
async fn a_pending_removal_is_sent_by_one_who_writes_and_waited_for_by_the_others() {
    let (book, space) = (Book::default(), space());
    book.defer(&space, matching("k*"));
    let deadline = Deadline::after(Duration::from_secs(60));
    let first = book.take_key(&space, "k1", deadline).await.unwrap();
    assert_eq!(first.claim().unwrap().work, keys(&["k1"]));
    let mut second = pin!(book.take_key(&space, "k1", deadline));
    assert!(second.as_mut().now_or_never().is_none());
    // What the sweep finds meanwhile is left to who sends it.
    let found = book.take_found(&space, vec!["k1".to_owned(), "k2".to_owned()]);
    assert_eq!(found.claim().unwrap().work, keys(&["k2"]));
    first.confirm();
    assert!(second.await.unwrap().claim().is_none());
    assert!(!book.covers(&space, "k1"), "the pattern spares what is written now");
    assert!(book.covers(&space, "k2"));
}

#[tokio::test]
async fn a_removal_that_failed_is_sent_by_the_next_one_who_writes() {
    let (book, space) = (Book::default(), space());
    let own = book.enter(&space, keys(&["k"]));
    let deadline = Deadline::after(Duration::from_secs(60));
    let mut first = pin!(book.take_key(&space, "k", deadline));
    assert!(first.as_mut().now_or_never().is_none(), "its caller is sending it");
    drop(own);
    let first = first.await.unwrap();
    assert_eq!(first.claim().unwrap().work, keys(&["k"]));
    drop(first);
    let again = book.take_key(&space, "k", deadline).await.unwrap();
    again.confirm();
    assert!(book.is_idle());
}
