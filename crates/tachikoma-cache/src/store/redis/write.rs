//! Storing, changing and removing entries.
//!
//! Decides in which order commands run so that no old value outlives a removal: leases end before
//! or with what they would have stored. A removal is entered as pending before it is sent.

use ::redis::{Pipeline, Value};

use super::Shared;
use super::courier::{self, Errand};
use super::layout;
use super::link::Connection;
use super::pending::Work;
use super::read;
use super::reply::{self, Fault};
use super::scripts;
use crate::clock::{Deadline, Time};
use crate::entry::Entry;
use crate::envelope::{self, CHECKSUM_BYTES, Decoded, Unreadable};
use crate::error::{Error, ErrorKind};
use crate::invalidation::{Group, How, Marks, Snapshot, Validity};
use crate::key::{Key, Namespace};
use crate::store::{Cx, Lease, Removed, When, Written};

/// The longest string that Redis keeps (`proto-max-bulk-len`), less what is stored around a value.
const MAX_VALUE_BYTES: usize = 512 * 1024 * 1024 - 64 * 1024;

/// How often a replacement is tried again when somebody else changes the entry.
const ATTEMPTS: usize = 4;

/// So much of an entry tells when it expires and, mostly, its groups.
const HEAD_BYTES: usize = 1024;

/// How long an entry is to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Forever,
    Millis(u64),
    Over,
}

impl Life {
    fn until(expiry: Option<Time>, now: Time) -> Self {
        // Far beyond every time to live that is allowed, and within what Redis takes.
        const MOST: u64 = 1 << 42;
        match expiry.map(|at| at.as_millis().saturating_sub(now.as_millis())) {
            None => Self::Forever,
            Some(0) => Self::Over,
            Some(left) => Self::Millis(left.min(MOST)),
        }
    }

    /// The argument of a script: empty for ever.
    fn argument(self) -> String {
        match self {
            Self::Millis(left) => left.to_string(),
            Self::Forever | Self::Over => String::new(),
        }
    }
}

/// What stands at a key that is to be replaced.
enum Standing {
    Nothing,
    /// Something that is not shown as fresh, and its last bytes.
    Dead([u8; CHECKSUM_BYTES]),
    Live(Decoded, [u8; CHECKSUM_BYTES]),
    /// No string.
    Other,
}

impl Shared {
    /// How long the server is to keep an entry. Its clock is real: by a virtual one only the expiry
    /// in the entry counts.
    fn life(&self, expiry: Option<Time>, now: Time) -> Life {
        match Life::until(expiry, now) {
            Life::Millis(_) if !self.link.clock.is_real() => Life::Forever,
            life => life,
        }
    }

    pub(super) async fn write(
        &self,
        key: &Key<'_>,
        entry: &Entry,
        when: When<'_>,
        cx: &Cx,
    ) -> Result<Written, Error> {
        let result = self.try_write(key, entry, when, cx).await;
        if let When::Leased(lease) = when
            && !matches!(result, Ok(Written::Stored))
        {
            self.abandon(key, *lease);
        }
        result
    }

    async fn try_write(
        &self,
        key: &Key<'_>,
        entry: &Entry,
        when: When<'_>,
        cx: &Cx,
    ) -> Result<Written, Error> {
        let payload = entry.bytes()?;
        if payload.len() > MAX_VALUE_BYTES {
            let text = format!("{} bytes; at most {MAX_VALUE_BYTES} are allowed", payload.len());
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection()?;
        let meta = entry.meta();
        let life = self.life(meta.hard_expiry, cx.now);
        let bytes = envelope::encode(meta, &payload, connection.incarnation(), connection.offset());
        match when {
            When::Always => self.put(&connection, key, &bytes, life, deadline).await,
            When::Absent => {
                self.put_if_absent(&connection, key, &bytes, life, cx.now, deadline).await
            }
            When::Leased(lease) => {
                self.fill(&connection, key, &bytes, &meta.marks, life, *lease, deadline).await
            }
        }
        .map_err(Error::from)
    }

    async fn put(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        bytes: &[u8],
        life: Life,
        deadline: Deadline,
    ) -> Result<Written, Fault> {
        // It does what a pending removal of the key would do: nothing older is left.
        let pending = self
            .is_pending(key)
            .then(|| self.book.enter(key.namespace(), Work::Keys(vec![key.name().to_owned()])));
        let mut commands = Pipeline::new();
        match life {
            Life::Over => commands.cmd("UNLINK").arg(layout::entry(key)),
            Life::Forever => commands.cmd("SET").arg(layout::entry(key)).arg(bytes),
            Life::Millis(left) => {
                commands.cmd("SET").arg(layout::entry(key)).arg(bytes).arg("PX").arg(left)
            }
        };
        commands.cmd("DEL").arg(layout::lease(key));
        self.link.transaction(connection, &mut commands, deadline).await?;
        if let Some(pending) = pending {
            pending.confirm();
        }
        Ok(Written::Stored)
    }

    async fn put_if_absent(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        bytes: &[u8],
        life: Life,
        now: Time,
        deadline: Deadline,
    ) -> Result<Written, Fault> {
        if self.is_pending(key) {
            return self.put(connection, key, bytes, life, deadline).await;
        }
        if life == Life::Over {
            return Ok(Written::Refused);
        }
        let mut seen: Vec<u8> = Vec::new();
        for _ in 0..ATTEMPTS {
            match self.replace(connection, key, &seen, bytes, life, true, deadline).await {
                Ok(true) => return Ok(Written::Stored),
                Ok(false) => {}
                Err(fault) if fault.code == "WRONGTYPE" => {
                    return self.put(connection, key, bytes, life, deadline).await;
                }
                Err(fault) => return Err(fault),
            }
            seen = match self.standing(connection, key, now, deadline).await? {
                Standing::Live(..) => return Ok(Written::Refused),
                Standing::Dead(checksum) => checksum.to_vec(),
                Standing::Nothing => Vec::new(),
                Standing::Other => return self.put(connection, key, bytes, life, deadline).await,
            };
        }
        Ok(Written::Refused)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of one command")]
    async fn fill(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        bytes: &[u8],
        marks: &Marks,
        life: Life,
        lease: Lease,
        deadline: Deadline,
    ) -> Result<Written, Fault> {
        let doomed = || {
            let space = key.namespace();
            let mut groups = marks.as_slice().iter().map(|mark| &mark.group);
            self.is_pending(key) || groups.any(|group| self.book.of_group(space, group).is_some())
        };
        if life == Life::Over || !read::is_current(lease.token, connection) || doomed() {
            return Ok(Written::Refused);
        }
        let (token, left) = (lease.token.to_be_bytes(), life.argument());
        let names = (layout::entry(key), layout::lease(key));
        let arguments: [&[u8]; 3] = [&token, bytes, left.as_bytes()];
        let answer = self
            .link
            .eval(connection, &scripts::FILL, &[&names.0, &names.1], &arguments, deadline)
            .await?;
        Ok(if reply::integer(answer)? == 1 { Written::Stored } else { Written::Refused })
    }

    /// Gives a lease back in the background.
    pub(super) fn abandon(&self, key: &Key<'_>, lease: Lease) {
        let token = lease.token.to_be_bytes();
        self.errands.add(Errand::Release { lease: layout::lease(key), token });
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of one command")]
    async fn replace(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        seen: &[u8],
        bytes: &[u8],
        life: Life,
        ends_lease: bool,
        deadline: Deadline,
    ) -> Result<bool, Fault> {
        let left = life.argument();
        let names = (layout::entry(key), layout::lease(key));
        let ends: &[u8] = if ends_lease { b"1" } else { b"0" };
        let arguments: [&[u8]; 4] = [seen, bytes, left.as_bytes(), ends];
        let answer = self
            .link
            .eval(connection, &scripts::REPLACE, &[&names.0, &names.1], &arguments, deadline)
            .await?;
        Ok(reply::integer(answer)? == 1)
    }

    async fn standing(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        now: Time,
        deadline: Deadline,
    ) -> Result<Standing, Fault> {
        let mut command = ::redis::cmd("GET");
        command.arg(layout::entry(key));
        let value = match self.link.call(connection, &command, deadline).await {
            Err(fault) if fault.code == "WRONGTYPE" => return Ok(Standing::Other),
            answer => answer?,
        };
        let Some(bytes) = reply::bytes(value)? else {
            return Ok(Standing::Nothing);
        };
        let Some(checksum) = bytes.last_chunk().copied() else {
            return Ok(Standing::Other);
        };
        let Some(decoded) = self.decode(connection, key, &bytes.into(), now) else {
            return Ok(Standing::Dead(checksum));
        };
        let marked = [(key.namespace(), &decoded.meta.marks)];
        let verdicts = self.validities(connection, &marked, deadline).await?;
        let fresh = verdicts.first() == Some(&Validity::Valid)
            && !decoded.meta.is_stale(now)
            && decoded.incarnation == connection.incarnation();
        Ok(if fresh { Standing::Live(decoded, checksum) } else { Standing::Dead(checksum) })
    }

    pub(super) async fn touch(
        &self,
        key: &Key<'_>,
        expiry: Option<Time>,
        cx: &Cx,
    ) -> Result<bool, Error> {
        if self.is_pending(key) {
            return Ok(false);
        }
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection()?;
        let life = self.life(expiry, cx.now);
        for _ in 0..ATTEMPTS {
            let standing = self.standing(&connection, key, cx.now, deadline).await?;
            let Standing::Live(decoded, checksum) = standing else {
                return Ok(false);
            };
            if life == Life::Over {
                let mut command = ::redis::cmd("UNLINK");
                command.arg(layout::entry(key));
                self.link.call(&connection, &command, deadline).await?;
                return Ok(true);
            }
            let Decoded { mut meta, incarnation, payload } = decoded;
            (meta.soft_expiry, meta.hard_expiry) = (expiry, expiry);
            let bytes = envelope::encode(&meta, &payload, incarnation, connection.offset());
            if self.replace(&connection, key, &checksum, &bytes, life, false, deadline).await? {
                return Ok(true);
            }
        }
        Err(Error::new(ErrorKind::TimedOut, "others keep changing the entry"))
    }

    pub(super) async fn remove(&self, keys: &[Key<'_>], cx: &Cx) -> Result<Removed, Error> {
        let mut count = 0;
        // One namespace, as the trait says; a list of several is taken apart all the same.
        for part in keys.chunk_by(|a, b| a.namespace() == b.namespace()) {
            let Some(first) = part.first() else { continue };
            count += self.remove_of(first.namespace(), part, cx).await?;
        }
        Ok(Removed { memory: None, redis: Some(count) })
    }

    async fn remove_of(&self, space: &Namespace, keys: &[Key<'_>], cx: &Cx) -> Result<u64, Error> {
        let names = keys.iter().map(|key| key.name().to_owned()).collect();
        let sending = self.book.enter(space, Work::Keys(names));
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection().map_err(pending)?;
        let mut commands = Pipeline::new();
        let leases: Vec<_> = keys.iter().map(layout::lease).collect();
        let entries: Vec<_> = keys.iter().map(layout::entry).collect();
        // First: a load that stores after this has no lease any more.
        commands.cmd("UNLINK").arg(&leases);
        for entry in &entries {
            commands.cmd("GETRANGE").arg(entry).arg(0).arg(HEAD_BYTES - 1);
        }
        commands.cmd("UNLINK").arg(&entries);
        let answers =
            self.link.pipeline(&connection, &commands, deadline).await.map_err(pending)?;
        let mut answers = answers.into_iter();
        for unlinked in [answers.next(), answers.next_back()] {
            let answer = reply::integer(unlinked.unwrap_or_default());
            answer.map_err(|fault| pending(self.link.refused(&connection, fault)))?;
        }
        sending.confirm();
        Ok(self.count_live(&connection, space, answers, cx.now, deadline).await)
    }

    /// How many of these beginnings were of entries that could still be seen.
    async fn count_live(
        &self,
        connection: &Connection,
        space: &Namespace,
        heads: impl Iterator<Item = Value>,
        now: Time,
        deadline: Deadline,
    ) -> u64 {
        let mut live = 0;
        let mut marked = Vec::new();
        for head in heads {
            let Ok(Some(head)) = reply::bytes(head) else {
                continue;
            };
            match envelope::decode_head(&head, connection.offset()) {
                Ok(meta) if meta.is_expired(now) => {}
                Ok(meta) if meta.marks.is_empty() => live += 1,
                Ok(meta) => marked.push(meta.marks),
                // So many groups that they were cut off: it is counted, not judged.
                Err(Unreadable::Corrupt) if head.len() == HEAD_BYTES => live += 1,
                Err(_) => {}
            }
        }
        let asked: Vec<_> = marked.iter().map(|marks| (space, marks)).collect();
        // The removal is in; without an answer to this, what was there counts.
        let verdicts = self.validities(connection, &asked, deadline).await;
        let verdicts = verdicts.unwrap_or_else(|_| vec![Validity::Valid; marked.len()]);
        live + verdicts.iter().filter(|verdict| **verdict != Validity::Invalid).count() as u64
    }

    pub(super) async fn snapshot(&self, space: &Namespace, cx: &Cx) -> Result<Snapshot, Error> {
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection()?;
        Ok(self.snapshot_on(&connection, space, deadline).await?)
    }

    /// Where the counters stand; they begin in a new epoch if there are none.
    pub(super) async fn snapshot_on(
        &self,
        connection: &Connection,
        space: &Namespace,
        deadline: Deadline,
    ) -> Result<Snapshot, Fault> {
        let key = layout::groups(space);
        let mut get = ::redis::cmd("HMGET");
        get.arg(&key).arg("@e").arg("@c");
        for _ in 0..ATTEMPTS {
            let answer = reply::array(self.link.call(connection, &get, deadline).await?)?;
            let mut numbers = answer.into_iter().map(reply::number);
            let epoch = numbers.next().transpose()?.flatten();
            let counter = numbers.next().transpose()?.flatten();
            if let Some(epoch) = epoch {
                return Ok(Snapshot { epoch, counter: counter.unwrap_or_default() });
            }
            let mut create = ::redis::cmd("HSETNX");
            create.arg(&key).arg("@e").arg(rand::random::<u64>());
            self.link.call(connection, &create, deadline).await?;
        }
        Err(Fault::new(ErrorKind::Unavailable, reply::Then::Keep, "the group counters vanish"))
    }

    pub(super) async fn invalidate(
        &self,
        space: &Namespace,
        groups: &[Group],
        how: How,
        cx: &Cx,
    ) -> Result<(), Error> {
        if groups.is_empty() {
            return Ok(());
        }
        let sending = self.book.enter(space, Work::Groups(groups.to_vec(), how));
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection().map_err(pending)?;
        courier::invalidate(&self.link, &connection, space, groups, how, deadline)
            .await
            .map_err(pending)?;
        sending.confirm();
        Ok(())
    }
}

fn pending(fault: Fault) -> Error {
    Error::from(ErrorKind::Pending).with_source(Error::from(fault))
}
