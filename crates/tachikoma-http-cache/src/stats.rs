//! Counts what the cache decided. Counters are read when somebody asks, never pushed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::policy::decision::{Bypass, Decision, Forward};

/// What an HTTP cache did since it was built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HttpCacheStats {
    /// Answered from the store, fresh.
    pub hits: u64,
    /// Answered from the store, stale, as allowed.
    pub stale: u64,
    /// Fetched from the origin: nothing usable was stored.
    pub misses: u64,
    /// Validated with the origin, which answered 304.
    pub revalidations: u64,
    /// Answered by what another request fetched.
    pub collapsed: u64,
    /// 504 to `only-if-cached`.
    pub only_if_cached: u64,
    /// Requests the cache takes no part in, by reason.
    pub bypassed: Vec<(&'static str, u64)>,
    /// Responses that were stored.
    pub stored: u64,
    /// Fills that an invalidation, a lost lease or a failing store refused.
    pub refused_fills: u64,
    /// Responses whose end was not proved, so that they were not stored.
    pub incomplete: u64,
    /// URLs invalidated by unsafe requests.
    pub invalidations: u64,
    /// Invalidations that the store has not taken yet; it retries them.
    pub pending_invalidations: u64,
    /// Bytes of bodies that are arriving to be stored, now.
    pub fill_bytes: u64,
    /// Bytes of large bodies that this process keeps beside its store, now.
    pub large_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    hits: AtomicU64,
    stale: AtomicU64,
    misses: AtomicU64,
    revalidations: AtomicU64,
    collapsed: AtomicU64,
    only_if_cached: AtomicU64,
    bypassed: [AtomicU64; Bypass::ALL.len()],
    pub(crate) stored: AtomicU64,
    pub(crate) refused_fills: AtomicU64,
    pub(crate) incomplete: AtomicU64,
    pub(crate) invalidations: AtomicU64,
    pub(crate) pending_invalidations: AtomicU64,
}

pub(crate) fn add_one(counter: &AtomicU64) {
    add(counter, 1);
}

pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Relaxed);
}

impl Counters {
    /// Counts a decision; each exchange is counted once.
    pub(crate) fn count(&self, decision: &Decision) {
        add_one(match decision {
            Decision::Hit { .. } => &self.hits,
            Decision::Stale { .. } => &self.stale,
            Decision::OnlyIfCached => &self.only_if_cached,
            Decision::Forwarded { why: Forward::Bypass(why), .. } => &self.bypassed[why.index()],
            Decision::Forwarded { collapsed: true, .. } => &self.collapsed,
            Decision::Forwarded { status: Some(status), .. } if status.as_u16() == 304 => {
                &self.revalidations
            }
            Decision::Forwarded { .. } => &self.misses,
        });
    }

    pub(crate) fn read(&self) -> HttpCacheStats {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        HttpCacheStats {
            hits: read(&self.hits),
            stale: read(&self.stale),
            misses: read(&self.misses),
            revalidations: read(&self.revalidations),
            collapsed: read(&self.collapsed),
            only_if_cached: read(&self.only_if_cached),
            bypassed: Bypass::ALL
                .iter()
                .map(|why| (why.name(), read(&self.bypassed[why.index()])))
                .collect(),
            stored: read(&self.stored),
            refused_fills: read(&self.refused_fills),
            incomplete: read(&self.incomplete),
            invalidations: read(&self.invalidations),
            pending_invalidations: read(&self.pending_invalidations),
            fill_bytes: 0,
            large_bytes: 0,
        }
    }
}
