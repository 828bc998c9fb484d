//! Write guards: while one is open, nothing that a load brings is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tachikoma_cache::{Cache, ErrorKind, Source};
use tokio::sync::Notify;

use super::flight::settled;
use super::{MINUTE, ms};
use crate::bench::Bench;

/// Loads what the source has now.
async fn load(cache: &Cache, source: &Arc<AtomicU32>) -> (u32, Source) {
    let source = Arc::clone(source);
    let load = move || async move { Ok::<_, ()>(source.load(Ordering::SeqCst)) };
    let hit = cache.get_or_load("k", load).ttl(MINUTE).await.unwrap();
    (*hit, hit.source())
}

fn source() -> Arc<AtomicU32> {
    Arc::new(AtomicU32::new(1))
}

/// A load in the background does not end before its value was stored or refused.
async fn stored(b: &Bench) {
    settled(b, |b| Box::pin(async { b.cache.exists("k").await.unwrap() })).await;
}

laws! {
    async fn while_a_guard_is_open_everybody_gets_what_the_source_has(b) {
        let source = source();
        assert_eq!(load(&b.cache, &source).await, (1, Source::Loaded));
        stored(&b).await;
        let guard = b.cache.write_guard(["k"]).await.unwrap();
        assert!(guard.is_held());
        for value in 2..5 {
            source.store(value, Ordering::SeqCst);
            assert_eq!(load(&b.cache, &source).await, (value, Source::Loaded));
            assert!(!b.cache.exists("k").await.unwrap());
        }
        assert_eq!(guard.commit().await.unwrap(), 0);
        assert_eq!(load(&b.cache, &source).await, (4, Source::Loaded));
        stored(&b).await;
        source.store(5, Ordering::SeqCst);
        assert!(matches!(load(&b.cache, &source).await, (4, Source::Hit | Source::Coalesced)));
    }

    async fn a_load_that_began_before_a_guard_or_during_it_stores_nothing_after_it(b) {
        for during in [false, true] {
            let guard = if during { Some(b.cache.write_guard(["k"]).await.unwrap()) } else { None };
            let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let slow = {
                let (cache, began, go) = (b.cache.clone(), Arc::clone(&began), Arc::clone(&go));
                tokio::spawn(async move {
                    let load = move || async move {
                        began.notify_one();
                        go.notified().await;
                        Ok::<u32, ()>(1)
                    };
                    *cache.get_or_load("k", load).ttl(MINUTE).await.unwrap()
                })
            };
            began.notified().await;
            let guard = match guard {
                Some(guard) => guard,
                None => b.cache.write_guard(["k"]).await.unwrap(),
            };
            guard.commit().await.unwrap();
            go.notify_one();
            assert_eq!(slow.await.unwrap(), 1, "its caller came before the end of the write");
            let source = Arc::new(AtomicU32::new(2));
            assert_eq!(load(&b.cache, &source).await.0, 2);
            b.cache.delete("k").await.unwrap();
        }
    }

    async fn what_a_guard_publishes_is_stored_if_no_other_guard_overlapped(b) {
        let source = source();
        let mut guard = b.cache.write_guard(["k", "other"]).await.unwrap();
        guard.publish("k", 7_u32, MINUTE).unwrap();
        assert!(b.cache.get::<u32>("k").await.unwrap().is_none(), "not before its end");
        assert_eq!(guard.commit().await.unwrap(), 1);
        assert_eq!(*b.cache.get::<u32>("k").await.unwrap().unwrap(), 7);

        let mut first = b.cache.write_guard(["k"]).await.unwrap();
        let mut second = b.cache.write_guard(["k"]).await.unwrap();
        first.publish("k", 8_u32, MINUTE).unwrap();
        second.publish("k", 9_u32, MINUTE).unwrap();
        assert_eq!(first.commit().await.unwrap(), 0);
        assert_eq!(load(&b.cache, &source).await.0, 1);
        assert!(!b.cache.exists("k").await.unwrap(), "the second one is still open");
        assert_eq!(second.commit().await.unwrap(), 0);
        assert!(!b.cache.exists("k").await.unwrap());
        // All of them have ended: the next one is alone again.
        let mut third = b.cache.write_guard(["k"]).await.unwrap();
        third.publish("k", 10_u32, MINUTE).unwrap();
        assert_eq!(third.commit().await.unwrap(), 1);
    }

    async fn a_guard_that_is_dropped_removes_its_keys_and_lets_loads_store_again(b) {
        let source = source();
        let guard = b.cache.write_guard(["k"]).await.unwrap();
        b.cache.set("k", 3_u32, MINUTE).await.unwrap();
        drop(guard);
        settled(&b, |b| Box::pin(async { !b.cache.exists("k").await.unwrap() })).await;
        for _ in 0..30_000 {
            load(&b.cache, &source).await;
            if b.cache.exists("k").await.unwrap() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("nothing is stored any more");
    }

    async fn a_deletion_while_a_guard_is_open_does_not_end_it(b) {
        let source = source();
        let guard = b.cache.write_guard(["k"]).await.unwrap();
        b.cache.delete("k").await.unwrap();
        load(&b.cache, &source).await;
        assert!(!b.cache.exists("k").await.unwrap());
        drop(b.cache.write_guard(["k"]).await.unwrap());
        load(&b.cache, &source).await;
        assert!(!b.cache.exists("k").await.unwrap(), "the first one is still open");
        guard.commit().await.unwrap();
    }

    async fn a_guard_publishes_nothing_over_a_removal_or_a_write_that_came_after_its_beginning(b) {
        for how in ["delete", "pattern", "clear", "set", "set_if_absent"] {
            let mut guard = b.cache.write_guard(["k"]).await.unwrap();
            guard.publish("k", 1_u32, MINUTE).unwrap();
            match how {
                "delete" => drop(b.cache.delete("k").await.unwrap()),
                "pattern" => {
                    let pattern = tachikoma_cache::Pattern::raw("k*").unwrap();
                    b.cache.delete_pattern(&pattern).await.unwrap();
                }
                "clear" => drop(b.cache.clear().await.unwrap()),
                "set" => b.cache.set("k", 2_u32, MINUTE).await.unwrap(),
                _ => assert!(b.cache.set_if_absent("k", 2_u32, MINUTE).await.unwrap()),
            }
            assert_eq!(guard.commit().await.unwrap(), 0, "after {how}");
            assert!(!b.cache.exists("k").await.unwrap(), "after {how}");
        }
    }

    async fn a_tag_that_is_invalidated_after_a_guard_began_takes_what_it_publishes(b) {
        let mut guard = b.cache.write_guard(["k", "l"]).await.unwrap();
        guard.publish_tagged("k", 1_u32, MINUTE, ["t"]).unwrap();
        guard.publish_tagged("l", 1_u32, MINUTE, ["u"]).unwrap();
        b.cache.invalidate_tag("t").await.unwrap();
        guard.commit().await.unwrap();
        assert!(b.cache.get::<u32>("k").await.unwrap().is_none());
        assert_eq!(*b.cache.get::<u32>("l").await.unwrap().unwrap(), 1);
    }

    async fn many_keys_are_loaded_beside_a_guard(b) {
        let guard = b.cache.write_guard(["k"]).await.unwrap();
        for calls in 1..3 {
            let load = |keys: Vec<String>| async move {
                Ok::<_, ()>(keys.into_iter().map(|key| (key, 1_u32)))
            };
            let hits = b.cache.get_or_load_many(["k", "l"], load).ttl(MINUTE).await.unwrap();
            assert!(hits.iter().all(Option::is_some));
            settled(&b, |b| Box::pin(async { b.cache.exists("l").await.unwrap() })).await;
            assert!(!b.cache.exists("k").await.unwrap());
            assert_eq!(b.cache.stats().loads, calls);
        }
        guard.commit().await.unwrap();
    }

    async fn what_a_guard_does_not_take_is_named(b) {
        let kind = async |keys: &[&str], millis: u64| {
            let guard = b.cache.write_guard(keys.iter().copied()).at_most(ms(millis)).await;
            let error = guard.unwrap_err();
            (error.kind(), error.to_string())
        };
        let (none, text) = kind(&[], 5000).await;
        assert!(none == ErrorKind::InvalidKey && text.contains("1 to 1000"), "{text}");
        let (long, text) = kind(&["k", &"k".repeat(5000)], 5000).await;
        assert!(long == ErrorKind::InvalidKey, "{text}");
        for millis in [0, 999, 600_001] {
            let (config, text) = kind(&["k"], millis).await;
            assert!(config == ErrorKind::Config && text.contains("at_most"), "{text}");
        }
        let mut guard = b.cache.write_guard(["k", "k"]).await.unwrap();
        let error = guard.publish("other", 1_u32, MINUTE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey, "{error}");
        let error = guard.publish_tagged("k", 1_u32, MINUTE, [""]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidTag, "{error}");
        guard.commit().await.unwrap();
    }
}
