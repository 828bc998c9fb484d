//! Laws 24 to 29: what a pattern removes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tachikoma_cache::{ErrorKind, Pattern};

use super::MINUTE;

laws! {
    // 24 and 28
    async fn a_pattern_removes_exactly_what_matches_and_counts_it(b) {
        let keys = [
            "user:1", "user:12", "user:2", "superuser:12", "user:", "user", "u[s]er:1", "user:*",
            "user:1:l", "USER:1",
        ];
        for (pattern, expected) in [
            ("user:1*", vec!["user:1", "user:12", "user:1:l"]),
            ("*ser:12", vec!["user:12", "superuser:12"]),
            ("user:?", vec!["user:1", "user:2", "user:*"]),
            ("user:[1-2]", vec!["user:1", "user:2"]),
            ("user:[^1]", vec!["user:2", "user:*"]),
            ("user:\\*", vec!["user:*"]),
            ("user", vec!["user"]),
            ("u*r", vec!["user"]),
            ("{user}*", vec![]),
        ] {
            for key in keys {
                b.cache.set(key, 1_u8, MINUTE).await.unwrap();
            }
            let removed = b.cache.delete_pattern(&Pattern::raw(pattern).unwrap()).await.unwrap();
            assert_eq!(removed.total(), expected.len() as u64, "{pattern}");
            for key in keys {
                let there = b.cache.exists(key).await.unwrap();
                assert_eq!(there, !expected.contains(&key), "{key} after {pattern}");
            }
        }
    }

    // 25
    async fn an_escaped_part_matches_only_itself(b) {
        for part in ["*", "[a]", "?", "\\", "a-z", "^", "{a,b}", "%"] {
            b.cache.set(&format!("user:{part}:x"), 1_u8, MINUTE).await.unwrap();
            b.cache.set("user:a:x", 1_u8, MINUTE).await.unwrap();
            let pattern = Pattern::new().literal("user:").literal(part).literal(":").any();
            assert_eq!(b.cache.delete_pattern(&pattern).await.unwrap().total(), 1, "{part}");
            assert!(b.cache.exists("user:a:x").await.unwrap(), "{part}");
        }
    }

    // 26
    async fn a_pattern_stays_in_its_namespace(b) {
        let tenant = b.cache.namespace("tenant").unwrap();
        for cache in [&b.cache, &tenant] {
            cache.set("user:1", 1_u8, MINUTE).await.unwrap();
        }
        let pattern = Pattern::raw("*ser:*").unwrap();
        assert_eq!(tenant.delete_pattern(&pattern).await.unwrap().total(), 1);
        assert!(b.cache.exists("user:1").await.unwrap());
    }

    // 27 and 28
    async fn keys_that_come_during_a_removal_may_stay_and_no_other_goes(b) {
        const BEFORE: u64 = 5_000;
        let tenant = b.cache.namespace("tenant").unwrap();
        let mut came = 0;
        for _ in 0..3 {
            b.cache.set_many((0..BEFORE).map(|n| (format!("k:{n}"), n)), MINUTE).await.unwrap();
            let written = Arc::new(AtomicU64::new(0));
            let writer = {
                let (cache, tenant, written) =
                    (b.cache.clone(), tenant.clone(), Arc::clone(&written));
                tokio::spawn(async move {
                    // Ends by being aborted, between two rounds.
                    for n in 0_u64.. {
                        cache.set(&format!("other:{n}"), n, MINUTE).await.unwrap();
                        cache.set(&format!("k{n}"), n, MINUTE).await.unwrap();
                        tenant.set(&format!("k:{n}"), n, MINUTE).await.unwrap();
                        cache.set(&format!("k:new{n}"), n, MINUTE).await.unwrap();
                        written.store(n + 1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                    }
                })
            };
            while written.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            let at_first = written.load(Ordering::SeqCst);
            let pattern = Pattern::raw("k:*").unwrap();
            let removed = b.cache.delete_pattern(&pattern).await.unwrap().total();
            let at_last = written.load(Ordering::SeqCst);
            writer.abort();
            assert!(writer.await.unwrap_err().is_cancelled());
            came += at_last - at_first;
            for n in 0..BEFORE {
                assert!(!b.cache.exists(&format!("k:{n}")).await.unwrap(), "k:{n} was there");
            }
            for n in 0..at_first {
                let new = format!("k:new{n}");
                assert!(!b.cache.exists(&new).await.unwrap(), "{new} was there");
            }
            for n in 0..at_last {
                assert!(b.cache.exists(&format!("other:{n}")).await.unwrap(), "other:{n}");
                assert!(b.cache.exists(&format!("k{n}")).await.unwrap(), "k{n}");
                assert!(tenant.exists(&format!("k:{n}")).await.unwrap(), "of the tenant: k:{n}");
            }
            // One more may have been on its way.
            assert!((BEFORE + at_first..=BEFORE + at_last + 1).contains(&removed), "{removed}");
            b.cache.clear().await.unwrap();
            tenant.clear().await.unwrap();
        }
        assert!(came > 0, "nothing came during the removals");
    }

    // 29
    async fn a_second_time_removes_nothing(b) {
        for i in 0..2500 {
            b.cache.set(&format!("k{i}"), i, MINUTE).await.unwrap();
        }
        let pattern = Pattern::raw("k*").unwrap();
        assert_eq!(b.cache.delete_pattern(&pattern).await.unwrap().total(), 2500);
        assert_eq!(b.cache.delete_pattern(&pattern).await.unwrap().total(), 0);
    }

    async fn everything_is_only_deleted_by_the_call_that_says_so(b) {
        b.cache.set("k", 1_u8, MINUTE).await.unwrap();
        for all in ["*", "**"] {
            let error = Pattern::raw(all).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidPattern);
            assert!(error.to_string().contains("clear"), "{error}");
        }
        let error = b.cache.delete_pattern(&Pattern::new().any()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPattern);
        assert!(b.cache.exists("k").await.unwrap());
        assert_eq!(b.cache.clear().await.unwrap().total(), 1);
    }

    async fn what_expired_is_not_counted(b) {
        b.cache.set("k1", 1_u8, super::ms(10)).await.unwrap();
        b.cache.set("k2", 1_u8, MINUTE).await.unwrap();
        b.advance(10);
        let pattern = Pattern::raw("k?").unwrap();
        let removed = b.cache.delete_pattern(&pattern).await.unwrap();
        // Redis counts a key until it deletes it itself, by real time; memory knows.
        // A memory tier has copies only of what was read.
        assert!(removed.redis.is_some() || removed.memory == Some(1), "{removed:?}");
        assert!((1..=2).contains(&removed.total()), "{removed:?}");
    }
}
