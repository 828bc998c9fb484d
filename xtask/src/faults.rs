//! Runs the tests that break something and prints what they measured as one table.
//!
//! Such a test lives in a module named `faults` and hands in a `FaultRow` of the testkit, which is
//! appended to a file. A bar that was missed, a test that failed and a row that `xtask/faults.txt`
//! names but no test handed in are failures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use crate::json::{self, Json};
use crate::metadata::Metadata;
use crate::process::{Report, Timer, cargo, output, run as run_process};
use crate::test::count::{Count, Reader};
use crate::{Failure, root};

const LIMIT: Duration = Duration::from_mins(25);

/// The variable of `tachikoma_testkit::FAULT_ROWS`.
const ROWS: &str = "TACHIKOMA_FAULT_ROWS";

/// Runs them; `false` when a bar was missed.
pub(crate) fn run(report: Report) -> Result<bool, Failure> {
    let timer = Timer::start();
    let expected = expected(&read(&root().join("xtask/faults.txt"))?)?;
    let file = Metadata::read()?.target_directory.join(format!("faults-{}", std::process::id()));
    let nextest = output(&mut cargo(&["nextest", "--version"])).is_ok();
    let mut command = if nextest {
        let filter = "test(/(^|::)faults::/)";
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "-E", filter])
    } else {
        let alone = ["faults::", "--", "--test-threads", "1"];
        let select = ["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"];
        cargo(&[&select[..], &alone].concat())
    };
    let (mut reader, mut count) = (Reader::default(), Count::default());
    let ended = run_process(command.env(ROWS, &file), LIMIT, |line| {
        report.line(line);
        reader.line(line, &mut count);
    })?;
    // No file: no test handed in a row.
    let text = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(&file);
    let table = Table::read(&text)?;
    let mut problems: Vec<String> =
        count.failures().map(|name| format!("failed: {name}")).collect();
    if !ended.success && problems.is_empty() {
        problems.push("the tests could not be run".to_owned());
    }
    problems.extend(table.shortfalls(&expected));
    let good = problems.is_empty() && table.missed() == 0;
    if report.json {
        println!("{}", table.json(&problems));
        return Ok(good);
    }
    println!("\n{table}");
    for problem in &problems {
        println!("    {problem}");
    }
    println!(
        "{} rows, {} cells, {} missed, in {} s",
        table.rows(),
        table.cells.len(),
        table.missed(),
        timer.elapsed().as_secs()
    );
    Ok(good)
}

fn read(path: &std::path::Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Each row with the cells that it must have: `FM-01 12`.
fn expected(text: &str) -> Result<BTreeMap<String, usize>, Failure> {
    let mut rows = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            continue;
        }
        let row = line.split_once(' ').and_then(|(row, cells)| Some((row, cells.parse().ok()?)));
        let (row, cells) =
            row.ok_or_else(|| format!("xtask/faults.txt: {line:?} is not a row and a number"))?;
        rows.insert(row.to_owned(), cells);
    }
    Ok(rows)
}

/// One thing that was measured.
#[derive(Debug, Clone, PartialEq)]
struct Cell {
    /// Row, fault, operation, bar, measured.
    texts: [String; 5],
    pass: bool,
}

const NAMES: [&str; 5] = ["row", "fault", "operation", "bar", "measured"];

impl Cell {
    fn read(line: &str) -> Result<Self, Failure> {
        let value = json::parse(line)?;
        let text = |name: &str| {
            let found = value.get(name).and_then(Json::text);
            found.map(str::to_owned).ok_or_else(|| format!("a fault row has no {name:?}: {line}"))
        };
        let [row, fault, operation, bar, measured] = NAMES.map(text);
        let texts = [row?, fault?, operation?, bar?, measured?];
        Ok(Self { texts, pass: value.get("pass") == Some(&Json::Bool(true)) })
    }

    fn json(&self) -> String {
        let texts = NAMES.iter().zip(&self.texts);
        let mut members: Vec<String> =
            texts.map(|(name, text)| format!("\"{name}\":{}", json::quote(text))).collect();
        members.push(format!("\"pass\":{}", self.pass));
        format!("{{{}}}", members.join(","))
    }
}

/// All cells, by row and fault, in the order in which a fault's cells were handed in.
#[derive(Debug, Default)]
struct Table {
    cells: Vec<Cell>,
}

impl Table {
    fn read(text: &str) -> Result<Self, Failure> {
        let mut cells = text.lines().map(Cell::read).collect::<Result<Vec<_>, _>>()?;
        cells.sort_by(|a, b| a.texts[..2].cmp(&b.texts[..2]));
        Ok(Self { cells })
    }

    fn missed(&self) -> usize {
        self.cells.iter().filter(|cell| !cell.pass).count()
    }

    fn rows(&self) -> usize {
        self.cells.chunk_by(|a, b| a.texts[0] == b.texts[0]).count()
    }

    fn shortfalls(&self, expected: &BTreeMap<String, usize>) -> Vec<String> {
        let cells = |row: &str| self.cells.iter().filter(|cell| cell.texts[0] == row).count();
        expected
            .iter()
            .map(|(row, least)| (row, cells(row), least))
            .filter(|(_, cells, least)| cells < least)
            .map(|(row, cells, least)| format!("{row}: {cells} cells of at least {least}"))
            .collect()
    }

    fn json(&self, problems: &[String]) -> String {
        let cells: Vec<String> = self.cells.iter().map(Cell::json).collect();
        let problems: Vec<String> = problems.iter().map(|problem| json::quote(problem)).collect();
        format!(
            r#"{{"rows":{},"cells":[{}],"missed":{},"problems":[{}]}}"#,
            self.rows(),
            cells.join(","),
            self.missed(),
            problems.join(",")
        )
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut widths = NAMES.map(str::len);
        for cell in &self.cells {
            for (width, text) in widths.iter_mut().zip(&cell.texts) {
                *width = (*width).max(text.chars().count());
            }
        }
        let line = |texts: [&str; 5], result: &str| {
            let mut line = String::new();
            for (text, width) in texts.iter().zip(widths) {
                // Writing to a string does not fail.
                let _ = write!(line, "{text:width$}  ");
            }
            line + result
        };
        writeln!(f, "{}", line(NAMES, "result"))?;
        let mut before: [&str; 2] = ["", ""];
        for cell in &self.cells {
            let mut texts = cell.texts.each_ref().map(String::as_str);
            let head = [texts[0], texts[1]];
            if head == before {
                (texts[0], texts[1]) = ("", "");
            }
            before = head;
            writeln!(f, "{}", line(texts, if cell.pass { "met" } else { "MISSED" }))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> String {
        [
            ["FM-02", "slow", "set", "≤ 5 ms", "9 ms", "false"],
            ["FM-01", "hung", "get", "0", "0", "true"],
            ["FM-01", "hung", "delete", "Pending", "Pending", "true"],
        ]
        .map(|[row, fault, operation, bar, measured, pass]| {
            let texts = [row, fault, operation, bar, measured].map(str::to_owned);
            Cell { texts, pass: pass == "true" }.json()
        })
        .join("\n")
    }

    #[test]
    fn cells_are_shown_by_row_and_a_missed_bar_stands_out() {
        let table = Table::read(&rows()).expect("rows");
        assert_eq!((table.rows(), table.missed()), (2, 1));
        let shown = table.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1], "FM-01  hung   get        0        0         met");
        assert_eq!(lines[2], "              delete     Pending  Pending   met");
        assert!(lines[3].ends_with("MISSED"), "{shown}");
        let parsed = json::parse(&table.json(&[])).expect("JSON");
        assert_eq!(parsed.get("cells").map(|cells| cells.array().len()), Some(3));
    }

    #[test]
    fn a_row_that_nobody_hands_in_is_a_shortfall() {
        let table = Table::read(&rows()).expect("rows");
        let wanted = expected("# rows\nFM-01 2\nFM-02 2\n\nFM-03 1\n").expect("a list");
        let short = table.shortfalls(&wanted);
        assert_eq!(short, ["FM-02: 1 cells of at least 2", "FM-03: 0 cells of at least 1"]);
        assert!(expected("FM-01").is_err());
        assert!(Table::read("no json").is_err());
    }
}
