//! FM-20: what it takes to wait for a slow source, and how soon the waiters know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tachikoma_testkit::{Stopwatch, allowed};
use tokio::sync::Notify;

use super::ms;
use crate::footprint::ALLOCATED;

const WAITERS: usize = 10_000;

async fn eventually(done: impl Fn() -> bool) -> bool {
    let watch = Stopwatch::start();
    while !done() && watch.elapsed() < ms(60_000) {
        tokio::task::yield_now().await;
    }
    done()
}

laws! {
    async fn fm_20_ten_thousand_waiters_take_little_memory_and_know_at_once(b) {
        let mut tries = Vec::new();
        for key in ["a", "b", "c", "d", "e"] {
            let (go, loads) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
            let coalesced = b.cache.stats().coalesced;
            let before = ALLOCATED.current_usage();
            let waiters: Vec<_> = (0..WAITERS)
                .map(|_| {
                    let (cache, go, loads) =
                        (b.cache.clone(), Arc::clone(&go), Arc::clone(&loads));
                    tokio::spawn(async move {
                        let load = move || async move {
                            loads.fetch_add(1, Ordering::SeqCst);
                            go.notified().await;
                            Ok::<_, ()>(7_u32)
                        };
                        *cache.get_or_load(key, load).await.unwrap()
                    })
                })
                .collect();
            let all = coalesced + WAITERS as u64 - 1;
            let shared = || b.cache.stats().coalesced == all;
            assert!(eventually(shared).await, "{:?}", b.cache.stats());
            let each = ALLOCATED.current_usage().saturating_sub(before) / WAITERS;
            let watch = Stopwatch::start();
            go.notify_one();
            for waiter in waiters {
                assert_eq!(waiter.await.unwrap(), 7);
            }
            let took = watch.elapsed();
            println!("{each} bytes for each waiter, with its task; all woken after {took:?}");
            assert_eq!(loads.load(Ordering::SeqCst), 1);
            assert!(each <= 4096, "{each} bytes for each waiter");
            let most = allowed(ms(100), took);
            if took <= most {
                return;
            }
            tries.push((took, most));
        }
        panic!("each took and was allowed {tries:?}; on a quiet machine 100 ms");
    }
}
