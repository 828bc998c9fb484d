//! Reading entries, and beginning a load.
//!
//! Decides what may be shown: what is readable, not expired, not invalidated by its groups and not
//! about to be removed; as stale what another run of the server wrote. One round trip for entries
//! without groups, two for those with.

use std::collections::HashMap;

use ::redis::{Pipeline, Value};

use super::Shared;
use super::courier::{Errand, field};
use super::layout;
use super::link::{self, Connection};
use super::pending::{Claim, Sending, Work};
use super::reply::{self, Fault};
use super::scripts;
use crate::clock::{Deadline, Stopwatch, Time};
use crate::entry::Entry;
use crate::envelope::Decoded;
use crate::error::{Error, ErrorKind};
use crate::invalidation::{Generation, Group, How, Marks, Snapshot, Validity, judge};
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
            let connection = self.link.connection()?;
            let values = self.fetch(&connection, &wanted, deadline).await?;
            self.show(&connection, &wanted, values, cx.now, deadline).await?
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

    /// What stands at these keys, unjudged; nothing where something else than an entry stands.
    pub(super) async fn fetch(
        &self,
        connection: &Connection,
        keys: &[&Key<'_>],
        deadline: Deadline,
    ) -> Result<Vec<Value>, Fault> {
        if let [key] = keys {
            let mut command = ::redis::cmd("GET");
            command.arg(layout::entry(key));
            let answer = self.link.call(connection, &command, deadline).await;
            return Ok(vec![self.or_wrong_type(answer)?]);
        }
        let mut command = ::redis::cmd("MGET");
        for key in keys {
            command.arg(layout::entry(key));
        }
        let values = reply::array(self.link.call(connection, &command, deadline).await?)?;
        if values.len() == keys.len() { Ok(values) } else { Err(reply::unexpected(Value::Nil)) }
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
        self.judge_all(connection, keys, found, now, deadline).await
    }

    async fn judge_all(
        &self,
        connection: &Connection,
        keys: &[&Key<'_>],
        found: Vec<Option<Decoded>>,
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
        let verdicts = self.validities(connection, &marked, deadline).await?;
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

    /// Whether entries with these marks may be used.
    pub(super) async fn validities(
        &self,
        connection: &Connection,
        marked: &[(&Namespace, &Marks)],
        deadline: Deadline,
    ) -> Result<Vec<Validity>, Fault> {
        let mut verdicts = vec![Validity::Valid; marked.len()];
        let mut spaces: Vec<&Namespace> =
            marked.iter().filter(|(_, marks)| !marks.is_empty()).map(|(space, _)| *space).collect();
        spaces.sort_unstable();
        spaces.dedup();
        for space in spaces {
            let of_space = || marked.iter().enumerate().filter(|(_, (other, _))| *other == space);
            let marks = of_space().flat_map(|(_, (_, marks))| marks.as_slice());
            let mut groups: Vec<&Group> = marks.map(|mark| &mark.group).collect();
            groups.sort_unstable();
            groups.dedup();
            let state = self.counters(connection, space, &groups, deadline).await?;
            for (place, (_, marks)) in of_space() {
                if let Some(verdict) = verdicts.get_mut(place) {
                    *verdict = state.check(marks);
                }
            }
        }
        Ok(verdicts)
    }

    /// The counters of these groups, and what is still to be told to the server about them.
    async fn counters<'a>(
        &self,
        connection: &Connection,
        space: &Namespace,
        groups: &[&'a Group],
        deadline: Deadline,
    ) -> Result<Counters<'a>, Fault> {
        let mut command = ::redis::cmd("HMGET");
        command.arg(layout::groups(space)).arg("@e").arg("@f");
        for group in groups {
            command.arg(field(group, How::Hard)).arg(field(group, How::Soft));
        }
        // Before the server is asked, as for keys.
        let pending: Vec<_> = groups.iter().map(|group| self.book.of_group(space, group)).collect();
        let answer = reply::array(self.link.call(connection, &command, deadline).await?)?;
        let mut numbers = answer.into_iter().map(reply::number);
        let mut next = || numbers.next().transpose().map(Option::flatten);
        let (epoch, floor) = (next()?, next()?.unwrap_or_default());
        let mut generations = HashMap::with_capacity(groups.len());
        for (group, pending) in groups.iter().zip(pending) {
            let hard = next()?.unwrap_or_default();
            let soft = next()?.unwrap_or_default();
            generations.insert(*group, (Generation { hard, soft }, pending));
        }
        Ok(Counters { epoch, floor, generations })
    }

    pub(super) async fn begin(&self, keys: &[Key<'_>], cx: &Cx) -> Result<Vec<Begun>, Error> {
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection()?;
        let mut begun = Vec::with_capacity(keys.len());
        // One namespace, as the trait says; a list of several is taken apart all the same.
        for part in keys.chunk_by(|a, b| a.namespace() == b.namespace()) {
            match self.begin_all(&connection, part, cx.now, deadline).await {
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

    async fn begin_all(
        &self,
        connection: &Connection,
        keys: &[Key<'_>],
        now: Time,
        deadline: Deadline,
    ) -> Result<Vec<Begun>, Fault> {
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
        let sent = Stopwatch::start();
        let mut answers = self.link.pipeline(connection, &commands, deadline).await?.into_iter();
        for answer in answers.by_ref().take(removals) {
            reply::integer(answer).map_err(|fault| self.link.refused(connection, fault))?;
        }
        if let Some(owed) = owed {
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
        // All of them before one is handed out: after that nobody would give it back.
        let sets: Result<Vec<bool>, Fault> = sets.into_iter().collect();
        let sets = sets.map_err(|fault| self.link.refused(connection, fault))?;
        let wanted: Vec<&Key<'_>> = keys.iter().collect();
        let shown = self.show(connection, &wanted, values, now, deadline).await?;
        let mut snapshots: HashMap<&Namespace, Snapshot> = HashMap::new();
        let mut begun = Vec::with_capacity(keys.len());
        let answers = sets.into_iter().zip(others).zip(shown);
        for (place, (key, ((set, (holder, guarded)), found))) in
            keys.iter().zip(answers).enumerate()
        {
            if !set {
                taken.forget(place);
                begun.push(Begun { found, lease: None, holder, guarded });
                continue;
            }
            if guarded {
                begun.push(Begun { found, guarded, ..Begun::default() });
                continue;
            }
            let space = key.namespace();
            let groups = if let Some(snapshot) = snapshots.get(space) {
                *snapshot
            } else {
                let snapshot = self.snapshot_on(connection, space, deadline).await?;
                *snapshots.entry(space).or_insert(snapshot)
            };
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

/// The group counters of one namespace, as far as they were asked for.
struct Counters<'a> {
    epoch: Option<u64>,
    floor: u64,
    generations: HashMap<&'a Group, (Generation, Option<How>)>,
}

impl Counters<'_> {
    fn check(&self, marks: &Marks) -> Validity {
        let Some(epoch) = self.epoch else {
            return if marks.is_empty() { Validity::Valid } else { Validity::Invalid };
        };
        let verdict = |mark: &crate::invalidation::Mark| {
            let (generation, pending) =
                self.generations.get(&mark.group).copied().unwrap_or_default();
            let pending = match pending {
                None => Validity::Valid,
                Some(How::Soft) => Validity::Stale,
                Some(How::Hard) => Validity::Invalid,
            };
            judge(mark.at, epoch, self.floor, generation).max(pending)
        };
        marks.as_slice().iter().map(verdict).max().unwrap_or(Validity::Valid)
    }
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
