//! Runs the benchmarks of every crate and prints their medians.
//!
//! A benchmark is a target of kind `bench` whose own `main` prints one line for each measure:
//! `median <name> <number> <unit>`. Other lines are shown as they are.

use std::time::Duration;

use crate::metadata::Metadata;
use crate::process::{Report, cargo, run as run_process};
use crate::{Failure, json};

const LIMIT: Duration = Duration::from_mins(30);

/// Runs all benchmarks; `false` when one of them failed.
pub(crate) fn run(report: Report) -> Result<bool, Failure> {
    let metadata = Metadata::read()?;
    let mut medians = Vec::new();
    let mut failed = 0;
    for (package, target) in metadata.targets("bench") {
        report.line(format!("\n==> {} {}", package.name, target.name));
        let features = target.required_features.join(",");
        let select = ["bench", "-p", &package.name, "--bench", &target.name];
        let arguments = [&select[..], &["--features", &features]].concat();
        let ended = run_process(&mut cargo(&arguments), LIMIT, |line| report.line(line))?;
        let found = ended.lines.iter().filter_map(|line| Median::read(line));
        medians.extend(found.map(|median| Median {
            name: format!("{}/{}/{}", package.name, target.name, median.name),
            ..median
        }));
        failed += usize::from(!ended.success);
    }
    if report.json {
        let members: Vec<String> = medians.iter().map(Median::json).collect();
        println!("[{}]", members.join(","));
    } else {
        println!("\n{} medians, {failed} benchmarks failed", medians.len());
        for Median { name, value, unit } in &medians {
            println!("{value:>14} {unit:<8} {name}");
        }
    }
    Ok(failed == 0)
}

#[derive(Debug, PartialEq)]
struct Median {
    name: String,
    value: f64,
    unit: String,
}

impl Median {
    fn read(line: &str) -> Option<Self> {
        let rest = line.trim().strip_prefix("median ")?;
        let (rest, unit) = rest.trim().rsplit_once(' ')?;
        let (name, value) = rest.trim().rsplit_once(' ')?;
        let value = value.parse().ok()?;
        Some(Self { name: name.trim().to_owned(), value, unit: unit.to_owned() })
    }

    fn json(&self) -> String {
        let (name, unit) = (json::quote(&self.name), json::quote(&self.unit));
        format!(r#"{{"name":{name},"median":{},"unit":{unit}}}"#, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_a_name_a_number_and_a_unit() {
        let median = Median::read("  median hit, 2 threads  31.5 ns").expect("a median");
        assert_eq!(median.json(), r#"{"name":"hit, 2 threads","median":31.5,"unit":"ns"}"#);
        assert_eq!(Median::read("median of nothing"), None);
        assert_eq!(Median::read("the median hit 3 ns"), None);
    }
}
