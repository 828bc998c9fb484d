//! What the names and patterns of callers reach, and what they never do (DS-01 to DS-08).

use std::collections::BTreeSet;

use tachikoma_cache::{Cache, CacheKeyBuilder, ErrorKind, Pattern};
use tachikoma_testkit::{RedisServer, Stopwatch};

use super::{MINUTE, ms};

fn key(parts: &[&str]) -> String {
    parts.iter().fold(CacheKeyBuilder::new("k"), CacheKeyBuilder::add).build()
}

async fn set_all(cache: &Cache, keys: &[&str]) {
    for key in keys {
        cache.set(key, 1_u8, MINUTE).await.unwrap();
    }
}

async fn left_of<'a>(cache: &Cache, keys: &[&'a str]) -> BTreeSet<&'a str> {
    let mut left = BTreeSet::new();
    for key in keys {
        if cache.exists(key).await.unwrap() {
            left.insert(*key);
        }
    }
    left
}

laws! {
    async fn ds_01_parts_of_a_key_do_not_run_into_each_other(b) {
        let lists = [
            &["a", "b:c"][..], &["a:b", "c"], &["a", "b", "c"], &["a:b:c"], &["a", "", "b"],
            &["a", "b", ""], &["a%3Ab", "c"], &["a", "b%3Ac"], &["", "a", "b"],
        ];
        for (i, parts) in lists.iter().enumerate() {
            b.cache.set(&key(parts), i, MINUTE).await.unwrap();
        }
        for (i, parts) in lists.iter().enumerate() {
            let found = b.cache.get::<usize>(&key(parts)).await.unwrap();
            assert_eq!(found.unwrap(), i, "{parts:?}");
        }
    }

    async fn ds_02_any_text_can_be_a_part_and_what_is_too_long_is_named(b) {
        let parts = ["", "%", "%00", "\0", "\r\n", "\u{ff}", "👩‍👩‍👧", " ", "{", "}", "*"];
        for (i, part) in parts.iter().enumerate() {
            b.cache.set(&key(&[part, "x"]), i, MINUTE).await.unwrap();
        }
        for (i, part) in parts.iter().enumerate() {
            let found = b.cache.get::<usize>(&key(&[part, "x"])).await.unwrap();
            assert_eq!(found.unwrap(), i, "{part:?}");
        }
        let listed: BTreeSet<_> = b.cache.keys().await.unwrap().keys.into_iter().collect();
        assert_eq!(listed, parts.iter().map(|part| key(&[part, "x"])).collect());

        let long = key(&["x".repeat(64 << 10).as_str()]);
        let error = b.cache.set(&long, 1_u8, MINUTE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert!(error.to_string().contains("4096"), "{error}");
    }

    async fn ds_03_a_namespace_ends_where_it_ends(b) {
        for bad in ["app:", "app\0", "app ", "{app}"] {
            let error = b.with(|cache| cache).namespace(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidNamespace, "{bad:?}");
        }
        let names = ["app", "app-", "apps", "App", "app.", "app/x", "ap"];
        let caches = names.map(|name| b.with(|cache| cache.namespace(name)));
        for cleared in &caches {
            for (i, cache) in caches.iter().enumerate() {
                cache.set("k", i, MINUTE).tags(["t"]).await.unwrap();
            }
            assert_eq!(cleared.clear().await.unwrap().total(), 1);
            for (i, cache) in caches.iter().enumerate() {
                let found = cache.get::<usize>("k").await.unwrap().map(|hit| *hit);
                let own = cache.namespace_ref() == cleared.namespace_ref();
                assert_eq!(found, (!own).then_some(i), "{} after {cleared:?}", names[i]);
            }
            cleared.invalidate_tag("t").await.unwrap();
        }
    }

    async fn ds_04_a_part_from_a_user_is_no_wildcard(b) {
        let keys = ["user:*:x", "user:1:x", "user:22:x", "user:a*:x"];
        for part in ["*", "?", "a*", "[0-9]", "1*", "**"] {
            set_all(&b.cache, &keys).await;
            let own = format!("user:{part}:x");
            let pattern = Pattern::new().literal("user:").literal(part).literal(":").any();
            let removed = b.cache.delete_pattern(&pattern).await.unwrap().total();
            let expected: BTreeSet<_> = keys.into_iter().filter(|key| *key != own).collect();
            assert_eq!(left_of(&b.cache, &keys).await, expected, "{part}");
            assert_eq!(removed, (keys.len() - expected.len()) as u64, "{part}");
        }
    }

    async fn ds_05_each_character_with_a_meaning_can_be_meant_itself(b) {
        let keys = ["[", "]", "?", "\\", "^", "-", "a", "b", "*", "é"];
        for part in ["[", "]", "?", "\\", "^", "-"] {
            for form in ["", "a", "[a-"] {
                let named = |key: &str| format!("{form}{key}x");
                for key in keys {
                    b.cache.set(&named(key), 1_u8, MINUTE).await.unwrap();
                }
                let pattern = Pattern::new().literal(form).literal(part).literal("x");
                let removed = b.cache.delete_pattern(&pattern).await.unwrap();
                assert_eq!(removed.total(), 1, "{pattern:?}");
                for key in keys {
                    let there = b.cache.exists(&named(key)).await.unwrap();
                    assert_eq!(there, key != part, "{key} after {pattern:?}");
                }
            }
        }
    }

    /// What a server itself makes of them is what they mean in every store.
    async fn ds_06_awkward_patterns_mean_what_they_mean_to_redis(b) {
        let keys = [
            "a", "b", "!a", "!", "{a,b}", "a,b", "[a", "[", "a\\", "a]", "**", "ax", "-", "^",
        ];
        let server = RedisServer::start();
        for key in keys {
            server.command(&["SET", key, "v"]);
        }
        let mut matches = 0;
        for raw in ["[!a]", "{a,b}", "a**", "[a", "a\\", "[!a-", "[^]", "\\[a", "[]a]", "**]"] {
            let reply = server.command(&["KEYS", raw]);
            let found: BTreeSet<_> = reply.array().iter().map(|key| key.text()).collect();
            matches += found.len();
            set_all(&b.cache, &keys).await;
            b.cache.delete_pattern(&Pattern::raw(raw).unwrap()).await.unwrap();
            let left = left_of(&b.cache, &keys).await;
            let expected = keys.into_iter().filter(|key| !found.contains(*key)).collect();
            assert_eq!(left, expected, "{raw}");
        }
        assert!(matches >= 10, "only {matches} matched anything");
        assert_eq!(Pattern::raw("**").unwrap_err().kind(), ErrorKind::InvalidPattern);
    }

    async fn ds_07_a_pattern_of_fifty_stars_takes_no_time_to_speak_of(b) {
        // 100,000 of them with `TACHIKOMA_STARS=100000`.
        let keys = std::env::var("TACHIKOMA_STARS").map_or(500, |n| n.parse().unwrap());
        let all: Vec<_> = (0..keys).map(|i| (format!("{}{i}", "a".repeat(4090)), i)).collect();
        for some in all.chunks(5000) {
            b.cache.set_many(some.iter().cloned(), MINUTE).await.unwrap();
        }
        let pattern = Pattern::raw(&format!("{}b", "a*".repeat(50))).unwrap();
        let watch = Stopwatch::start();
        assert_eq!(b.cache.delete_pattern(&pattern).await.unwrap().total(), 0);
        let took = watch.within(ms(50) * keys / 5);
        println!("{:?} for each key", took / keys);
    }

    async fn ds_08_everything_is_a_call_of_its_own_and_ends_at_the_namespace(b) {
        let other = b.cache.namespace("other").unwrap();
        set_all(&b.cache, &["k"]).await;
        set_all(&other, &["k"]).await;
        for all in ["*", "**", "***"] {
            assert_eq!(Pattern::raw(all).unwrap_err().kind(), ErrorKind::InvalidPattern, "{all}");
        }
        assert_eq!(b.cache.delete_pattern(&Pattern::raw("?*").unwrap()).await.unwrap().total(), 1);
        assert!(other.exists("k").await.unwrap());
    }
}
