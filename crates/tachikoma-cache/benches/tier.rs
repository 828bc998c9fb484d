//! The memory tier in front of Redis: what a hit costs over one of a cache in memory only, what
//! tags add to a hit of either and to a read of Redis, and how long after a deletion other nodes
//! show it.
//!
//! Hits: 200 keys, which the processor keeps near, and 10,000; values of 1 KiB, one thread, no
//! runtime around; rounds of the two that are compared take turns, so what else the machine does
//! meets both. Tags: three on each entry, one of its own and two that many share. Deletions: each
//! is timed from its answer on one node until two others, which had copies, have none;
//! `TACHIKOMA_DELETIONS` says how many.

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use futures_util::FutureExt as _;
use tachikoma_cache::Cache;
use tachikoma_cache::stats::TierState;
use tachikoma_testkit::{RedisServer, Stopwatch};
use tokio::runtime::Runtime;

const KEYS: usize = 10_000;
const VALUE_BYTES: usize = 1024;
/// A round is short, so that most rounds run undisturbed by what else the machine does.
const ROUND_KEYS: u8 = 200;
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
    let url = format!("{}&freshness=60s&max_bytes=128MiB", server.url_with("hits"));
    let tiered = runtime.block_on(async { Cache::connect(&url).await })?;
    let memory = Cache::memory().max_bytes(128 << 20).build()?;
    let keys: Vec<String> = (0..KEYS).map(|number| format!("user:{number}")).collect();
    let tags = |_: &str| Vec::new();
    runtime.block_on(fill(&memory, &tiered, &keys, tags))?;
    let few = keys.get(..usize::from(ROUND_KEYS)).unwrap_or(&keys);
    for keys in [few, &keys] {
        hits(&memory, &tiered, keys)?;
    }
    let tagged = [memory.namespace("tagged")?, tiered.namespace("tagged")?];
    let tags = |key: &str| vec![key.to_owned(), "users".to_owned(), "all".to_owned()];
    runtime.block_on(fill(&tagged[0], &tagged[1], &keys, tags))?;
    for (place, plain, tagged) in
        [("memory only", &memory, &tagged[0]), ("memory tier", &tiered, &tagged[1])]
    {
        for keys in [few, &keys] {
            tagged_hits(place, plain, tagged, keys)?;
        }
    }
    let url = format!("{}&memory=off", server.url_with("hits"));
    let alone = runtime.block_on(async { Cache::connect(&url).await })?;
    reads(&runtime, &alone, few)?;
    runtime.block_on(deletions(&server))
}

/// Stores every key in both, and reads it until the tier has a copy.
async fn fill(
    memory: &Cache,
    tiered: &Cache,
    keys: &[String],
    tags: impl Fn(&str) -> Vec<String>,
) -> Outcome {
    for key in keys {
        for cache in [memory, tiered] {
            cache.set(key, "x".repeat(VALUE_BYTES), DAY).tags(tags(key)).await?;
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
    let of_both = |name: &str, [memory, tiered]: [f64; 2]| {
        println!("median hit/{name}, memory only {memory:.1} ns");
        println!("median hit/{name}, memory tier {tiered:.1} ns");
        println!("median hit/{name}, what the tier adds {:.1} ns", tiered - memory);
    };
    compare("hit", [memory, tiered], keys, of_both)
}

/// The same entries in another namespace, with tags.
fn tagged_hits(place: &str, plain: &Cache, tagged: &Cache, keys: &[String]) -> Outcome {
    let of_both = |name: &str, [plain, tagged]: [f64; 2]| {
        println!("median hit/{name}, {place}, without tags {plain:.1} ns");
        println!("median hit/{name}, {place}, with tags {tagged:.1} ns");
        println!("median hit/{name}, {place}, with tags over without {:.3} times", tagged / plain);
    };
    compare("tagged", [plain, tagged], keys, of_both)
}

/// The same entries, each read from Redis.
fn reads(runtime: &Runtime, plain: &Cache, keys: &[String]) -> Outcome {
    let tagged = plain.namespace("tagged")?;
    let misses = || plain.stats().misses + tagged.stats().misses;
    let before = misses();
    let [plain, tagged] = interleaved(keys, PASSES, [plain, &tagged], |cache, key| {
        let _ = black_box(runtime.block_on(cache.get::<String>(key)));
    });
    println!("median read/get, Redis alone, without tags {plain:.0} ns");
    println!("median read/get, Redis alone, with tags {tagged:.0} ns");
    println!("median read/get, Redis alone, with tags over without {:.3} times", tagged / plain);
    if misses() != before {
        return Err("reads: there were misses: this measured something else".into());
    }
    Ok(())
}

/// Compares each way to ask, and hands the medians of both to `tell`.
fn compare(
    what: &str,
    caches: [&Cache; 2],
    keys: &[String],
    tell: impl Fn(&str, [f64; 2]),
) -> Outcome {
    let misses = || caches.map(|cache| cache.stats().misses);
    let before = misses();
    // As many rounds for few keys as for many.
    let passes = PASSES * KEYS / keys.len().max(1);
    let medians = interleaved(keys, passes, caches, |cache, key| {
        black_box(cache.try_get::<String>(key));
    });
    let name = |call: &str| format!("{call}, {} keys", keys.len());
    tell(&name("try_get"), medians);
    let medians = interleaved(keys, passes, caches, |cache, key| {
        black_box(cache.get::<String>(key).now_or_never());
    });
    tell(&name("get"), medians);
    let medians = interleaved(keys, passes, caches, |cache, key| {
        let load = cache.get_or_load(key, || async { Err::<String, ()>(()) });
        black_box(load.into_future().now_or_never());
    });
    tell(&name("get_or_load"), medians);
    if misses() != before {
        return Err(format!("{what}: there were misses: this measured something else").into());
    }
    for tier in caches.iter().filter_map(|cache| cache.stats().tier) {
        if tier.state != TierState::Following {
            return Err(format!("{what}: the tier is {tier:?}: not what was to measure").into());
        }
    }
    Ok(())
}

/// The median times of one call on each of both, in nanoseconds.
fn interleaved(
    keys: &[String],
    passes: usize,
    caches: [&Cache; 2],
    call: impl Fn(&Cache, &str),
) -> [f64; 2] {
    let mut rounds = [Vec::new(), Vec::new()];
    for pass in 0..passes {
        for keys in keys.chunks(usize::from(ROUND_KEYS)) {
            for turn in 0..2 {
                let which = (turn + pass) % 2;
                let timer = Stopwatch::start();
                for key in keys {
                    call(caches[which], black_box(key));
                }
                rounds[which].push(timer.elapsed());
            }
        }
    }
    rounds.map(|mut rounds| {
        rounds.sort_unstable();
        let median = rounds.get(rounds.len() / 2).copied().unwrap_or_default();
        median.as_secs_f64() * 1e9 / f64::from(ROUND_KEYS)
    })
}

/// How long after a deletion on one node others still have their copies.
async fn deletions(server: &RedisServer) -> Outcome {
    let count = match std::env::var("TACHIKOMA_DELETIONS") {
        Ok(text) => text.parse()?,
        Err(_) => DELETIONS,
    };
    let url = server.url_with("deletions");
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
