//! Rows of the fault matrix: what a test broke, what had to hold, and what was measured.
//!
//! A test that breaks something lives in a module named `faults`, fills a [`FaultRow`] and ends
//! with [`report`](FaultRow::report). `cargo xtask faults` runs all modules of that name and prints
//! their rows as one table; in the ordinary test command the same tests fail when a bar is missed.
//! It measures nothing itself.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

use crate::allowed;

/// Names the file to which rows are appended, one JSON object in each line. `cargo xtask faults`
/// sets it; without it rows are only printed.
pub const FAULT_ROWS: &str = "TACHIKOMA_FAULT_ROWS";

/// One fault, and a cell for each operation that was measured under it.
///
/// ```
/// # use {std::time::Duration, tachikoma_testkit::FaultRow};
/// let took = Duration::from_millis(12);
/// let mut row = FaultRow::new("FM-01", "Redis accepts and never answers");
/// row.at_most("get", Duration::from_millis(250), took);
/// row.count("wrong values", 0, 0);
/// row.holds("delete", "Pending", "Pending", true);
/// row.report();
/// ```
#[derive(Debug, Clone)]
#[must_use = "call `report` at the end"]
pub struct FaultRow {
    row: String,
    fault: String,
    cells: Vec<Cell>,
}

#[derive(Debug, Clone)]
struct Cell {
    operation: String,
    bar: String,
    measured: String,
    pass: bool,
}

impl FaultRow {
    /// A row of the catalogue, such as `FM-01`, and how the fault was made, in a few words.
    pub fn new(row: &str, fault: &str) -> Self {
        Self { row: row.to_owned(), fault: fault.to_owned(), cells: Vec::new() }
    }

    /// What a bar allows, now that something took so long: the bar for the matrix, and
    /// [more](allowed) while the machine is busy for a test beside other work.
    #[must_use]
    pub fn within(bar: Duration, took: Duration) -> Duration {
        if std::env::var_os(FAULT_ROWS).is_some() { bar } else { allowed(bar, took) }
    }

    /// A cell whose bar is a [time](Self::within).
    pub fn at_most(&mut self, operation: &str, bar: Duration, took: Duration) {
        let bar = Self::within(bar, took);
        let shown = if took < Duration::from_millis(10) {
            format!("{:.2} ms", took.as_secs_f64() * 1000.0)
        } else {
            format!("{} ms", took.as_millis())
        };
        self.holds(operation, &format!("≤ {} ms", bar.as_millis()), shown, took <= bar);
    }

    /// A cell whose bar is a number that must not be exceeded; for 0 it must not happen at all.
    pub fn count(&mut self, operation: &str, bar: u64, measured: u64) {
        let shown = if bar == 0 { "0".to_owned() } else { format!("≤ {bar}") };
        self.holds(operation, &shown, measured, measured <= bar);
    }

    /// Any other cell: what had to be, what was, and whether that is good.
    pub fn holds(&mut self, operation: &str, bar: &str, measured: impl Display, pass: bool) {
        let (operation, bar) = (operation.to_owned(), bar.to_owned());
        self.cells.push(Cell { operation, bar, measured: measured.to_string(), pass });
    }

    /// Whether all bars were met so far. Bars of real time may be tried again on a busy machine.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.cells.iter().all(|cell| cell.pass)
    }

    /// Hands the row in.
    ///
    /// # Panics
    ///
    /// If a bar was missed, or the row has no cell.
    #[track_caller]
    pub fn report(self) {
        assert!(!self.cells.is_empty(), "{} has no cell", self.row);
        let lines: String = self.cells.iter().map(|cell| self.line(cell) + "\n").collect();
        print!("{lines}");
        if let Some(path) = std::env::var_os(FAULT_ROWS) {
            // One write: tests of several processes append to the same file.
            File::options()
                .create(true)
                .append(true)
                .open(&path)
                .and_then(|mut file| file.write_all(lines.as_bytes()))
                .unwrap_or_else(|error| panic!("cannot write to {}: {error}", path.display()));
        }
        let missed: Vec<&Cell> = self.cells.iter().filter(|cell| !cell.pass).collect();
        assert!(missed.is_empty(), "{} ({}) missed {missed:#?}", self.row, self.fault);
    }

    fn line(&self, cell: &Cell) -> String {
        serde_json::json!({
            "row": self.row,
            "fault": self.fault,
            "operation": cell.operation,
            "bar": cell.bar,
            "measured": cell.measured,
            "pass": cell.pass,
        })
        .to_string()
    }
}
