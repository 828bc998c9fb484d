//! Law 22: a store never holds more than it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tachikoma_cache::{Cache, Ttl};
use tachikoma_testkit::RedisServer;

use super::MINUTE;
use crate::bench::Bench;

/// At each look while two threads write, not only when they have ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_there_are_never_more_entries_than_allowed() {
    const MOST: u64 = 100;
    let cache = Cache::memory().max_entries(MOST).build().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2_u32)
        .map(|writer| {
            let cache = cache.clone();
            tokio::spawn(async move {
                for n in 0..20_000_u32 {
                    let key = format!("{writer}:{}", n % 1_000);
                    match n % 5 {
                        0 => drop(cache.delete(&key).await.unwrap()),
                        1 => {
                            let load = move || async move { Ok::<_, ()>(n) };
                            cache.get_or_load(&key, load).await.unwrap();
                        }
                        _ => cache.set(&key, n, Ttl::Never).await.unwrap(),
                    }
                }
            })
        })
        .collect();
    let looker = {
        let (cache, over) = (cache.clone(), Arc::clone(&over));
        std::thread::spawn(move || {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(cache.stats().size.unwrap());
            }
            most
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    assert_eq!(looker.join().unwrap(), MOST);
    assert_eq!(cache.stats().size, Some(MOST));
    let mut listed = 0;
    let mut page = cache.keys().await.unwrap();
    loop {
        listed += page.keys.len() as u64;
        let Some(next) = page.next else { break };
        page = cache.keys().after(next).await.unwrap();
    }
    assert_eq!(listed, MOST);
}

/// A server that evicts bounds itself; the cache claims no size of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_the_servers_bound_holds_and_the_cache_claims_no_size() {
    const WRITTEN: usize = 4_000;
    let server = RedisServer::builder()
        .max_memory("8mb")
        .arguments(["--maxmemory-policy", "allkeys-lru"])
        .start();
    let (cache, _) = Bench::on(&server).await;
    for chunk in 0..WRITTEN / 200 {
        let keys = (0..200).map(|n| (format!("k{}", chunk * 200 + n), "x".repeat(8_000)));
        cache.set_many(keys, MINUTE).await.unwrap();
        // What connections need counts too, and is freed with the next command.
        let used = server.info("used_memory");
        assert!(used <= 9 << 20, "{used} bytes");
    }
    assert!(server.info("evicted_keys") > 0, "the bound was reached");
    let left = server.command(&["DBSIZE"]).integer();
    assert!(usize::try_from(left).unwrap() < WRITTEN);
    assert_eq!((cache.stats().size, cache.stats().evictions), (None, None));
    let names: Vec<String> = (0..WRITTEN).map(|n| format!("k{n}")).collect();
    let found = cache.get_many::<String>(&names).await.unwrap();
    let found = i64::try_from(found.iter().flatten().count()).unwrap();
    assert!(found > 0 && found <= left, "{found} of {left}");
}
