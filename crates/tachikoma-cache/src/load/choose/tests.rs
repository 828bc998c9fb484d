use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn fresh(left: u64, load_time: u64) -> Found {
    Found { guarantee: Guarantee::Fresh, left: Some(ms(left)), load_time: ms(load_time) }
}

fn stale(age: u64) -> Found {
    let guarantee = Guarantee::Stale { reason: StaleReason::Expired, age: ms(age) };
    Found { guarantee, left: Some(Duration::ZERO), load_time: ms(5) }
}

fn windows(now: u64, on_error: u64) -> LoadOptions {
    LoadOptions::new().stale_while_revalidate(ms(now)).stale_if_error(ms(on_error))
}

fn served(reason: StaleReason, age: u64) -> Guarantee {
    Guarantee::Stale { reason, age: ms(age) }
}

#[track_caller]
fn check(found: Option<Found>, options: LoadOptions, throttled: bool, expected: Choice) {
    let actual = choose(found, &options, || throttled, || 0.5);
    assert_eq!(actual, expected, "{found:?} {options:?} throttled: {throttled}");
}

#[test]
fn the_windows_decide_what_a_stale_value_is_good_for() {
    use Choice::{Load, LoadWithFallback, Serve, ServeAndRefresh};
    let refresh = |age| ServeAndRefresh(served(StaleReason::Revalidating, age));
    let throttled = |age| Serve(served(StaleReason::Throttled, age));
    check(None, windows(10, 20), false, Load);
    check(None, windows(10, 20), true, Load);
    check(Some(stale(0)), windows(0, 0), false, Load);
    check(Some(stale(0)), windows(10, 20), false, refresh(0));
    check(Some(stale(9)), windows(10, 20), false, refresh(9));
    check(Some(stale(10)), windows(10, 20), false, LoadWithFallback);
    check(Some(stale(19)), windows(10, 20), false, LoadWithFallback);
    check(Some(stale(20)), windows(10, 20), false, Load);
    check(Some(stale(15)), windows(20, 10), false, refresh(15));
    check(Some(stale(5)), windows(10, 20), true, throttled(5));
    check(Some(stale(15)), windows(10, 20), true, throttled(15));
    check(Some(stale(21)), windows(10, 20), true, Load);
}

#[test]
fn what_a_memory_tier_has_left_is_served_and_not_renewed() {
    use Choice::{Load, LoadWithFallback, Serve};
    let left = |age| {
        let guarantee = served(StaleReason::Disconnected, age);
        Some(Found { guarantee, ..stale(age) })
    };
    for throttled in [false, true] {
        let expected = Serve(served(StaleReason::Disconnected, 9));
        check(left(9), windows(10, 20), throttled, expected);
        check(left(20), windows(10, 20), throttled, Load);
    }
    check(left(15), windows(10, 20), false, LoadWithFallback);
    check(left(15), windows(10, 20), true, Serve(served(StaleReason::Throttled, 15)));
    check(left(1), windows(0, 0), false, Load);
}

#[test]
fn a_fresh_value_is_renewed_early_only_near_its_end_and_if_asked_for() {
    use Choice::{Serve, ServeAndRefresh};
    let early = LoadOptions::new().early_refresh(1.0);
    // -ln 0.5 is 0.69…: a load of 100 ms reaches 69 ms ahead.
    check(Some(fresh(69, 100)), early, false, ServeAndRefresh(Guarantee::Fresh));
    check(Some(fresh(70, 100)), early, false, Serve(Guarantee::Fresh));
    check(Some(fresh(69, 100)), early, true, Serve(Guarantee::Fresh));
    check(Some(fresh(69, 100)), LoadOptions::new(), false, Serve(Guarantee::Fresh));
    check(
        Some(fresh(138, 100)),
        early.early_refresh(2.0),
        false,
        ServeAndRefresh(Guarantee::Fresh),
    );
    check(Some(fresh(1, 0)), early, false, Serve(Guarantee::Fresh));
    let forever = Found { left: None, ..fresh(0, 100) };
    check(Some(forever), early, false, Serve(Guarantee::Fresh));
}

#[test]
fn chance_and_throttle_are_asked_only_where_they_count() {
    let nobody = || -> bool { panic!("asked") };
    let no_draw = || -> f64 { panic!("drawn") };
    let plain = LoadOptions::new();
    assert_eq!(choose(None, &plain, nobody, no_draw), Choice::Load);
    let choice = choose(Some(fresh(1, 100)), &plain, nobody, no_draw);
    assert_eq!(choice, Choice::Serve(Guarantee::Fresh));
    let far = choose(Some(fresh(60_000, 100)), &plain.early_refresh(1.0), nobody, no_draw);
    assert_eq!(far, Choice::Serve(Guarantee::Fresh));
    assert_eq!(choose(Some(stale(1)), &plain, nobody, no_draw), Choice::Load);
}

/// How much of the cache is in an answer: less the larger the number.
fn rank(choice: Choice) -> u8 {
    match choice {
        Choice::Serve(Guarantee::Fresh | Guarantee::Within(_)) => 0,
        Choice::ServeAndRefresh(Guarantee::Fresh | Guarantee::Within(_)) => 1,
        Choice::Serve(Guarantee::Stale { .. }) => 2,
        Choice::ServeAndRefresh(Guarantee::Stale { .. }) => 3,
        Choice::LoadWithFallback => 4,
        Choice::Load => 5,
    }
}

proptest! {
    /// Law 9, and 11: no way back from staleness.
    #[test]
    fn growing_older_never_makes_a_value_more_usable(
        age in 0_u64..100, more in 0_u64..100, now in 0_u64..100, on_error in 0_u64..100,
        throttled: bool,
    ) {
        let options = windows(now, on_error);
        let at = |age| rank(choose(Some(stale(age)), &options, || throttled, || 0.5));
        prop_assert!(at(age) <= at(age + more));
    }

    #[test]
    fn a_stale_value_is_only_for_those_whose_window_it_is_in(
        age in 0_u64..100, now in 0_u64..100, on_error in 0_u64..100, throttled: bool,
    ) {
        let options = windows(now, on_error);
        match choose(Some(stale(age)), &options, || throttled, || 0.5) {
            Choice::Load => prop_assert!(age >= now.max(on_error)),
            Choice::Serve(guarantee) | Choice::ServeAndRefresh(guarantee) => {
                prop_assert!(guarantee.is_stale(), "it says that it is stale");
                prop_assert!(age < now.max(on_error));
            }
            Choice::LoadWithFallback => prop_assert!(age >= now && age < on_error),
        }
    }

    #[test]
    fn an_early_refresh_comes_the_likelier_the_nearer_the_end(
        left in 0_u64..1000, less in 0_u64..1000, load_time in 0_u64..1000, draw in 0.001..=1.0,
    ) {
        let options = LoadOptions::new().early_refresh(1.0);
        let at = |left| rank(choose(Some(fresh(left, load_time)), &options, || false, || draw));
        prop_assert!(at(left) <= at(left.saturating_sub(less)));
    }
}
