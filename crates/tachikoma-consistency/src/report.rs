//! What a run came to, for people and machines, and whether that is good.

use std::fmt::Write as _;

use serde_json::json;

use crate::Run;
use crate::check::{Checked, Tally};
use crate::faults::{Fault, Faults, Pace};
use crate::history::{Came, Class, Kind, Promise, Trouble};

/// From this length on a run of the shipped strategy must have seen enough.
const WHOLE: u64 = 300;
const READS: u64 = 1_000_000;
const NEAR: u64 = 100_000;
/// Near hits of each kind of read.
const NEAR_OF_EACH: u64 = 10_000;
/// Of each node.
const HIT_PERCENT: f64 = 80.0;
const EACH_FAULT: u64 = 3;
const INVALIDATIONS_A_SECOND: u64 = 50;

/// How many failures are told with all that is known of them.
const TOLD: usize = 10;

/// What is counted apart: hits by who keeps the value and how it is invalidated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Apart {
    Redis,
    Memory,
    Groups,
    Responses,
    Dependencies,
}

impl Apart {
    const ALL: [Self; 5] =
        [Self::Redis, Self::Memory, Self::Groups, Self::Responses, Self::Dependencies];

    fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis reads",
            Self::Memory => "memory tier",
            Self::Groups => "groups",
            Self::Responses => "responses",
            Self::Dependencies => "dependencies",
        }
    }

    fn counts(self, class: Class, came: Came) -> bool {
        let of = match (class, came) {
            (_, Came::Loaded | Came::Stale) => return false,
            (Class::Keys, Came::Redis) => Self::Redis,
            (Class::Keys, Came::Memory | Came::Cache) => Self::Memory,
            (Class::Tags, _) => Self::Groups,
            (Class::Api | Class::Pages, _) => Self::Responses,
            (Class::Parts, _) => Self::Dependencies,
        };
        self == of
    }
}

/// A run.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) options: &'a Run,
    pub(crate) server: String,
    pub(crate) checked: Checked,
    pub(crate) faults: Faults,
}

impl Summary<'_> {
    /// The lowest share of hits that a node had while nothing was broken, in percent.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    fn hit_percent(&self) -> f64 {
        let shares = (0..self.options.nodes).map(|node| {
            let calm = self.checked.calm.get(&node).copied().unwrap_or_default();
            100.0 * calm.hits as f64 / calm.reads.max(1) as f64
        });
        shares.fold(100.0, f64::min)
    }

    /// What was broken, or had been a moment before.
    fn broken_at(&self, at: u64) -> &'static str {
        let broke = self.faults.iter().rfind(|broke| broke.window.touches(at, at));
        broke.map_or("nothing broken", |broke| broke.fault.name())
    }

    /// The last fault before, and how long it had been over, recovery and all.
    fn last_fault(&self, at: u64) -> String {
        let last = self.faults.iter().rfind(|broke| broke.window.begin <= at);
        last.map_or_else(
            || "before every fault".to_owned(),
            |last| {
                let after = seconds(at.saturating_sub(last.window.end));
                format!("{after:.3} s after {}", last.fault.name())
            },
        )
    }

    fn count(&self, fault: Fault) -> u64 {
        self.faults.iter().filter(|broke| broke.fault == fault && broke.took).count() as u64
    }

    fn apart(&self, kind: Apart) -> Tally {
        self.checked.sum(|class, came| kind.counts(class, came))
    }

    fn troubles(&self, kind: Kind) -> (usize, usize) {
        let count = |all: &[Trouble]| all.iter().filter(|one| one.kind == kind).count();
        (count(&self.checked.troubles), count(&self.checked.calm_troubles))
    }

    /// What keeps this run from being a pass.
    pub(crate) fn problems(&self) -> Vec<String> {
        let (checked, strategy) = (&self.checked, self.options.strategy);
        let mut problems = Vec::new();
        let mut none = |what: &str, found: u64| {
            if found > 0 {
                problems.push(format!("{what}: {found} of at most 0"));
            }
        };
        none("reads of what nobody had written", checked.unwritten);
        none("writes whose versions are in another order", checked.disordered);
        let stale = checked.total().violations;
        if !strategy.is_sound() {
            if stale == 0 {
                let problem = format!("nothing stale was seen, but {strategy} must show something");
                problems.push(problem);
            }
            return problems;
        }
        none("stale reads", stale);
        // A machine that is busy with other tests is late, too.
        if self.options.faults != Pace::Short {
            for kind in Kind::ALL {
                let what = format!("{} outside of faults", kind.name());
                none(&what, self.troubles(kind).1 as u64);
            }
            none("values marked as stale outside of faults", checked.calm_stale);
        }
        if self.options.seconds >= WHOLE {
            self.ask_for_enough(&mut problems);
        }
        problems
    }

    /// What a whole run must have seen.
    fn ask_for_enough(&self, problems: &mut Vec<String>) {
        let total = self.checked.total();
        let mut least = |what: &str, found: u64, bar: u64| {
            if found < bar {
                problems.push(format!("{what}: {found} of at least {bar}"));
            }
        };
        least("reads", total.reads, READS);
        least("reads within 1 s of an invalidation", total.near, NEAR);
        for kind in Apart::ALL {
            let what = format!("{}: hits within 1 s of an invalidation", kind.name());
            least(&what, self.apart(kind).near, NEAR_OF_EACH);
        }
        let seconds = self.options.seconds;
        least("invalidations", self.checked.invalidations, INVALIDATIONS_A_SECOND * seconds);
        for fault in Fault::ALL {
            least(fault.name(), self.count(fault), EACH_FAULT);
        }
        let percent = self.hit_percent();
        if percent < HIT_PERCENT {
            problems.push(format!("hits outside of faults: {percent:.1} % of at least 80 %"));
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.problems().is_empty()
    }

    pub(crate) fn text(&self) -> String {
        let (checked, options) = (&self.checked, self.options);
        let total = checked.total();
        let mut text = format!(
            "{} on {}: {} nodes, {} s, {} invalidations, {} reads, {} within 1 s of an \
             invalidation, {:.1} % hits outside of faults, {} stale\n",
            options.strategy,
            self.server,
            options.nodes,
            options.seconds,
            checked.invalidations,
            total.reads,
            total.near,
            self.hit_percent(),
            total.violations,
        );
        // Writing to a string does not fail.
        for kind in Apart::ALL {
            let _ = writeln!(text, "  {:<17} {}", kind.name(), columns(self.apart(kind)));
        }
        let _ = writeln!(text, "  of these, and what was loaded:");
        for ((class, came, promise), tally) in &checked.tallies {
            let (class, came) = (class.name(), came.name());
            let promise = promise_name(*promise);
            let _ = writeln!(text, "  {class:<5} {came:<6} {promise:<9} {}", columns(*tally));
        }
        for kind in Kind::ALL {
            let (all, calm) = self.troubles(kind);
            let _ = writeln!(text, "  {}: {all}, of these outside of faults: {calm}", kind.name());
        }
        if !self.faults.is_empty() {
            let counts = Fault::ALL.map(|fault| format!("{} {}", self.count(fault), fault.name()));
            let _ = writeln!(text, "  faults: {}", counts.join(", "));
        }
        self.tell_each(&mut text);
        for problem in self.problems() {
            let _ = writeln!(text, "  MISSED: {problem}");
        }
        text
    }

    /// The first of what should not have been.
    fn tell_each(&self, text: &mut String) {
        for one in &self.checked.worst {
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
                read.came.name(),
                self.broken_at(read.begin),
            );
        }
        for one in self.checked.calm_troubles.iter().take(TOLD) {
            let _ = writeln!(
                text,
                "  {}: {} on node {} at {:.3} s, after {:.1} ms: {} ({})",
                one.kind.name(),
                one.class.name(),
                one.node,
                seconds(one.begin),
                seconds(one.end - one.begin) * 1000.0,
                one.what,
                self.last_fault(one.begin),
            );
        }
    }

    pub(crate) fn json(&self) -> String {
        let checked = &self.checked;
        let classes = checked.tallies.iter().map(|((class, came, promise), tally)| {
            json!({
                "class": class.name(),
                "came": came.name(),
                "promise": promise_name(*promise),
                "reads": tally.reads,
                "near": tally.near,
                "stale": tally.violations,
                "late": tally.late,
            })
        });
        let apart = Apart::ALL.map(|kind| {
            let Tally { reads, near, violations, late } = self.apart(kind);
            json!({
                "kind": kind.name(),
                "hits": reads,
                "near": near,
                "stale": violations,
                "late": late,
            })
        });
        let troubles = Kind::ALL.map(|kind| {
            let (all, calm) = self.troubles(kind);
            json!({ "kind": kind.name(), "all": all, "outside_of_faults": calm })
        });
        let faults =
            Fault::ALL.map(|fault| json!({ "fault": fault.name(), "times": self.count(fault) }));
        let total = checked.total();
        json!({
            "strategy": self.options.strategy.to_string(),
            "server": self.server,
            "seconds": self.options.seconds,
            "nodes": self.options.nodes,
            "invalidations": checked.invalidations,
            "reads": total.reads,
            "near": total.near,
            "stale": total.violations,
            "late": total.late,
            "hit_percent": self.hit_percent(),
            "apart": apart,
            "classes": classes.collect::<Vec<_>>(),
            "troubles": troubles,
            "faults": faults,
            "problems": self.problems(),
        })
        .to_string()
    }
}

fn columns(tally: Tally) -> String {
    let Tally { reads, near, violations, late } = tally;
    format!("{reads:>8} reads {near:>8} near {violations:>6} stale {late:>6} late")
}

fn promise_name(promise: Promise) -> &'static str {
    match promise {
        Promise::AtOnce => "at once",
        Promise::Within => "after 1 s",
        Promise::None => "none",
    }
}

/// Of microseconds.
#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests;
