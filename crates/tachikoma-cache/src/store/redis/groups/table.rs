//! What is known of the groups of one namespace.
//!
//! Pure. A table is complete from one invalidation to another: of every group that was invalidated
//! between the two it has the numbers. Older numbers it has only of groups that were asked for one
//! by one. What it cannot tell it says so; it never guesses.

use std::collections::HashMap;

use crate::invalidation::{Generation, Group, How, MAX_GROUPS, Mark, Snapshot, Validity, judge};

/// What one question has brought: all that changed after `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    /// Where the counters stood.
    pub(super) at: Snapshot,
    pub(super) after: u64,
    /// The floor, if it was raised after `after`.
    pub(super) floor: Option<u64>,
    pub(super) changed: Vec<(Group, How, u64)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    generation: Generation,
    /// Also from before the table begins.
    is_whole: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    /// Which run of the server it is of.
    run: u64,
    at: Snapshot,
    after: u64,
    floor: u64,
    groups: HashMap<Group, Known>,
}

impl Table {
    pub(super) fn new(run: u64, news: News) -> Self {
        let News { at, after, .. } = news;
        let mut table = Self { run, at, after, floor: 0, groups: HashMap::new() };
        table.add(news);
        table
    }

    /// Up to where it is complete, if it is of this run.
    pub(super) fn at(&self, run: u64) -> Option<Snapshot> {
        (self.run == run).then_some(self.at)
    }

    /// How many groups it has.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether news of this run go on where it ends, or before.
    pub(super) fn meets(&self, run: u64, news: &News) -> bool {
        self.run == run && self.at.epoch == news.at.epoch && news.after <= self.at.counter
    }

    /// Adds what [meets](Self::meets) it.
    pub(super) fn add(&mut self, news: News) {
        self.floor = self.floor.max(news.floor.unwrap_or_default());
        for (group, how, number) in news.changed {
            let generation = &mut self.groups.entry(group).or_default().generation;
            let of = match how {
                How::Hard => &mut generation.hard,
                How::Soft => &mut generation.soft,
            };
            *of = number.max(*of);
        }
        self.at.counter = self.at.counter.max(news.at.counter);
        self.bound();
    }

    /// More than the server remembers is forgotten, and asked for again.
    fn bound(&mut self) {
        if self.groups.len() > MAX_GROUPS {
            self.groups = HashMap::new();
            self.after = self.at.counter;
        }
    }

    /// Adds the numbers of one group, asked for after news that said `at` of this run.
    pub(super) fn learn(&mut self, run: u64, at: Snapshot, floor: u64, asked: &[Asked]) {
        // If it begins later than that, what changed in between is missing.
        if self.run != run || self.at.epoch != at.epoch || self.after > at.counter {
            return;
        }
        self.floor = self.floor.max(floor);
        for Asked { group, generation: Generation { hard, soft } } in asked {
            let known = self.groups.entry(group.clone()).or_default();
            let Generation { hard: h, soft: s } = known.generation;
            known.generation = Generation { hard: h.max(*hard), soft: s.max(*soft) };
            known.is_whole = true;
        }
        self.bound();
    }

    /// Whether it is complete up to this moment of this run.
    pub(super) fn reaches(&self, run: u64, at: Snapshot) -> bool {
        self.run == run && self.at.epoch == at.epoch && self.at.counter >= at.counter
    }

    /// Whether an entry with these marks may be used; `None` if a group must be asked for.
    pub(super) fn check(&self, marks: &[Mark]) -> Option<Validity> {
        let mut worst = Some(Validity::Valid);
        for mark in marks {
            let known = self.groups.get(&mark.group).copied().unwrap_or_default();
            let verdict = judge(mark.at, self.at.epoch, self.floor, known.generation);
            if verdict == Validity::Invalid {
                return Some(Validity::Invalid);
            }
            let is_known = known.is_whole || mark.at.counter >= self.after;
            worst = worst.filter(|_| is_known).map(|worst| worst.max(verdict));
        }
        worst
    }
}

/// One group that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) group: Group,
    pub(super) generation: Generation,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::invalidation::Marks;

    const RUN: u64 = 1;

    fn at(counter: u64) -> Snapshot {
        Snapshot { epoch: 7, counter }
    }

    fn group(name: &str) -> Group {
        Group::tag(name).unwrap()
    }

    fn marks(counter: u64) -> Marks {
        Marks::new(&[group("a")], at(counter))
    }

    fn news(after: u64, counter: u64, changed: &[(&str, u64)]) -> News {
        let changed = changed.iter().map(|(name, number)| (group(name), How::Hard, *number));
        News { at: at(counter), after, floor: None, changed: changed.collect() }
    }

    #[test]
    fn what_is_older_than_the_table_must_be_asked_for() {
        let mut table = Table::new(RUN, news(5, 8, &[("b", 7)]));
        assert_eq!(table.check(marks(5).own()), Some(Validity::Valid));
        assert_eq!(table.check(marks(4).own()), None);
        let asked = Asked { group: group("a"), generation: Generation { hard: 4, soft: 0 } };
        table.learn(RUN, at(8), 0, std::slice::from_ref(&asked));
        assert_eq!(table.check(marks(4).own()), Some(Validity::Valid));
        assert_eq!(table.check(marks(3).own()), Some(Validity::Invalid));
        let mut later = Table::new(RUN, news(9, 9, &[]));
        later.learn(RUN, at(8), 0, &[asked]);
        assert_eq!(later.check(marks(4).own()), None, "what came between 8 and 9 is not known");
    }

    #[test]
    fn news_behind_a_gap_or_of_another_run_or_epoch_do_not_meet() {
        let table = Table::new(RUN, news(0, 8, &[]));
        assert!(table.meets(RUN, &news(8, 9, &[])) && table.meets(RUN, &news(3, 7, &[])));
        assert!(!table.meets(RUN, &news(9, 9, &[])));
        assert!(!table.meets(2, &news(8, 9, &[])));
        let other = News { at: Snapshot { epoch: 8, counter: 9 }, ..news(8, 9, &[]) };
        assert!(!table.meets(RUN, &other));
        assert!(table.reaches(RUN, at(8)) && !table.reaches(RUN, at(9)));
        assert!(!table.reaches(2, at(8)) && !table.reaches(RUN, other.at));
        assert_eq!((table.at(RUN), table.at(2)), (Some(at(8)), None));
    }

    #[test]
    fn old_news_take_nothing_back() {
        let mut table = Table::new(RUN, news(0, 8, &[("a", 8)]));
        table.add(news(0, 4, &[("a", 3)]));
        assert_eq!(table.check(marks(7).own()), Some(Validity::Invalid));
        assert_eq!(table.check(marks(8).own()), Some(Validity::Valid));
    }

    #[test]
    fn marks_below_the_floor_or_of_another_epoch_are_invalid() {
        let raised = News { floor: Some(6), ..news(0, 8, &[]) };
        let table = Table::new(RUN, raised);
        assert_eq!(table.check(marks(5).own()), Some(Validity::Invalid));
        assert_eq!(table.check(marks(6).own()), Some(Validity::Valid));
        let other = Marks::new(&[group("a")], Snapshot { epoch: 9, counter: 8 });
        assert_eq!(table.check(other.own()), Some(Validity::Invalid));
        assert_eq!(table.check(&[]), Some(Validity::Valid));
    }

    #[test]
    fn a_full_table_asks_rather_than_forgets() {
        let mut table = Table::new(RUN, news(0, 1, &[("a", 1)]));
        let many = (0..MAX_GROUPS).map(|i| (group(&format!("g{i}")), How::Hard, 2)).collect();
        table.add(News { changed: many, ..news(1, 2, &[]) });
        assert_eq!(table.check(marks(0).own()), None);
        assert_eq!(table.check(marks(2).own()), Some(Validity::Valid));
        assert!(table.groups.is_empty());
    }

    /// The server's numbers: what a question for all after `after` brings, at most `most` groups.
    fn answer(log: &[(u8, bool)], upto: usize, after: u64, most: usize) -> News {
        let mut last = HashMap::new();
        for (number, (name, hard)) in (1..).zip(&log[..upto]) {
            let how = if *hard { How::Hard } else { How::Soft };
            last.insert((*name, how), number);
        }
        let mut all: Vec<_> = last.into_iter().filter(|(_, number)| *number > after).collect();
        all.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
        let cut = all.len() > most;
        all.truncate(most);
        let after = if cut { all.last().map_or(upto as u64, |(_, n)| *n) } else { after };
        let changed = all.iter().map(|((name, how), n)| (group(&name.to_string()), *how, *n));
        News { at: at(upto as u64), after, floor: None, changed: changed.collect() }
    }

    proptest! {
        /// However far behind the news come and however much of them is cut off, a verdict is that
        /// of the whole list, or there is none.
        #[test]
        fn a_verdict_is_what_the_whole_list_says(
            log in prop::collection::vec((0_u8..5, any::<bool>()), 1..40),
            steps in prop::collection::vec((0_usize..40, 1_usize..6), 1..12),
            mark in 0_usize..40,
            of in 0_u8..5,
        ) {
            let mut table: Option<Table> = None;
            for (upto, most) in steps {
                let upto = upto.min(log.len());
                let after = table.as_ref().and_then(|table| table.at(RUN)).map(|at| at.counter);
                let news = answer(&log, upto, after.unwrap_or(0).min(upto as u64), most);
                match &mut table {
                    Some(table) if table.meets(RUN, &news) => table.add(news),
                    _ => table = Some(Table::new(RUN, news)),
                }
            }
            let table = table.unwrap();
            let upto = usize::try_from(table.at(RUN).unwrap().counter).unwrap();
            let mark = mark.min(upto);
            let marks = Marks::new(&[group(&of.to_string())], at(mark as u64));
            let since = log[mark..upto].iter().filter(|(name, _)| *name == of);
            let expected = since.fold(Validity::Valid, |worst, (_, hard)| {
                worst.max(if *hard { Validity::Invalid } else { Validity::Stale })
            });
            let verdict = table.check(marks.own());
            prop_assert!(verdict.is_none() || verdict == Some(expected), "{verdict:?}");
            // What was learnt one by one is whole.
            let mut table = table;
            let last = |how: bool| {
                let found = log[..upto].iter().rposition(|one| *one == (of, how));
                found.map_or(0, |at| at as u64 + 1)
            };
            let generation = Generation { hard: last(true), soft: last(false) };
            let asked = [Asked { group: group(&of.to_string()), generation }];
            table.learn(RUN, at(upto as u64), 0, &asked);
            prop_assert_eq!(table.check(marks.own()), Some(expected));
        }
    }
}
