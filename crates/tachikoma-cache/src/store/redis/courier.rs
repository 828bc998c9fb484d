//! Sends what callers do not wait for: invalidations that Redis has not confirmed, leases that were
//! given back, entries that cannot be read.
//!
//! It decides only when: at once on a new connection, when something is left over, and every second
//! until all is in. It is a part of the store's one background task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Pipeline};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::layout::{self, FLOOR};
use super::link::{Connection, Link};
use super::pending::{Book, Claim, Work};
use super::reply::{self, Fault};
use super::scripts;
use crate::clock::Deadline;
use crate::error::ErrorKind;
use crate::glob::Glob;
use crate::invalidation::{Group, How, MAX_GROUPS};
use crate::key::Namespace;

const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How long one batch may take: it is not a caller that waits.
const BATCH_WITHIN: Duration = Duration::from_secs(2);

/// How many errands wait at most. What is dropped is not missed: leases and guards end by
/// themselves and a broken entry is met again; one that is to be kept may go early.
const MAX_ERRANDS: usize = 10_000;

/// How many groups a namespace remembers before the oldest are forgotten and its floor is raised.
const MAX_GROUP_FIELDS: usize = MAX_GROUPS;

const SCAN_COUNT: usize = 1000;

/// Something to do that nobody waits for.
#[derive(Debug)]
pub(super) enum Errand {
    /// End this lease if it still has this token.
    Release { lease: String, token: [u8; 16] },
    /// End this guard.
    Unguard { guards: String, token: [u8; 16] },
    /// Remove an entry that cannot be read.
    Discard { entry: String },
    /// Keep an entry for so many milliseconds from now, if that is longer than it would be kept.
    Keep { entry: String, left: u64 },
}

/// The errands, shared.
#[derive(Debug, Default)]
pub(super) struct Errands {
    lists: Mutex<Lists>,
    /// Whether the lists have something, for those who would only look.
    some: AtomicBool,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Lists {
    waiting: Vec<Errand>,
    /// Those that are being sent: until they are answered, what others send may come first.
    under_way: Arc<Vec<Errand>>,
}

impl Errands {
    /// Never waits.
    pub(super) fn add(&self, errand: Errand) {
        {
            let mut lists = self.lock();
            if lists.waiting.len() >= MAX_ERRANDS {
                return;
            }
            lists.waiting.push(errand);
            self.some.store(true, Ordering::Release);
        }
        self.wake.notify_one();
    }

    /// The tokens of a lease that are given back and may not be with the server yet.
    pub(super) fn given_back(&self, of: &str) -> Vec<[u8; 16]> {
        if !self.some.load(Ordering::Acquire) {
            return Vec::new();
        }
        let lists = self.lock();
        let token = |errand: &Errand| match errand {
            Errand::Release { lease, token } if lease == of => Some(*token),
            _ => None,
        };
        lists.waiting.iter().chain(lists.under_way.iter()).filter_map(token).collect()
    }

    /// Those that waited; they are under way until they are [done](Self::done).
    fn take(&self) -> Arc<Vec<Errand>> {
        let mut lists = self.lock();
        lists.under_way = Arc::new(std::mem::take(&mut lists.waiting));
        Arc::clone(&lists.under_way)
    }

    /// What was taken is done, or will not be.
    fn done(&self) {
        let mut lists = self.lock();
        lists.under_way = Arc::default();
        self.some.store(!lists.waiting.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works until it is dropped.
pub(super) async fn run(link: &Arc<Link>, book: &Book, errands: &Errands, connected: &Notify) {
    loop {
        let work = async {
            tokio::select! {
                () = connected.notified() => {}
                () = errands.wake.notified() => {}
                () = book.left_over.notified() => {}
            }
        };
        // An error: the time passed.
        let _ = timeout(RETRY_EVERY, work).await;
        let Ok(connection) = link.connection() else {
            continue;
        };
        let (round, mut failed) = (book.round(), false);
        while let Some(sending) = book.take(round) {
            let Some(claim) = sending.claim() else { break };
            let deadline = Deadline::after(BATCH_WITHIN);
            if let Err(fault) = deliver(link, &connection, book, claim, deadline).await {
                link.errors.count(fault.kind);
                tracing::debug!(reason = fault.text(), "an invalidation is still pending");
                failed = true;
                // One that is refused for good does not hold up the others.
                if fault.kind != ErrorKind::Rejected {
                    break;
                }
            } else {
                sending.confirm();
            }
        }
        if failed {
            // Without a pause it would only spin: what failed woke it.
            let _ = timeout(RETRY_EVERY, connected.notified()).await;
        }
        run_errands(link, &connection, &errands.take()).await;
        errands.done();
    }
}

async fn run_errands(link: &Link, connection: &Connection, errands: &[Errand]) {
    let mut commands = Pipeline::new();
    for errand in errands {
        match errand {
            Errand::Release { lease, token } => {
                commands.add_command(scripts::RELEASE.by_text(&[lease], &[token]));
            }
            Errand::Unguard { guards, token } => {
                commands.cmd("ZREM").arg(guards).arg(token);
            }
            Errand::Keep { entry, left } => {
                commands
                    .add_command(scripts::KEEP.by_text(&[entry], &[left.to_string().as_bytes()]));
            }
            Errand::Discard { entry } => {
                commands.cmd("UNLINK").arg(entry);
            }
        }
    }
    if !errands.is_empty()
        && let Err(fault) =
            link.pipeline(connection, &commands, Deadline::after(BATCH_WITHIN)).await
    {
        link.errors.count(fault.kind);
    }
}

/// Sends one pending invalidation; a pattern has `deadline` for each of its steps.
pub(super) async fn deliver(
    link: &Link,
    connection: &Connection,
    book: &Book,
    claim: &Claim,
    deadline: Deadline,
) -> Result<(), Fault> {
    let space = &claim.namespace;
    match &claim.work {
        Work::Keys(names) => unlink(link, connection, space, names, deadline).await,
        Work::Groups(groups, how) => {
            invalidate(link, connection, space, groups, *how, deadline).await
        }
        Work::Floor => raise_floor(link, connection, space, deadline).await,
        Work::Matching(glob) => sweep(link, connection, book, space, glob).await,
    }
}

/// Removes entries with their leases. The leases go first: a load that stores in between must not
/// put an old value where nothing removes it any more.
async fn unlink(
    link: &Link,
    connection: &Connection,
    space: &Namespace,
    names: &[String],
    deadline: Deadline,
) -> Result<(), Fault> {
    if names.is_empty() {
        return Ok(());
    }
    let entries: Vec<_> = names.iter().map(|name| layout::entry_of(space, name)).collect();
    let leases: Vec<_> = names.iter().map(|name| layout::lease_of(space, name)).collect();
    let mut commands = Pipeline::new();
    commands.cmd("UNLINK").arg(&leases);
    commands.cmd("UNLINK").arg(&entries);
    for answer in link.pipeline(connection, &commands, deadline).await? {
        reply::integer(answer).map_err(|fault| link.refused(connection, fault))?;
    }
    outdate(link, connection, space, names.iter().map(String::as_str), deadline).await
}

/// Invalidates what was made of these keys, if that is followed. After they were changed: what is
/// read before that is older than this.
pub(super) async fn outdate<'a>(
    link: &Link,
    connection: &Connection,
    space: &Namespace,
    names: impl Iterator<Item = &'a str>,
    deadline: Deadline,
) -> Result<(), Fault> {
    if !link.config.has_dependencies() {
        return Ok(());
    }
    let groups = Group::of_keys(names);
    invalidate(link, connection, space, &groups, How::Hard, deadline).await
}

/// Removes the keys that match, but for those that were written since the pattern was entered.
///
/// Twice: a load that was under way may have ended its lease before the first scan came to it, and
/// set its entry where that had been. What began later read its source later.
async fn sweep(
    link: &Link,
    connection: &Connection,
    book: &Book,
    space: &Namespace,
    glob: &Glob,
) -> Result<(), Fault> {
    link.whole()?;
    for _ in 0..2 {
        let mut cursor = 0;
        loop {
            let deadline = Deadline::after(BATCH_WITHIN);
            let (next, found) =
                scan(link, connection, space, cursor, glob, SCAN_COUNT, deadline).await?;
            let sending = book.take_found(space, found);
            if let Some(Claim { work: Work::Keys(names), .. }) = sending.claim() {
                unlink(link, connection, space, names, deadline).await?;
            }
            sending.confirm();
            if next == 0 {
                break;
            }
            cursor = next;
        }
    }
    if link.config.has_dependencies() {
        let (any, deadline) = ([Group::of_any_key()], Deadline::after(BATCH_WITHIN));
        invalidate(link, connection, space, &any, How::Hard, deadline).await?;
    }
    Ok(())
}

/// One step of a scan: where to go on (0: the end), and the keys that match, each once.
pub(super) async fn scan(
    link: &Link,
    connection: &Connection,
    space: &Namespace,
    cursor: u64,
    glob: &Glob,
    count: usize,
    deadline: Deadline,
) -> Result<(u64, Vec<String>), Fault> {
    let mut command = ::redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(layout::pattern(space, glob)).arg("COUNT").arg(count);
    let mut answer = reply::array(link.call(connection, &command, deadline).await?)?.into_iter();
    let next = reply::number(answer.next().unwrap_or_default())?
        .ok_or_else(|| reply::unexpected(::redis::Value::Nil))?;
    let mut found = Vec::new();
    for name in reply::array(answer.next().unwrap_or_default())? {
        let Some(name) = reply::bytes(name)? else {
            continue;
        };
        if let Some(part) = layout::parse(space, &name)
            && glob.matches(part.name().as_bytes())
        {
            found.push(part.name().to_owned());
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok((next, found))
}

/// Counts an invalidation of these groups.
pub(super) async fn invalidate(
    link: &Link,
    connection: &Connection,
    space: &Namespace,
    groups: &[Group],
    how: How,
    deadline: Deadline,
) -> Result<(), Fault> {
    let fields: Vec<String> = groups.iter().map(|group| layout::field(group, how)).collect();
    run_invalidate(link, connection, space, MAX_GROUP_FIELDS, &fields, deadline).await
}

/// Invalidates every entry of the namespace that has groups.
async fn raise_floor(
    link: &Link,
    connection: &Connection,
    space: &Namespace,
    deadline: Deadline,
) -> Result<(), Fault> {
    // Nothing but the floor and the epoch is kept.
    run_invalidate(link, connection, space, 2, &[FLOOR.to_owned()], deadline).await
}

async fn run_invalidate(
    link: &Link,
    connection: &Connection,
    space: &Namespace,
    most: usize,
    fields: &[String],
    deadline: Deadline,
) -> Result<(), Fault> {
    let (epoch, most) = (new_epoch(), most.to_string());
    let arguments = arguments(&epoch, &most, fields);
    let key = layout::groups(space);
    let done =
        match link.eval(connection, &scripts::INVALIDATE, &[&key], &arguments, deadline).await {
            // A server that is out of memory still removes: without the numbers everything that has
            // groups is invalid, which is more than was asked for and never less.
            Err(fault) if fault.code == "OOM" => {
                let mut command = ::redis::cmd("UNLINK");
                command.arg(key);
                link.call(connection, &command, deadline).await.and_then(reply::integer).map(drop)
            }
            answer => answer.and_then(reply::integer).map(drop),
        };
    // Whoever reads after this sees it, without waiting for the server to tell of it.
    link.groups.changed(space);
    done
}

/// The command that invalidates these fields, with its text: for a transaction.
pub(super) fn invalidation(space: &Namespace, fields: &[String]) -> Cmd {
    let (epoch, most) = (new_epoch(), MAX_GROUP_FIELDS.to_string());
    let arguments = arguments(&epoch, &most, fields);
    scripts::INVALIDATE.by_text(&[&layout::groups(space)], &arguments)
}

/// The member of an epoch that begins now.
fn new_epoch() -> String {
    format!("@{}", rand::random::<u64>())
}

fn arguments<'a>(epoch: &'a str, most: &'a str, fields: &'a [String]) -> Vec<&'a [u8]> {
    let fields = fields.iter().map(String::as_str);
    [epoch, most].into_iter().chain(fields).map(str::as_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_known_until_the_server_has_answered() {
        let (errands, token) = (Errands::default(), [7; 16]);
        assert!(errands.given_back("l").is_empty());
        errands.add(Errand::Release { lease: "l".to_owned(), token });
        errands.add(Errand::Discard { entry: "l".to_owned() });
        assert_eq!(errands.given_back("l"), [token]);
        assert_eq!(errands.take().len(), 2);
        assert_eq!(errands.given_back("l"), [token], "it is on its way");
        errands.add(Errand::Release { lease: "m".to_owned(), token });
        errands.done();
        assert!(errands.given_back("l").is_empty());
        assert_eq!(errands.given_back("m"), [token]);
    }
}
