//! What is known of the groups of all namespaces, within a bound.
//!
//! Pure. Decides what is forgotten when it is too much: the namespaces that were not heard of for
//! the longest. What is forgotten is asked for anew, so that costs a question and no more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::table::{Asked, News, Table};
use crate::invalidation::Snapshot;
use crate::key::Namespace;

/// How many namespaces are remembered.
const MAX_SPACES: usize = 10_000;

/// How many groups of all namespaces together; more than one namespace ever has.
const MAX_GROUPS: usize = 1_000_000;

/// What is known of one namespace.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) table: Table,
    /// The moment in which the newest question was asked whose answer is in the table.
    asked: u64,
    /// The moment of the last change that was heard of.
    changed: AtomicU64,
    /// The number of the last answer.
    answer: u64,
}

impl Space {
    /// Something has changed in it at this moment.
    pub(super) fn change(&self, moment: u64) {
        self.changed.fetch_max(moment, Ordering::AcqRel);
    }

    /// Whether nothing has been heard of it since what is known of it was asked for.
    #[cfg(feature = "memory")]
    pub(super) fn is_in_step(&self) -> bool {
        self.asked >= self.changed.load(Ordering::Acquire)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    known: HashMap<Namespace, Space>,
    /// Of all tables.
    groups: usize,
    answers: u64,
}

impl Spaces {
    pub(super) fn get(&self, space: &Namespace) -> Option<&Space> {
        self.known.get(space)
    }

    #[cfg(feature = "memory")]
    pub(super) fn all(&self) -> impl Iterator<Item = &Space> {
        self.known.values()
    }

    /// Forgets a namespace.
    fn forget(&mut self, space: &Namespace) {
        if let Some(forgotten) = self.known.remove(space) {
            self.groups -= forgotten.table.len();
        }
    }

    /// Adds what a question has brought that was asked in the moment `asked`; it is `moment` now.
    /// Whether verdicts may be others than before.
    pub(super) fn hear(
        &mut self,
        space: &Namespace,
        run: u64,
        asked: u64,
        moment: u64,
        news: Option<News>,
    ) -> bool {
        let Some(news) = news else {
            // Nothing is there, or less than was known: it begins anew.
            self.forget(space);
            return true;
        };
        self.answers += 1;
        let answer = self.answers;
        let is_other = match self.known.get_mut(space) {
            Some(known) if known.table.meets(run, &news) => {
                let says_something = news.floor.is_some() || !news.changed.is_empty();
                self.groups -= known.table.len();
                known.table.add(news);
                self.groups += known.table.len();
                known.asked = known.asked.max(asked);
                known.answer = answer;
                says_something
            }
            known => {
                let changed = known.map_or(moment, |known| *known.changed.get_mut());
                self.forget(space);
                let table = Table::new(run, news);
                self.groups += table.len();
                let changed = AtomicU64::new(changed);
                self.known.insert(space.clone(), Space { table, asked, changed, answer });
                true
            }
        };
        self.bound();
        is_other
    }

    /// See [`Table::learn`].
    pub(super) fn learn(
        &mut self,
        space: &Namespace,
        run: u64,
        at: Snapshot,
        floor: u64,
        asked: &[Asked],
    ) {
        if let Some(known) = self.known.get_mut(space) {
            self.groups -= known.table.len();
            known.table.learn(run, at, floor, asked);
            self.groups += known.table.len();
            self.bound();
        }
    }

    fn bound(&mut self) {
        while (self.known.len() > MAX_SPACES || self.groups > MAX_GROUPS) && self.known.len() > 1 {
            // Half of them at once, so that it is seldom.
            let mut answers: Vec<u64> = self.known.values().map(|space| space.answer).collect();
            let half = answers.len() / 2;
            let (_, first_kept, _) = answers.select_nth_unstable(half);
            self.known.retain(|_, space| space.answer >= *first_kept);
            self.groups = self.known.values().map(|space| space.table.len()).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalidation::{Generation, Group, How};

    fn news(groups: usize) -> News {
        let group = |number: usize| (Group::from_name(&number.to_string()), How::Hard, 1);
        let changed = (0..groups).map(group).collect();
        News { at: Snapshot { epoch: 7, counter: 1 }, after: 0, floor: None, changed }
    }

    fn space(number: usize) -> Namespace {
        Namespace::new(&format!("tenant/{number}")).unwrap()
    }

    #[track_caller]
    fn check_sum(spaces: &Spaces) {
        let sum: usize = spaces.known.values().map(|space| space.table.len()).sum();
        assert_eq!(spaces.groups, sum);
    }

    #[test]
    fn of_too_many_namespaces_those_go_that_were_not_heard_of_for_the_longest() {
        let mut spaces = Spaces::default();
        for number in 0..MAX_SPACES {
            spaces.hear(&space(number), 1, 0, 0, Some(news(2)));
        }
        assert_eq!(spaces.known.len(), MAX_SPACES);
        spaces.hear(&space(0), 1, 0, 0, Some(news(3)));
        spaces.hear(&space(MAX_SPACES), 1, 0, 0, Some(news(2)));
        assert!(spaces.known.len() <= MAX_SPACES);
        let knows = |number| spaces.get(&space(number)).is_some();
        assert!(knows(0) && knows(MAX_SPACES) && knows(MAX_SPACES - 1));
        assert!(!knows(1) && !knows(2));
        check_sum(&spaces);
    }

    #[test]
    fn of_too_many_groups_too_and_never_those_of_the_last_answer() {
        let mut spaces = Spaces::default();
        let groups = MAX_GROUPS / 20;
        for number in 0..50 {
            spaces.hear(&space(number), 1, 0, 0, Some(news(groups)));
            assert!(spaces.get(&space(number)).is_some() && spaces.groups <= MAX_GROUPS);
            let asked = Asked { group: Group::from_name("x"), generation: Generation::default() };
            spaces.learn(&space(number), 1, Snapshot { epoch: 7, counter: 1 }, 0, &[asked]);
            check_sum(&spaces);
        }
        spaces.forget(&space(49));
        // Of another run: it begins anew.
        spaces.hear(&space(48), 2, 0, 0, Some(news(1)));
        check_sum(&spaces);
    }
}
