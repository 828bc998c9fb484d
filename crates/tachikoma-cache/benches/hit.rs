//! What does a hit in memory cost over a plain map? 10,000 keys, values of 1 KiB, one thread.
//!
//! The baseline is an `RwLock` around a `HashMap` of `Arc`s: no expiry, no bound, no statistics.
//! Each figure is the median of about a thousand short rounds.

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tachikoma_cache::Cache;
use tachikoma_testkit::Stopwatch;

const KEYS: usize = 10_000;
const VALUE_BYTES: usize = 1024;
/// A round is short, so that most rounds run undisturbed by what else the machine does.
const ROUND_KEYS: usize = 200;
const PASSES: usize = 21;
const DAY: Duration = Duration::from_secs(86_400);

fn main() -> Result<(), Box<dyn Error>> {
    let keys: Vec<String> = (0..KEYS).map(|number| format!("user:{number}")).collect();
    let value = || "x".repeat(VALUE_BYTES);

    let map = RwLock::new(HashMap::new());
    for key in &keys {
        let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(key.clone(), Arc::new(value()));
    }
    measure("hit/map (baseline)", &keys, |key| {
        let map = map.read().unwrap_or_else(PoisonError::into_inner);
        black_box(map.get(key).cloned());
    });

    let cache = Cache::memory().max_entries(2 * KEYS as u64).max_bytes(64 << 20).build()?;
    for key in &keys {
        now(cache.set(key, value(), DAY))?;
    }
    measure("hit/try_get", &keys, |key| {
        black_box(cache.try_get::<String>(key));
    });
    measure("hit/get", &keys, |key| {
        black_box(cache.get::<String>(key).now_or_never());
    });
    measure("hit/get_or_load", &keys, |key| {
        let load = cache.get_or_load(key, || async { Err::<String, ()>(()) });
        black_box(load.into_future().now_or_never());
    });
    let counting = Cache::memory().max_bytes(64 << 20).track_top_keys(true).build()?;
    for key in &keys {
        now(counting.set(key, value(), DAY))?;
    }
    measure("hit/get, top keys counted", &keys, |key| {
        black_box(counting.get::<String>(key).now_or_never());
    });
    let stats = cache.stats();
    if stats.misses > 0 {
        return Err(format!("{} misses: this measured something else", stats.misses).into());
    }
    measure("set", &keys, |key| {
        black_box(now(cache.set(key, value(), DAY)).ok());
    });
    Ok(())
}

/// Nothing in memory waits, so there is no runtime to measure along.
fn now<T>(
    operation: impl IntoFuture<Output = Result<T, tachikoma_cache::Error>>,
) -> Result<T, Box<dyn Error>> {
    let result = operation.into_future().now_or_never().ok_or("it had to wait")?;
    Ok(result?)
}

/// Prints the median time of one call, in a form that `cargo xtask bench` collects.
fn measure(name: &str, keys: &[String], call: impl Fn(&str)) {
    let mut rounds = Vec::new();
    for _ in 0..PASSES {
        for keys in keys.chunks(ROUND_KEYS) {
            let timer = Stopwatch::start();
            for key in keys {
                call(black_box(key));
            }
            rounds.push(timer.elapsed().as_nanos());
        }
    }
    rounds.sort_unstable();
    // Tenths of a nanosecond, as whole numbers: no digit that was not measured.
    let tenths = rounds[rounds.len() / 2] * 10 / ROUND_KEYS as u128;
    println!("median {name} {}.{} ns", tenths / 10, tenths % 10);
}
