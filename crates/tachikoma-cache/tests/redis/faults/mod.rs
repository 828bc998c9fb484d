//! The fault matrix of a cache over Redis: what its callers see while the server is slow, away,
//! wrong or hostile, against the bar of each row.

mod bytes;
mod calls;
mod codes;
mod failover;
mod healthy;
mod hostile;
mod hung;
mod rights;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tachikoma_cache::{Cache, Error, Health, Pattern};
use tachikoma_testkit::{FaultProxy, FaultRow, RedisBuilder, RedisServer, Stopwatch};

use crate::bench::{MINUTE, ms, pause, soon};
use crate::stub;

/// How long the loaders of these tests take.
const LOADER: Duration = Duration::from_millis(2);

/// A cache with the settings that a user gets, which reaches its server through a proxy.
struct Rig {
    server: RedisServer,
    proxy: FaultProxy,
    cache: Cache,
}

impl Rig {
    async fn start() -> Self {
        Self::on(RedisServer::builder()).await
    }

    async fn on(builder: RedisBuilder) -> Self {
        let server = builder.start();
        let proxy = FaultProxy::to(server.port());
        let cache = ready(proxy.port()).await;
        Self { server, proxy, cache }
    }
}

async fn connect(port: u16) -> Cache {
    Cache::connect(&format!("redis://127.0.0.1:{port}/0?namespace=test&memory=off")).await.unwrap()
}

/// The same, connected also on a machine that is busy.
async fn ready(port: u16) -> Cache {
    let cache = connect(port).await;
    soon("up", ms(10_000), async || cache.health() == Health::Up).await;
    cache
}

/// Puts a number there before something is broken.
async fn put(cache: &Cache, key: &str) {
    soon("stored", ms(10_000), async || cache.set(key, 1_u64, MINUTE).await.is_ok()).await;
}

/// Runs a drill until its bars are met, at most three times: machines that run tests are shared.
async fn measured(mut drill: impl AsyncFnMut() -> FaultRow) {
    for _ in 0..2 {
        let row = drill().await;
        if row.is_met() {
            return row.report();
        }
    }
    drill().await.report();
}

/// `ok`, or what kind of error it is.
fn told<T>(result: &Result<T, Error>) -> &'static str {
    result.as_ref().map_or_else(|error| error.kind().label(), |_| "ok")
}

/// Loads `key`: whether it gave the loader's value, and how much longer it took than the loader.
async fn load(cache: &Cache, key: &str) -> (bool, Duration) {
    let loader_took = Arc::new(AtomicU64::new(0));
    let noted = Arc::clone(&loader_took);
    let loader = move || async move {
        let watch = Stopwatch::start();
        pause(LOADER).await;
        noted.store(u64::try_from(watch.elapsed().as_micros()).unwrap(), Ordering::Relaxed);
        Ok::<u64, Infallible>(7)
    };
    let watch = Stopwatch::start();
    let value = cache.get_or_load(key, loader).ttl(MINUTE).tags(["t"]).await;
    let took = watch.elapsed();
    let own = took.saturating_sub(Duration::from_micros(loader_took.load(Ordering::Relaxed)));
    (value.is_ok_and(|value| *value == 7), own)
}

/// The longest time and the number of failures of `count` loads, one after the other.
async fn loads(cache: &Cache, prefix: &str, count: usize) -> (Vec<Duration>, u64) {
    let (mut times, mut failed) = (Vec::new(), 0);
    for i in 0..count {
        let (good, own) = load(cache, &format!("{prefix}{i}")).await;
        failed += u64::from(!good);
        times.push(own);
    }
    times.sort_unstable();
    (times, failed)
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[(sorted.len() * 99).div_ceil(100) - 1]
}

async fn until_degraded(cache: &Cache) {
    soon("degraded", ms(10_000), async || cache.health() != Health::Up).await;
}

/// How long it takes until the cache works as before, with nothing pending.
async fn recovery(cache: &Cache) -> Duration {
    soon("recovered", ms(10_000), async || {
        cache.health() == Health::Up
            && cache.set("probe", 1_u64, MINUTE).await.is_ok()
            && cache.stats().pending_invalidations == 0
    })
    .await
}

/// What each of the six operations was told, and how long it took.
struct Six([(&'static str, &'static str, Duration); 6]);

impl Six {
    /// Of keys that nobody else uses; only `known` is there before.
    async fn of(cache: &Cache) -> Self {
        async fn timed<T>(
            call: impl Future<Output = Result<T, Error>>,
        ) -> (&'static str, Duration) {
            let watch = Stopwatch::start();
            let result = call.await;
            (told(&result), watch.elapsed())
        }
        let get = timed(cache.get::<u64>("known")).await;
        let set = timed(async { cache.set("s", 1_u64, MINUTE).await }).await;
        let delete = timed(cache.delete("d")).await;
        let pattern = Pattern::new().literal("p").any();
        let matching = timed(cache.delete_pattern(&pattern)).await;
        let tag = timed(cache.invalidate_tag("t")).await;
        let (good, own) = load(cache, "f").await;
        Self([
            ("get", get.0, get.1),
            ("set", set.0, set.1),
            ("delete", delete.0, delete.1),
            ("delete_pattern", matching.0, matching.1),
            ("invalidate_tag", tag.0, tag.1),
            ("get_or_load", if good { "ok" } else { "failed" }, own),
        ])
    }

    /// A cell for each: what it must have been told (of several with `|` one), and within which
    /// time.
    fn report(&self, row: &mut FaultRow, expected: [&str; 6], within: Duration) {
        for ((operation, told, took), expected) in self.0.iter().zip(expected) {
            let within = FaultRow::within(within, *took);
            let good = expected.split('|').any(|one| one == *told);
            let bar = format!("{expected}, ≤ {} ms", within.as_millis());
            let shown = format!("{told}, {:.1} ms", took.as_secs_f64() * 1000.0);
            row.holds(operation, &bar, shown, good && *took <= within);
        }
    }
}

/// The tasks of this runtime that have not ended.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
