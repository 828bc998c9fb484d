//! Laws 13 to 23 and 43, 44: a cache is a map that may forget.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tachikoma_cache::{ErrorKind, Ttl};

use super::MINUTE;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    lines: Vec<(String, i128)>,
    note: Option<String>,
}

fn order() -> Order {
    Order {
        id: u64::MAX,
        lines: vec![("é\0\r\n*1\r\n$4\r\nPING".to_owned(), i128::MIN)],
        note: None,
    }
}

laws! {
    // 13 and 14
    async fn a_get_returns_what_the_last_set_stored(b) {
        b.cache.set("k", order(), MINUTE).await.unwrap();
        assert_eq!(b.cache.get::<Order>("k").await.unwrap().unwrap(), order());
        b.cache.set("k", Order { id: 1, ..order() }, MINUTE).await.unwrap();
        assert_eq!(b.cache.get::<Order>("k").await.unwrap().unwrap().id, 1);
        let bytes: Vec<u8> = (0..=255).collect();
        b.cache.set("bytes", bytes.clone(), MINUTE).await.unwrap();
        assert_eq!(b.cache.get::<Vec<u8>>("bytes").await.unwrap().unwrap(), bytes);
    }

    async fn awkward_keys_are_keys_like_any_other(b) {
        let long = "k".repeat(tachikoma_cache::key::MAX_KEY_BYTES);
        let names = [
            "", " ", "}", "{}x}", "{v}", "a:b", "a:b:l", ":l", "\0", "\r\nDEL x", "*", "[a]", "?",
            "\\", "é", "👩‍👩‍👧", "\u{202e}rtl", "e\u{301}", "%25", long.as_str(),
        ];
        for (i, name) in names.iter().enumerate() {
            b.cache.set(name, i, MINUTE).await.unwrap();
        }
        for (i, name) in names.iter().enumerate() {
            assert_eq!(b.cache.get::<usize>(name).await.unwrap().unwrap(), i, "{name:?}");
            assert!(b.cache.delete(name).await.unwrap(), "{name:?}");
            assert!(!b.cache.exists(name).await.unwrap(), "{name:?}");
        }
        let error = b.cache.get::<u8>(&(long + "k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
    }

    async fn a_value_that_cannot_be_stored_takes_the_older_one_away(b) {
        /// Neither JSON nor the weigher can walk through it.
        #[derive(Deserialize)]
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("as the test wants"))
            }
        }
        b.cache.set("k", 1_u8, MINUTE).await.unwrap();
        b.cache.set("other", 1_u8, MINUTE).await.unwrap();
        let error = b.cache.set("k", Broken, MINUTE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unencodable);
        assert!(!b.cache.exists("k").await.unwrap());
        assert!(b.cache.exists("other").await.unwrap());
    }

    // 15 and 16
    async fn delete_says_whether_there_was_a_value(b) {
        assert!(!b.cache.delete("k").await.unwrap());
        b.cache.set("k", 1_u8, MINUTE).await.unwrap();
        assert!(b.cache.delete("k").await.unwrap());
        assert!(!b.cache.delete("k").await.unwrap());
        assert!(b.cache.get::<u8>("k").await.unwrap().is_none());
    }

    // 17
    async fn of_many_who_set_an_absent_key_one_wins(b) {
        let tasks: Vec<_> = (0..32_u32)
            .map(|i| {
                let cache = b.cache.clone();
                tokio::spawn(async move { cache.set_if_absent("k", i, MINUTE).await.unwrap() })
            })
            .collect();
        let mut winners = Vec::new();
        for (i, task) in tasks.into_iter().enumerate() {
            if task.await.unwrap() {
                winners.push(u32::try_from(i).unwrap());
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(b.cache.get::<u32>("k").await.unwrap().unwrap(), winners[0]);
        b.advance(60_000);
        assert!(b.cache.set_if_absent("k", 99_u32, MINUTE).await.unwrap());
    }

    // 20
    async fn clear_removes_its_namespace_and_nothing_else(b) {
        let tenant = b.cache.namespace("tenant-7").unwrap();
        let other = b.cache.namespace("tenant").unwrap();
        for i in 0..50 {
            tenant.set(&format!("k{i}"), i, MINUTE).await.unwrap();
        }
        b.cache.set("k1", 1_u8, MINUTE).await.unwrap();
        other.set("k1", 2_u8, MINUTE).await.unwrap();
        assert_eq!(tenant.clear().await.unwrap().total(), 50);
        assert!(!tenant.exists("k1").await.unwrap());
        assert!(b.cache.exists("k1").await.unwrap());
        assert!(other.exists("k1").await.unwrap());
        assert_eq!(tenant.clear().await.unwrap().total(), 0);
    }

    // 21
    async fn exists_says_what_get_would(b) {
        assert!(!b.cache.exists("k").await.unwrap());
        b.cache.set("k", 1_u8, MINUTE).tags(["t"]).await.unwrap();
        assert!(b.cache.exists("k").await.unwrap());
        b.cache.invalidate_tag("t").await.unwrap();
        assert!(!b.cache.exists("k").await.unwrap());
    }

    // 23
    async fn empty_and_none_are_values(b) {
        b.cache.set("empty", String::new(), MINUTE).await.unwrap();
        b.cache.set("none", None::<u32>, MINUTE).await.unwrap();
        b.cache.set("unit", (), MINUTE).await.unwrap();
        assert_eq!(b.cache.get::<String>("empty").await.unwrap().unwrap(), String::new());
        assert_eq!(b.cache.get::<Option<u32>>("none").await.unwrap().unwrap(), None);
        assert!(b.cache.get::<()>("unit").await.unwrap().is_some());
    }

    async fn a_value_of_another_type_is_a_miss_and_is_replaced_by_the_next_load(b) {
        b.cache.set("k", "text".to_owned(), MINUTE).await.unwrap();
        assert!(b.cache.get::<u32>("k").await.unwrap().is_none());
        assert!(b.cache.stats().errors.of(ErrorKind::Undecodable) > 0);
        let load = || async { Ok::<_, ()>(5_u32) };
        assert_eq!(b.cache.get_or_load("k", load).await.unwrap(), 5);
        super::flight::settled(&b, |b| Box::pin(async move {
            b.cache.get::<u32>("k").await.unwrap().is_some()
        })).await;
    }

    // 43
    async fn hits_and_misses_are_the_lookups(b) {
        let mut expected = BTreeMap::from([("hits", 0), ("misses", 0), ("loads", 0)]);
        for i in 0..200_u32 {
            let key = format!("k{}", i % 40);
            match i % 5 {
                0 => b.cache.set(&key, i, MINUTE).await.unwrap(),
                1 => {
                    b.cache.delete(&key).await.unwrap();
                }
                _ => {
                    let hit = b.cache.get::<u32>(&key).await.unwrap().is_some();
                    *expected.get_mut(if hit { "hits" } else { "misses" }).unwrap() += 1;
                }
            }
        }
        for i in 0..100_u32 {
            let key = format!("k{i}");
            let load = move || async move { if i % 2 == 0 { Ok(i) } else { Err(()) } };
            let there = b.cache.exists(&key).await.unwrap();
            let _ = b.cache.get_or_load(&key, load).await;
            *expected.get_mut(if there { "hits" } else { "misses" }).unwrap() += 1;
            *expected.get_mut("loads").unwrap() += u64::from(!there);
        }
        let stats = b.cache.stats();
        assert_eq!(
            (stats.hits, stats.misses, stats.loads),
            (expected["hits"], expected["misses"], expected["loads"])
        );
        assert!(stats.load_failures > 0 && stats.load_failures < stats.loads);
    }

    // 44
    async fn statistics_are_per_cache_and_cheap(b) {
        b.cache.set("k", 1_u8, Ttl::Never).await.unwrap();
        let clone = b.cache.clone();
        clone.get::<u8>("k").await.unwrap();
        assert_eq!(b.cache.stats().hits, 1);
        assert_eq!(tachikoma_cache::Cache::memory().build().unwrap().stats().hits, 0);
    }

    async fn clones_share_and_values_are_shared_not_copied(b) {
        let clone = b.cache.clone();
        b.cache.set("k", "v".to_owned(), MINUTE).await.unwrap();
        let first = clone.get::<String>("k").await.unwrap().unwrap().into_arc();
        assert_eq!(*first, "v");
        if let Some(second) = clone.try_get::<String>("k") {
            assert!(Arc::ptr_eq(&first, second.as_arc()));
        }
    }
}
