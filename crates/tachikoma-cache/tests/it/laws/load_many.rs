//! Several keys in one load: each under its own flight, one lookup and one call of the loader.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tachikoma_cache::{Cache, Hit, LoadError, Source};
use tokio::sync::Notify;

use super::{MINUTE, ms};
use crate::bench::Bench;

type Calls = Arc<Mutex<Vec<Vec<String>>>>;

/// A source that knows the length of each key but of those that begin with `no`.
async fn lengths(
    calls: Calls,
    missing: Vec<String>,
) -> Result<HashMap<String, usize>, &'static str> {
    calls.lock().unwrap().push(missing.clone());
    tokio::task::yield_now().await;
    let known = missing.into_iter().filter(|key| !key.starts_with("no"));
    Ok(known.map(|key| (key.clone(), key.len())).collect())
}

async fn load(
    cache: &Cache,
    calls: &Calls,
    keys: &[&str],
) -> Result<Vec<Option<Hit<usize>>>, LoadError<&'static str>> {
    let calls = Arc::clone(calls);
    let keys = keys.iter().copied();
    cache.get_or_load_many(keys, |missing| lengths(calls, missing)).ttl(MINUTE).tags(["t"]).await
}

fn values(hits: &[Option<Hit<usize>>]) -> Vec<Option<usize>> {
    hits.iter().map(|hit| hit.as_deref().copied()).collect()
}

fn sorted(calls: &Calls) -> Vec<Vec<String>> {
    let mut calls = calls.lock().unwrap().clone();
    for keys in &mut calls {
        keys.sort_unstable();
    }
    calls
}

async fn all_stored(b: &Bench, keys: &'static [&'static str]) {
    super::flight::settled(b, |b| {
        Box::pin(async move {
            b.cache.get_many::<usize>(keys).await.unwrap().iter().all(Option::is_some)
        })
    })
    .await;
}

/// Waits until so many callers wait for the loads of others.
async fn joined(b: &Bench, callers: u64) {
    while b.cache.stats().coalesced < callers {
        tokio::task::yield_now().await;
    }
}

/// A load of some keys that ends when told, and tells when it began.
struct Held {
    began: Arc<Notify>,
    go: Arc<Notify>,
    task: tokio::task::JoinHandle<Result<Vec<Option<usize>>, LoadError<&'static str>>>,
}

fn hold(cache: &Cache, keys: &'static [&'static str], fails: bool) -> Held {
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (cache, tell, wait) = (cache.clone(), Arc::clone(&began), Arc::clone(&go));
    let task = tokio::spawn(async move {
        let load = move |missing: Vec<String>| async move {
            tell.notify_one();
            wait.notified().await;
            if fails {
                return Err("no");
            }
            Ok(missing.into_iter().map(|key| (key.clone(), key.len())))
        };
        let hits = cache.get_or_load_many(keys.iter().copied(), load).ttl(MINUTE).await?;
        Ok(values(&hits))
    });
    Held { began, go, task }
}

laws! {
    async fn one_call_loads_what_is_missing_and_answers_stand_in_order(b) {
        let calls = Calls::default();
        b.cache.set("four", 4_usize, MINUTE).await.unwrap();
        let keys = ["three", "four", "none", "three", "seven", ""];
        let hits = load(&b.cache, &calls, &keys).await.unwrap();
        assert_eq!(values(&hits), [Some(5), Some(4), None, Some(5), Some(5), Some(0)]);
        assert_eq!(sorted(&calls), [["", "none", "seven", "three"]]);
        let sources: Vec<_> = hits.iter().flatten().map(Hit::source).collect();
        assert_eq!(sources[..2], [Source::Loaded, Source::Hit]);
        let stats = b.cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.loads), (1, 4, 1), "each key once");
        all_stored(&b, &["three", "seven", "", "four"]).await;
        // The second time only what was not found is asked for.
        let again = load(&b.cache, &calls, &keys).await.unwrap();
        assert_eq!(values(&again), values(&hits));
        assert_eq!(sorted(&calls)[1..], [["none"]]);
        b.cache.invalidate_tag("t").await.unwrap();
        assert!(b.cache.get::<usize>("three").await.unwrap().is_none(), "it had its tag");
        assert!(b.cache.get::<usize>("four").await.unwrap().is_some());
    }

    async fn no_keys_and_known_keys_call_no_loader(b) {
        let calls = Calls::default();
        assert!(load(&b.cache, &calls, &[]).await.unwrap().is_empty());
        b.cache.set("four", 4_usize, MINUTE).await.unwrap();
        assert_eq!(values(&load(&b.cache, &calls, &["four", "four"]).await.unwrap()), [Some(4); 2]);
        assert!(calls.lock().unwrap().is_empty());
    }

    async fn ten_thousand_keys_are_one_load(b) {
        let calls = Calls::default();
        let keys: Vec<String> = (0..10_000).map(|i| format!("k{i}")).collect();
        let some: Vec<&str> = keys.iter().map(String::as_str).collect();
        let hits = load(&b.cache, &calls, &some).await.unwrap();
        assert!(hits.iter().zip(&keys).all(|(hit, key)| *hit.as_ref().unwrap() == key.len()));
        assert_eq!(calls.lock().unwrap().len(), 1);
        super::flight::settled(&b, |b| Box::pin(async move {
            let some: Vec<String> = (0..100).map(|i| format!("k{}", i * 101)).collect();
            b.cache.get_many::<usize>(&some).await.unwrap().iter().all(Option::is_some)
        })).await;
        load(&b.cache, &calls, &some).await.unwrap();
        assert_eq!(calls.lock().unwrap().len(), 1, "all are stored");
    }

    async fn who_asks_for_one_of_the_keys_waits_for_the_load_of_many(b) {
        let held = hold(&b.cache, &["a", "bb"], false);
        held.began.notified().await;
        let cache = b.cache.clone();
        let single = tokio::spawn(async move {
            let hit = cache.get_or_load("bb", || async { Err::<usize, _>("called") }).await;
            hit.map(|hit| (*hit, hit.source()))
        });
        joined(&b, 1).await;
        held.go.notify_one();
        assert_eq!(held.task.await.unwrap().unwrap(), [Some(1), Some(2)]);
        assert_eq!(single.await.unwrap().unwrap().0, 2);
        assert_eq!(b.cache.stats().loads, 1);
    }

    async fn what_others_are_loading_is_waited_for(b) {
        let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (cache, tell, wait) = (b.cache.clone(), Arc::clone(&began), Arc::clone(&go));
        let single = tokio::spawn(async move {
            let load = move || async move {
                tell.notify_one();
                wait.notified().await;
                Ok::<usize, &str>(99)
            };
            *cache.get_or_load("bb", load).ttl(MINUTE).await.unwrap()
        });
        began.notified().await;
        let (calls, cache) = (Calls::default(), b.cache.clone());
        let counted = Arc::clone(&calls);
        let many = tokio::spawn(async move {
            values(&load(&cache, &counted, &["a", "bb", "ccc"]).await.unwrap())
        });
        super::flight::settled(&b, |b| Box::pin(async move { b.cache.stats().loads == 2 })).await;
        go.notify_one();
        assert_eq!(single.await.unwrap(), 99);
        assert_eq!(many.await.unwrap(), [Some(1), Some(99), Some(3)]);
        assert_eq!(sorted(&calls), [["a", "ccc"]]);
    }

    async fn who_must_have_a_value_loads_what_the_load_of_many_did_not_find(b) {
        let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (cache, tell, wait) = (b.cache.clone(), Arc::clone(&began), Arc::clone(&go));
        let many = tokio::spawn(async move {
            let load = move |_| async move {
                tell.notify_one();
                wait.notified().await;
                Ok::<_, Infallible>(Vec::<(String, usize)>::new())
            };
            cache.get_or_load_many(["a", "b"], load).await.unwrap().iter().flatten().count()
        });
        began.notified().await;
        let cache = b.cache.clone();
        let single = tokio::spawn(async move {
            *cache.get_or_load("a", || async { Ok::<usize, Infallible>(7) }).await.unwrap()
        });
        joined(&b, 1).await;
        go.notify_one();
        assert_eq!((many.await.unwrap(), single.await.unwrap()), (0, 7));
    }

    async fn two_batches_in_opposite_order_do_not_wait_for_each_other(b) {
        let runs = Arc::new(AtomicU32::new(0));
        let keys: Vec<String> = (0..50).map(|i| format!("k{i}")).collect();
        let tasks: Vec<_> = (0..20)
            .map(|i| {
                let (cache, runs, mut keys) = (b.cache.clone(), Arc::clone(&runs), keys.clone());
                if i % 2 == 0 {
                    keys.reverse();
                }
                keys.rotate_left(i);
                tokio::spawn(async move {
                    let load = move |missing: Vec<String>| async move {
                        let count = u32::try_from(missing.len()).unwrap();
                        runs.fetch_add(count, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        Ok::<_, Infallible>(missing.into_iter().map(|key| (key, 1_u8)))
                    };
                    let hits = cache.get_or_load_many(keys, load).ttl(MINUTE).await.unwrap();
                    assert!(hits.iter().all(Option::is_some));
                })
            })
            .collect();
        for task in tasks {
            tokio::time::timeout(std::time::Duration::from_secs(20), task)
                .await
                .expect("no deadlock")
                .unwrap();
        }
        assert_eq!(runs.load(Ordering::SeqCst), 50, "each key once");
    }

    async fn an_error_a_panic_and_a_timeout_reach_all_who_wait(b) {
        let held = hold(&b.cache, &["a", "b"], true);
        held.began.notified().await;
        let cache = b.cache.clone();
        let single = tokio::spawn(async move {
            cache.get_or_load("b", || async { Ok::<usize, &str>(1) }).await.map(|hit| *hit)
        });
        joined(&b, 1).await;
        held.go.notify_one();
        assert!(matches!(held.task.await.unwrap(), Err(LoadError::Source(e)) if *e == "no"));
        assert!(matches!(single.await.unwrap(), Err(LoadError::Source(e)) if *e == "no"));
        let one = || Ok::<_, ()>([("a".to_owned(), 1_u8)]);
        let panics = move |_| async move { if true { panic!("as the test wants") } else { one() } };
        let panicked = b.cache.get_or_load_many(["a", "b"], panics).await;
        assert!(matches!(panicked, Err(LoadError::Panicked)));
        let cache = b.cache.clone();
        let loads = b.cache.stats().loads;
        let slow = tokio::spawn(async move {
            let load = |_| async { std::future::pending::<Result<Vec<(String, u8)>, ()>>().await };
            cache.get_or_load_many(["a", "b"], load).await.map(|hits| hits.len())
        });
        while b.cache.stats().loads == loads {
            tokio::task::yield_now().await;
        }
        // The load's own limit, not yet that of those who wait for it.
        b.clock.advance(ms(30_000));
        assert!(matches!(slow.await.unwrap(), Err(LoadError::TimedOut)));
        let fine = b.cache.get_or_load_many(["a"], move |_| async move { one() });
        assert_eq!(*fine.await.unwrap()[0].clone().unwrap(), 1);
    }

    async fn a_caller_that_leaves_takes_nobody_along(b) {
        let held = hold(&b.cache, &["a", "bb"], false);
        held.began.notified().await;
        let cache = b.cache.clone();
        let waiter = tokio::spawn(async move {
            let load = |_| async { Err::<Vec<(String, usize)>, _>("called") };
            let hits = cache.get_or_load_many(["bb", "a"], load).await;
            hits.map(|hits| values(&hits))
        });
        joined(&b, 2).await;
        held.task.abort();
        held.go.notify_one();
        assert_eq!(waiter.await.unwrap().unwrap(), [Some(2), Some(1)]);
        all_stored(&b, &["a", "bb"]).await;
    }

    async fn a_loader_that_asks_for_one_of_its_keys_is_told(b) {
        let inside = b.cache.clone();
        let load = move |missing: Vec<String>| async move {
            for key in ["a", "b"] {
                let again = inside.get_or_load(key, || async { Ok::<u8, ()>(1) }).await;
                assert!(matches!(again, Err(LoadError::Reentrant)), "{again:?}");
            }
            let many = |_| async { Ok::<_, ()>(Vec::<(String, u8)>::new()) };
            let again = inside.get_or_load_many(["c", "b"], many).await;
            assert!(matches!(again, Err(LoadError::Reentrant)), "{again:?}");
            let other = inside.get_or_load("c", || async { Ok::<u8, ()>(3) }).await.unwrap();
            Ok::<_, ()>(missing.into_iter().map(move |key| (key, *other)))
        };
        let hits = b.cache.get_or_load_many(["a", "b"], load).await.unwrap();
        assert!(hits.iter().flatten().all(|hit| *hit == 3));
    }

    // 37
    async fn what_was_invalidated_meanwhile_is_not_stored(b) {
        let held = hold(&b.cache, &["a", "bb"], false);
        held.began.notified().await;
        b.cache.delete("a").await.unwrap();
        held.go.notify_one();
        assert_eq!(held.task.await.unwrap().unwrap(), [Some(1), Some(2)]);
        // Counted when the store has answered for the whole batch: by then "a" would be there.
        super::flight::settled(&b, |b| Box::pin(async move {
            b.cache.stats().refused_fills > 0
        })).await;
        all_stored(&b, &["bb"]).await;
        assert!(!b.cache.exists("a").await.unwrap());
        assert_eq!(b.cache.stats().refused_fills, 1);
    }

    async fn names_that_are_no_keys_are_loaded_all_the_same(b) {
        let long = "k".repeat(5000);
        let calls = Calls::default();
        for _ in 0..2 {
            let hits = load(&b.cache, &calls, &["a", &long]).await.unwrap();
            assert_eq!(values(&hits), [Some(1), Some(5000)]);
            all_stored(&b, &["a"]).await;
        }
        assert_eq!(sorted(&calls)[1..], [[long]]);
    }

    async fn that_there_is_nothing_is_stored_if_asked_for(b) {
        let calls = Calls::default();
        let ask = async || {
            let calls = Arc::clone(&calls);
            let load = b.cache.get_or_load_many(["none", "one"], |missing| lengths(calls, missing));
            values(&load.ttl(MINUTE).negative_ttl(ms(1000)).await.unwrap())
        };
        assert_eq!(ask().await, [None, Some(3)]);
        all_stored(&b, &["one"]).await;
        super::flight::settled(&b, |b| Box::pin(async move {
            b.cache.entry_info("none").await.unwrap().is_some_and(|info| info.negative)
        })).await;
        assert_eq!(b.cache.keys().await.unwrap().keys, ["one"], "it is no value");
        assert_eq!(ask().await, [None, Some(3)]);
        assert_eq!(calls.lock().unwrap().len(), 1);
        b.advance(1000);
        assert_eq!(ask().await, [None, Some(3)]);
        assert_eq!(sorted(&calls)[1..], [["none"]]);
    }

    async fn stale_values_are_served_and_renewed_by_one_call(b) {
        let calls = Calls::default();
        let ask = async |keys: &'static [&'static str]| {
            let calls = Arc::clone(&calls);
            let keys = keys.iter().copied();
            let load = b.cache.get_or_load_many(keys, |missing| lengths(calls, missing));
            let hits = load.ttl(ms(1000)).stale_while_revalidate(MINUTE).await.unwrap();
            hits.iter().flatten().map(Hit::source).collect::<Vec<_>>()
        };
        assert_eq!(ask(&["a", "b"]).await, [Source::Loaded; 2]);
        all_stored(&b, &["a", "b"]).await;
        b.advance(1500);
        assert_eq!(ask(&["a", "b", "c"]).await, [Source::Stale, Source::Stale, Source::Loaded]);
        all_stored(&b, &["a", "b", "c"]).await;
        let mut calls = sorted(&calls);
        calls.sort();
        assert_eq!(calls, [vec!["a", "b"], vec!["a", "b"], vec!["c"]]);
    }

    async fn a_stale_value_is_served_where_the_load_fails(b) {
        let ask = async |result: Result<usize, &'static str>| {
            let load = move |missing: Vec<String>| async move {
                result.map(|value| missing.into_iter().map(move |key| (key, value)))
            };
            let load = b.cache.get_or_load_many(["a", "b"], load).ttl(ms(1000));
            load.stale_if_error(MINUTE).await.map(|hits| values(&hits))
        };
        assert_eq!(ask(Ok(1)).await.unwrap(), [Some(1); 2]);
        all_stored(&b, &["a", "b"]).await;
        b.advance(2000);
        assert_eq!(ask(Err("no")).await.unwrap(), [Some(1); 2]);
        b.cache.delete("b").await.unwrap();
        assert!(ask(Err("no")).await.is_err(), "there is nothing for b");
    }

    async fn a_stale_value_is_served_where_the_load_of_somebody_else_takes_too_long(b) {
        let one = |keys: Vec<String>| async move {
            Ok::<_, &'static str>(keys.into_iter().map(|key| (key, 1_usize)))
        };
        let first = b.cache.get_or_load_many(["a", "bb"], one).ttl(ms(1000));
        first.stale_if_error(1440 * MINUTE).await.unwrap();
        all_stored(&b, &["a", "bb"]).await;
        b.advance(2000);
        // Without stale values: it holds both flights for as long as it likes.
        let held = hold(&b.cache, &["a", "bb"], false);
        held.began.notified().await;
        let cache = b.cache.clone();
        let ask = tokio::spawn(async move {
            let load = cache.get_or_load_many(["a", "bb"], one).stale_if_error(1440 * MINUTE);
            load.load_timeout(ms(100)).await.map(|hits| values(&hits))
        });
        joined(&b, 2).await;
        // Its own limit passes by the clock of the test.
        while !ask.is_finished() {
            b.advance(1000);
            std::thread::sleep(ms(1));
            tokio::task::yield_now().await;
        }
        assert_eq!(ask.await.unwrap().unwrap(), [Some(1); 2]);
        held.go.notify_one();
        drop(held.task.await);
    }
}
