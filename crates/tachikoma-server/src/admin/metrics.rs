//! Writes a snapshot in the text format that Prometheus reads (`OpenMetrics`).
//!
//! Every series is known here: no key, path or host of a client becomes a label, so their number
//! never grows with the traffic.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tachikoma_cache::stats::TierState;

use super::snapshot::{CacheFigures, ResponseFigures, Snapshot};

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn text(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tachikoma");
    registry.register_collector(Box::new(Series(snapshot)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Series(Snapshot);

impl Collector for Series {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Snapshot { process, http, cache, response_cache } = &self.0;
        let mut write = Writer(encoder);
        write.gauge("uptime_seconds", "Time since the start", process.uptime_ms / 1000)?;
        if let Some(bytes) = process.resident_bytes {
            write.gauge("resident_bytes", "Memory of the process", bytes)?;
        }
        write.gauge("http_connections", "Open client connections", http.connections)?;
        let traffic = &http.traffic;
        write.gauge("http_in_flight", "Requests that are not done", traffic.in_flight)?;
        write.counter("http_requests", "Requests", traffic.requests)?;
        let answers = &traffic.responses;
        write.counters(
            "http_responses",
            "Responses by the first digit of their status",
            "class",
            &[
                ("2xx", answers.success),
                ("3xx", answers.redirection),
                ("4xx", answers.client_error),
                ("5xx", answers.server_error),
            ],
        )?;
        write.counter("http_body_bytes", "Bytes of response bodies", traffic.body_bytes)?;
        write.counter("http_cut_off", "Responses that broke off", traffic.cut_off)?;
        let dropped = http.access_log_dropped;
        write.counter("access_log_dropped", "Access log lines without room", dropped)?;
        write.cache(cache)?;
        write.responses(response_cache)
    }
}

struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn cache(&mut self, cache: &CacheFigures) -> fmt::Result {
        let up = u64::from(cache.reason.is_none());
        self.gauge("cache_up", "1 while the store does its work, 0 while it does not", up)?;
        self.counter("cache_hits", "Lookups that found a fresh value", cache.hits)?;
        self.counter("cache_misses", "Lookups that did not", cache.misses)?;
        self.counter("cache_stale_hits", "Lookups answered stale", cache.stale_hits)?;
        self.counter("cache_loads", "Loaders that were run", cache.loads)?;
        self.counter("cache_load_failures", "Loaders that failed", cache.load_failures)?;
        let millis = cache.load_time_ms;
        self.counter("cache_load_milliseconds", "Time that loaders took together", millis)?;
        let waited = cache.coalesced;
        self.counter("cache_coalesced", "Callers that waited for another's load", waited)?;
        let refused = cache.refused_fills;
        self.counter("cache_refused_fills", "Loads that an invalidation overtook", refused)?;
        for (name, help, value) in [
            ("cache_entries", "Live entries", cache.entries),
            ("cache_bytes", "Bytes held", cache.bytes),
        ] {
            value.map_or(Ok(()), |value| self.gauge(name, help, value))?;
        }
        if let (Some(size), Some(count)) = (cache.evictions_by_size, cache.evictions_by_count) {
            let help = "Entries pushed out, by the bound that was met";
            let causes = [("size", size), ("count", count)];
            self.counters("cache_evictions", help, "cause", &causes)?;
        }
        if let Some(expired) = cache.expirations {
            self.counter("cache_expirations", "Entries that expired and were freed", expired)?;
        }
        let pending = cache.pending_invalidations;
        self.gauge("cache_pending_invalidations", "Invalidations not in yet", pending)?;
        if let Some(tier) = &cache.tier {
            let help = "1 while the memory tier shows its copies, 0 while it hears of no changes";
            let following = u64::from(tier.state == TierState::Following.label());
            self.gauge("cache_tier_following", help, following)?;
        }
        let errors: Vec<_> = cache.errors.iter().map(|(kind, n)| (*kind, *n)).collect();
        self.counters("cache_errors", "Errors by kind", "kind", &errors)
    }

    fn responses(&mut self, responses: &ResponseFigures) -> fmt::Result {
        let help = "Exchanges by what the response cache decided";
        let outcomes = [
            ("hit", responses.hits),
            ("stale", responses.stale),
            ("miss", responses.misses),
            ("revalidated", responses.revalidations),
            ("collapsed", responses.collapsed),
            ("only-if-cached", responses.only_if_cached),
        ];
        self.counters("response_cache_exchanges", help, "outcome", &outcomes)?;
        let bypassed: Vec<_> = responses.bypassed.iter().map(|(why, n)| (*why, *n)).collect();
        let help = "Exchanges the response cache took no part in, by reason";
        self.counters("response_cache_bypassed", help, "reason", &bypassed)?;
        self.counter("response_cache_stored", "Responses that were stored", responses.stored)?;
        let refused = responses.refused_fills;
        self.counter("response_cache_refused_fills", "Responses refused by the store", refused)?;
        let incomplete = responses.incomplete;
        self.counter("response_cache_incomplete", "Responses without a proved end", incomplete)?;
        let invalidated = responses.invalidations;
        self.counter("response_cache_invalidations", "URLs invalidated by writes", invalidated)?;
        let pending = responses.pending_invalidations;
        self.counter("response_cache_pending", "Invalidations that were not in at once", pending)?;
        let held = responses.fill_bytes;
        self.gauge("response_cache_fill_bytes", "Bytes arriving to be stored", held)?;
        let held = responses.large_bytes;
        self.gauge("response_cache_large_bytes", "Large bodies in memory beside Redis", held)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        // A gauge is signed; no count of ours comes near the difference.
        let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        metric.encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, u64)],
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (case, value) in values {
            let labels = [(label, *case)];
            ConstCounter::new(*value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
