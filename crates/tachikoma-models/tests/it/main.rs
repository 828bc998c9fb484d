//! Every protocol as it is shipped holds, and each of its variants is caught.

#![allow(clippy::expect_used, reason = "tests fail by panic")]

use tachikoma_models::SUITES;

#[track_caller]
fn check(name: &str) {
    let suite = SUITES.into_iter().find(|suite| suite.name == name).expect("a suite of this name");
    let outcomes = (suite.run)();
    for outcome in &outcomes {
        println!("{name}: {outcome}");
    }
    for outcome in &outcomes {
        assert!(outcome.is_as_expected(), "{name}: {outcome}");
    }
    assert!(outcomes.iter().any(|outcome| outcome.sound));
    assert!(outcomes.iter().any(|outcome| !outcome.sound));
}

#[test]
fn leases_let_no_overtaken_load_in() {
    check("lease");
}

#[test]
fn the_memory_tier_shows_nothing_older_than_its_floor() {
    check("tracking");
}

#[test]
fn no_entry_of_a_group_outlives_its_invalidation() {
    check("groups");
}

#[test]
fn a_page_goes_with_what_it_was_made_of() {
    check("dependencies");
}

#[test]
fn a_page_notes_of_each_key_what_was_known_before_it_was_read() {
    check("pages");
}

#[test]
fn a_write_guard_leaves_nothing_old_behind() {
    check("guard");
}
