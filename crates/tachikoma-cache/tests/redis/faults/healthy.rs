//! No fault at all: a cache that always loads would pass every other row.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tachikoma_cache::TestClock;
use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_testkit::FaultRow;

use super::*;

const KEYS: usize = 2_000;
const REQUESTS: usize = 8_000;
/// Each request comes a millisecond after the one before.
const TTL: Duration = Duration::from_secs(3);

/// Keys by Zipf's law with exponent 0.9, always the same.
fn trace() -> Vec<usize> {
    let mut sums = Vec::with_capacity(KEYS);
    let mut sum = 0.0;
    for rank in 1..=u32::try_from(KEYS).unwrap() {
        sum += f64::from(rank).powf(-0.9);
        sums.push(sum);
    }
    let mut random = StdRng::seed_from_u64(3);
    (0..REQUESTS)
        .map(|_| {
            let at = random.random::<f64>() * sum;
            sums.partition_point(|sum| *sum < at).min(KEYS - 1)
        })
        .collect()
}

/// What a cache would load that forgets nothing before its time.
fn ideal(trace: &[usize]) -> u64 {
    let mut expiries: HashMap<usize, usize> = HashMap::new();
    let ttl = usize::try_from(TTL.as_millis()).unwrap();
    let mut loads = 0;
    for (now, key) in trace.iter().enumerate() {
        if expiries.get(key).is_none_or(|expiry| *expiry <= now) {
            loads += 1;
            expiries.insert(*key, now + ttl);
        }
    }
    loads
}

async fn replay(trace: &Arc<Vec<usize>>, callers: usize) -> (u64, u64) {
    let server = RedisServer::start();
    let clock = TestClock::new();
    let config = RedisConfig::from_url(&server.url()).unwrap().0.timeout(Duration::from_secs(10));
    let store = RedisStore::connect(config, Arc::new(clock.clone())).await.unwrap();
    let cache = Cache::on(Arc::new(store))
        .clock(Arc::new(clock.clone()))
        .store_timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let tasks = (0..callers).map(|_| {
        let (cache, clock) = (cache.clone(), clock.clone());
        let (trace, next) = (Arc::clone(trace), Arc::clone(&next));
        tokio::spawn(async move {
            let mut wrong = 0;
            loop {
                let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
                let Some(key) = trace.get(at).copied() else { return wrong };
                clock.advance(ms(1));
                let load = move || async move { Ok::<_, Infallible>(key) };
                let value = cache.get_or_load(&format!("k{key}"), load).ttl(TTL).await.unwrap();
                wrong += u64::from(*value != key);
            }
        })
    });
    let mut wrong = 0;
    for task in tasks.collect::<Vec<_>>() {
        wrong += task.await.unwrap();
    }
    (cache.stats().loads, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_00_a_healthy_server_is_used() {
    let trace = Arc::new(trace());
    let ideal = ideal(&trace);
    let mut row = FaultRow::new("FM-00", "none: 8,000 requests of 2,000 keys by Zipf's law");
    for callers in [1, 32] {
        let (loads, wrong) = replay(&trace, callers).await;
        let most = ideal * 105 / 100;
        row.holds(
            &format!("loads, {callers} at once"),
            &format!("≤ 1.05 × {ideal}"),
            format!(
                "{loads} ({:.3} ×)",
                f64::from(u32::try_from(loads).unwrap()) / f64::from(u32::try_from(ideal).unwrap())
            ),
            loads <= most,
        );
        row.count(&format!("wrong values, {callers} at once"), 0, wrong);
    }
    row.report();
}
