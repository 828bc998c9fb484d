//! Storing several entries in one round trip.
//!
//! Each is stored by the very commands that store it alone ([`write`](super::write)), one after the
//! other in one pipeline, so each keeps its own transaction, condition and answer. What the server
//! must be asked more than once for (storing only what is absent) goes by itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ::redis::{Pipeline, Value};

use super::Shared;
use super::layout;
use super::leases::Ending;
use super::link::Connection;
use super::read;
use super::reply::{self, Fault};
use super::scripts;
use super::write::{Life, add_put};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::store::{Cx, When, Write, Written};

/// How one write takes place.
enum Plan {
    /// Not at all: it is known already.
    Known(Result<Written, Error>),
    /// By a transaction with so many answers.
    Put { answers: usize },
    /// By the script that asks for the lease.
    Fill,
    /// By itself, after the others.
    Alone,
}

impl Shared {
    pub(super) async fn write_many(
        &self,
        writes: &[Write<'_>],
        endings: Vec<Ending<'_>>,
        cx: &Cx,
    ) -> Result<Vec<Result<Written, Error>>, Error> {
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection()?;
        // What is still to be removed of these keys goes first.
        let replaced = writes.iter().filter(|one| matches!(one.when, When::Always));
        let replaced: Vec<Key<'_>> = replaced.map(|one| one.key.clone()).collect();
        let owed = self.owed(&replaced, deadline).await?;
        let mut commands = Pipeline::new();
        let removals = read::add_removals(&mut commands, owed.as_ref());
        let mut plans = Vec::with_capacity(writes.len());
        for one in writes {
            let plan = self.plan(&connection, one, cx, &mut commands);
            plans.push(plan.unwrap_or_else(|error| Plan::Known(Err(error))));
        }
        let answers = if commands.is_empty() {
            Vec::new()
        } else {
            self.link.pipeline(&connection, &commands, deadline).await?
        };
        let mut answers = answers.into_iter();
        for answer in answers.by_ref().take(removals) {
            reply::integer(answer).map_err(|fault| self.link.refused(&connection, fault))?;
        }
        if let Some(owed) = owed {
            self.outdate_owed(&connection, &owed, deadline).await?;
            owed.confirm();
        }
        for space in writes.iter().map(|one| one.key.namespace()) {
            self.outdated(space);
        }
        let mut written = Vec::with_capacity(writes.len());
        for ((one, mut ending), plan) in writes.iter().zip(endings).zip(plans) {
            written.push(match plan {
                Plan::Known(known) => known,
                Plan::Put { answers: count } => match done(answers.by_ref().take(count)) {
                    Ok(()) => Ok(Written::Stored),
                    Err(fault) => Err(self.link.refused(&connection, fault).into()),
                },
                Plan::Fill => match reply::integer(answers.next().unwrap_or_default()) {
                    Ok(stored) => {
                        ending.is_over();
                        Ok(if stored == 1 { Written::Stored } else { Written::Refused })
                    }
                    Err(fault) => Err(self.link.refused(&connection, fault).into()),
                },
                Plan::Alone => self.write(&one.key, &one.entry, one.when, ending, cx).await,
            });
        }
        Ok(written)
    }

    fn plan(
        &self,
        connection: &Connection,
        one: &Write<'_>,
        cx: &Cx,
        commands: &mut Pipeline,
    ) -> Result<Plan, Error> {
        // The type's own code: its panic is the failure of this item only.
        let packed =
            catch_unwind(AssertUnwindSafe(|| self.packed(&one.entry))).unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Unencodable, "its serialiser panicked"))
            })?;
        let (key, meta) = (&one.key, one.entry.meta());
        let life = self.life(meta, cx.now);
        let bytes = self.bytes(connection, key, meta, &packed, connection.incarnation());
        Ok(match one.when {
            When::Absent => Plan::Alone,
            When::Always => {
                let before = commands.len();
                commands.cmd("MULTI");
                add_put(commands, key, &bytes, life);
                self.add_outdating(commands, key);
                commands.cmd("EXEC");
                Plan::Put { answers: commands.len() - before }
            }
            When::Leased(lease) => {
                if life == Life::Over || !self.may_fill(connection, key, &meta.marks, *lease) {
                    return Ok(Plan::Known(Ok(Written::Refused)));
                }
                let (token, left) = (lease.token.to_be_bytes(), life.argument());
                let names = (layout::entry(key), layout::lease(key));
                // With its text each time: a server that does not know a hash would need another
                // round trip.
                commands.add_command(
                    scripts::FILL
                        .by_text(&[&names.0, &names.1], &[&token, &bytes, left.as_bytes()]),
                );
                Plan::Fill
            }
        })
    }
}

/// Whether the answers of a transaction are those of one that took place.
fn done(answers: impl Iterator<Item = Value>) -> Result<(), Fault> {
    let mut last = Value::Nil;
    for answer in answers {
        if let Value::ServerError(error) = &answer {
            return Err(Fault::of_server(error));
        }
        last = answer;
    }
    for answer in reply::array(last)? {
        if let Value::ServerError(error) = &answer {
            return Err(Fault::of_server(error));
        }
    }
    Ok(())
}
