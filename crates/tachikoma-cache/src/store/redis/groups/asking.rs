//! Asking the server about groups, along with reads or apart.
//!
//! Decides which namespaces are asked about with a read, and when an answer does not tell enough,
//! so that groups are asked for one by one. What answers mean, the module above says.

use std::collections::HashMap;

use ::redis::{Pipeline, Value};

use super::super::Shared;
use super::super::layout::{self, FLOOR, field};
use super::super::link::Connection;
use super::super::reply::{self, Fault};
use super::table::{Asked, Table};
use super::{Heard, Moment, Question, news};
use crate::clock::Deadline;
use crate::invalidation::{Generation, Group, How, Mark, Marks, Validity};
use crate::key::{Key, Namespace};

impl Shared {
    /// The questions that go along with a read of these keys.
    pub(in crate::store::redis) fn questions(
        &self,
        keys: &[&Key<'_>],
        moment: Moment,
        connection: &Connection,
    ) -> Vec<Question> {
        let mut questions: Vec<Question> = Vec::new();
        let mut homes: Vec<&Namespace> = Vec::new();
        for key in keys {
            if homes.contains(&key.namespace()) {
                continue;
            }
            homes.push(key.namespace());
            let others = self.link.groups.companions(key.namespace());
            for space in std::iter::once(key.namespace()).chain(&others) {
                // What is pending must be looked up before the server is asked, and by then it is
                // not known yet which groups matter: they are asked for apart.
                if questions.iter().any(|question| question.space == *space)
                    || self.book.owes_groups(space)
                {
                    continue;
                }
                let question = self.link.groups.question(space, moment, connection.incarnation());
                // Where reads are recorded, what is known is kept from the first one on.
                let first = || Question::first(space, moment, connection.incarnation());
                questions
                    .extend(question.or_else(|| self.link.config.has_dependencies().then(first)));
            }
        }
        questions
    }

    /// What came of the questions. One that the server refuses is asked again if it matters.
    pub(in crate::store::redis) fn hear(
        &self,
        connection: &Connection,
        questions: &[Question],
        answers: impl Iterator<Item = Value>,
    ) -> Vec<Heard> {
        let mut heard = Vec::with_capacity(questions.len());
        for (question, answer) in questions.iter().zip(answers) {
            match news(answer, question.after) {
                Ok(news) => heard.extend(self.link.groups.hear(question, news)),
                Err(fault) => drop(self.link.refused(connection, fault)),
            }
        }
        heard
    }

    /// Whether entries with these marks may be used, by what was heard after they were read or, if
    /// that does not tell, by asking.
    pub(in crate::store::redis) async fn validities(
        &self,
        connection: &Connection,
        marked: &[(&Namespace, &Marks)],
        heard: &[Heard],
        deadline: Deadline,
    ) -> Result<Vec<Validity>, Fault> {
        let mut verdicts = vec![Validity::Valid; marked.len()];
        // What is to be asked for: of which entry, in which namespace.
        let mut open: Vec<(usize, &Namespace, &[Mark])> = Vec::new();
        for (place, (home, marks)) in marked.iter().enumerate() {
            let mut others = marks.foreign().map(|(space, _)| space).peekable();
            if others.peek().is_some() {
                self.link.groups.meet(home, &others.collect::<Vec<_>>());
            }
            for (space, marks) in marks.parts(home) {
                let heard = heard.iter().find(|heard| heard.space == *space);
                match heard.and_then(|heard| self.link.groups.check(heard, marks)) {
                    Some(verdict) => worsen(&mut verdicts, place, verdict),
                    None => open.push((place, space, marks)),
                }
            }
        }
        while let Some(space) = open.first().map(|(_, space, _)| *space) {
            let (asked, rest): (Vec<_>, _) =
                open.into_iter().partition(|(_, other, _)| *other == space);
            open = rest;
            let marks = asked.iter().map(|(_, _, marks)| *marks).collect();
            let judged = self.ask(connection, space, marks, deadline).await?;
            for (place, _, marks) in asked {
                worsen(&mut verdicts, place, judged.check(marks));
            }
        }
        Ok(verdicts)
    }

    /// Asks for the groups of these marks, one by one.
    async fn ask(
        &self,
        connection: &Connection,
        space: &Namespace,
        marks: Vec<&[Mark]>,
        deadline: Deadline,
    ) -> Result<Judged, Fault> {
        let mut groups: Vec<&Group> = marks.into_iter().flatten().map(|mark| &mark.group).collect();
        groups.sort_unstable();
        groups.dedup();
        // Before the server is asked, as for keys.
        let pending = groups.iter().filter_map(|group| {
            self.book.of_group(space, group).map(|how| ((*group).clone(), how))
        });
        let pending: HashMap<_, _> = pending.collect();
        let tables = &self.link.groups;
        // No moment: it is asked on a connection that was taken before, so it does not prove that
        // the table is followed. The next read does.
        let question = tables
            .question(space, Moment(0), connection.incarnation())
            .unwrap_or_else(|| Question::first(space, Moment(0), connection.incarnation()));
        let key = layout::groups(space);
        let mut commands = Pipeline::new();
        commands.add_command(question.command());
        for group in &groups {
            commands.cmd("ZSCORE").arg(&key).arg(field(group, How::Hard));
            commands.cmd("ZSCORE").arg(&key).arg(field(group, How::Soft));
        }
        // Last: a group that was forgotten meanwhile has raised it.
        commands.cmd("ZSCORE").arg(&key).arg(FLOOR);
        let answers = self.link.pipeline(connection, &commands, deadline).await?;
        let mut answers = answers.into_iter();
        let refused = |fault| self.link.refused(connection, fault);
        let news = news(answers.next().unwrap_or_default(), question.after).map_err(refused)?;
        let mut next = || reply::score(answers.next().unwrap_or_default()).map_err(refused);
        let mut asked = Vec::with_capacity(groups.len());
        for group in groups {
            let generation = Generation { hard: next()?, soft: next()? };
            asked.push(Asked { group: group.clone(), generation });
        }
        let floor = next()?;
        let table = news.clone().map(|news| {
            let (at, run) = (news.at, question.run);
            let mut table = Table::new(run, news);
            table.learn(run, at, floor, &asked);
            table
        });
        if let Some(heard) = tables.hear(&question, news) {
            tables.learn(&heard, floor, &asked);
        }
        Ok(Judged { table, pending })
    }
}

fn worsen(verdicts: &mut [Validity], place: usize, verdict: Validity) {
    if let Some(worst) = verdicts.get_mut(place) {
        *worst = verdict.max(*worst);
    }
}

/// What was asked for, and what is still to be told to the server about it.
struct Judged {
    table: Option<Table>,
    pending: HashMap<Group, How>,
}

impl Judged {
    fn check(&self, marks: &[Mark]) -> Validity {
        let table = self.table.as_ref().and_then(|table| table.check(marks));
        let pending = marks.iter().filter_map(|mark| self.pending.get(&mark.group));
        let pending = pending.map(|how| match how {
            How::Soft => Validity::Stale,
            How::Hard => Validity::Invalid,
        });
        pending.fold(table.unwrap_or(Validity::Invalid), Validity::max)
    }
}
