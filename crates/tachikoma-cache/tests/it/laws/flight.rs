//! Laws 34 to 38: who loads, who waits, and what a load may store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tachikoma_cache::{Cache, LoadError, Pattern, Source};
use tokio::sync::{Notify, oneshot};

use super::MINUTE;
use crate::bench::Bench;

/// Waits until something that a load does after its answer is done.
pub(super) async fn settled<F>(bench: &Bench, done: F)
where
    F: for<'a> Fn(&'a Bench) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>,
{
    // Thirty seconds or more: a starved machine is slow, not wrong.
    for _ in 0..30_000 {
        if done(bench).await {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it did not happen within thirty seconds");
}

type Task = tokio::task::JoinHandle<Result<(u32, Source), LoadError<()>>>;

/// A loader that tells when it began and ends when told.
struct Gate {
    began: oneshot::Receiver<()>,
    go: Arc<Notify>,
}

fn gated(cache: &Cache, key: &'static str, value: u32) -> (Gate, Task) {
    let (began, has_begun) = oneshot::channel();
    let go = Arc::new(Notify::new());
    let (cache, wait) = (cache.clone(), Arc::clone(&go));
    let task = tokio::spawn(async move {
        let load = move || async move {
            began.send(()).unwrap();
            wait.notified().await;
            Ok::<_, ()>(value)
        };
        let hit = cache.get_or_load(key, load).ttl(MINUTE).tags(["t"]).await?;
        Ok((*hit, hit.source()))
    });
    (Gate { began: has_begun, go }, task)
}

/// Invalidates in a way of its choice while a load is under way.
async fn check_not_stored<F>(b: &Bench, how: &str, invalidate: F)
where
    F: AsyncFnOnce(&Cache),
{
    let (gate, task) = gated(&b.cache, "k", 1);
    gate.began.await.unwrap();
    invalidate(&b.cache).await;
    gate.go.notify_one();
    assert_eq!(
        task.await.unwrap().unwrap(),
        (1, Source::Loaded),
        "{how}: who asked before gets it"
    );
    settled(b, |b| {
        Box::pin(async move {
            b.cache.stats().refused_fills > 0
                || b.cache.stats().errors.total() > 0
                || !b.cache.exists("k").await.unwrap()
        })
    })
    .await;
    let found = b.cache.get::<u32>("k").await.unwrap();
    assert!(found.is_none_or(|value| value != 1), "{how}: the old value is stored");
}

laws! {
    // 34
    async fn many_callers_of_one_key_make_one_load(b) {
        let loads = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let (cache, loads) = (b.cache.clone(), Arc::clone(&loads));
                tokio::spawn(async move {
                    let load = move || async move {
                        loads.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(30));
                        Ok::<_, ()>(7_u32)
                    };
                    *cache.get_or_load("k", load).ttl(MINUTE).await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 7);
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        let stats = b.cache.stats();
        assert_eq!(stats.loads, 1);
        assert_eq!(stats.hits + stats.misses, 200);
    }

    // 35, FM-21
    async fn every_waiter_of_a_failed_load_gets_the_very_error(b) {
        let (began, has_begun) = oneshot::channel();
        let go = Arc::new(Notify::new());
        let (cache, wait) = (b.cache.clone(), Arc::clone(&go));
        let leader = tokio::spawn(async move {
            let load = move || async move {
                began.send(()).unwrap();
                wait.notified().await;
                Err::<u32, _>("the source is gone")
            };
            cache.get_or_load("k", load).await
        });
        has_begun.await.unwrap();
        let waiter = {
            let cache = b.cache.clone();
            tokio::spawn(async move {
                cache.get_or_load("k", || async { Ok::<u32, &str>(9) }).await
            })
        };
        settled(&b, |b| Box::pin(async move { b.cache.stats().coalesced == 1 })).await;
        go.notify_one();
        let errors = [leader.await.unwrap().unwrap_err(), waiter.await.unwrap().unwrap_err()];
        match errors {
            [LoadError::Source(a), LoadError::Source(b)] => assert!(Arc::ptr_eq(&a, &b)),
            other => panic!("{other:?}"),
        }
        // 38: nothing was stored, the next call loads.
        let next = b.cache.get_or_load("k", || async { Ok::<u32, &str>(9) }).await.unwrap();
        assert_eq!(next, 9);
    }

    // FM-22
    async fn a_panic_reaches_all_and_frees_the_key(b) {
        let load = || async { if true { panic!("as the test wants") } else { Ok::<u32, ()>(1) } };
        assert!(matches!(b.cache.get_or_load("k", load).await, Err(LoadError::Panicked)));
        let next = b.cache.get_or_load("k", || async { Ok::<u32, ()>(2) }).await.unwrap();
        assert_eq!(next, 2);
    }

    async fn a_value_whose_serializer_panics_is_returned_and_not_stored(b) {
        /// A type whose own code fails in the worst way.
        #[derive(serde::Deserialize)]
        struct Broken;
        impl serde::Serialize for Broken {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                panic!("as the test wants")
            }
        }
        for _ in 0..2 {
            let hit = b.cache.get_or_load("k", || async { Ok::<_, ()>(Broken) }).await.unwrap();
            assert_eq!(hit.source(), Source::Loaded);
        }
        assert!(!b.cache.exists("k").await.unwrap());
        assert_eq!(b.cache.get_or_load("k", || async { Ok::<_, ()>(1_u8) }).await.unwrap(), 1);
    }

    // FM-23
    async fn a_loader_that_never_returns_ends_at_the_load_timeout(b) {
        let cache = b.cache.clone();
        let task = tokio::spawn(async move {
            let load = || async { std::future::pending::<Result<u32, ()>>().await };
            cache.get_or_load("k", load).await
        });
        settled(&b, |b| Box::pin(async move { b.cache.stats().loads == 1 })).await;
        for _ in 0..100 {
            b.clock.advance(Duration::from_millis(500));
            tokio::task::yield_now().await;
        }
        assert!(matches!(task.await.unwrap(), Err(LoadError::TimedOut)));
    }

    // FM-29
    async fn a_loader_that_asks_for_its_own_key_is_told(b) {
        // The second one is too long to be a key.
        for name in ["k".to_owned(), "k".repeat(5000)] {
            let (inner, same) = (b.cache.clone(), name.clone());
            let load = move || async move {
                let again = inner.get_or_load(&same, || async { Ok::<u32, ()>(1) }).await;
                assert!(matches!(again, Err(LoadError::Reentrant)), "{again:?}");
                Ok::<u32, ()>(2)
            };
            assert_eq!(b.cache.get_or_load(&name, load).await.unwrap(), 2);
        }
    }

    async fn a_circle_of_two_keys_is_found(b) {
        let (one, two, three) = (b.cache.clone(), b.cache.clone(), b.cache.clone());
        let load_a = move || async move {
            let load_b = move || async move {
                let back = three.get_or_load("a", || async { Ok::<u32, ()>(0) }).await;
                assert!(matches!(back, Err(LoadError::Reentrant)), "{back:?}");
                Ok::<u32, ()>(2)
            };
            Ok::<u32, ()>(*two.get_or_load("b", load_b).await.unwrap() + 1)
        };
        assert_eq!(one.get_or_load("a", load_a).await.unwrap(), 3);
    }

    // FM-24
    async fn a_leader_that_leaves_takes_nobody_along(b) {
        let (gate, leader) = gated(&b.cache, "k", 1);
        gate.began.await.unwrap();
        let cache = b.cache.clone();
        let waiter = tokio::spawn(async move {
            *cache.get_or_load("k", || async { Ok::<u32, ()>(2) }).await.unwrap()
        });
        settled(&b, |b| Box::pin(async move { b.cache.stats().coalesced == 1 })).await;
        leader.abort();
        gate.go.notify_one();
        assert_eq!(waiter.await.unwrap(), 1);
        settled(&b, |b| Box::pin(async move {
            b.cache.get::<u32>("k").await.unwrap().is_some_and(|hit| hit == 1)
        })).await;
    }

    // 37, FM-30
    async fn a_value_read_before_an_invalidation_is_not_stored_after_it(b) {
        check_not_stored(&b, "delete", async |cache| {
            assert!(!cache.delete("k").await.unwrap());
        }).await;
        check_not_stored(&b, "tag", async |cache| cache.invalidate_tag("t").await.unwrap()).await;
        check_not_stored(&b, "expire", async |cache| cache.expire_tag("t").await.unwrap()).await;
        check_not_stored(&b, "clear", async |cache| {
            // What the expired tag left is stale, but it is an entry.
            assert_eq!(cache.clear().await.unwrap().total(), 1);
        }).await;
        check_not_stored(&b, "pattern", async |cache| {
            let pattern = Pattern::raw("k*").unwrap();
            assert_eq!(cache.delete_pattern(&pattern).await.unwrap().total(), 0);
        }).await;
        check_not_stored(&b, "set", async |cache| {
            cache.set("k", 2_u32, MINUTE).await.unwrap();
        }).await;
    }

    async fn who_asks_after_an_invalidation_does_not_join_an_older_load(b) {
        let (gate, old) = gated(&b.cache, "k", 1);
        gate.began.await.unwrap();
        b.cache.delete("k").await.unwrap();
        let two = || async { Ok::<u32, ()>(2) };
        let new = b.cache.get_or_load("k", two).ttl(MINUTE).await.unwrap();
        assert_eq!((*new, new.source()), (2, Source::Loaded));
        gate.go.notify_one();
        assert_eq!(old.await.unwrap().unwrap().0, 1);
        settled(&b, |b| Box::pin(async move {
            b.cache.get::<u32>("k").await.unwrap().is_some_and(|hit| hit == 2)
        })).await;
    }

    async fn two_types_of_one_key_load_apart(b) {
        let number = b.cache.get_or_load("k", || async { Ok::<u32, ()>(1) }).await.unwrap();
        let one = || async { Ok::<_, u8>("one".to_owned()) };
        let text = b.cache.get_or_load("k", one).await.unwrap();
        assert_eq!((*number, text.as_str()), (1, "one"));
    }

    async fn the_loader_is_not_called_on_a_hit(b) {
        b.cache.set("k", 1_u32, MINUTE).await.unwrap();
        let hit = b.cache.get_or_load("k", || async { Err::<u32, _>("called") }).await.unwrap();
        assert_eq!((*hit, hit.source()), (1, Source::Hit));
    }

    async fn a_key_that_no_store_can_hold_is_loaded_all_the_same(b) {
        let long = "k".repeat(5000);
        for _ in 0..2 {
            let value = b.cache.get_or_load(&long, || async { Ok::<u32, ()>(1) }).await.unwrap();
            assert_eq!((*value, value.source()), (1, Source::Loaded));
        }
        assert_eq!(b.cache.stats().loads, 2);
    }

    // 36, DS-31
    async fn at_rest_no_load_is_left(b) {
        let tasks: Vec<_> = (0..300_u32)
            .map(|i| {
                let cache = b.cache.clone();
                tokio::spawn(async move {
                    let load = move || async move {
                        tokio::task::yield_now().await;
                        match i % 4 {
                            0 => Err("no"),
                            1 => panic!("as the test wants"),
                            _ => Ok(i),
                        }
                    };
                    let _ = cache.get_or_load(&format!("k{}", i % 40), load).ttl(MINUTE).await;
                })
            })
            .collect();
        for (i, task) in tasks.into_iter().enumerate() {
            if i % 3 == 0 {
                task.abort();
            } else {
                task.await.unwrap();
            }
        }
        settled(&b, |b| Box::pin(async move {
            let stats = b.cache.stats();
            (stats.loads_running, stats.loads_queued) == (0, 0)
        })).await;
        assert!(b.cache.stats().loads > 0);
    }
}
