//! Entries in Redis with copies in the memory of this process.
//!
//! [`TieredStore`] puts [`RedisStore`] and a memory together: [`near`] keeps copies of what was
//! read and drops them when the server tells of a change, [`floor`] says whether they may be shown,
//! [`barrier`] shares the question whether all was told, and [`waiters`] wakes who waits for a
//! change.
//! The protocol is that of `docs/src/consistency.md`. Every change goes to Redis; a copy is only
//! ever made of what Redis answered.

mod barrier;
mod floor;
mod near;
mod waiters;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, select};

use self::barrier::Barrier;
use self::floor::Floor;
use self::near::Near;
use self::waiters::Waiters;
use super::memory::{MemoryConfig, MemoryStore};
use super::redis::groups::Tables;
use super::redis::tracking::{self, Follower as _, Tracking};
use super::redis::{RedisConfig, RedisStore};
use super::{
    Begun, Cursor, Cx, Groups, Guarantee, Guard, Health, Lease, Op, Page, Peek, Removed, Store,
    Want, When, Write, Written,
};
use crate::clock::{Clock, Time, has_timers, real_sleep};
use crate::dependencies::Dependencies;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::glob::Glob;
use crate::invalidation::Snapshot;
use crate::key::{Key, Namespace};
use crate::stats::{StoreStats, TierState, TierStats};

/// The default of [`TierConfig::freshness`].
pub const DEFAULT_FRESHNESS: Duration = tracking::DEFAULT_FRESHNESS;

/// What [`TierConfig::freshness`] may be: there is a heartbeat in every quarter of it.
const FRESHNESS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(200)..=Duration::from_secs(60);

/// How long to wait before the server is asked again whether it has told everything.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The settings of a memory tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierConfig {
    /// The most copies. Default: 100,000.
    pub max_entries: u64,
    /// The most bytes that they take, with keys and bookkeeping. Each counts twice its bytes, for
    /// these and for the value that is made of them: an estimate, because what that takes is not
    /// measured. Default: 64 MiB.
    pub max_bytes: u64,
    /// How long after an invalidation has ended, by whomever, a copy may still be shown; mostly it
    /// is milliseconds. It is the same in all processes that share a server. Default: 1 s; allowed
    /// are 200 ms to 60 s.
    pub freshness: Duration,
}

impl Default for TierConfig {
    fn default() -> Self {
        let MemoryConfig { max_entries, max_bytes, .. } = MemoryConfig::default();
        Self { max_entries, max_bytes, freshness: DEFAULT_FRESHNESS }
    }
}

/// A store in a Redis (7 or newer) or Valkey server with a memory tier in this process.
///
/// The tier has copies of entries that were read. The server tells of each change of them
/// (`CLIENT TRACKING`), and heartbeats prove that nothing was missed: a copy is shown only if
/// everything that ended [`freshness`](TierConfig::freshness) ago is known. While that is not so,
/// copies are stale, for those who accept that; before changes are heard of again, all copies go.
/// With a server that does not track it is a [`RedisStore`] without a tier, after a warning in the
/// log.
///
/// Entries with a time to idle have no copies. Those with tags have; what the server knows of the
/// tags is followed in the same way.
pub struct TieredStore {
    redis: RedisStore,
    near: Arc<Near>,
    barrier: Barrier,
    clock: Arc<dyn Clock>,
}

impl TieredStore {
    /// Connects, as [`RedisStore::connect`] does. Entries go by `clock`, and so must the cache.
    ///
    /// # Errors
    ///
    /// As [`RedisStore::connect`]; [`ErrorKind::Config`] also if a setting of the tier is not
    /// allowed.
    pub async fn connect(
        config: RedisConfig,
        tier: TierConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let TierConfig { max_entries, max_bytes, freshness } = tier;
        if !FRESHNESS.contains(&freshness) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("freshness is {freshness:?}; allowed are {FRESHNESS:?}"),
            ));
        }
        let memory = MemoryConfig { max_entries, max_bytes, ..MemoryConfig::default() };
        let groups = Arc::new(Tables::default());
        let memory = MemoryStore::of_copies(memory, Arc::clone(&clock), Arc::clone(&groups) as _)?;
        let (floor, waiters) = (Floor::new(freshness), Waiters::default());
        let near = Arc::new(Near { memory, floor, groups: Arc::clone(&groups), waiters });
        let tracking = Tracking::of(Arc::clone(&near) as _, freshness / 4);
        let redis = RedisStore::tracked(config, Arc::clone(&clock), tracking, groups).await?;
        Ok(Self { redis, near, barrier: Barrier::default(), clock })
    }

    /// Ends when the server has told of everything that had changed before this call.
    async fn hear_all(&self) {
        // Without a connection that tells, nothing is shown as fresh; before another one is used,
        // all copies go.
        while self.redis.tells() == Some(true) {
            if self.barrier.pass(async || self.redis.hear_all().await).await.is_ok() {
                return;
            }
            real_sleep(ASK_AGAIN).await;
        }
    }

    /// Where the counters of these keys' namespace stand before they are read, if that matters.
    fn known(&self, keys: &[Key<'_>]) -> Option<Snapshot> {
        let space = keys.first().map(Key::namespace)?;
        if self.has_dependencies() { self.redis.groups().known(space) } else { None }
    }

    fn tier(&self) -> TierStats {
        let StoreStats { entries, bytes, .. } = self.near.memory.stats();
        let state = if self.near.floor.is_good(self.clock.now()) {
            TierState::Following
        } else if self.redis.tells() == Some(false) {
            TierState::Off
        } else {
            TierState::Lapsed
        };
        TierStats::new(state, entries.unwrap_or_default(), bytes.unwrap_or_default())
    }
}

impl fmt::Debug for TieredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TierStats { state, copies, bytes } = self.tier();
        f.debug_struct("TieredStore")
            .field("memory_tier", &state)
            .field("freshness", &self.near.floor.freshness())
            .field("copies", &copies)
            .field("bytes", &bytes)
            .field("redis", &self.redis)
            .finish_non_exhaustive()
    }
}

impl Store for TieredStore {
    fn peek(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        if self.redis.is_pending(key) {
            return Peek::Ask;
        }
        let is_owed = |entry: &Entry| self.redis.owes_groups(key.namespace(), &entry.meta().marks);
        let is_recording = self.has_dependencies() && Dependencies::current().is_some();
        if self.near.floor.is_good(now) {
            // What is recorded goes by the counters of the copy. If these are behind (a key of the
            // same group was changed), the server has newer ones.
            let is_behind = |entry: &Entry| is_recording && !self.near.is_current(key, entry);
            let is_out = |entry: &Entry| is_owed(entry) || is_behind(entry);
            return self.near.peek(key, now, is_out, see);
        }
        let shown = self.near.peek_stale(key, now, is_owed, see);
        if shown && self.redis.is_away() { Peek::Away } else { Peek::Ask }
    }

    fn look(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        if self.redis.is_pending(key) || !self.near.floor.is_good(now) {
            return Peek::Ask;
        }
        let is_owed = |entry: &Entry| self.redis.owes_groups(key.namespace(), &entry.meta().marks);
        self.near.look(key, now, is_owed, see)
    }

    fn read<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Option<(Entry, Guarantee)>>> {
        async move {
            let known = self.known(keys);
            let marked = self.near.mark(keys, known, cx.now);
            let mut found = self.redis.read(keys, cx).await?;
            for (place, found) in found.iter_mut().enumerate() {
                marked.keep(place, found, cx.now);
            }
            Ok(found)
        }
        .boxed()
    }

    fn begin<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Vec<Begun>> {
        async move {
            let known = self.known(keys);
            let marked = self.near.mark(keys, known, cx.now);
            let mut begun = self.redis.begin(keys, cx).await?;
            for (place, begun) in begun.iter_mut().enumerate() {
                marked.keep(place, &mut begun.found, cx.now);
            }
            Ok(begun)
        }
        .boxed()
    }

    /// Asked for before [`begin`](Store::begin), which reads entry and lease, so that the server
    /// tells of both.
    fn changed<'a>(&'a self, keys: &'a [Key<'a>]) -> BoxFuture<'a, ()> {
        self.near.waiters.enter(keys).changed().boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a Key<'a>,
        entry: Entry,
        when: When<'a>,
        cx: &'a Cx,
    ) -> Op<'a, Written> {
        // Both now: the lease ends and the copy goes also if nobody waits for the write.
        let changing = self.near.changing(std::slice::from_ref(key));
        let write = self.redis.write(key, entry, when, cx);
        async move {
            let _changing = changing;
            write.await
        }
        .boxed()
    }

    fn write_many<'a>(
        &'a self,
        writes: &'a [Write<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Result<Written, Error>>> {
        let write = self.redis.write_many(writes, cx);
        async move {
            let keys: Vec<Key<'_>> = writes.iter().map(|write| write.key.clone()).collect();
            let _changing = self.near.changing(&keys);
            write.await
        }
        .boxed()
    }

    fn abandon(&self, key: &Key<'_>, lease: Lease) {
        self.redis.abandon(key, lease);
    }

    fn touch<'a>(&'a self, key: &'a Key<'a>, expiry: Option<Time>, cx: &'a Cx) -> Op<'a, bool> {
        async move {
            let _changing = self.near.changing(std::slice::from_ref(key));
            self.redis.touch(key, expiry, cx).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Removed> {
        async move {
            let changing = self.near.changing(keys);
            let removed = self.redis.remove(keys, cx).await?;
            Ok(Removed { memory: Some(changing.dropped), ..removed })
        }
        .boxed()
    }

    fn guard<'a>(&'a self, keys: &'a [Key<'a>], life: Duration, cx: &'a Cx) -> Op<'a, Guard> {
        async move {
            let _changing = self.near.changing(keys);
            self.redis.guard(keys, life, cx).await
        }
        .boxed()
    }

    fn end_guard<'a>(
        &'a self,
        guard: &'a Guard,
        ends: &'a [(Key<'a>, Option<Entry>)],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Written>> {
        async move {
            let keys: Vec<Key<'_>> = ends.iter().map(|(key, _)| key.clone()).collect();
            let _changing = self.near.changing(&keys);
            self.redis.end_guard(guard, ends, cx).await
        }
        .boxed()
    }

    fn abandon_guard(&self, guard: &Guard, keys: &[Key<'_>]) {
        drop(self.near.changing(keys));
        self.redis.abandon_guard(guard, keys);
    }

    fn lag(&self) -> Duration {
        self.near.floor.freshness()
    }

    fn catch_up(&self) -> BoxFuture<'_, ()> {
        async move {
            if !has_timers() {
                // Neither the server can be asked here nor time be waited for.
                return self.near.forget();
            }
            let bound = self.clock.sleep(self.lag());
            select(pin!(self.hear_all()), bound).await;
        }
        .boxed()
    }

    fn defer_pattern(&self, namespace: &Namespace, glob: &Glob) -> Result<(), Error> {
        self.redis.defer_pattern(namespace, glob)?;
        // From here on what matches is not read; what was read before goes.
        self.near.memory.drop_copies();
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
        self.redis.scan(namespace, at, glob, want, limit, cx)
    }

    fn scan_may_miss(&self) -> bool {
        self.redis.scan_may_miss()
    }

    fn groups(&self) -> &dyn Groups {
        self.redis.groups()
    }

    fn has_dependencies(&self) -> bool {
        self.redis.has_dependencies()
    }

    /// Of the memory tier, but for errors and what is pending.
    fn stats(&self) -> StoreStats {
        let StoreStats { errors, pending, .. } = self.redis.stats();
        StoreStats { errors, pending, tier: Some(self.tier()), ..self.near.memory.stats() }
    }

    /// Of Redis: without the tier everything works, only slower.
    fn health(&self) -> Health {
        self.redis.health()
    }
}
