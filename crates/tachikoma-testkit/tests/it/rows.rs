//! Rows of the fault matrix.

use std::panic::catch_unwind;
use std::time::Duration;

use tachikoma_testkit::FaultRow;

#[test]
fn a_row_is_met_when_every_cell_is() {
    let mut row = FaultRow::new("FM-00", "nothing");
    row.at_most("get", Duration::from_millis(5), Duration::from_millis(5));
    row.count("errors", 0, 0);
    row.count("loads", 3, 3);
    row.holds("delete", "Pending", "Pending", true);
    assert!(row.is_met());
    row.report();
}

#[test]
fn a_missed_bar_fails_the_test_that_reports_it() {
    let check = |fill: fn(&mut FaultRow)| {
        let mut row = FaultRow::new("FM-00", "nothing");
        fill(&mut row);
        assert!(catch_unwind(|| row.report()).is_err());
    };
    // An hour: no machine is busy enough to be excused. The edge is a test of the pace.
    check(|row| row.at_most("get", Duration::from_millis(5), Duration::from_hours(1)));
    check(|row| row.count("errors", 0, 1));
    check(|row| row.holds("delete", "Pending", "Ok", false));
    check(|_| {});
}
