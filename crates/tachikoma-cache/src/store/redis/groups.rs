//! The groups of each namespace, as far as this process knows them.
//!
//! Decides what the server is asked about groups and what its answers say; it sends nothing, that
//! is for [`asking`]. The numbers stand in one sorted set for each namespace (`NS:g`): a member for
//! each group, scored with the number of its last invalidation, and above all of them one that
//! names the epoch, scored with the next number. "What has changed after the number that I know" is
//! one short question. It goes along with the reads of a namespace that has tags here, behind them
//! in one round trip, so what a read finds is judged by what the server knew after it had read.
//!
//! [`Tables`] keeps the answers. Where the server tells of changes (`CLIENT TRACKING`) they also
//! say whether something has changed since, which is what a copy in memory is judged by. The
//! argument why this is sound is in `docs/decisions/0018-what-a-process-knows-of-tags.md`.

mod asking;
mod spaces;
mod table;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use ::redis::{Cmd, Pipeline, Value};

use super::layout::{self, FLOOR};
use super::reply::{self, Fault};
use crate::edition::Edition;
#[cfg(feature = "memory")]
use crate::edition::Stamp;
use crate::invalidation::{Group, How, Mark, Snapshot, Validity};
#[cfg(feature = "memory")]
use crate::invalidation::{Judge, Marks};
use crate::key::Namespace;
#[cfg(feature = "memory")]
use spaces::Space;
use spaces::Spaces;
use table::{Asked, News};

/// How many other namespaces are asked about along with the entries of one; more are asked about
/// apart.
const MAX_COMPANIONS: usize = 16;

/// The most groups of one answer: a few hundred kilobytes.
const MOST_NEWS: usize = 10_000;

/// What this process knows of the groups of all namespaces.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    spaces: RwLock<Spaces>,
    /// Counts what was heard of changes.
    moment: AtomicU64,
    edition: Edition,
    /// Of which other namespaces the entries of one have been met to be made.
    companions: RwLock<HashMap<Namespace, Vec<Namespace>>>,
}

/// A moment, taken before a connection is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment(u64);

/// A question for what has changed in a namespace.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) space: Namespace,
    moment: Moment,
    run: u64,
    after: Option<u64>,
}

/// The server's state of a namespace when it had answered.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) space: Namespace,
    run: u64,
    at: Snapshot,
}

impl Tables {
    /// What is heard of from now on is later than what is asked for from now on.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.moment.load(Ordering::Acquire))
    }

    /// The question to this run of the server for a namespace of which something is known already.
    fn question(&self, space: &Namespace, moment: Moment, run: u64) -> Option<Question> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        let after = spaces.get(space)?.table.at(run).map(|at| at.counter);
        Some(Question { space: space.clone(), moment, run, after })
    }

    /// Where the counters of a namespace stood when this run of the server last spoke of them.
    pub(super) fn known(&self, space: &Namespace, run: u64) -> Option<Snapshot> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        spaces.get(space)?.table.at(run)
    }

    /// Entries of `home` are made of what is in other namespaces.
    fn meet(&self, home: &Namespace, others: &[&Namespace]) {
        let all = self.companions.read().unwrap_or_else(PoisonError::into_inner);
        let is_new = |other: &&&Namespace| !all.get(home).is_some_and(|all| all.contains(other));
        let new: Vec<Namespace> = others.iter().filter(is_new).map(|new| (*new).clone()).collect();
        drop(all);
        if !new.is_empty() {
            let mut all = self.companions.write().unwrap_or_else(PoisonError::into_inner);
            let known = all.entry(home.clone()).or_default();
            known.extend(new);
            known.sort_unstable();
            known.dedup();
            known.truncate(MAX_COMPANIONS);
        }
    }

    /// The namespaces that entries of `home` have been met to depend on.
    fn companions(&self, home: &Namespace) -> Vec<Namespace> {
        let all = self.companions.read().unwrap_or_else(PoisonError::into_inner);
        all.get(home).cloned().unwrap_or_default()
    }

    /// Something has changed in this namespace, or may have.
    pub(crate) fn changed(&self, space: &Namespace) {
        let moment = self.moment.fetch_add(1, Ordering::AcqRel) + 1;
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = spaces.get(space) {
            space.change(moment);
        }
        self.edition.turn();
    }

    /// Something may have changed in every namespace.
    #[cfg(feature = "memory")]
    pub(crate) fn all_changed(&self) {
        let moment = self.moment.fetch_add(1, Ordering::AcqRel) + 1;
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        spaces.all().for_each(|space| space.change(moment));
        self.edition.turn();
    }

    /// Whether nothing has been heard of the namespaces of the entry with these marks and this
    /// stamp since what is known of them was asked for.
    #[cfg(feature = "memory")]
    pub(crate) fn is_in_step(&self, home: &Namespace, marks: &Marks, stamp: &Stamp) -> bool {
        if stamp.is(self.edition.now()) {
            return true;
        }
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        marks.parts(home).all(|(space, _)| spaces.get(space).is_some_and(Space::is_in_step))
    }

    /// Adds the answer to a question.
    fn hear(&self, question: &Question, news: Option<News>) -> Option<Heard> {
        let Question { space, moment: Moment(asked), run, .. } = question;
        let (asked, run) = (*asked, *run);
        let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        let heard = news.as_ref().map(|news| Heard { space: space.clone(), run, at: news.at });
        // Read here: what was heard of before could not be noted in the table yet.
        let moment = self.moment.load(Ordering::Acquire);
        if spaces.hear(space, run, asked, moment, news) {
            self.edition.turn();
        }
        heard
    }

    fn learn(&self, heard: &Heard, floor: u64, asked: &[Asked]) {
        let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        spaces.learn(&heard.space, heard.run, heard.at, floor, asked);
        self.edition.turn();
    }

    /// Judges by what is known, in step or not; `None` if that does not tell.
    pub(crate) fn judged(&self, space: &Namespace, marks: &[Mark]) -> Option<Validity> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        spaces.get(space)?.table.check(marks)
    }

    /// Judges by what was known when this was heard, or by more; `None` if a group must be asked
    /// for.
    fn check(&self, heard: &Heard, marks: &[Mark]) -> Option<Validity> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        let table = &spaces.get(&heard.space)?.table;
        if table.reaches(heard.run, heard.at) { table.check(marks) } else { None }
    }
}

/// By what is known, in step or not. What cannot be told is invalid.
#[cfg(feature = "memory")]
impl Judge for Tables {
    fn check(&self, home: &Namespace, marks: &Marks, stamp: &Stamp) -> Validity {
        let edition = self.edition.now();
        if stamp.is(edition) {
            return Validity::Valid;
        }
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        let (mut worst, mut is_in_step) = (Validity::Valid, true);
        for (space, marks) in marks.parts(home) {
            let Some(known) = spaces.get(space) else { return Validity::Invalid };
            worst = worst.max(known.table.check(marks).unwrap_or(Validity::Invalid));
            is_in_step &= known.is_in_step();
        }
        if worst == Validity::Valid && is_in_step {
            stamp.set(edition);
        }
        worst
    }
}

impl Heard {
    pub(super) fn at(&self) -> Snapshot {
        self.at
    }
}

impl Question {
    /// That for everything.
    fn first(space: &Namespace, moment: Moment, run: u64) -> Self {
        Self { space: space.clone(), moment, run, after: None }
    }

    pub(super) fn command(&self) -> Cmd {
        let mut command = ::redis::cmd("ZREVRANGEBYSCORE");
        command.arg(layout::groups(&self.space)).arg("+inf");
        match self.after {
            // The number of the epoch is one more, so it is in every answer.
            Some(after) => command.arg(format!("({after}")),
            None => command.arg("-inf"),
        };
        command.arg("WITHSCORES").arg("LIMIT").arg(0).arg(MOST_NEWS);
        command
    }
}

/// The answer to a [question](Question); nothing if there are no numbers, or only lower ones.
fn news(answer: Value, after: Option<u64>) -> Result<Option<News>, Fault> {
    let mut at = None;
    let (mut floor, mut changed) = (None, Vec::new());
    let all = reply::scored(answer)?;
    let (count, last) = (all.len(), all.last().map(|(_, number)| *number));
    for (member, number) in all {
        // Whoever writes other members into it spoils nothing but them.
        let Ok(member) = std::str::from_utf8(&member) else { continue };
        match member.split_at_checked(2) {
            _ if member == FLOOR => floor = Some(number),
            _ if at.is_none() && member.starts_with('@') => {
                at = member
                    .get(1..)
                    .and_then(|epoch| epoch.parse().ok())
                    .map(|epoch| Snapshot { epoch, counter: number.saturating_sub(1) });
            }
            Some(("h:", name)) => changed.push((Group::from_name(name), How::Hard, number)),
            Some(("s:", name)) => changed.push((Group::from_name(name), How::Soft, number)),
            _ => {}
        }
    }
    let whole = count < MOST_NEWS;
    let after = if whole { after } else { last }.unwrap_or_default();
    Ok(at.map(|at| News { at, after, floor, changed }))
}

/// The highest member and its number: where the counters stand.
pub(super) fn snapshot(answer: Value) -> Result<Option<Snapshot>, Fault> {
    Ok(news(answer, None)?.map(|news| news.at))
}

/// The question for [`snapshot`].
pub(super) fn add_snapshot(commands: &mut Pipeline, space: &Namespace) {
    commands.cmd("ZRANGE").arg(layout::groups(space)).arg(-1).arg(-1).arg("WITHSCORES");
}
