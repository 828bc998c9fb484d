//! What a listing shows, and what is said of one entry.

use std::collections::BTreeSet;

use tachikoma_cache::entry::CodecId;
use tachikoma_cache::{
    Cache, ErrorKind, Guarantee, KeyCursor, KeyPage, KeyTtl, Keys, Pattern, Ttl,
};

use super::{MINUTE, ms};

/// All pages, one after the other.
async fn pages<'a>(mut page: impl FnMut() -> Keys<'a>) -> Vec<KeyPage> {
    let mut pages: Vec<KeyPage> = Vec::new();
    let mut at: Option<KeyCursor> = None;
    loop {
        let keys = match at {
            // As a client of a server would send it.
            Some(cursor) => page().after(cursor.to_string().parse().unwrap()),
            None => page(),
        };
        let found = keys.await.unwrap();
        at = found.next;
        pages.push(found);
        if at.is_none() {
            return pages;
        }
        assert!(pages.len() < 10_000, "it does not end");
    }
}

async fn all<'a>(page: impl FnMut() -> Keys<'a>) -> BTreeSet<String> {
    pages(page).await.into_iter().flat_map(|page| page.keys).collect()
}

async fn fill(cache: &Cache, count: usize) -> BTreeSet<String> {
    let names: Vec<String> = (0..count).map(|i| format!("k{i}")).collect();
    cache.set_many(names.iter().cloned().zip(0_u32..), MINUTE).await.unwrap();
    names.into_iter().collect()
}

laws! {
    async fn the_pages_together_are_the_keys(b) {
        let expected = fill(&b.cache, 2500).await;
        b.cache.namespace("tenant").unwrap().set("foreign", 1_u8, MINUTE).await.unwrap();
        for limit in [1, 7, 100, 999, 1000] {
            let pages = pages(|| b.cache.keys().limit(limit)).await;
            let mut keys = BTreeSet::new();
            for page in &pages {
                let most = if limit < 10 { limit + 8 } else { limit };
                assert!(page.keys.len() <= most, "{} of {limit}", page.keys.len());
                assert!(page.keys.is_sorted());
                keys.extend(page.keys.iter().cloned());
            }
            assert_eq!(keys, expected, "by {limit}");
            assert!(pages.len() <= 2 * 2500_usize.div_ceil(limit) + 2, "{} pages", pages.len());
        }
        assert_eq!(all(|| b.cache.keys()).await, expected);
    }

    async fn a_listing_shows_what_a_lookup_could_find_also_stale_and_nothing_else(b) {
        b.cache.set("fresh", 1_u8, Ttl::Never).await.unwrap();
        b.cache.set("gone", 1_u8, ms(10)).await.unwrap();
        b.cache.set("deleted", 1_u8, MINUTE).await.unwrap();
        b.cache.set("invalid", 1_u8, MINUTE).tags(["h", "x"]).await.unwrap();
        b.cache.set("stale", 1_u8, MINUTE).tags(["s"]).await.unwrap();
        let many_tags = (0..64).map(|i| format!("{i:0>200}"));
        b.cache.set("tagged", 1_u8, MINUTE).tags(many_tags).await.unwrap();
        b.cache.delete("deleted").await.unwrap();
        b.cache.invalidate_tag("h").await.unwrap();
        b.cache.expire_tag("s").await.unwrap();
        b.advance(10);
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let cache = b.cache.clone();
        let loading = tokio::spawn(async move {
            let load = move || async move {
                began.send(()).unwrap();
                std::future::pending::<Result<u8, ()>>().await
            };
            drop(cache.get_or_load("loading", load).await);
        });
        has_begun.await.unwrap();
        let page = b.cache.keys().await.unwrap();
        assert_eq!(page.keys, ["fresh", "stale", "tagged"]);
        loading.abort();
    }

    async fn a_prefix_matches_itself_and_a_pattern_what_it_says(b) {
        for key in ["user:1", "user:2", "users", "u*er:1", "team:1", "", "[a]", "a"] {
            b.cache.set(key, 1_u8, MINUTE).await.unwrap();
        }
        let keys = async |keys: Keys<'_>| keys.await.unwrap().keys;
        assert_eq!(keys(b.cache.keys().prefix("user:")).await, ["user:1", "user:2"]);
        assert_eq!(keys(b.cache.keys().prefix("u*er")).await, ["u*er:1"]);
        assert_eq!(keys(b.cache.keys().prefix("[a]")).await, ["[a]"]);
        assert_eq!(keys(b.cache.keys().prefix("never")).await, [""; 0]);
        let pattern = Pattern::raw("*:1").unwrap();
        assert_eq!(keys(b.cache.keys().matching(&pattern)).await, ["team:1", "u*er:1", "user:1"]);
        assert_eq!(keys(b.cache.keys().prefix("")).await.len(), 8);
    }

    async fn what_is_no_page_is_refused(b) {
        for limit in [0, 1001, usize::MAX] {
            let error = b.cache.keys().limit(limit).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidPage);
            assert!(error.to_string().contains("allowed is 1 to 1000"), "{error}");
        }
        let error = b.cache.keys().prefix(&"p".repeat(5000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPattern);
        // A cursor of nowhere ends the listing or goes on somewhere; it does no harm.
        let nowhere = "ffffffffffffffff".parse().unwrap();
        assert!(b.cache.keys().after(nowhere).await.unwrap().keys.is_empty());
    }

    async fn keys_that_stay_are_shown_while_others_come_and_go(b) {
        let stay = fill(&b.cache, 500).await;
        let mut shown = BTreeSet::new();
        let mut at: Option<KeyCursor> = None;
        let mut round = 0;
        loop {
            let keys = b.cache.keys().limit(50);
            let page = match at { Some(at) => keys.after(at), None => keys }.await.unwrap();
            shown.extend(page.keys);
            at = page.next;
            if at.is_none() {
                break;
            }
            for i in 0..40 {
                b.cache.set(&format!("come{round}:{i}"), 1_u8, MINUTE).await.unwrap();
                if round > 0 {
                    b.cache.delete(&format!("come{}:{i}", round - 1)).await.unwrap();
                }
            }
            round += 1;
        }
        let missing: Vec<_> = stay.difference(&shown).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    async fn an_entry_is_described(b) {
        assert!(b.cache.entry_info("k").await.unwrap().is_none());
        b.cache.set("k", "four".to_owned(), ms(5000)).tags(["t", "u"]).await.unwrap();
        b.advance(1000);
        let info = b.cache.entry_info("k").await.unwrap().unwrap();
        assert_eq!(info.freshness, Guarantee::Fresh);
        assert_eq!(info.age, ms(1000));
        assert_eq!(info.ttl, KeyTtl::Expires(ms(4000)));
        assert_eq!(info.gone_in, KeyTtl::Expires(ms(4000)));
        assert_eq!(info.codec, CodecId::Json);
        assert_eq!(info.tags, ["t", "u"]);
        assert!((4..200).contains(&info.bytes), "{}", info.bytes);
        assert!(!info.negative && info.idle.is_none());
        b.cache.expire_tag("t").await.unwrap();
        let info = b.cache.entry_info("k").await.unwrap().unwrap();
        assert_eq!((info.freshness.is_stale(), info.ttl), (true, KeyTtl::NoKey));
        b.cache.invalidate_tag("u").await.unwrap();
        assert!(b.cache.entry_info("k").await.unwrap().is_none());
        b.cache.set("forever", 1_u8, Ttl::Never).await.unwrap();
        let info = b.cache.entry_info("forever").await.unwrap().unwrap();
        assert_eq!((info.ttl, info.gone_in), (KeyTtl::NoExpiry, KeyTtl::NoExpiry));
        let stats = b.cache.stats();
        assert_eq!(stats.hits + stats.misses, 0, "nothing of this is a lookup");
        assert_eq!(
            b.cache.entry_info(&"k".repeat(5000)).await.unwrap_err().kind(),
            ErrorKind::InvalidKey
        );
    }

    async fn clearing_frees_what_was_invalidated_too(b) {
        for key in ["a", "b"] {
            b.cache.set(key, 1_u8, MINUTE).tags(["t"]).await.unwrap();
        }
        b.cache.set("c", 1_u8, MINUTE).await.unwrap();
        b.cache.invalidate_tag("t").await.unwrap();
        assert_eq!(b.cache.clear().await.unwrap().total(), 1);
        assert!(b.cache.stats().size.is_none_or(|size| size == 0));
    }
}
