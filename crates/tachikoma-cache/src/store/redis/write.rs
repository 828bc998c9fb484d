//! Storing, changing and removing entries.
//!
//! Decides in which order commands run so that no old value outlives a removal: leases end before
//! or with what they would have stored. A removal is entered as pending before it is sent.

use ::redis::{Pipeline, Value};

use super::Shared;
use super::courier;
use super::groups;
use super::layout;
use super::leases::Ending;
use super::link::{self, Connection};
use super::pending::{Sending, Work};
use super::read;
use super::reply::{self, Fault};
use super::scripts;
use crate::clock::{Deadline, Time};
use crate::entry::Entry;
use crate::envelope::{self, CHECKSUM_BYTES, Decoded, Unreadable};
use crate::error::{Error, ErrorKind};
use crate::expiry::moved;
use crate::invalidation::{Group, How, Marks, Snapshot, Validity};
use crate::key::{Key, Namespace};
use crate::store::{Cx, Lease, Removed, When, Written};

/// How often a replacement is tried again when somebody else changes the entry.
const ATTEMPTS: usize = 4;

/// So much of an entry tells when it expires and, mostly, its groups.
pub(super) const HEAD_BYTES: usize = 1024;

/// How long an entry is to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Forever,
    Millis(u64),
    Over,
}

impl Life {
    pub(super) fn until(expiry: Option<Time>, now: Time) -> Self {
        // Far beyond every time to live that is allowed, and within what Redis takes.
        const MOST: u64 = 1 << 42;
        match expiry.map(|at| at.as_millis().saturating_sub(now.as_millis())) {
            None => Self::Forever,
            Some(0) => Self::Over,
            Some(left) => Self::Millis(left.min(MOST)),
        }
    }

    /// The argument of a script: empty for ever.
    pub(super) fn argument(self) -> String {
        match self {
            Self::Millis(left) => left.to_string(),
            Self::Forever | Self::Over => String::new(),
        }
    }
}

/// What stands at a key that is to be replaced.
enum Standing {
    /// No fresh value. The last bytes of what is there; none if that is nothing, or no text.
    Dead(Vec<u8>),
    Live(Decoded, [u8; CHECKSUM_BYTES]),
}

impl Shared {
    pub(super) async fn write(
        &self,
        key: &Key<'_>,
        entry: &Entry,
        when: When<'_>,
        mut ending: Ending<'_>,
        cx: &Cx,
    ) -> Result<Written, Error> {
        let packed = self.packed(entry)?;
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection()?;
        let meta = entry.meta();
        let life = self.life(meta, cx.now);
        let bytes = self.bytes(&connection, key, meta, &packed, connection.incarnation());
        match when {
            When::Always => self.put(&connection, key, &bytes, life, deadline).await,
            When::Absent => {
                self.put_if_absent(&connection, key, &bytes, life, cx.now, deadline).await
            }
            When::Leased(lease) => {
                if life == Life::Over || !self.may_fill(&connection, key, &meta.marks, *lease) {
                    return Ok(Written::Refused);
                }
                let written = self.fill(&connection, key, &bytes, life, *lease, deadline).await;
                if written.is_ok() {
                    ending.is_over();
                }
                written
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
        let pending = if self.book.concerns(key.namespace(), key.name()) {
            let names = vec![key.name().to_owned()];
            let entered = self.book.enter_in_order(key.namespace(), names, deadline).await;
            Some(entered.ok_or_else(link::timed_out)?)
        } else {
            None
        };
        self.put_now(connection, key, bytes, life, pending, deadline).await
    }

    /// Stores, which is also what the removal would do that is `pending`.
    async fn put_now(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        bytes: &[u8],
        life: Life,
        pending: Option<Sending<'_>>,
        deadline: Deadline,
    ) -> Result<Written, Fault> {
        let mut commands = Pipeline::new();
        add_put(&mut commands, key, bytes, life);
        self.add_outdating(&mut commands, key);
        let stored = self.link.transaction(connection, &mut commands, deadline).await;
        self.outdated(key.namespace());
        stored?;
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
        if life == Life::Over {
            return Ok(Written::Refused);
        }
        if self.book.concerns(key.namespace(), key.name()) {
            // One of those who come here writes for the removal. The others wait for that and ask:
            // were each to write for it, each would have found nothing.
            let taken = self.book.take_key(key.namespace(), key.name(), deadline).await;
            let taken = taken.ok_or_else(link::timed_out)?;
            if taken.claim().is_some() {
                return self.put_now(connection, key, bytes, life, Some(taken), deadline).await;
            }
        }
        let mut seen: Vec<u8> = Vec::new();
        for _ in 0..ATTEMPTS {
            if self.replace(connection, key, &seen, bytes, life, true, deadline).await? {
                return Ok(Written::Stored);
            }
            seen = match self.standing(connection, key, now, deadline).await? {
                Standing::Live(..) => return Ok(Written::Refused),
                Standing::Dead(last) => last,
            };
        }
        Ok(Written::Refused)
    }

    async fn fill(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        bytes: &[u8],
        life: Life,
        lease: Lease,
        deadline: Deadline,
    ) -> Result<Written, Fault> {
        let (token, left) = (lease.token.to_be_bytes(), life.argument());
        let names = (layout::entry(key), layout::lease(key));
        let arguments: [&[u8]; 3] = [&token, bytes, left.as_bytes()];
        let answer = self
            .link
            .eval(connection, &scripts::FILL, &[&names.0, &names.1], &arguments, deadline)
            .await?;
        Ok(if reply::integer(answer)? == 1 { Written::Stored } else { Written::Refused })
    }

    /// Whether a lease could still be good, by what is known without the server.
    pub(super) fn may_fill(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        marks: &Marks,
        lease: Lease,
    ) -> bool {
        read::is_current(lease.token, connection)
            && !self.is_pending(key)
            && !self.owes_groups(key.namespace(), marks)
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
        let names = [names.0.as_str(), names.1.as_str()];
        if ends_lease && self.link.config.has_dependencies() {
            // It is a new value, so what was made of the older one goes with it or not at all.
            let mut commands = Pipeline::new();
            commands.add_command(scripts::REPLACE.by_text(&names, &arguments));
            self.add_outdating(&mut commands, key);
            let replaced = self.link.transaction(connection, &mut commands, deadline).await;
            self.outdated(key.namespace());
            return Ok(reply::integer(replaced?.into_iter().next().unwrap_or_default())? == 1);
        }
        let answer =
            self.link.eval(connection, &scripts::REPLACE, &names, &arguments, deadline).await?;
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
            Err(fault) if fault.code == "WRONGTYPE" => return Ok(Standing::Dead(Vec::new())),
            answer => answer?,
        };
        let Some(bytes) = reply::bytes(value)? else {
            return Ok(Standing::Dead(Vec::new()));
        };
        let Some(checksum) = bytes.last_chunk().copied() else {
            return Ok(Standing::Dead(bytes));
        };
        let Some(decoded) = self.decode(connection, key, &bytes.into(), now) else {
            return Ok(Standing::Dead(checksum.to_vec()));
        };
        let marked = [(key.namespace(), &decoded.meta.marks)];
        let verdicts = self.validities(connection, &marked, &[], deadline).await?;
        let fresh = verdicts.first() == Some(&Validity::Valid)
            && !decoded.meta.is_stale(now)
            && !decoded.meta.negative
            && decoded.incarnation == connection.incarnation();
        Ok(if fresh {
            Standing::Live(decoded, checksum)
        } else {
            Standing::Dead(checksum.to_vec())
        })
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
        for _ in 0..ATTEMPTS {
            let standing = self.standing(&connection, key, cx.now, deadline).await?;
            let Standing::Live(decoded, checksum) = standing else {
                return Ok(false);
            };
            if Life::until(expiry, cx.now) == Life::Over {
                let mut command = ::redis::cmd("UNLINK");
                command.arg(layout::entry(key));
                self.link.call(&connection, &command, deadline).await?;
                return Ok(true);
            }
            let Decoded { mut meta, incarnation, packed } = decoded;
            (meta.soft_expiry, meta.hard_expiry) = (expiry, moved(&meta, expiry));
            let life = self.life(&meta, cx.now);
            let bytes = self.bytes(&connection, key, &meta, &packed, incarnation);
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
        let names = keys.iter().map(Key::name);
        courier::outdate(&self.link, &connection, space, names, deadline).await.map_err(pending)?;
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
        let marked: Vec<_> = heads.filter_map(|head| readable(connection, head, now)).collect();
        let asked: Vec<_> = marked.iter().map(|marks| (space, marks)).collect();
        // The removal is in; without an answer to this, what was there counts.
        let verdicts = self.validities(connection, &asked, &[], deadline).await;
        let verdicts = verdicts.unwrap_or_else(|_| vec![Validity::Valid; marked.len()]);
        verdicts.iter().filter(|verdict| **verdict != Validity::Invalid).count() as u64
    }

    pub(super) async fn snapshot(&self, space: &Namespace, cx: &Cx) -> Result<Snapshot, Error> {
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection()?;
        Ok(self.snapshot_on(&connection, space, deadline).await?)
    }

    /// Sends what is left over of the invalidations of groups: an entry whose marks are taken after
    /// this was written after them.
    async fn settle_groups(&self, connection: &Connection, space: &Namespace, deadline: Deadline) {
        while !self.book.is_idle()
            && let Some(sending) = self.book.take_groups(space, deadline).await
            && let Some(claim) = sending.claim()
        {
            match courier::deliver(&self.link, connection, &self.book, claim, deadline).await {
                Ok(()) => sending.confirm(),
                // Then the entry counts as older than they are.
                Err(fault) => return self.link.errors.count(fault.kind),
            }
        }
    }

    /// Where the counters stand; they begin in a new epoch if there are none.
    pub(super) async fn snapshot_on(
        &self,
        connection: &Connection,
        space: &Namespace,
        deadline: Deadline,
    ) -> Result<Snapshot, Fault> {
        self.settle_groups(connection, space, deadline).await;
        for _ in 0..ATTEMPTS {
            let mut get = Pipeline::new();
            groups::add_snapshot(&mut get, space);
            let answer = self.link.pipeline(connection, &get, deadline).await?.pop();
            let at = groups::snapshot(answer.unwrap_or_default());
            if let Some(at) = at.map_err(|fault| self.link.refused(connection, fault))? {
                return Ok(at);
            }
            // It makes them if they are not there.
            courier::invalidate(&self.link, connection, space, &[], How::Hard, deadline).await?;
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

impl Shared {
    /// Adds to the commands that write a key that what was made of it is no longer valid.
    pub(super) fn add_outdating(&self, commands: &mut Pipeline, key: &Key<'_>) {
        if self.link.config.has_dependencies() {
            let fields = [layout::field(&Group::of_key(key.name()), How::Hard)];
            commands.add_command(courier::invalidation(key.namespace(), &fields));
        }
    }

    /// Those commands were sent: what is known of the namespace's groups is not the newest.
    pub(super) fn outdated(&self, space: &Namespace) {
        if self.link.config.has_dependencies() {
            self.link.groups.changed(space);
        }
    }
}

/// The groups of an entry by its beginning; `None` if it cannot be read or is past its time. If
/// there are so many that they were cut off it is as if it had none: counted, not judged.
pub(super) fn readable(connection: &Connection, head: Value, now: Time) -> Option<Marks> {
    let head = reply::bytes(head).ok()??;
    match envelope::decode_head(&head, connection.offset()) {
        Ok(meta) => (!meta.is_expired(now) && !meta.negative).then_some(meta.marks),
        Err(Unreadable::Corrupt) if head.len() == HEAD_BYTES => Some(Marks::default()),
        Err(_) => None,
    }
}

/// The commands that store an entry and end its lease: to be run as one.
pub(super) fn add_put(commands: &mut Pipeline, key: &Key<'_>, bytes: &[u8], life: Life) {
    match life {
        Life::Over => commands.cmd("UNLINK").arg(layout::entry(key)),
        Life::Forever => commands.cmd("SET").arg(layout::entry(key)).arg(bytes),
        Life::Millis(left) => {
            commands.cmd("SET").arg(layout::entry(key)).arg(bytes).arg("PX").arg(left)
        }
    };
    commands.cmd("DEL").arg(layout::lease(key));
}

/// The error of what is kept and sent again.
pub(super) fn pending(fault: Fault) -> Error {
    Error::from(ErrorKind::Pending).with_source(Error::from(fault))
}
