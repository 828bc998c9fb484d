//! Entries in Redis or Valkey.
//!
//! [`RedisStore`] puts together what its parts decide: [`layout`] names, [`form`] makes bytes of
//! entries, [`link`] and [`breaker`] say whether the connection is good, [`manager`] keeps one,
//! [`tracking`] hears from the server what has changed, [`groups`] knows the numbers of tags,
//! [`read`], [`write`](mod@write), [`batch`] and [`scan`] run operations, [`leases`] keeps those of
//! loads that go on, [`pending`] remembers invalidations that Redis has not taken and [`courier`]
//! sends them again. The protocol of leases and incarnations is that of `docs/src/consistency.md`.
//!
//! It never sends `KEYS`, `FLUSHALL` or `FLUSHDB`, and no command whose text a caller wrote.

mod batch;
mod breaker;
mod config;
mod courier;
mod credentials;
mod form;
#[cfg(any(test, feature = "__fuzz"))]
pub(crate) mod fuzzing;
pub(crate) mod groups;
mod guards;
mod idle;
mod layout;
mod leases;
mod link;
mod manager;
mod pending;
mod read;
mod reply;
mod scan;
mod scripts;
#[cfg(feature = "redis-tls")]
mod tls;
#[cfg(not(feature = "redis-tls"))]
#[path = "redis/tls_off.rs"]
mod tls;
pub(crate) mod tracking;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

pub use config::RedisConfig;
pub use credentials::Credentials;

#[cfg(feature = "memory")]
use crate::clock::Deadline;
use crate::clock::{Clock, Time, has_timers};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::glob::Glob;
use crate::invalidation::{Group, How, Mark, Marks, Snapshot, Validity};
use crate::key::{Key, Namespace};
use crate::stats::StoreStats;
use crate::store::{
    Begun, Cursor, Cx, Groups, Guarantee, Guard, Health, Lease, Op, Page, Peek, Removed, Store,
    Want, When, Write, Written,
};
use courier::Errands;
use groups::Tables;
use leases::Leases;
use link::Link;
use pending::{Book, Work};
use tracking::Tracking;

/// A store in a Redis (6 or newer) or Valkey server.
///
/// It has one connection, which all operations share, and one background task in the runtime in
/// which it was made; both end when it is dropped. While the server is away every operation fails
/// at once, and invalidations are kept and sent when it is back.
pub struct RedisStore {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    link: Arc<Link>,
    book: Book,
    errands: Errands,
    leases: Leases,
    told: idle::Told,
}

impl RedisStore {
    /// Connects. A server that cannot be reached is not an error: the store then begins degraded
    /// and goes on trying, after a warning in the log.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`] if the server refuses user or password, or is too old;
    /// [`ErrorKind::Config`] if a setting is not allowed, or outside of a Tokio runtime.
    pub async fn connect(config: RedisConfig, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::tracked(config, clock, Tracking::default(), Arc::default()).await
    }

    /// As [`connect`](Self::connect), with followers that hear of changes and see what is known of
    /// groups.
    pub(crate) async fn tracked(
        config: RedisConfig,
        clock: Arc<dyn Clock>,
        tracking: Tracking,
        groups: Arc<Tables>,
    ) -> Result<Self, Error> {
        let runtime = Handle::try_current().ok().filter(|_| has_timers()).ok_or_else(|| {
            let detail = "Redis needs a Tokio runtime with I/O and time: connect within one that \
                          was built with enable_all";
            Error::new(ErrorKind::Config, detail)
        })?;
        config.check()?;
        tls::prepare();
        let shared = Arc::new(Shared {
            link: Arc::new(Link::new(config, clock, tracking, groups)),
            book: Book::default(),
            errands: Errands::default(),
            leases: Leases::default(),
            told: idle::Told::default(),
        });
        let (first, outcome) = oneshot::channel();
        let task = runtime.spawn(work(Arc::clone(&shared), first)).abort_handle();
        let store = Self { shared, task };
        match outcome.await {
            Ok(Err(fault)) if fault.kind == ErrorKind::Rejected => Err(fault.into()),
            _ => Ok(store),
        }
    }
}

impl Shared {
    /// Whether an invalidation of one of these groups is pending.
    fn owes_groups(&self, home: &Namespace, marks: &Marks) -> bool {
        let owes = |(space, marks): (&Namespace, &[Mark])| {
            marks.iter().any(|mark| self.book.of_group(space, &mark.group).is_some())
        };
        !self.book.is_idle() && marks.parts(home).any(owes)
    }
}

/// The background task of a store.
async fn work(shared: Arc<Shared>, first: oneshot::Sender<Result<(), reply::Fault>>) {
    /// Runs also when the runtime throws the task away.
    struct Ended(Arc<Link>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.end();
        }
    }
    let _ended = Ended(Arc::clone(&shared.link));
    let connected = Notify::new();
    futures_util::future::join3(
        manager::run(&shared.link, &connected, first),
        courier::run(&shared.link, &shared.book, &shared.errands, &connected),
        leases::run(&shared.link, &shared.leases),
    )
    .await;
}

#[cfg(feature = "memory")]
impl RedisStore {
    /// Whether a removal of this key is pending, so that it is shown as absent.
    pub(crate) fn is_pending(&self, key: &Key<'_>) -> bool {
        self.shared.is_pending(key)
    }

    /// Whether the server tells of changes; `None`: there is no connection.
    pub(crate) fn tells(&self) -> Option<bool> {
        self.shared.link.tells()
    }

    /// Ends when the server has told of everything that had changed before this call: it pushes
    /// before it answers.
    pub(crate) async fn hear_all(&self) -> Result<(), Error> {
        let link = &self.shared.link;
        let connection = link.connection()?;
        let deadline = link.deadline(Deadline::after(link.config.get_timeout()));
        let answer = link.call(&connection, &tracking::watch(), deadline).await?;
        if tracking::is_on(answer) { Ok(()) } else { Err(ErrorKind::Unavailable.into()) }
    }

    /// Whether whatever is asked now fails at once.
    pub(crate) fn is_away(&self) -> bool {
        self.shared.link.is_away()
    }

    /// Whether an invalidation of one of these groups is pending.
    pub(crate) fn owes_groups(&self, home: &Namespace, marks: &Marks) -> bool {
        self.shared.owes_groups(home, marks)
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.task.abort();
        let lost = self.shared.book.len();
        if lost > 0 {
            tracing::warn!(lost, "invalidations that Redis has not taken end with the store");
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("config", &self.shared.link.config)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Store for RedisStore {
    fn peek(&self, _: &Key<'_>, _: Time, _: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        Peek::Ask
    }

    fn read<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Option<(Entry, Guarantee)>>> {
        Box::pin(self.shared.read(keys, cx))
    }

    fn begin<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Vec<Begun>> {
        Box::pin(self.shared.begin(keys, cx))
    }

    fn write<'a>(
        &'a self,
        key: &'a Key<'a>,
        entry: Entry,
        when: When<'a>,
        cx: &'a Cx,
    ) -> Op<'a, Written> {
        // Made now: the lease ends also if nobody waits for the write.
        let ending = self.shared.ending(key, when);
        Box::pin(async move { self.shared.write(key, &entry, when, ending, cx).await })
    }

    fn write_many<'a>(
        &'a self,
        writes: &'a [Write<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Result<Written, Error>>> {
        let endings = writes.iter().map(|one| self.shared.ending(&one.key, one.when)).collect();
        Box::pin(self.shared.write_many(writes, endings, cx))
    }

    fn abandon(&self, key: &Key<'_>, lease: Lease) {
        self.shared.abandon(key, lease);
    }

    fn touch<'a>(&'a self, key: &'a Key<'a>, expiry: Option<Time>, cx: &'a Cx) -> Op<'a, bool> {
        Box::pin(self.shared.touch(key, expiry, cx))
    }

    fn remove<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Removed> {
        Box::pin(self.shared.remove(keys, cx))
    }

    fn guard<'a>(&'a self, keys: &'a [Key<'a>], life: Duration, cx: &'a Cx) -> Op<'a, Guard> {
        Box::pin(self.shared.guard(keys, life, cx))
    }

    fn end_guard<'a>(
        &'a self,
        guard: &'a Guard,
        ends: &'a [(Key<'a>, Option<Entry>)],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Written>> {
        Box::pin(self.shared.end_guard(guard, ends, cx))
    }

    fn abandon_guard(&self, guard: &Guard, keys: &[Key<'_>]) {
        self.shared.abandon_guard(guard, keys);
    }

    /// Other processes may have a memory tier; theirs is taken to be the usual one.
    fn lag(&self) -> Duration {
        tracking::DEFAULT_FRESHNESS
    }

    fn defer_pattern(&self, namespace: &Namespace, glob: &Glob) -> Result<(), Error> {
        self.shared.book.defer(namespace, Work::Matching(glob.clone()));
        Ok(())
    }

    fn scan<'a>(
        &'a self,
        namespace: &'a Namespace,
        at: Cursor,
        glob: &'a Glob,
        want: Want,
        limit: usize,
        cx: &'a Cx,
    ) -> Op<'a, Page> {
        Box::pin(self.shared.scan(namespace, at, glob, want, limit, cx))
    }

    /// Leases and entries are keys of the server, in no order: a load that stores ends the one
    /// where the scan has not been and sets the other where it has been.
    fn scan_may_miss(&self) -> bool {
        true
    }

    fn groups(&self) -> &dyn Groups {
        self
    }

    fn has_dependencies(&self) -> bool {
        self.shared.link.config.has_dependencies()
    }

    fn stats(&self) -> StoreStats {
        StoreStats {
            errors: self.shared.link.errors.get(),
            pending: self.shared.book.len(),
            ..StoreStats::default()
        }
    }

    fn health(&self) -> Health {
        self.shared.link.health()
    }
}

impl Groups for RedisStore {
    fn snapshot<'a>(&'a self, namespace: &'a Namespace, cx: &'a Cx) -> Op<'a, Snapshot> {
        Box::pin(self.shared.snapshot(namespace, cx))
    }

    fn known(&self, namespace: &Namespace) -> Option<Snapshot> {
        let run = self.shared.link.connection().ok()?.incarnation();
        self.shared.link.groups.known(namespace, run)
    }

    fn judged(&self, namespace: &Namespace, marks: &[Mark]) -> Option<Validity> {
        self.shared.link.groups.judged(namespace, marks)
    }

    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        groups: &'a [Group],
        how: How,
        cx: &'a Cx,
    ) -> Op<'a, ()> {
        Box::pin(self.shared.invalidate(namespace, groups, how, cx))
    }
}
