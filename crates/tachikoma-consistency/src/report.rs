//! What a run came to, for people and machines, and whether that is good.

use std::fmt::Write as _;

use serde_json::json;

use crate::Run;
use crate::faults::{Fault, Faults};
use crate::history::{Checked, Class, Promise, Tally};

/// From this length on a run of the shipped strategy must have seen enough.
const WHOLE: u64 = 300;
const READS: u64 = 1_000_000;
const NEAR: u64 = 100_000;
const HIT_PERCENT: f64 = 80.0;
const EACH_FAULT: usize = 3;

/// A run.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) options: &'a Run,
    pub(crate) checked: Checked,
    pub(crate) faults: Faults,
}

impl Summary<'_> {
    fn violations(&self) -> u64 {
        self.checked.total().violations
    }

    /// Of reads outside of faults, in percent.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    fn hit_percent(&self) -> f64 {
        100.0 * self.checked.calm_hits as f64 / (self.checked.calm_reads.max(1)) as f64
    }

    /// What was broken, or had been a moment before.
    fn broken_at(&self, at: u64) -> Option<&'static str> {
        let broke = self.faults.iter().rfind(|(_, window)| window.begin <= at && at <= window.end);
        broke.map(|(fault, _)| fault.name())
    }

    fn count(&self, fault: Fault) -> usize {
        self.faults.iter().filter(|(class, _)| *class == fault).count()
    }

    /// What keeps this run from being a pass.
    pub(crate) fn problems(&self) -> Vec<String> {
        let (strategy, violations) = (self.options.strategy, self.violations());
        let mut problems = Vec::new();
        if strategy.is_sound() && violations > 0 {
            problems.push(format!("{violations} stale reads"));
        }
        if !strategy.is_sound() && violations == 0 {
            problems.push(format!("nothing stale was seen, but {strategy} must show something"));
        }
        let total = self.checked.total();
        if strategy.is_sound() && self.options.seconds >= WHOLE {
            let mut least = |what: &str, found: u64, bar: u64| {
                if found < bar {
                    problems.push(format!("{what}: {found} of at least {bar}"));
                }
            };
            least("reads", total.reads, READS);
            least("reads within 1 s of an invalidation", total.near, NEAR);
            least("invalidations", self.checked.invalidations, 50 * self.options.seconds);
            for fault in Fault::ALL {
                least(fault.name(), self.count(fault) as u64, EACH_FAULT as u64);
            }
            if self.hit_percent() < HIT_PERCENT {
                problems.push(format!("hits outside of faults: {:.1} %", self.hit_percent()));
            }
        }
        problems
    }

    pub(crate) fn is_good(&self) -> bool {
        self.problems().is_empty()
    }

    fn rows(&self) -> Vec<(Class, Promise, Tally)> {
        let mut rows: Vec<_> = self
            .checked
            .tallies
            .iter()
            .map(|((class, promise), tally)| (*class, *promise, *tally))
            .collect();
        rows.sort_unstable_by_key(|(class, promise, _)| (*class, *promise));
        rows
    }

    pub(crate) fn text(&self) -> String {
        let (checked, options) = (&self.checked, self.options);
        let total = checked.total();
        let mut text = format!(
            "{}: {} nodes, {} s, {} invalidations, {} reads, {} within 1 s of an invalidation, \
             {:.1} % hits outside of faults, {} stale\n",
            options.strategy,
            options.nodes,
            options.seconds,
            checked.invalidations,
            total.reads,
            total.near,
            self.hit_percent(),
            total.violations,
        );
        let [reads, writes, pending] = checked.failed;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  failed: {reads} reads, {writes} writes; pending: {pending} writes; of these \
             writes {} outside of faults",
            checked.calm_trouble
        );
        for (class, promise, Tally { reads, near, violations, late }) in self.rows() {
            let _ = writeln!(
                text,
                "  {:<5} {:<9} {reads:>7} reads {near:>8} near {violations:>6} stale \
                 {late:>6} late",
                class.name(),
                promise_name(promise),
            );
        }
        if !self.faults.is_empty() {
            let counts = Fault::ALL.map(|fault| format!("{} {}", self.count(fault), fault.name()));
            let _ = writeln!(text, "  faults: {}", counts.join(", "));
        }
        for one in &checked.worst {
            let read = one.read;
            let _ = writeln!(
                text,
                "  stale: {} {} on node {} at {:.3} s showed {} and not {}, invalidated {:.1} ms \
                 before ({}, {})",
                read.class.name(),
                read.id,
                read.node,
                seconds(read.begin),
                read.version,
                one.floor,
                seconds(one.after) * 1000.0,
                if read.hit { "a hit" } else { "no hit" },
                self.broken_at(read.begin).unwrap_or("nothing broken"),
            );
        }
        for problem in self.problems() {
            let _ = writeln!(text, "  MISSED: {problem}");
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let rows = self.rows();
        let classes = rows.iter().map(|(class, promise, tally)| {
            json!({
                "class": class.name(),
                "promise": promise_name(*promise),
                "reads": tally.reads,
                "near": tally.near,
                "stale": tally.violations,
                "late": tally.late,
            })
        });
        let faults =
            Fault::ALL.map(|fault| json!({ "fault": fault.name(), "times": self.count(fault) }));
        let total = self.checked.total();
        json!({
            "strategy": self.options.strategy.to_string(),
            "seconds": self.options.seconds,
            "nodes": self.options.nodes,
            "invalidations": self.checked.invalidations,
            "reads": total.reads,
            "near": total.near,
            "stale": total.violations,
            "late": total.late,
            "hit_percent": self.hit_percent(),
            "failed_reads": self.checked.failed[0],
            "failed_writes": self.checked.failed[1],
            "pending_writes": self.checked.failed[2],
            "troubled_writes_outside_of_faults": self.checked.calm_trouble,
            "classes": classes.collect::<Vec<_>>(),
            "faults": faults,
            "problems": self.problems(),
        })
        .to_string()
    }
}

fn promise_name(promise: Promise) -> &'static str {
    match promise {
        Promise::AtOnce => "at once",
        Promise::Within => "after 1 s",
        Promise::None => "stale",
    }
}

/// Of microseconds.
#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
