//! Reads every counter of the server at one moment. `/stats` and `/metrics` say the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use serde::Serialize;
use tachikoma_cache::stats::{Evictions, TierStats};
use tachikoma_cache::{Cache, CacheStats, Clock, ErrorKind, Health, Removed, Time};

use tachikoma_http_cache::{HttpCache, HttpCacheStats};

use crate::access_log::AccessLog;
use crate::front::Route;
use crate::listener::Terms;
use crate::shutdown::Shutdown;
use crate::traffic::{Traffic, TrafficStats};

/// Where the counters are.
pub(crate) struct Sources {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cache: Cache,
    /// The schemes that the response cache is asked for: that of the public listener, and both
    /// where a proxy in front may say otherwise.
    pub(crate) schemes: &'static [&'static str],
    pub(crate) responses: HttpCache,
    /// Whether the store is this process's memory: the tier that counts are of.
    pub(crate) in_memory: bool,
    pub(crate) started: Time,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) terms: Terms,
    pub(crate) log: AccessLog,
    pub(crate) draining: Shutdown,
    /// What answers without the response cache.
    pub(crate) origins: Origins,
}

/// What answers behind the response cache.
#[derive(Clone, Default)]
pub(crate) struct Origins {
    pub(crate) api: Option<Route>,
    pub(crate) upstreams: Option<Route>,
}

impl Sources {
    /// Who would be asked by this request.
    pub(super) fn origin<B>(&self, request: &Request<B>) -> Option<Route> {
        let path = request.uri().path();
        let is_api = path == "/api" || path.starts_with("/api/");
        let Origins { api, upstreams } = &self.origins;
        if is_api { api.clone().or_else(|| upstreams.clone()) } else { upstreams.clone() }
    }
}

/// Every counter at one moment.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Snapshot {
    pub(super) process: Process,
    pub(super) http: Http,
    pub(super) cache: CacheFigures,
    pub(super) response_cache: ResponseFigures,
}

/// The process itself.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Process {
    pub(super) version: &'static str,
    pub(super) pid: u32,
    pub(super) uptime_ms: u64,
    /// Memory in use; unknown where the system does not say.
    pub(super) resident_bytes: Option<u64>,
}

/// The public listener.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Http {
    pub(super) connections: u64,
    #[serde(flatten)]
    pub(super) traffic: TrafficStats,
    pub(super) access_log_dropped: u64,
}

/// The cache, over all its namespaces. `null`: the store does not know.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CacheFigures {
    pub(super) status: &'static str,
    /// Why it is degraded; without secrets.
    pub(super) reason: Option<String>,
    pub(super) degraded_ms: Option<u64>,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) hit_rate: f64,
    pub(super) stale_hits: u64,
    pub(super) loads: u64,
    pub(super) load_failures: u64,
    pub(super) load_time_ms: u64,
    pub(super) coalesced: u64,
    pub(super) refused_fills: u64,
    pub(super) entries: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) evictions: Option<u64>,
    pub(super) evictions_by_size: Option<u64>,
    pub(super) evictions_by_count: Option<u64>,
    pub(super) expirations: Option<u64>,
    pub(super) pending_invalidations: u64,
    /// The memory tier in front of Redis; `null`: there is to be none.
    pub(super) tier: Option<TierFigures>,
    pub(super) errors: BTreeMap<&'static str, u64>,
}

impl CacheFigures {
    fn of(stats: &CacheStats, health: Health, now: Time) -> Self {
        let (status, reason, since) = match health {
            Health::Up => ("up", None, None),
            Health::Degraded { since, reason } => ("degraded", Some(reason), Some(since)),
        };
        let by_cause = stats.evictions_by_cause;
        Self {
            status,
            reason,
            degraded_ms: since.map(|since| millis(now.since(since))),
            hits: stats.hits,
            misses: stats.misses,
            hit_rate: stats.hit_rate(),
            stale_hits: stats.stale_hits,
            loads: stats.loads,
            load_failures: stats.load_failures,
            load_time_ms: millis(stats.load_time),
            coalesced: stats.coalesced,
            refused_fills: stats.refused_fills,
            entries: stats.size,
            bytes: stats.bytes,
            evictions: stats.evictions,
            evictions_by_size: by_cause.map(|Evictions { size, .. }| size),
            evictions_by_count: by_cause.map(|Evictions { count, .. }| count),
            expirations: stats.expirations,
            pending_invalidations: stats.pending_invalidations,
            tier: stats.tier.map(TierFigures::from),
            errors: stats
                .errors
                .iter()
                .map(|(kind, n): (ErrorKind, u64)| (kind.label(), n))
                .collect(),
        }
    }
}

/// The memory tier in front of Redis.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct TierFigures {
    /// `following`, `lapsed` or `off`.
    pub(super) state: &'static str,
    pub(super) copies: u64,
    pub(super) bytes: u64,
}

impl From<TierStats> for TierFigures {
    fn from(TierStats { state, copies, bytes, .. }: TierStats) -> Self {
        Self { state: state.label(), copies, bytes }
    }
}

/// What the response cache decided, once per exchange.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ResponseFigures {
    pub(super) hits: u64,
    pub(super) stale: u64,
    pub(super) misses: u64,
    pub(super) revalidations: u64,
    pub(super) collapsed: u64,
    pub(super) only_if_cached: u64,
    /// Exchanges it took no part in, by reason.
    pub(super) bypassed: BTreeMap<&'static str, u64>,
    pub(super) stored: u64,
    pub(super) refused_fills: u64,
    pub(super) incomplete: u64,
    pub(super) invalidations: u64,
    pub(super) pending_invalidations: u64,
    /// Bytes of bodies that are arriving to be stored.
    pub(super) fill_bytes: u64,
    /// Bytes of large bodies that are kept in memory beside Redis.
    pub(super) large_bytes: u64,
}

impl From<HttpCacheStats> for ResponseFigures {
    fn from(stats: HttpCacheStats) -> Self {
        Self {
            hits: stats.hits,
            stale: stats.stale,
            misses: stats.misses,
            revalidations: stats.revalidations,
            collapsed: stats.collapsed,
            only_if_cached: stats.only_if_cached,
            bypassed: stats.bypassed.into_iter().collect(),
            stored: stats.stored,
            refused_fills: stats.refused_fills,
            incomplete: stats.incomplete,
            invalidations: stats.invalidations,
            pending_invalidations: stats.pending_invalidations,
            fill_bytes: stats.fill_bytes,
            large_bytes: stats.large_bytes,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Sources {
    /// So many entries in the one tier there is.
    pub(super) fn in_tier(&self, found: u64) -> Removed {
        if self.in_memory {
            Removed { memory: Some(found), redis: None }
        } else {
            Removed { memory: None, redis: Some(found) }
        }
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.cache.health() != Health::Up
    }

    /// What the memory tier in front of Redis does, if there is to be one.
    pub(super) fn tier(&self) -> Option<&'static str> {
        self.cache.stats().tier.map(|tier| tier.state.label())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        Snapshot {
            process: Process {
                version: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                uptime_ms: millis(now.since(self.started)),
                resident_bytes: resident_bytes(),
            },
            http: Http {
                connections: self.terms.open() as u64,
                traffic: self.traffic.stats(),
                access_log_dropped: self.log.dropped(),
            },
            cache: CacheFigures::of(&self.cache.stats(), self.cache.health(), now),
            response_cache: self.responses.stats().into(),
        }
    }
}

/// `VmRSS` of Linux; other systems have no file for it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
