//! The memory tier in front of Redis: what a hit costs over one of a cache in memory only, and how
//! long after a deletion other nodes show it.
//!
//! Hits: 10,000 keys, values of 1 KiB, one thread, no runtime around; rounds of both caches take
//! turns, so what else the machine does meets both. Deletions: each is timed from its answer on one
//! node until two others, which had copies, have none; `TACHIKOMA_DELETIONS` says how many.

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use futures_util::FutureExt as _;
use tachikoma_cache::Cache;
use tachikoma_cache::stats::TierState;
use tachikoma_testkit::{RedisServer, Stopwatch};

const KEYS: usize = 10_000;
const VALUE_BYTES: usize = 1024;
/// A round is short, so that most rounds run undisturbed by what else the machine does.
const ROUND_KEYS: usize = 200;
const PASSES: usize = 41;
const DELETIONS: usize = 10_000;
const DAY: Duration = Duration::from_secs(86_400);
const PATIENCE: Duration = Duration::from_secs(10);

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = RedisServer::start();
    // Long, so that a machine that is busy with something else spoils no round.
    let url = format!("{}&memory=on&freshness=60s", server.url_with("hits"));
    let tiered = runtime.block_on(async { Cache::connect(&url).await })?;
    let memory = Cache::memory().max_bytes(64 << 20).build()?;
    let keys: Vec<String> = (0..KEYS).map(|number| format!("user:{number}")).collect();
    runtime.block_on(fill(&memory, &tiered, &keys))?;
    hits(&memory, &tiered, &keys)?;
    runtime.block_on(deletions(&server))
}

/// Stores every key in both, and reads it until the tier has a copy.
async fn fill(memory: &Cache, tiered: &Cache, keys: &[String]) -> Outcome {
    for key in keys {
        for cache in [memory, tiered] {
            cache.set(key, "x".repeat(VALUE_BYTES), DAY).await?;
        }
        let watch = Stopwatch::start();
        while tiered.try_get::<String>(key).is_none() {
            tiered.get::<String>(key).await?;
            if watch.elapsed() > PATIENCE {
                return Err(format!("{key} does not get into the memory tier").into());
            }
        }
    }
    Ok(())
}

fn hits(memory: &Cache, tiered: &Cache, keys: &[String]) -> Outcome {
    let misses = (memory.stats().misses, tiered.stats().misses);
    compare("try_get", keys, [memory, tiered], |cache, key| {
        black_box(cache.try_get::<String>(key));
    });
    compare("get", keys, [memory, tiered], |cache, key| {
        black_box(cache.get::<String>(key).now_or_never());
    });
    compare("get_or_load", keys, [memory, tiered], |cache, key| {
        let load = cache.get_or_load(key, || async { Err::<String, ()>(()) });
        black_box(load.into_future().now_or_never());
    });
    if (memory.stats().misses, tiered.stats().misses) != misses {
        return Err("there were misses: this measured something else".into());
    }
    match tiered.stats().tier {
        Some(tier) if tier.state == TierState::Following => Ok(()),
        other => Err(format!("the tier is {other:?}: this measured something else").into()),
    }
}

/// Prints the median time of one call on each of both, and the difference.
fn compare(name: &str, keys: &[String], caches: [&Cache; 2], call: impl Fn(&Cache, &str)) {
    let mut rounds = [Vec::new(), Vec::new()];
    for pass in 0..PASSES {
        for keys in keys.chunks(ROUND_KEYS) {
            for turn in 0..2 {
                let which = (turn + pass) % 2;
                let timer = Stopwatch::start();
                for key in keys {
                    call(caches[which], black_box(key));
                }
                rounds[which].push(timer.elapsed().as_nanos());
            }
        }
    }
    // Tenths of a nanosecond, as whole numbers: no digit that was not measured.
    let [memory, tiered] = rounds.map(|mut rounds| {
        rounds.sort_unstable();
        i128::try_from(rounds[rounds.len() / 2] * 10).unwrap_or(i128::MAX) / ROUND_KEYS as i128
    });
    let more = tiered - memory;
    let sign = if more < 0 { "-" } else { "" };
    let more = more.unsigned_abs();
    println!("median hit/{name}, memory only {}.{} ns", memory / 10, memory % 10);
    println!("median hit/{name}, memory tier {}.{} ns", tiered / 10, tiered % 10);
    println!("median hit/{name}, what the tier adds {sign}{}.{} ns", more / 10, more % 10);
}

/// How long after a deletion on one node others still have their copies.
async fn deletions(server: &RedisServer) -> Outcome {
    let count = match std::env::var("TACHIKOMA_DELETIONS") {
        Ok(text) => text.parse()?,
        Err(_) => DELETIONS,
    };
    let url = format!("{}&memory=on", server.url_with("deletions"));
    let one = Cache::connect(&url).await?;
    let others = [Cache::connect(&url).await?, Cache::connect(&url).await?];
    let mut behind = Vec::with_capacity(count);
    for round in 0..count {
        let key = format!("k{}", round % 64);
        one.set(&key, round as u64, DAY).await?;
        let watch = Stopwatch::start();
        for other in &others {
            while other.try_get::<u64>(&key).is_none_or(|value| *value != round as u64) {
                other.get::<u64>(&key).await?;
                if watch.elapsed() > PATIENCE {
                    return Err(format!("{key} does not get into the memory tier").into());
                }
            }
        }
        one.delete(&key).await?;
        let watch = Stopwatch::start();
        while others.iter().any(|other| other.try_get::<u64>(&key).is_some()) {
            std::thread::yield_now();
        }
        behind.push(watch.elapsed());
    }
    behind.sort_unstable();
    let at = |share: usize| behind.get((count * share).div_ceil(1000).saturating_sub(1)).copied();
    for (name, time) in [("median", at(500)), ("p99", at(990)), ("longest", at(1000))] {
        let micros = time.unwrap_or_default().as_micros();
        println!("median deletion until two other nodes know, {name} of {count} {micros} us");
    }
    Ok(())
}
