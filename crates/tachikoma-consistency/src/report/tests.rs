use clap::ValueEnum as _;

use super::*;
use crate::check::Calm;
use crate::faults::Broke;
use crate::history::Window;
use crate::strategy::Strategy;

fn options(strategy: Strategy, seconds: u64, faults: Pace) -> Run {
    let query = String::new();
    Run { seconds, nodes: 3, strategy, faults, query, plain: 1, json: false }
}

/// A whole run that just passes.
fn passed() -> (Checked, Vec<Broke>) {
    let tally = |reads, near| Tally { reads, near, violations: 0, late: 7 };
    let mut checked = Checked { invalidations: 15_000, ..Checked::default() };
    for (class, came, promise, tally) in [
        (Class::Keys, Came::Loaded, Promise::AtOnce, tally(860_000, 50_000)),
        (Class::Keys, Came::Redis, Promise::AtOnce, tally(20_000, 10_000)),
        (Class::Keys, Came::Memory, Promise::Within, tally(20_000, 10_000)),
        (Class::Tags, Came::Redis, Promise::AtOnce, tally(10_000, 1_000)),
        (Class::Tags, Came::Memory, Promise::Within, tally(40_000, 9_000)),
        (Class::Api, Came::Cache, Promise::Within, tally(20_000, 5_000)),
        (Class::Pages, Came::Cache, Promise::Within, tally(10_000, 5_000)),
        (Class::Parts, Came::Cache, Promise::Within, tally(20_000, 10_000)),
    ] {
        checked.tallies.insert((class, came, promise), tally);
    }
    checked.calm = (0..3).map(|node| (node, Calm { reads: 100, hits: 80 })).collect();
    let window = Window { begin: 1, end: 2 };
    let all = (0..3).flat_map(|_| Fault::ALL);
    (checked, all.map(|fault| Broke { fault, window, took: true }).collect())
}

/// What is wrong with a whole run after a change of it.
fn problems_after(change: impl FnOnce(&mut Checked, &mut Vec<Broke>)) -> Vec<String> {
    let (mut checked, mut faults) = passed();
    change(&mut checked, &mut faults);
    let options = options(Strategy::Shipped, WHOLE, Pace::Long);
    let summary =
        Summary { options: &options, server: String::new(), checked, faults: Faults(faults) };
    let problems = summary.problems();
    assert_eq!(summary.is_good(), problems.is_empty());
    assert_eq!(summary.text().matches("MISSED").count(), problems.len());
    problems
}

#[track_caller]
fn check(named: &str, change: impl FnOnce(&mut Checked, &mut Vec<Broke>)) {
    let problems = problems_after(change);
    assert!(problems.iter().any(|problem| problem.starts_with(named)), "{named}: {problems:?}");
}

fn trouble(kind: Kind) -> Trouble {
    let what = "busy".to_owned();
    Trouble { kind, class: Class::Api, begin: 1, end: 2, node: 0, what }
}

#[test]
fn a_run_that_meets_every_bar_passes() {
    assert_eq!(problems_after(|_, _| {}), Vec::<String>::new());
}

#[test]
fn each_bar_fails_by_itself() {
    fn of(checked: &mut Checked, class: Class, came: Came, promise: Promise) -> &mut Tally {
        checked.tallies.entry((class, came, promise)).or_default()
    }
    check("stale reads: 1", |run, _| {
        of(run, Class::Pages, Came::Cache, Promise::Within).violations = 1;
    });
    check("reads: 999999", |run, _| {
        of(run, Class::Keys, Came::Loaded, Promise::AtOnce).reads -= 1;
    });
    check("reads within 1 s of an invalidation: 99999", |run, _| {
        of(run, Class::Keys, Came::Loaded, Promise::AtOnce).near -= 1;
    });
    for (named, class, came, promise) in [
        ("Redis reads: hits", Class::Keys, Came::Redis, Promise::AtOnce),
        ("memory tier: hits", Class::Keys, Came::Memory, Promise::Within),
        ("groups: hits", Class::Tags, Came::Redis, Promise::AtOnce),
        ("responses: hits", Class::Api, Came::Cache, Promise::Within),
        ("dependencies: hits", Class::Parts, Came::Cache, Promise::Within),
    ] {
        check(named, |run, _| of(run, class, came, promise).near -= 1);
    }
    check("invalidations: 14999", |run, _| run.invalidations -= 1);
    check("reads of what nobody had written: 1", |run, _| run.unwritten = 1);
    check("writes whose versions are in another order: 1", |run, _| run.disordered = 1);
    check("values marked as stale outside of faults: 1", |run, _| run.calm_stale = 1);
    for kind in Kind::ALL {
        check(&format!("{} outside of faults: 1", kind.name()), |run, _| {
            run.calm_troubles.push(trouble(kind));
        });
    }
}

#[test]
fn hits_are_asked_of_each_node() {
    check("hits outside of faults: 79.0 %", |run, _| {
        run.calm.insert(2, Calm { reads: 100, hits: 79 });
    });
    check("hits outside of faults: 0.0 %", |run, _| run.calm.retain(|node, _| *node != 1));
}

#[test]
fn a_fault_without_effect_does_not_count() {
    for fault in Fault::ALL {
        check(&format!("{}: 2 of at least 3", fault.name()), |_, faults| {
            let one = faults.iter_mut().find(|broke| broke.fault == fault);
            one.unwrap().took = false;
        });
    }
}

#[test]
fn a_broken_strategy_fails_if_it_shows_nothing() {
    for strategy in Strategy::value_variants() {
        let (mut checked, faults) = passed();
        let options = options(*strategy, 10, Pace::None);
        let is_good = |checked: &Checked| {
            let (checked, faults) = (checked.clone(), Faults(faults.clone()));
            Summary { options: &options, server: String::new(), checked, faults }.is_good()
        };
        assert_eq!(is_good(&checked), strategy.is_sound(), "{strategy}");
        checked.tallies.values_mut().next().unwrap().violations = 1;
        assert_eq!(is_good(&checked), !strategy.is_sound(), "{strategy}");
        checked.disordered = 1;
        assert!(!is_good(&checked), "{strategy}");
    }
}
