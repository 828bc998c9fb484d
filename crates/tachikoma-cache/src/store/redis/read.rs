//! Reading entries, and beginning a load.
//!
//! Decides what may be shown: what is readable, not expired, not invalidated by its groups and not
//! about to be removed; as stale what another run of the server wrote. One round trip for entries
//! without groups, two for those with.

use std::collections::HashMap;

use ::redis::{Pipeline, Value};
use bytes::Bytes;

use super::Shared;
use super::courier::{Errand, field};
use super::layout;
use super::link::Connection;
use super::reply::{self, Fault};
use crate::clock::{Deadline, Time};
use crate::entry::Entry;
use crate::envelope::{self, Decoded, Unreadable};
use crate::error::{Error, ErrorKind};
use crate::invalidation::{Generation, Group, How, Marks, Snapshot, Validity, judge};
use crate::key::{Key, Namespace, Shown};
use crate::store::{Begun, Cx, Guarantee, Lease};

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

    /// The entry of these bytes, if it can be read and is not past its time.
    pub(super) fn decode(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        bytes: &Bytes,
        now: Time,
    ) -> Option<Decoded> {
        match envelope::decode(bytes, connection.offset()) {
            Ok(decoded) => (!decoded.meta.is_expired(now)).then_some(decoded),
            Err(reason) => {
                self.link.errors.count(ErrorKind::Undecodable);
                tracing::debug!(key = %Shown(key.name()), %reason, "an entry cannot be read");
                // A later version can read its own; only what nobody can read goes.
                if reason == Unreadable::Corrupt {
                    self.errands.add(Errand::Discard { entry: layout::entry(key) });
                }
                None
            }
        }
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
        let show = |(entry, validity): (Option<Decoded>, Validity)| {
            let entry = entry?;
            let guarantee = match validity {
                Validity::Invalid => return None,
                Validity::Valid
                    if entry.incarnation == incarnation && !entry.meta.is_stale(now) =>
                {
                    Guarantee::Fresh
                }
                _ => Guarantee::Stale,
            };
            Some((Entry::from_bytes(entry.meta, entry.payload), guarantee))
        };
        Ok(found.into_iter().zip(verdicts).map(show).collect())
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
        let wanted: Vec<&Key<'_>> = keys.iter().filter(|key| !self.is_pending(key)).collect();
        let mut begun = if wanted.is_empty() {
            Vec::new()
        } else {
            self.begin_all(&wanted, cx.now, deadline).await?
        }
        .into_iter();
        let mut wanted = wanted.into_iter().peekable();
        Ok(keys
            .iter()
            .map(|key| {
                let asked = wanted.next_if(|next| std::ptr::eq(*next, key));
                // A load of what is about to be removed would be refused anyway.
                let refused = Begun { found: None, lease: None };
                asked.and_then(|_| begun.next()).unwrap_or(refused)
            })
            .collect())
    }

    async fn begin_all(
        &self,
        keys: &[&Key<'_>],
        now: Time,
        deadline: Deadline,
    ) -> Result<Vec<Begun>, Fault> {
        let connection = self.link.connection()?;
        let mut taken = Taken { shared: self, leases: Vec::with_capacity(keys.len()) };
        let mut commands = Pipeline::new();
        for key in keys {
            let (lease, token) = (layout::lease(key), new_token(&connection));
            let mut set = ::redis::cmd("SET");
            set.arg(&lease).arg(&token.to_be_bytes()).arg("NX");
            set.arg("PX").arg(self.link.config.lease_millis());
            commands.add_command(set);
            commands.cmd("GET").arg(layout::entry(key));
            taken.leases.push(Some((lease, token)));
        }
        let mut answers = self.link.pipeline(&connection, &commands, deadline).await?.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        let (mut sets, mut values) = (Vec::new(), Vec::new());
        for _ in keys {
            sets.push(reply::is_ok(next()));
            let value = match next() {
                Value::ServerError(error) => {
                    let fault = self.link.refused(&connection, Fault::of_server(&error));
                    self.or_wrong_type(Err(fault))?
                }
                value => value,
            };
            values.push(value);
        }
        let shown = self.show(&connection, keys, values, now, deadline).await?;
        let mut snapshots: HashMap<&Namespace, Snapshot> = HashMap::new();
        let mut begun = Vec::with_capacity(keys.len());
        for (place, ((key, set), shown)) in keys.iter().zip(sets).zip(shown).enumerate() {
            let found = shown.filter(|(_, guarantee)| *guarantee == Guarantee::Fresh);
            if !set.map_err(|fault| self.link.refused(&connection, fault))? {
                taken.forget(place);
                begun.push(Begun { found, lease: None });
                continue;
            }
            let space = key.namespace();
            let groups = if let Some(snapshot) = snapshots.get(space) {
                *snapshot
            } else {
                let snapshot = self.snapshot_on(&connection, space, deadline).await?;
                *snapshots.entry(space).or_insert(snapshot)
            };
            let lease = taken.forget(place).map(|(_, token)| Lease { token, groups });
            begun.push(Begun { found, lease });
        }
        Ok(begun)
    }
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
