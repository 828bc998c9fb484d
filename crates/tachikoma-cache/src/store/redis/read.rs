//! Reading entries, and beginning a load.
//!
//! Decides what may be shown: what is readable, not expired, not invalidated by its groups and not
//! about to be removed; as stale what another run of the server wrote. One round trip; a second one
//! for entries of groups of which this process knows too little ([`groups`](super::groups)).

use ::redis::{Pipeline, Value};

use super::Shared;
use super::courier::{self, Errand};
use super::groups::{self, Heard, Moment};
use super::layout;
use super::link::{self, Connection};
use super::pending::{Claim, Sending, Work};
use super::reply::{self, Fault};
use super::scripts;
use crate::clock::{Deadline, Stopwatch, Time};
use crate::entry::Entry;
use crate::envelope::Decoded;
use crate::error::{Error, ErrorKind};
use crate::invalidation::{Marks, Validity};
use crate::key::{Key, Namespace};
use crate::store::{Begun, Cx, Guarantee, Holder, Lease};

type Shows = Option<(Entry, Guarantee)>;

impl Shared {
    pub(super) async fn read(&self, keys: &[Key<'_>], cx: &Cx) -> Result<Vec<Shows>, Error> {
        let deadline = self.link.deadline(cx.deadline);
        // Asked before the server is: what is confirmed in between was in force there already.
        let wanted: Vec<&Key<'_>> = keys.iter().filter(|key| !self.is_pending(key)).collect();
        let mut shown = if wanted.is_empty() {
            Vec::new()
        } else {
            let moment = self.link.groups.moment();
            let connection = self.link.connection()?;
            let (values, heard) = self.fetch(&connection, &wanted, moment, deadline).await?;
            self.show(&connection, &wanted, values, &heard, cx.now, deadline).await?
        }
        .into_iter();
        let mut wanted = wanted.into_iter().peekable();
        Ok(keys
            .iter()
            .map(|key| {
                wanted.next_if(|next| std::ptr::eq(*next, key)).and_then(|_| shown.next().flatten())
            })
            .collect())
    }

    pub(super) fn is_pending(&self, key: &Key<'_>) -> bool {
        self.book.covers(key.namespace(), key.name())
    }

    /// What stands at these keys, unjudged, and what the server knew of their groups after it had
    /// read them; nothing where something else than an entry stands.
    pub(super) async fn fetch(
        &self,
        connection: &Connection,
        keys: &[&Key<'_>],
        moment: Moment,
        deadline: Deadline,
    ) -> Result<(Vec<Value>, Vec<Heard>), Fault> {
        let name = if keys.len() == 1 { "GET" } else { "MGET" };
        let mut command = ::redis::cmd(name);
        for key in keys {
            command.arg(layout::entry(key));
        }
        let questions = self.questions(keys, moment, connection);
        let mut answers = if questions.is_empty() {
            vec![self.link.call(connection, &command, deadline).await]
        } else {
            let mut commands = Pipeline::new();
            commands.add_command(command);
            for question in &questions {
                commands.add_command(question.command());
            }
            let answers = self.link.pipeline(connection, &commands, deadline).await?;
            answers.into_iter().map(Ok).collect()
        }
        .into_iter();
        let values = match answers.next().unwrap_or(Ok(Value::Nil)) {
            Ok(Value::ServerError(error)) => {
                Err(self.link.refused(connection, Fault::of_server(&error)))
            }
            answer => answer,
        };
        let values = if keys.len() == 1 {
            vec![self.or_wrong_type(values)?]
        } else {
            reply::array(values?).map_err(|fault| self.link.refused(connection, fault))?
        };
        if values.len() != keys.len() {
            return Err(reply::unexpected(Value::Nil));
        }
        let heard = self.hear(connection, &questions, answers.flatten());
        Ok((values, heard))
    }

    /// Something else stands at the key: a miss that is counted. The next write replaces it.
    fn or_wrong_type(&self, answer: Result<Value, Fault>) -> Result<Value, Fault> {
        match answer {
            Err(fault) if fault.code == "WRONGTYPE" => {
                self.link.errors.count(ErrorKind::Undecodable);
                Ok(Value::Nil)
            }
            answer => answer,
        }
    }

    /// What of these values may be shown.
    pub(super) async fn show(
        &self,
        connection: &Connection,
        keys: &[&Key<'_>],
        values: Vec<Value>,
        heard: &[Heard],
        now: Time,
        deadline: Deadline,
    ) -> Result<Vec<Shows>, Fault> {
        let mut found = Vec::with_capacity(values.len());
        for (key, value) in keys.iter().zip(values) {
            let bytes =
                reply::bytes(value).map_err(|fault| self.link.refused(connection, fault))?;
            let entry = bytes.and_then(|bytes| self.decode(connection, key, &bytes.into(), now));
            found.push(entry);
        }
        self.judge_all(connection, keys, found, heard, now, deadline).await
    }

    async fn judge_all(
        &self,
        connection: &Connection,
        keys: &[&Key<'_>],
        found: Vec<Option<Decoded>>,
        heard: &[Heard],
        now: Time,
        deadline: Deadline,
    ) -> Result<Vec<Shows>, Fault> {
        let none = Marks::default();
        let marked: Vec<(&Namespace, &Marks)> = keys
            .iter()
            .zip(&found)
            .map(|(key, entry)| {
                (key.namespace(), entry.as_ref().map_or(&none, |entry| &entry.meta.marks))
            })
            .collect();
        let verdicts = self.validities(connection, &marked, heard, deadline).await?;
        let incarnation = connection.incarnation();
        let show = |((key, entry), validity): ((&&Key<'_>, Option<Decoded>), Validity)| {
            let entry = entry?;
            let survived = entry.incarnation != incarnation;
            let validity = if survived { validity.max(Validity::Stale) } else { validity };
            let guarantee = Guarantee::of(&entry.meta, validity, now)?;
            self.was_read(key, &entry.meta, now);
            Some((self.unpacked(key, entry)?, guarantee))
        };
        Ok(keys.iter().zip(found).zip(verdicts).map(show).collect())
    }

    pub(super) async fn begin(&self, keys: &[Key<'_>], cx: &Cx) -> Result<Vec<Begun>, Error> {
        let deadline = self.link.deadline(cx.deadline);
        let moment = self.link.groups.moment();
        let connection = self.link.connection()?;
        let mut begun = Vec::with_capacity(keys.len());
        // One namespace, as the trait says; a list of several is taken apart all the same.
        for part in keys.chunk_by(|a, b| a.namespace() == b.namespace()) {
            match self.begin_all(&connection, part, moment, cx.now, deadline).await {
                Ok(more) => begun.extend(more),
                Err(fault) => {
                    for (key, Begun { lease, .. }) in keys.iter().zip(begun) {
                        if let Some(lease) = lease {
                            self.abandon(key, lease);
                        }
                    }
                    return Err(fault.into());
                }
            }
        }
        Ok(begun)
    }

    /// Enters the removals that are pending of these keys: the caller sends them first.
    pub(super) async fn owed(
        &self,
        keys: &[Key<'_>],
        deadline: Deadline,
    ) -> Result<Option<Sending<'_>>, Fault> {
        let mut names = keys
            .iter()
            .filter(|key| self.book.concerns(key.namespace(), key.name()))
            .map(Key::name);
        let Some(first) = names.next() else { return Ok(None) };
        let names: Vec<String> = std::iter::once(first).chain(names).map(str::to_owned).collect();
        let Some(space) = keys.first().map(Key::namespace) else { return Ok(None) };
        let entered = self.book.enter_in_order(space, names, deadline).await;
        entered.map(Some).ok_or_else(link::timed_out)
    }

    /// Invalidates what was made of keys whose removal was owed and is done.
    pub(super) async fn outdate_owed(
        &self,
        connection: &Connection,
        owed: &Sending<'_>,
        deadline: Deadline,
    ) -> Result<(), Fault> {
        let Some(Claim { namespace, work: Work::Keys(names), .. }) = owed.claim() else {
            return Ok(());
        };
        let names = names.iter().map(String::as_str);
        courier::outdate(&self.link, connection, namespace, names, deadline).await
    }

    async fn begin_all(
        &self,
        connection: &Connection,
        keys: &[Key<'_>],
        moment: Moment,
        now: Time,
        deadline: Deadline,
    ) -> Result<Vec<Begun>, Fault> {
        let wanted: Vec<&Key<'_>> = keys.iter().collect();
        let Some(space) = keys.first().map(Key::namespace) else { return Ok(Vec::new()) };
        let owed = self.owed(keys, deadline).await?;
        let mut taken = Taken { shared: self, leases: Vec::with_capacity(keys.len()) };
        let mut commands = Pipeline::new();
        let removals = add_removals(&mut commands, owed.as_ref());
        let leases: Vec<String> = keys.iter().map(layout::lease).collect();
        // What this process has given back must not be in its own way.
        for lease in &leases {
            for token in self.errands.given_back(lease) {
                commands.add_command(scripts::RELEASE.by_text(&[lease], &[&token]));
            }
        }
        let before = commands.len();
        for (key, lease) in keys.iter().zip(leases) {
            let token = new_token(connection);
            let mut set = ::redis::cmd("SET");
            set.arg(&lease).arg(&token.to_be_bytes()).arg("NX");
            set.arg("PX").arg(self.link.config.lease_millis());
            commands.add_command(set);
            commands.cmd("GET").arg(layout::entry(key));
            // Who has it, if somebody has.
            commands.cmd("GET").arg(&lease);
            // After the lease was taken: a guard that begins later ends it.
            commands.cmd("ZCOUNT").arg(layout::guards(key)).arg("-inf").arg("(+inf");
            taken.leases.push(Some((lease, token)));
        }
        // After what was found, and before any load.
        let questions = self.questions(&wanted, moment, connection);
        for question in &questions {
            commands.add_command(question.command());
        }
        let is_asked = questions.iter().any(|question| question.space == *space);
        if !is_asked {
            groups::add_snapshot(&mut commands, space);
        }
        let sent = Stopwatch::start();
        let mut answers = self.link.pipeline(connection, &commands, deadline).await?.into_iter();
        for answer in answers.by_ref().take(removals) {
            reply::integer(answer).map_err(|fault| self.link.refused(connection, fault))?;
        }
        if let Some(owed) = owed {
            self.outdate_owed(connection, &owed, deadline).await?;
            owed.confirm();
        }
        // A lease that could not be ended here ends by its errand or by itself.
        answers.by_ref().take(before - removals).for_each(drop);
        let mut next = || answers.next().unwrap_or_default();
        let (mut sets, mut values, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for _ in keys {
            sets.push(reply::is_ok(next()));
            let value = match next() {
                Value::ServerError(error) => {
                    let fault = self.link.refused(connection, Fault::of_server(&error));
                    self.or_wrong_type(Err(fault))?
                }
                value => value,
            };
            values.push(value);
            let holder = holder(next());
            let guards = reply::integer(next());
            let guards = guards.map_err(|fault| self.link.refused(connection, fault))?;
            others.push((holder, guards > 0));
        }
        let told: Vec<Value> = questions.iter().map(|_| next()).collect();
        let alone = if is_asked { Ok(None) } else { groups::snapshot(next()) };
        // All of them before one is handed out: after that nobody would give it back.
        let sets: Result<Vec<bool>, Fault> = sets.into_iter().collect();
        let sets = sets.map_err(|fault| self.link.refused(connection, fault))?;
        let heard = self.hear(connection, &questions, told.into_iter());
        let of_space = heard.iter().find(|heard| heard.space == *space).map(Heard::at);
        let at = alone.map(|alone| of_space.or(alone));
        // What is pending of groups must be in before the counters are read.
        let at = at.map_err(|fault| self.link.refused(connection, fault))?;
        let mut at = at.filter(|_| !self.book.owes_groups(space));
        let shown = self.show(connection, &wanted, values, &heard, now, deadline).await?;
        let mut begun = Vec::with_capacity(keys.len());
        let answers = sets.into_iter().zip(others).zip(shown);
        for (place, ((set, (holder, guarded)), found)) in answers.enumerate() {
            if !set {
                taken.forget(place);
                begun.push(Begun { found, lease: None, holder, guarded });
                continue;
            }
            if guarded {
                begun.push(Begun { found, guarded, ..Begun::default() });
                continue;
            }
            let groups = match at {
                Some(at) => at,
                None => self.snapshot_on(connection, space, deadline).await?,
            };
            at = Some(groups);
            let lease = taken.forget(place).map(|(name, token)| {
                self.leases.hold(name, token, sent);
                Lease { token, groups }
            });
            begun.push(Begun { found, lease, ..Begun::default() });
        }
        Ok(begun)
    }
}

/// Whose lease this is: so much of its token as tells it from others.
fn holder(lease: Value) -> Option<Holder> {
    let token = reply::bytes(lease).ok()??;
    token.first_chunk().map(|first| Holder(u64::from_be_bytes(*first)))
}

/// Adds the removal of what is owed, before what is to come after it; how many commands that are.
pub(super) fn add_removals(commands: &mut Pipeline, owed: Option<&Sending<'_>>) -> usize {
    let Some(Claim { namespace, work: Work::Keys(names), .. }) = owed.and_then(Sending::claim)
    else {
        return 0;
    };
    for name in names {
        commands.cmd("UNLINK").arg(layout::lease_of(namespace, name));
        commands.cmd("UNLINK").arg(layout::entry_of(namespace, name));
    }
    2 * names.len()
}

/// Leases that were asked for and not handed out yet: given back if the call ends before, also
/// because its caller went away.
struct Taken<'a> {
    shared: &'a Shared,
    leases: Vec<Option<(String, u128)>>,
}

impl Taken<'_> {
    /// It is not ours to give back (any more).
    fn forget(&mut self, place: usize) -> Option<(String, u128)> {
        self.leases.get_mut(place)?.take()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for (lease, token) in self.leases.drain(..).flatten() {
            self.shared.errands.add(Errand::Release { lease, token: token.to_be_bytes() });
        }
    }
}

/// A token that is never given twice. Its last four bytes tell which run of the server it is for.
fn new_token(connection: &Connection) -> u128 {
    let random: u128 = rand::random();
    random << 32 | u128::from(of_incarnation(connection))
}

/// Whether a token was given by the run of the server that is connected now.
pub(super) fn is_current(token: u128, connection: &Connection) -> bool {
    token & u128::from(u32::MAX) == u128::from(of_incarnation(connection))
}

fn of_incarnation(connection: &Connection) -> u32 {
    let incarnation = connection.incarnation();
    u32::try_from(incarnation & u64::from(u32::MAX)).unwrap_or_default()
}
