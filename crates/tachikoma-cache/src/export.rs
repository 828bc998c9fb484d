//! Hands a cache's statistics to the `metrics` facade, and with it to Prometheus, `StatsD` or
//! whatever recorder the application has installed.
//!
//! Decides names, units and labels. Pulled: it reads `stats()` when told to, so lookups cost what
//! they cost without it. No key, tag or namespace becomes a label; the number of series is fixed.
//!
//! | Metric | Kind | Unit | Labels beside `cache` |
//! |---|---|---|---|
//! | `tachikoma_cache_hits_total`, `…_misses_total`, `…_stale_hits_total` | counter | lookups | |
//! | `…_loads_total`, `…_load_failures_total` | counter | loads | |
//! | `…_loads_rejected_total` | counter | loads | |
//! | `…_load_milliseconds_total` | counter | milliseconds | |
//! | `…_coalesced_total` | counter | callers | |
//! | `…_refused_fills_total` | counter | values | |
//! | `…_evictions_total` | counter | entries | `cause`: `size`, `count` |
//! | `…_inserts_total`, `…_replacements_total` | counter | entries | |
//! | `…_expirations_total`, `…_deletions_total` | counter | entries | |
//! | `…_errors_total` | counter | errors | `kind`: [`ErrorKind::label`] |
//! | `…_hook_panics_total` | counter | panics | |
//! | `…_loads_running`, `…_loads_queued` | gauge | loads | |
//! | `…_entries` | gauge | entries | |
//! | `…_bytes` | gauge | bytes | |
//! | `…_pending_invalidations` | gauge | invalidations | |
//! | `…_tier_following` | gauge | 1 while a memory tier shows its copies, else 0 | |
//! | `…_up` | gauge | 1 while the store does its work, else 0 | |
//!
//! What a store cannot know (a Redis server's evictions) is not exported, never zero.

use std::fmt;
use std::time::Duration;

use metrics::{Counter, Gauge, Label, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::cache::Cache;
use crate::error::ErrorKind;
use crate::stats::{CacheStats, TierState};
use crate::store::Health;

/// Exports the statistics of one cache; made by [`Cache::metrics`].
///
/// ```
/// # use tachikoma_cache::Cache;
/// let cache = Cache::memory().build()?;
/// // Once a recorder is installed:
/// let exporter = cache.metrics("users");
/// // Before each scrape, or see `run`:
/// exporter.export();
/// # Ok::<(), tachikoma_cache::Error>(())
/// ```
pub struct MetricsExporter {
    cache: Cache,
    counters: Vec<(Counter, Total)>,
    gauges: Vec<(Gauge, Level)>,
    up: Gauge,
}

/// Reads a figure that only grows; `None` if the store cannot know it.
type Total = Box<dyn Fn(&CacheStats) -> Option<u64> + Send + Sync>;

/// Reads a figure that rises and falls.
type Level = fn(&CacheStats) -> Option<u64>;

/// Name, what it counts, its unit, and how it is read.
type Row<R> = (&'static str, &'static str, Unit, R);

const COUNTERS: [Row<Level>; 14] = [
    ("tachikoma_cache_hits_total", "Lookups that found a fresh value", Unit::Count, |s| {
        Some(s.hits)
    }),
    ("tachikoma_cache_misses_total", "Lookups that did not", Unit::Count, |s| Some(s.misses)),
    ("tachikoma_cache_stale_hits_total", "Lookups answered stale", Unit::Count, |s| {
        Some(s.stale_hits)
    }),
    ("tachikoma_cache_loads_total", "Loaders that were run", Unit::Count, |s| Some(s.loads)),
    ("tachikoma_cache_load_failures_total", "Loaders that failed", Unit::Count, |s| {
        Some(s.load_failures)
    }),
    ("tachikoma_cache_loads_rejected_total", "Loads that never ran", Unit::Count, |s| {
        Some(s.loads_rejected)
    }),
    (
        "tachikoma_cache_load_milliseconds_total",
        "Time that loaders took together",
        Unit::Milliseconds,
        |s| u64::try_from(s.load_time.as_millis()).ok(),
    ),
    (
        "tachikoma_cache_coalesced_total",
        "Callers that waited for another's load",
        Unit::Count,
        |s| Some(s.coalesced),
    ),
    (
        "tachikoma_cache_refused_fills_total",
        "Loads that an invalidation overtook",
        Unit::Count,
        |s| Some(s.refused_fills),
    ),
    ("tachikoma_cache_expirations_total", "Entries that expired", Unit::Count, |s| s.expirations),
    ("tachikoma_cache_inserts_total", "Entries that were stored", Unit::Count, |s| s.inserts),
    ("tachikoma_cache_replacements_total", "Entries that a newer one replaced", Unit::Count, |s| {
        s.replacements
    }),
    (
        "tachikoma_cache_deletions_total",
        "Entries that were deleted or invalidated",
        Unit::Count,
        |s| s.deletions,
    ),
    ("tachikoma_cache_hook_panics_total", "Contained panics of user code", Unit::Count, |s| {
        Some(s.hook_panics)
    }),
];

const GAUGES: [Row<Level>; 6] = [
    ("tachikoma_cache_loads_running", "Loaders that run", Unit::Count, |s| Some(s.loads_running)),
    ("tachikoma_cache_loads_queued", "Loads that wait", Unit::Count, |s| Some(s.loads_queued)),
    ("tachikoma_cache_entries", "Live entries", Unit::Count, |s| s.size),
    ("tachikoma_cache_bytes", "Bytes held", Unit::Bytes, |s| s.bytes),
    ("tachikoma_cache_pending_invalidations", "Invalidations not in yet", Unit::Count, |s| {
        Some(s.pending_invalidations)
    }),
    (
        "tachikoma_cache_tier_following",
        "1 while the memory tier shows its copies, 0 while it does not hear of changes",
        Unit::Count,
        |s| s.tier.map(|tier| u64::from(tier.state == TierState::Following)),
    ),
];

const EVICTIONS: &str = "tachikoma_cache_evictions_total";
const ERRORS: &str = "tachikoma_cache_errors_total";
const UP: &str = "tachikoma_cache_up";

impl Cache {
    /// Registers the statistics of this cache with the recorder of the `metrics` facade, as of now:
    /// install the recorder first. `name` tells this cache from others, as the label `cache`.
    pub fn metrics(&self, name: &str) -> MetricsExporter {
        MetricsExporter::new(self.clone(), name)
    }
}

impl MetricsExporter {
    fn new(cache: Cache, name: &str) -> Self {
        let label = || Label::new("cache", name.to_owned());
        let stats = cache.stats();
        let mut counters: Vec<(Counter, Total)> = Vec::new();
        for (metric, help, unit, read) in COUNTERS {
            // A counter that the store cannot know must not stand at zero.
            if read(&stats).is_some() {
                describe_counter!(metric, unit, help);
                counters.push((counter!(metric, vec![label()]), Box::new(read)));
            }
        }
        if stats.evictions_by_cause.is_some() {
            describe_counter!(
                EVICTIONS,
                Unit::Count,
                "Entries pushed out, by the bound that was met"
            );
            let causes: [(&str, Level); 2] = [
                ("size", |s| Some(s.evictions_by_cause?.size)),
                ("count", |s| Some(s.evictions_by_cause?.count)),
            ];
            for (cause, read) in causes {
                let labels = vec![label(), Label::new("cause", cause)];
                counters.push((counter!(EVICTIONS, labels), Box::new(read)));
            }
        }
        describe_counter!(ERRORS, Unit::Count, "Errors by kind");
        for kind in ErrorKind::ALL {
            let labels = vec![label(), Label::new("kind", kind.label())];
            let read = move |stats: &CacheStats| Some(stats.errors.of(kind));
            counters.push((counter!(ERRORS, labels), Box::new(read)));
        }
        let mut gauges = Vec::new();
        for (metric, help, unit, read) in GAUGES {
            if read(&stats).is_some() {
                describe_gauge!(metric, unit, help);
                gauges.push((gauge!(metric, vec![label()]), read));
            }
        }
        describe_gauge!(UP, Unit::Count, "1 while the store does its work, 0 while it does not");
        let up = gauge!(UP, vec![label()]);
        let exporter = Self { cache, counters, gauges, up };
        exporter.export();
        exporter
    }

    /// Writes the figures of this moment. It takes about a microsecond.
    pub fn export(&self) {
        let stats = self.cache.stats();
        for (counter, read) in &self.counters {
            if let Some(total) = read(&stats) {
                counter.absolute(total);
            }
        }
        for (gauge, read) in &self.gauges {
            if let Some(level) = read(&stats) {
                #[allow(clippy::cast_precision_loss)] // The facade's gauges have 53 bits.
                gauge.set(level as f64);
            }
        }
        self.up.set(if self.cache.health() == Health::Up { 1.0 } else { 0.0 });
    }

    /// Writes them every `interval` by the cache's clock, until it is dropped: for a task of its
    /// own.
    pub async fn run(self, interval: Duration) {
        loop {
            self.export();
            self.cache.clock().sleep(interval.max(Duration::from_millis(1))).await;
        }
    }
}

impl fmt::Debug for MetricsExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsExporter").field("cache", &self.cache).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
