use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use metrics::{Histogram, Key, KeyName, Metadata, Recorder, SharedString};

use super::*;

/// Keeps what it is given, by name and labels.
#[derive(Default)]
struct Kept {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    described: Mutex<BTreeMap<String, (Option<Unit>, String)>>,
}

impl Kept {
    fn describe(&self, key: &KeyName, unit: Option<Unit>, text: &SharedString) {
        self.described.lock().unwrap().insert(key.as_str().into(), (unit, text.to_string()));
    }

    fn counter(&self, series: &str) -> u64 {
        self.counters.lock().unwrap()[series].load(Relaxed)
    }

    fn gauge(&self, series: &str) -> f64 {
        f64::from_bits(self.gauges.lock().unwrap()[series].load(Relaxed))
    }
}

fn series(key: &Key) -> String {
    let labels = key.labels().map(|label| format!(",{}={}", label.key(), label.value()));
    format!("{}{}", key.name(), labels.collect::<String>())
}

impl Recorder for Kept {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&key, unit, &text);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&key, unit, &text);
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.counters.lock().unwrap();
        Counter::from_arc(Arc::clone(counters.entry(series(key)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = self.gauges.lock().unwrap();
        Gauge::from_arc(Arc::clone(gauges.entry(series(key)).or_default()))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn statistics_are_exported_under_fixed_names_without_keys() {
    let cache = Cache::memory().max_entries(2).build().unwrap();
    let kept = Kept::default();
    let exporter = metrics::with_local_recorder(&kept, || cache.metrics("users"));
    assert_eq!(kept.counter("tachikoma_cache_hits_total,cache=users"), 0);
    let series = kept.counters.lock().unwrap().len() + kept.gauges.lock().unwrap().len();
    for number in 0..100_u32 {
        let key = format!("s3ntinel:{number}");
        cache.set(&key, number, Duration::from_secs(60)).await.unwrap();
        cache.get::<u32>(&key).await.unwrap();
        cache.get::<u32>("s3ntinel").await.unwrap();
        assert!(cache.get_or_load(&key, || async { Ok::<u32, ()>(1) }).await.is_ok());
        cache.set("k", 1, Duration::ZERO).await.unwrap_err();
    }
    exporter.export();
    assert_eq!(kept.counter("tachikoma_cache_hits_total,cache=users"), 200);
    assert_eq!(kept.counter("tachikoma_cache_misses_total,cache=users"), 100);
    assert_eq!(kept.counter("tachikoma_cache_evictions_total,cache=users,cause=count"), 98);
    assert_eq!(kept.counter("tachikoma_cache_evictions_total,cache=users,cause=size"), 0);
    assert_eq!(kept.counter("tachikoma_cache_errors_total,cache=users,kind=invalid_ttl"), 100);
    assert!((kept.gauge("tachikoma_cache_entries,cache=users") - 2.0).abs() < f64::EPSILON);
    assert!((kept.gauge("tachikoma_cache_up,cache=users") - 1.0).abs() < f64::EPSILON);
    let counters = kept.counters.lock().unwrap();
    let gauges = kept.gauges.lock().unwrap();
    assert_eq!(counters.len() + gauges.len(), series, "no series came with the traffic");
    assert!(counters.keys().chain(gauges.keys()).all(|name| !name.contains("s3ntinel")));
    let described = kept.described.lock().unwrap();
    for name in counters.keys().chain(gauges.keys()) {
        let metric = name.split(',').next().unwrap();
        assert!(described.contains_key(metric), "{metric}");
    }
    assert_eq!(described["tachikoma_cache_bytes"].0, Some(Unit::Bytes));
}
