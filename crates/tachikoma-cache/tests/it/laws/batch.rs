//! Laws 18 and 19, and 13 to 16 for many keys in one call.

use serde::{Deserialize, Serialize};
use tachikoma_cache::{Error, ErrorKind, KeyTtl, Ttl};

use super::{MINUTE, ms};

/// A value that cannot be written when it is zero.
#[derive(Debug, PartialEq, Deserialize)]
struct Picky(u8);

impl Serialize for Picky {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0 => Err(serde::ser::Error::custom("as the test wants")),
            1 => panic!("as the test wants"),
            more => serializer.serialize_u8(more),
        }
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("k{i}")).collect()
}

laws! {
    // 18
    async fn get_many_is_a_list_of_gets(b) {
        b.cache.set("a", 1_u32, MINUTE).await.unwrap();
        b.cache.set("gone", 2_u32, ms(10)).await.unwrap();
        b.cache.set("text", "t".to_owned(), MINUTE).await.unwrap();
        b.cache.set("tagged", 4_u32, MINUTE).tags(["t"]).await.unwrap();
        b.cache.set("expired", 5_u32, MINUTE).tags(["s"]).await.unwrap();
        b.cache.set("dropped", 6_u32, MINUTE).tags(["h"]).await.unwrap();
        b.cache.expire_tag("s").await.unwrap();
        b.cache.invalidate_tag("h").await.unwrap();
        b.advance(10);
        let keys =
            ["a", "never", "gone", "text", "tagged", "a", "expired", "dropped", "", "a"];
        let many = b.cache.get_many::<u32>(&keys).await.unwrap();
        let before = b.cache.stats();
        let mut one_by_one = Vec::new();
        for key in keys {
            one_by_one.push(b.cache.get::<u32>(key).await.unwrap().map(|hit| *hit));
        }
        let after = b.cache.stats();
        assert_eq!(many.iter().map(|hit| hit.as_deref().copied()).collect::<Vec<_>>(), one_by_one);
        assert_eq!(one_by_one.iter().flatten().collect::<Vec<_>>(), [&1, &4, &1, &1]);
        // 43: counted as gets are.
        assert_eq!((before.hits, before.misses), (4, 6));
        assert_eq!((after.hits, after.misses), (8, 12));
    }

    // 19
    async fn delete_many_returns_how_many_there_were(b) {
        for key in ["a", "b", "c"] {
            b.cache.set(key, 1_u8, MINUTE).await.unwrap();
        }
        let keys = ["a", "never", "b", "a", "a", ""];
        assert_eq!(b.cache.delete_many(&keys).await.unwrap(), 2);
        assert_eq!(b.cache.delete_many(&keys).await.unwrap(), 0);
        assert!(b.cache.exists("c").await.unwrap());
        assert!(!b.cache.exists("a").await.unwrap());
    }

    async fn set_many_is_a_list_of_sets(b) {
        b.cache.set("a", "old".to_owned(), Ttl::Never).tags(["old"]).await.unwrap();
        b.cache.set_many([("a", 1_u32), ("b", 2), ("a", 3)], ms(500)).tags(["t"]).await.unwrap();
        b.cache.invalidate_tag("old").await.unwrap();
        assert_eq!(b.cache.get::<u32>("a").await.unwrap().unwrap(), 3);
        assert_eq!(b.cache.ttl("b").await.unwrap(), KeyTtl::Expires(ms(500)));
        b.cache.invalidate_tag("t").await.unwrap();
        assert_eq!(b.cache.get_many::<u32>(&["a", "b"]).await.unwrap().iter().flatten().count(), 0);
        b.cache.set_many([("n".to_owned(), 7_u32)], Ttl::Never).await.unwrap();
        assert_eq!(b.cache.ttl("n").await.unwrap(), KeyTtl::NoExpiry);
    }

    async fn nothing_at_all_is_fine(b) {
        let none: [&str; 0] = [];
        assert!(b.cache.get_many::<u8>(&none).await.unwrap().is_empty());
        assert_eq!(b.cache.delete_many(&none).await.unwrap(), 0);
        b.cache.set_many(Vec::<(String, u8)>::new(), MINUTE).await.unwrap();
        assert_eq!(b.cache.stats().errors.total(), 0);
    }

    async fn ten_thousand_keys_are_divided(b) {
        let keys = names(10_000);
        let items = keys.iter().cloned().zip(0_u32..);
        b.cache.set_many(items, MINUTE).tags(["t"]).await.unwrap();
        let found = b.cache.get_many::<u32>(&keys).await.unwrap();
        for (i, hit) in found.iter().enumerate() {
            assert_eq!(hit.as_deref().copied().map(|n| n as usize), Some(i));
        }
        assert_eq!(b.cache.delete_many(&keys[1..]).await.unwrap(), 9_999);
        assert!(b.cache.exists("k0").await.unwrap());
        assert_eq!(b.cache.clear().await.unwrap().total(), 1);
    }

    async fn a_key_that_is_none_is_named_by_its_index(b) {
        let long = "k".repeat(5000);
        b.cache.set("a", 1_u8, MINUTE).await.unwrap();
        let keys = ["a", &long, "b"];
        for error in [
            b.cache.get_many::<u8>(&keys).await.unwrap_err(),
            b.cache.delete_many(&keys).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidKey);
            assert!(error.to_string().contains("at index 1 of 3: 5000 bytes"), "{error}");
        }
        assert!(b.cache.exists("a").await.unwrap(), "nothing was deleted");
        let error =
            b.cache.set_many([("a", 2_u8), (&long, 3), ("b", 4)], MINUTE).await.unwrap_err();
        assert_eq!(error.failed().len(), 1);
        assert_eq!(error.failed()[0].0, 1);
        assert_eq!(Error::from(error).kind(), ErrorKind::InvalidKey);
        let found = b.cache.get_many::<u8>(&["a", "b"]).await.unwrap();
        assert_eq!(found.iter().flatten().map(|hit| **hit).collect::<Vec<_>>(), [2, 4]);
    }

    async fn a_value_that_cannot_be_stored_spoils_no_other(b) {
        b.cache.set("zero", 9_u8, MINUTE).await.unwrap();
        let items = ["two", "zero", "one", "three"].into_iter().zip([2, 0, 1, 3].map(Picky));
        let error = b.cache.set_many(items, MINUTE).await.unwrap_err();
        let failed: Vec<_> = error.failed().iter().map(|(at, e)| (*at, e.kind())).collect();
        assert_eq!(failed, [(1, ErrorKind::Unencodable), (2, ErrorKind::Unencodable)]);
        assert_eq!(error.total(), 4);
        assert_eq!(*b.cache.get::<Picky>("two").await.unwrap().unwrap(), Picky(2));
        assert_eq!(*b.cache.get::<Picky>("three").await.unwrap().unwrap(), Picky(3));
        assert!(!b.cache.exists("zero").await.unwrap(), "the older value is gone");
    }

    async fn what_all_have_in_common_fails_for_all(b) {
        let items = || [("a", 1_u8), ("b", 2)];
        let error = b.cache.set_many(items(), ms(0)).await.unwrap_err();
        assert_eq!((error.kind(), error.failed().len()), (ErrorKind::InvalidTtl, 2));
        let error = b.cache.set_many(items(), MINUTE).tags([""]).await.unwrap_err();
        assert_eq!((error.kind(), error.failed().len()), (ErrorKind::InvalidTag, 2));
        assert!(!b.cache.exists("a").await.unwrap());
    }

    async fn a_load_under_way_stores_nothing_over_a_batch(b) {
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let cache = b.cache.clone();
        let load = tokio::spawn(async move {
            let load = move || async move {
                began.send(()).unwrap();
                gone.await.unwrap();
                Ok::<_, ()>(1_u8)
            };
            *cache.get_or_load("k", load).await.unwrap()
        });
        has_begun.await.unwrap();
        b.cache.set_many([("other", 1_u8), ("k", 2)], MINUTE).await.unwrap();
        go.send(()).unwrap();
        assert_eq!(load.await.unwrap(), 1);
        super::flight::settled(&b, |b| Box::pin(async move {
            b.cache.stats().refused_fills == 1
        })).await;
        assert_eq!(b.cache.get::<u8>("k").await.unwrap().unwrap(), 2);
    }

    async fn a_batch_stays_in_its_namespace(b) {
        let tenant = b.cache.namespace("tenant").unwrap();
        tenant.set_many([("a", 1_u8), ("b", 2)], MINUTE).await.unwrap();
        let keys = ["a", "b"];
        assert_eq!(b.cache.get_many::<u8>(&keys).await.unwrap().iter().flatten().count(), 0);
        assert_eq!(b.cache.delete_many(&keys).await.unwrap(), 0);
        assert_eq!(tenant.delete_many(&keys).await.unwrap(), 2);
    }
}
