//! Whatever is under way at once: what is pending and what is written come in their order.
//!
//! A model of one server and of callers whose requests run in any order while they are under way,
//! and may fail without anybody knowing whether the server ran them.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::glob::Glob;

const NAMES: [&str; 3] = ["a1", "a2", "b"];
const GLOBS: [&str; 2] = ["a*", "*"];

#[derive(Debug, Clone)]
enum Step {
    Set(usize),
    Delete(usize),
    /// A pattern that could not be looked for: pending from the first moment.
    Defer(usize),
    /// The courier takes something.
    Take,
    /// A sweep of the courier looks for keys.
    Find(usize),
    Run(usize),
    Succeed(usize),
    Fail(usize),
}

/// Something that is under way.
struct Request {
    what: What,
    claim: Option<Claim>,
    ran: bool,
    began: usize,
}

enum What {
    Set(usize, u64),
    Delete(Vec<String>),
    Sweep(Glob),
}

/// A write or removal that its caller asked for, and when; without an end it has failed, so nobody
/// knows when it took place.
struct Asked {
    name: usize,
    version: Option<u64>,
    began: usize,
    ended: Option<usize>,
}

struct World {
    list: Pending,
    space: Namespace,
    server: HashMap<String, u64>,
    requests: Vec<Request>,
    history: Vec<Asked>,
    time: usize,
}

impl World {
    fn new(limit: usize) -> Self {
        Self {
            list: Pending::new(limit),
            space: Namespace::default(),
            server: HashMap::new(),
            requests: Vec::new(),
            history: Vec::new(),
            time: 0,
        }
    }

    fn begin(&mut self, what: What, claim: Option<Claim>) {
        self.requests.push(Request { what, claim, ran: false, began: self.time });
    }

    fn step(&mut self, step: &Step) {
        self.time += 1;
        match *step {
            // Otherwise it waits.
            Step::Set(name) if !self.list.is_busy(&self.space, NAMES[name]) => {
                let keys = Work::Keys(vec![NAMES[name].to_owned()]);
                let covered = self.list.covers(&self.space, NAMES[name]);
                let claim = covered.then(|| self.list.enter(&self.space, keys));
                self.begin(What::Set(name, self.time as u64), claim);
            }
            Step::Delete(name) => {
                let names = vec![NAMES[name].to_owned()];
                let claim = self.list.enter(&self.space, Work::Keys(names.clone()));
                self.begin(What::Delete(names), Some(claim));
            }
            Step::Defer(glob) => {
                let glob = Glob::new(GLOBS[glob]).unwrap();
                for (name, text) in NAMES.iter().enumerate() {
                    if glob.matches(text.as_bytes()) {
                        let (began, ended) = (self.time, Some(self.time));
                        self.history.push(Asked { name, version: None, began, ended });
                    }
                }
                let claim = self.list.enter(&self.space, Work::Matching(glob));
                self.list.release(&claim);
            }
            Step::Take => {
                let round = self.list.ticket();
                if let Some(claim) = self.list.take(round) {
                    let what = match &claim.work {
                        Work::Keys(names) => What::Delete(names.clone()),
                        Work::Matching(glob) => What::Sweep(glob.clone()),
                        Work::Groups(..) | Work::Floor => return self.list.confirm(&claim),
                    };
                    self.begin(what, Some(claim));
                }
            }
            Step::Find(at) => {
                let Some(Request { what: What::Sweep(glob), ran: false, .. }) =
                    self.requests.get(at)
                else {
                    return;
                };
                let matches = |name: &&String| glob.matches(name.as_bytes());
                let found = self.server.keys().filter(matches).cloned().collect();
                let claim = self.list.take_found(&self.space, found);
                let Work::Keys(names) = claim.work.clone() else { return };
                self.requests[at].ran = true;
                self.begin(What::Delete(names), Some(claim));
            }
            Step::Run(at) => {
                let Some(request) = self.requests.get_mut(at) else { return };
                match &request.what {
                    _ if request.ran => {}
                    What::Set(name, version) => {
                        self.server.insert(NAMES[*name].to_owned(), *version);
                        request.ran = true;
                    }
                    What::Delete(names) => {
                        for name in names {
                            self.server.remove(name);
                        }
                        request.ran = true;
                    }
                    What::Sweep(_) => {}
                }
            }
            Step::Succeed(at) if self.requests.get(at).is_some_and(|request| request.ran) => {
                self.end(at, true);
            }
            Step::Fail(at) if at < self.requests.len() => self.end(at, false),
            _ => {}
        }
    }

    fn end(&mut self, at: usize, success: bool) {
        // A sweep is over when what it found is: here, the request after it.
        let sweep = matches!(self.requests[at].what, What::Sweep(_));
        let sweeping = self.requests.iter().any(|request| {
            request.claim.as_ref().is_some_and(|claim| !claim.spares)
                && matches!(request.what, What::Delete(_))
        });
        if sweep && success && sweeping {
            return;
        }
        let request = self.requests.remove(at);
        match &request.claim {
            Some(claim) if success => self.list.confirm(claim),
            Some(claim) => self.list.release(claim),
            None => {}
        }
        let own = request.claim.as_ref().is_none_or(|claim| claim.spares);
        match &request.what {
            What::Set(name, version) => self.history.push(Asked {
                name: *name,
                version: Some(*version),
                began: request.began,
                ended: success.then_some(self.time),
            }),
            What::Delete(names) if own => {
                // Its caller is told "removed" or "pending"; both hold from now on.
                let name = NAMES.iter().position(|known| *known == names[0]).unwrap();
                let ended = Some(self.time);
                self.history.push(Asked { name, version: None, began: request.began, ended });
            }
            What::Delete(names) => {
                // What it found was not removed: the sweep that looked for it has failed too.
                if !success && !names.is_empty() {
                    self.fail_sweeps();
                }
            }
            What::Sweep(_) => {}
        }
    }

    fn fail_sweeps(&mut self) {
        while let Some(at) =
            self.requests.iter().position(|request| matches!(request.what, What::Sweep(_)))
        {
            let request = self.requests.remove(at);
            self.list.release(&request.claim.unwrap());
        }
    }

    /// Runs everything to its end.
    fn settle(&mut self) {
        while !self.requests.is_empty() {
            for at in (0..self.requests.len()).rev() {
                for step in [Step::Find(at), Step::Run(at), Step::Succeed(at)] {
                    self.step(&step);
                }
            }
        }
        while self.list.len() > 0 {
            self.step(&Step::Take);
            for at in (0..self.requests.len()).rev() {
                self.step(&Step::Find(at));
            }
            while !self.requests.is_empty() {
                for at in (0..self.requests.len()).rev() {
                    self.step(&Step::Run(at));
                    self.step(&Step::Succeed(at));
                }
            }
        }
    }

    fn check(&self, nothing_is_lost: bool) {
        for (name, text) in NAMES.iter().enumerate() {
            let covered = self.list.covers(&self.space, text);
            let shown = self.server.get(*text).copied().filter(|_| !covered);
            let of_name = || self.history.iter().filter(|asked| asked.name == name);
            let ended_before = |version: u64, began: usize| {
                of_name().any(|asked| {
                    asked.version == Some(version) && asked.ended.is_some_and(|end| end < began)
                })
            };
            for removal in of_name().filter(|asked| asked.version.is_none()) {
                let old = shown.is_some_and(|version| ended_before(version, removal.began));
                assert!(!old, "{text}: {shown:?} is older than a removal");
            }
            if !nothing_is_lost {
                continue;
            }
            for set in of_name().filter(|asked| asked.version.is_some() && asked.ended.is_some()) {
                let beside = |began: usize, end: Option<usize>| {
                    began > set.began || end.is_none_or(|end| end >= set.began)
                };
                let removed = of_name().any(|other| {
                    (other.version.is_none() || other.ended.is_none())
                        && beside(other.began, other.ended)
                }) || self.requests.iter().any(|request| {
                    // Under way, and its caller's own.
                    match &request.what {
                        What::Delete(names) => {
                            request.claim.as_ref().is_some_and(|claim| claim.spares)
                                && names.iter().any(|other| other == text)
                        }
                        What::Set(other, _) => *other == name,
                        What::Sweep(_) => false,
                    }
                });
                let there = shown.is_some_and(|version| !ended_before(version, set.began));
                assert!(removed || there, "{text}: {:?} is lost: {shown:?}", set.version);
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0_usize..4;
    prop::collection::vec(
        prop_oneof![
            3 => (0..NAMES.len()).prop_map(Step::Set),
            2 => (0..NAMES.len()).prop_map(Step::Delete),
            1 => (0..GLOBS.len()).prop_map(Step::Defer),
            3 => Just(Step::Take),
            2 => at.clone().prop_map(Step::Find),
            5 => at.clone().prop_map(Step::Run),
            5 => at.clone().prop_map(Step::Succeed),
            2 => at.prop_map(Step::Fail),
        ],
        0..60,
    )
}

fn check(steps: &[Step], limit: usize) {
    let mut world = World::new(limit);
    for step in steps {
        world.step(step);
        world.check(limit > 100);
    }
    world.settle();
    world.check(limit > 100);
    assert_eq!(world.list.len(), 0);
}

#[test]
fn a_write_waits_for_a_removal_that_others_entered_anew_or_carried_out() {
    use Step::{Delete, Fail, Run, Set, Succeed, Take};
    check(&[Delete(0), Fail(0), Take, Delete(0), Fail(1), Set(0), Run(1), Succeed(1)], 1000);
    check(&[Delete(0), Fail(0), Take, Delete(0), Run(1), Succeed(1), Set(0), Run(1)], 1000);
}

#[test]
fn a_pattern_removes_what_came_after_a_write_that_is_still_under_way() {
    use Step::{Defer, Delete, Fail, Run, Set, Succeed, Take};
    let two_writes = [Delete(1), Set(1), Set(1), Fail(0), Run(1), Run(0), Succeed(0)];
    check(&[&two_writes[..], &[Defer(0), Take]].concat(), 1000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_removed_value_comes_back_and_no_later_value_is_lost(steps in steps()) {
        check(&steps, 1000);
    }

    /// A full list forgets details: it may take more away, and never less.
    #[test]
    fn no_removed_value_comes_back_when_the_list_is_full(steps in steps()) {
        check(&steps, 2);
    }
}
