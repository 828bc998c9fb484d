//! Law 9, and faults of the source (FM-20 to FM-31): who gets a stale value, and what it says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tachikoma_cache::{Cache, Guarantee, Hit, LoadError, LoadOptions, Source, StaleReason};
use tokio::sync::Notify;

use super::flight::settled;
use super::{MINUTE, ms};
use crate::bench::Bench;

/// One second fresh, then stale: 10 s for all, 60 s for when the source fails.
fn options() -> LoadOptions {
    LoadOptions::new().ttl(ms(1000)).stale_while_revalidate(ms(10_000)).stale_if_error(MINUTE)
}

async fn load(cache: &Cache, options: LoadOptions, result: Result<u32, &'static str>) -> Got {
    let load = cache.get_or_load("k", move || async move { result }).options(options);
    load.tags(["t"]).await
}

type Got = Result<Hit<u32>, LoadError<&'static str>>;

#[track_caller]
fn check(got: Got, value: u32, guarantee: Guarantee, source: Source) {
    let hit = got.unwrap();
    let found = match hit.guarantee() {
        // What is fresh may have been found in a memory tier.
        Guarantee::Within(_) if source == Source::Hit => Guarantee::Fresh,
        found => found,
    };
    assert_eq!((*hit, found, hit.source()), (value, guarantee, source));
    assert_eq!(hit.is_stale(), source == Source::Stale);
}

#[track_caller]
fn check_stale(got: Got, value: u32, reason: StaleReason, age: u64) {
    check(got, value, Guarantee::Stale { reason, age: ms(age) }, Source::Stale);
}

#[track_caller]
fn check_fails(got: &Got) {
    assert!(matches!(got, Err(LoadError::Source(error)) if **error == "no"), "{got:?}");
}

/// Waits until this value is stored.
async fn stored(b: &Bench, value: u32) {
    for _ in 0..30_000 {
        if b.cache.get::<u32>("k").await.unwrap().is_some_and(|hit| hit == value) {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(ms(1));
    }
    panic!("{value} was not stored within thirty seconds");
}

async fn failed(b: &Bench, loads: u64) {
    for _ in 0..30_000 {
        if b.cache.stats().load_failures == loads {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(ms(1));
    }
    panic!("{} loads failed, not {loads}", b.cache.stats().load_failures);
}

laws! {
    // 9
    async fn a_stale_value_is_for_those_who_accept_it_and_only_within_its_window(b) {
        let plain = LoadOptions::new().ttl(ms(1000));
        load(&b.cache, options(), Ok(1)).await.unwrap();
        stored(&b, 1).await;
        b.advance(1000);
        assert!(b.cache.get::<u32>("k").await.unwrap().is_none(), "a get is only given fresh ones");
        assert!(b.cache.try_get::<u32>("k").is_none());
        assert!(!b.cache.exists("k").await.unwrap());
        check_fails(&load(&b.cache, plain, Err("no")).await);
        b.advance(9999);
        check_stale(load(&b.cache, options(), Err("no")).await, 1, StaleReason::Revalidating, 9999);
        failed(&b, 2).await;
        b.advance(1001);
        check_stale(load(&b.cache, options(), Err("no")).await, 1, StaleReason::LoadFailed, 11_000);
        b.advance(48_998);
        check_stale(load(&b.cache, options(), Err("no")).await, 1, StaleReason::LoadFailed, 59_998);
        b.advance(2);
        check_fails(&load(&b.cache, options(), Err("no")).await);
        let stats = b.cache.stats();
        assert_eq!((stats.stale_hits, stats.load_failures), (3, 5));
    }

    // FM-39
    async fn a_stale_value_is_served_at_once_while_one_load_renews_it(b) {
        load(&b.cache, options(), Ok(1)).await.unwrap();
        stored(&b, 1).await;
        b.advance(5000);
        let (loads, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        for _ in 0..200 {
            let (loads, go) = (Arc::clone(&loads), Arc::clone(&go));
            let load = move || async move {
                loads.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Ok::<u32, &str>(2)
            };
            let got = b.cache.get_or_load("k", load).options(options()).await;
            check_stale(got, 1, StaleReason::Revalidating, 4000);
        }
        settled(&b, |b| Box::pin(async move { b.cache.stats().loads == 2 })).await;
        go.notify_one();
        stored(&b, 2).await;
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        check(load(&b.cache, options(), Ok(3)).await, 2, Guarantee::Fresh, Source::Hit);
        let stats = b.cache.stats();
        assert_eq!((stats.loads, stats.stale_hits), (2, 200));
    }

    // FM-21, FM-22, FM-23
    async fn a_source_that_fails_panics_or_hangs_leaves_the_stale_value(b) {
        let on_error = LoadOptions::new().ttl(ms(1000)).stale_if_error(MINUTE).retry_after(ms(0));
        load(&b.cache, on_error, Ok(1)).await.unwrap();
        stored(&b, 1).await;
        b.advance(2000);
        check_stale(load(&b.cache, on_error, Err("no")).await, 1, StaleReason::LoadFailed, 1000);
        let panics = || async { if true { panic!("so") } else { Ok::<u32, &str>(2) } };
        let got = b.cache.get_or_load("k", panics).options(on_error).await;
        check_stale(got, 1, StaleReason::LoadFailed, 1000);
        let task = {
            let cache = b.cache.clone();
            tokio::spawn(async move {
                let hangs = || async { std::future::pending::<Result<u32, &str>>().await };
                cache.get_or_load("k", hangs).options(on_error).load_timeout(ms(300)).await
            })
        };
        settled(&b, |b| Box::pin(async move { b.cache.stats().loads == 4 })).await;
        // What the loader's timer counts from is the moment in which it was made.
        while !task.is_finished() {
            b.advance(50);
            tokio::task::yield_now().await;
            std::thread::sleep(ms(1));
        }
        let hit = task.await.unwrap().unwrap();
        let reason = StaleReason::LoadFailed;
        assert!(matches!(hit.guarantee(), Guarantee::Stale { reason: it, .. } if it == reason));
        // The source works again: so does the next call.
        check(load(&b.cache, on_error, Ok(5)).await, 5, Guarantee::Fresh, Source::Loaded);
    }

    async fn after_a_failed_load_the_source_is_left_alone_for_a_while(b) {
        let pause = options().retry_after(ms(3000));
        load(&b.cache, pause, Ok(1)).await.unwrap();
        stored(&b, 1).await;
        b.advance(2000);
        check_stale(load(&b.cache, pause, Err("no")).await, 1, StaleReason::Revalidating, 1000);
        failed(&b, 1).await;
        for _ in 0..10 {
            check_stale(load(&b.cache, pause, Ok(2)).await, 1, StaleReason::Throttled, 1000);
        }
        assert_eq!(b.cache.stats().loads, 2);
        // Who does not want the pause, or has no value to be served instead, asks the source.
        let plain = LoadOptions::new().ttl(ms(1000)).stale_if_error(MINUTE);
        let got = load(&b.cache, plain.stale_if_error(ms(1)), Err("no")).await;
        check_fails(&got);
        b.advance(3000);
        check_stale(load(&b.cache, pause, Ok(3)).await, 1, StaleReason::Revalidating, 4000);
        stored(&b, 3).await;
    }

    async fn without_a_value_in_hand_nobody_waits_out_a_pause(b) {
        let pause = options().retry_after(ms(3000));
        check_fails(&load(&b.cache, pause, Err("no")).await);
        check(load(&b.cache, pause, Ok(1)).await, 1, Guarantee::Fresh, Source::Loaded);
        stored(&b, 1).await;
        b.advance(2000);
        check_stale(load(&b.cache, pause, Err("no")).await, 1, StaleReason::Revalidating, 1000);
        failed(&b, 2).await;
        b.cache.delete("k").await.unwrap();
        check(load(&b.cache, pause, Ok(2)).await, 2, Guarantee::Fresh, Source::Loaded);
    }

    // RG-35
    async fn rg_fusioncache_560_a_late_result_wins_over_the_stale_value(b) {
        let soft = LoadOptions::new().ttl(ms(1000)).stale_if_error(MINUTE).soft_timeout(ms(50));
        load(&b.cache, soft, Ok(1)).await.unwrap();
        stored(&b, 1).await;
        b.advance(2000);
        let go = Arc::new(Notify::new());
        for round in 0..3 {
            let (cache, go) = (b.cache.clone(), Arc::clone(&go));
            let task = tokio::spawn(async move {
                let slow = move || async move {
                    go.notified().await;
                    Ok::<u32, &str>(2)
                };
                cache.get_or_load("k", slow).options(soft).await
            });
            settled(&b, |b| Box::pin(async move { b.cache.stats().loads == 2 })).await;
            while !task.is_finished() {
                b.advance(10);
                tokio::task::yield_now().await;
                std::thread::sleep(ms(1));
            }
            let hit = task.await.unwrap().unwrap();
            assert_eq!((*hit, hit.source()), (1, Source::Stale), "round {round}");
            let reason = StaleReason::SoftTimeout;
            assert!(matches!(hit.guarantee(), Guarantee::Stale { reason: it, .. } if it == reason));
        }
        assert_eq!(b.cache.stats().loads, 2, "one load for all who came and went");
        go.notify_one();
        stored(&b, 2).await;
        check(load(&b.cache, soft, Ok(3)).await, 2, Guarantee::Fresh, Source::Hit);
    }

    async fn a_soft_timeout_without_a_value_in_hand_waits_for_the_load(b) {
        let soft = options().soft_timeout(ms(50));
        let (cache, clock) = (b.cache.clone(), b.clock.clone());
        let slow = move || async move {
            clock.advance(ms(500));
            tokio::task::yield_now().await;
            Ok::<u32, &str>(1)
        };
        let got = cache.get_or_load("k", slow).options(soft).await;
        check(got, 1, Guarantee::Fresh, Source::Loaded);
    }

    async fn what_a_tag_made_stale_is_stale_from_then_on_and_what_it_removed_is_gone(b) {
        let wanted = options().ttl(MINUTE).retry_after(ms(0));
        load(&b.cache, wanted, Ok(1)).await.unwrap();
        stored(&b, 1).await;
        b.advance(30_000);
        b.cache.expire_tag("t").await.unwrap();
        check_stale(load(&b.cache, wanted, Err("no")).await, 1, StaleReason::Revalidating, 0);
        failed(&b, 1).await;
        let on_error = wanted.stale_while_revalidate(ms(0));
        check_stale(load(&b.cache, on_error, Err("no")).await, 1, StaleReason::LoadFailed, 0);
        let none = on_error.stale_if_error(ms(0));
        check_fails(&load(&b.cache, none, Err("no")).await);
        b.cache.invalidate_tag("t").await.unwrap();
        check_fails(&load(&b.cache, wanted, Err("no")).await);
        check(load(&b.cache, wanted, Ok(2)).await, 2, Guarantee::Fresh, Source::Loaded);
        stored(&b, 2).await;
        b.advance(60_000);
        b.cache.delete("k").await.unwrap();
        check_fails(&load(&b.cache, wanted, Err("no")).await);
    }

    // FM-30
    async fn a_delete_during_a_refresh_leaves_nothing_older(b) {
        load(&b.cache, options(), Ok(1)).await.unwrap();
        stored(&b, 1).await;
        b.advance(5000);
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, told) = (Arc::clone(&go), Arc::clone(&done));
        let slow = move || async move {
            wait.notified().await;
            told.notify_one();
            Ok::<u32, &str>(2)
        };
        let got = b.cache.get_or_load("k", slow).options(options()).await;
        check_stale(got, 1, StaleReason::Revalidating, 4000);
        settled(&b, |b| Box::pin(async move { b.cache.stats().loads == 2 })).await;
        b.cache.delete("k").await.unwrap();
        go.notify_one();
        done.notified().await;
        settled(&b, |b| Box::pin(async move { b.cache.stats().refused_fills == 1 })).await;
        assert!(b.cache.get::<u32>("k").await.unwrap().is_none());
        check(load(&b.cache, options(), Ok(3)).await, 3, Guarantee::Fresh, Source::Loaded);
    }

    async fn the_windows_of_the_cache_also_keep_what_is_set(b) {
        let cache = &b.with(|builder| builder.load_options(options()));
        cache.set("k", 1_u32, ms(1000)).await.unwrap();
        b.advance(31_000);
        assert!(cache.get::<u32>("k").await.unwrap().is_none());
        let got = load(cache, cache.load_options(), Err("no")).await;
        check_stale(got, 1, StaleReason::LoadFailed, 30_000);
        assert!(!cache.touch("k", ms(1000)).await.unwrap(), "a stale value cannot be touched");
        cache.set("k", 2_u32, ms(1000)).await.unwrap();
        assert!(cache.touch("k", ms(5000)).await.unwrap());
        b.advance(64_999);
        let got = load(cache, cache.load_options(), Err("no")).await;
        check_stale(got, 2, StaleReason::LoadFailed, 59_999);
    }

    async fn many_refreshes_of_failing_sources_end_and_leave_no_load_behind(b) {
        let each = options().retry_after(Duration::ZERO);
        load(&b.cache, each, Ok(1)).await.unwrap();
        stored(&b, 1).await;
        b.advance(2000);
        let tasks: Vec<_> = (0..100).map(|i| {
            let cache = b.cache.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    if i % 2 == 0 {
                        load(&cache, each, Err("no")).await.unwrap();
                    } else {
                        let panics =
                            || async { if true { panic!("so") } else { Ok::<u32, &str>(2) } };
                        cache.get_or_load("k", panics).options(each).await.unwrap();
                    }
                    tokio::task::yield_now().await;
                }
            })
        }).collect();
        for task in tasks {
            task.await.unwrap();
        }
        check_stale(load(&b.cache, each, Err("no")).await, 1, StaleReason::Revalidating, 1000);
    }
}
