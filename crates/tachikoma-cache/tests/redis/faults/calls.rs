//! Callers and runtimes that go away, with Redis under them.

use std::sync::atomic::AtomicBool;

use rand::RngExt as _;
use tachikoma_testkit::{Fault, FaultRow};

use super::*;

/// How many commands are cancelled; `TACHIKOMA_CANCELS` sets another number.
fn cancels() -> u64 {
    let set = std::env::var("TACHIKOMA_CANCELS").ok();
    set.map_or(10_000, |number| number.parse().expect("TACHIKOMA_CANCELS is a number"))
}

fn value(key: &str) -> String {
    format!("value of {key}")
}

/// Gives up after some polls, or after some time.
async fn cancelled<T>(call: impl Future<Output = T>) {
    let (polls, micros) = {
        let mut random = rand::rng();
        (random.random_range(0..6), random.random_range(0..1500))
    };
    let mut call = Box::pin(call);
    for _ in 0..polls {
        let ready =
            std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx).is_ready()));
        if ready.await {
            return;
        }
        tokio::task::yield_now().await;
    }
    if polls == 5 {
        let _ = tokio::time::timeout(Duration::from_micros(micros), call).await;
    }
}

/// DS-38, RG-31: cancelled commands among readers of values that say which key they are of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ds_38_cancelled_commands_mix_no_answers_up() {
    let server = RedisServer::start();
    let cache = connect(server.port()).await;
    for i in 0..64 {
        let key = format!("k{i}");
        cache.set(&key, value(&key), MINUTE).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..64)
        .map(|reader| {
            let (cache, stop) = (cache.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut reads, mut wrong) = (0_u64, 0_u64);
                while !stop.load(Ordering::Relaxed) {
                    for key in [format!("k{reader}"), format!("k{}", (reader + 7) % 64)] {
                        if let Ok(found) = cache.get::<String>(&key).await {
                            reads += 1;
                            wrong += u64::from(found.is_none_or(|found| *found != value(&key)));
                        }
                    }
                    // What fails at once does not wait for anything, and the others have to go on.
                    tokio::task::yield_now().await;
                }
                (reads, wrong)
            })
        })
        .collect();
    let each = cancels() / 4;
    let cancellers: Vec<_> = (0..4)
        .map(|canceller| {
            let cache = cache.clone();
            tokio::spawn(async move {
                for call in 0..each {
                    let key = format!("k{}", call % 64);
                    let own = format!("w{canceller}:{}", call % 16);
                    match call % 7 {
                        0 => cancelled(cache.get::<String>(&key)).await,
                        1 => cancelled(async { cache.set(&own, value(&own), MINUTE).await }).await,
                        2 => cancelled(cache.delete(&own)).await,
                        3 => cancelled(cache.get_many::<String>(&[&key, &own])).await,
                        4 => cancelled(cache.exists(&key)).await,
                        5 => cancelled(cache.ttl(&key)).await,
                        _ => {
                            let loaded = value(&own);
                            let load = move || async move { Ok::<_, Infallible>(loaded) };
                            cancelled(async { cache.get_or_load(&own, load).await }).await;
                        }
                    }
                }
            })
        })
        .collect();
    for canceller in cancellers {
        canceller.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let (mut reads, mut wrong) = (0, 0);
    for reader in readers {
        let (of_one, wrong_of_one) = reader.await.unwrap();
        reads += of_one;
        wrong += wrong_of_one;
    }
    for writer in 0..4 {
        for i in 0..16 {
            let key = format!("w{writer}:{i}");
            let found = cache.get::<String>(&key).await.unwrap();
            wrong += u64::from(found.is_some_and(|found| *found != value(&key)));
        }
    }
    let mut row = FaultRow::new("DS-38", &format!("{} commands cancelled at random", each * 4));
    row.holds("reads of 64 readers meanwhile", "≥ 1000", reads, reads >= 1000);
    row.count("wrong answers", 0, wrong);
    row.count("invalidations that stay pending", 0, {
        soon("pending", ms(3000), async || cache.stats().pending_invalidations == 0).await;
        cache.stats().pending_invalidations
    });
    row.report();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_26_the_last_waiter_goes() {
    measured(async || {
        let rig = Rig::start().await;
        let mut row = FaultRow::new("FM-26", "the only caller of a load goes away (store: Redis)");
        let connections = rig.server.info("connected_clients");
        for i in 0..50 {
            let cache = rig.cache.clone();
            let begun = rig.cache.stats().loads;
            let caller = tokio::spawn(async move { load(&cache, &format!("k{i}")).await });
            pause(ms(1)).await;
            // Some go at any moment, and half when their load has begun.
            if i % 2 == 0 {
                let begins = async || rig.cache.stats().loads > begun || caller.is_finished();
                soon("begun", ms(10_000), begins).await;
            }
            caller.abort();
        }
        let stored = async || {
            let keys: Vec<String> = (0..50).map(|i| format!("k{i}")).collect();
            let mut there = 0;
            for key in &keys {
                there += u64::from(rig.cache.exists(key).await.is_ok_and(|there| there));
            }
            there
        };
        let enough = async || stored().await >= 25;
        let _ = tokio::time::timeout(ms(10_000), soon("stored", ms(20_000), enough)).await;
        let there = stored().await;
        // A caller that was aborted before it began has started no load.
        row.holds("loads that went on and were stored", "≥ 25 of 50", there, there >= 25);
        let more = rig.server.info("connected_clients") - connections;
        row.count("connections left over", 0, u64::try_from(more.max(0)).unwrap());
        let leases = || rig.server.command(&["KEYS", "*:l"]).array().len() as u64;
        let _ =
            tokio::time::timeout(ms(1000), soon("leases", ms(2000), async || leases() == 0)).await;
        let leases = leases();
        row.count("leases left over", 0, leases);
        row
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_27_waiters_are_cancelled_while_redis_hangs() {
    measured(async || {
        let rig = Rig::start().await;
        let mut row = FaultRow::new("FM-27", "half of 100 waiters go while Redis hangs");
        rig.proxy.set(Fault::Stall);
        let before = tasks();
        let waiters: Vec<_> = (0..100)
            .map(|_| {
                let cache = rig.cache.clone();
                tokio::spawn(async move {
                    let watch = Stopwatch::start();
                    (load(&cache, "k").await.0, watch.elapsed())
                })
            })
            .collect();
        pause(ms(20)).await;
        let watch = Stopwatch::start();
        for waiter in waiters.iter().step_by(2) {
            waiter.abort();
        }
        let (mut failed, mut longest) = (0, Duration::ZERO);
        for (place, waiter) in waiters.into_iter().enumerate() {
            match waiter.await {
                Ok((good, took)) => {
                    failed += u64::from(!good);
                    longest = longest.max(took);
                }
                Err(_) if place == 0 => {
                    row.at_most("a cancelled waiter ends", ms(10), watch.elapsed());
                }
                Err(_) => {}
            }
        }
        row.count("others that saw an error", 0, failed);
        row.at_most("others, longest", LOADER + ms(300), longest);
        let _ = tokio::time::timeout(ms(2000), soon("tasks", ms(5000), async || tasks() <= before))
            .await;
        row.count("tasks left over", 0, tasks().saturating_sub(before) as u64);
        row
    })
    .await;
}

#[test]
fn fm_31_the_runtime_ends_during_loads() {
    let mut row = FaultRow::new("FM-31", "a runtime ends with 100 loads under way (store: Redis)");
    let server = RedisServer::start();
    for (what, stalled) in [("Redis answers", false), ("Redis hangs", true)] {
        let proxy = FaultProxy::to(server.port());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let cache = runtime.block_on(connect(proxy.port()));
        if stalled {
            proxy.set(Fault::Stall);
        }
        for i in 0..100 {
            let cache = cache.clone();
            runtime.spawn(async move {
                let load = || std::future::pending::<Result<u64, Infallible>>();
                cache.get_or_load(&format!("k{}", i % 10), load).await
            });
        }
        runtime.block_on(pause(ms(50)));
        let (ended, end) = std::sync::mpsc::channel();
        let watch = Stopwatch::start();
        std::thread::spawn(move || {
            drop(runtime);
            ended.send(()).unwrap();
        });
        let result = end.recv_timeout(Duration::from_secs(5));
        let took = watch.elapsed();
        row.holds(what, "ends", if result.is_ok() { "ends" } else { "hangs" }, result.is_ok());
        row.at_most(&format!("{what}, the end"), ms(5000), took);
        let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (good, own) = other.block_on(load(&cache, "k0"));
        row.holds("get_or_load in another runtime", "ok", good, good);
        row.at_most("get_or_load in another runtime, over the loader", ms(300), own);
    }
    row.report();
}
