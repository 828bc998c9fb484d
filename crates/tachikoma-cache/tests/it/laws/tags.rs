//! Laws 30 to 33: entries that go together.

use tachikoma_cache::{Cache, ErrorKind, KeyTtl};
use tachikoma_testkit::RedisServer;

use super::{MINUTE, ms};
use crate::bench::Bench;

laws! {
    // 30
    async fn a_tag_takes_all_that_was_written_with_it_before_and_none_after(b) {
        for i in 0..20 {
            b.cache.set(&format!("old{i}"), i, MINUTE).tags(["users", "all"]).await.unwrap();
        }
        b.cache.set("other", 1_u8, MINUTE).tags(["teams"]).await.unwrap();
        b.cache.set("none", 1_u8, MINUTE).await.unwrap();
        b.cache.invalidate_tag("users").await.unwrap();
        b.cache.set("new", 1_u8, MINUTE).tags(["users"]).await.unwrap();
        for i in 0..20 {
            let key = format!("old{i}");
            assert!(b.cache.get::<i32>(&key).await.unwrap().is_none());
            assert_eq!(b.cache.ttl(&key).await.unwrap(), KeyTtl::NoKey);
            assert!(b.cache.set_if_absent(&key, i, MINUTE).await.unwrap(), "it is absent");
        }
        for key in ["other", "none", "new"] {
            assert!(b.cache.get::<u8>(key).await.unwrap().is_some(), "{key}");
        }
    }

    // 32
    async fn what_has_a_tag_can_be_counted(b) {
        for i in 0..300 {
            let tags = if i < 290 { vec!["t", "u"] } else { vec!["u"] };
            b.cache.set(&format!("k{i}"), i, MINUTE).tags(tags).await.unwrap();
        }
        let other = b.cache.namespace("other").unwrap();
        other.set("k", 1_u8, MINUTE).tags(["t"]).await.unwrap();
        assert_eq!(b.cache.entries().count_tagged("t").await.unwrap(), 290);
        b.cache.delete("k0").await.unwrap();
        assert_eq!(b.cache.entries().count_tagged("t").await.unwrap(), 289);
        b.cache.invalidate_tag("t").await.unwrap();
        assert_eq!(b.cache.entries().count_tagged("t").await.unwrap(), 0);
        assert_eq!(b.cache.entries().count_tagged("u").await.unwrap(), 10);
        assert_eq!(b.cache.entries().count_tagged("never").await.unwrap(), 0);
        let error = b.cache.entries().count_tagged("").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidTag);
    }

    // 31
    async fn a_set_without_the_tag_takes_the_entry_out_of_it(b) {
        b.cache.set("k", 1_u8, MINUTE).tags(["t"]).await.unwrap();
        b.cache.set("k", 2_u8, MINUTE).await.unwrap();
        b.cache.invalidate_tag("t").await.unwrap();
        assert_eq!(b.cache.get::<u8>("k").await.unwrap().unwrap(), 2);
    }

    // 33
    async fn several_tags_take_the_union(b) {
        b.cache.set("a", 1_u8, MINUTE).tags(["a"]).await.unwrap();
        b.cache.set("b", 1_u8, MINUTE).tags(["b"]).await.unwrap();
        b.cache.set("c", 1_u8, MINUTE).tags(["c"]).await.unwrap();
        b.cache.invalidate_tags(["a", "b"]).await.unwrap();
        assert!(!b.cache.exists("a").await.unwrap());
        assert!(!b.cache.exists("b").await.unwrap());
        assert!(b.cache.exists("c").await.unwrap());
    }

    async fn an_expired_tag_makes_the_next_lookup_load(b) {
        b.cache.set("k", 1_u8, MINUTE).tags(["t"]).await.unwrap();
        b.cache.expire_tag("t").await.unwrap();
        assert!(b.cache.get::<u8>("k").await.unwrap().is_none());
        let load = || async { Ok::<_, ()>(2_u8) };
        assert_eq!(b.cache.get_or_load("k", load).tags(["t"]).await.unwrap(), 2);
        super::flight::settled(&b, |b| Box::pin(async move {
            b.cache.get::<u8>("k").await.unwrap().is_some_and(|hit| hit == 2)
        })).await;
    }

    async fn a_tag_of_one_namespace_leaves_the_others_alone(b) {
        let tenant = b.cache.namespace("tenant").unwrap();
        b.cache.set("k", 1_u8, MINUTE).tags(["t"]).await.unwrap();
        tenant.set("k", 2_u8, MINUTE).tags(["t"]).await.unwrap();
        tenant.invalidate_tag("t").await.unwrap();
        assert!(b.cache.exists("k").await.unwrap());
        assert!(!tenant.exists("k").await.unwrap());
    }

    async fn awkward_tags_are_tags_like_any_other(b) {
        let long = "t".repeat(tachikoma_cache::invalidation::MAX_TAG_BYTES);
        for tag in ["*", "a,b", "a:b", "@e", "{g}", "é", "\0", "h:t:x", long.as_str()] {
            b.cache.set("k", 1_u8, MINUTE).tags([tag]).await.unwrap();
            b.cache.invalidate_tag("another").await.unwrap();
            assert!(b.cache.exists("k").await.unwrap(), "{tag:?}");
            b.cache.invalidate_tag(tag).await.unwrap();
            assert!(!b.cache.exists("k").await.unwrap(), "{tag:?}");
        }
        for bad in [String::new(), long + "t"] {
            let error = b.cache.invalidate_tag(&bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidTag);
            let error = b.cache.set("k", 1_u8, MINUTE).tags([bad]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidTag);
        }
        let many = (0..65).map(|i| i.to_string());
        let error = b.cache.set("k", 1_u8, MINUTE).tags(many).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidTag);
    }
}

/// Law 32: no list of a tag's entries is kept, so none has dead members.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_nothing_is_left_of_tagged_entries_that_expired() {
    let b = Bench::memory();
    for i in 0..1000 {
        let tags = [format!("t{}", i % 7), format!("own{i}")];
        b.cache.set(&format!("k{i}"), i, MINUTE).tags(tags).await.unwrap();
    }
    b.advance(60_000);
    assert_eq!(b.cache.entries().count_tagged("t1").await.unwrap(), 0);
    let swept = || b.cache.stats().bytes == Some(0);
    assert!(tachikoma_testkit::wait_until(ms(10_000), swept), "{:?}", b.cache.stats());
    assert_eq!(b.cache.stats().size, Some(0));
}

/// The same: of the thousand entries only the counters of their namespace stay, with no tag in them
/// that nobody has invalidated.
async fn leaves_nothing(has_tier: bool) {
    let server = RedisServer::start();
    let memory = if has_tier { "on" } else { "off" };
    // The server forgets by real time, so the cache has that too.
    let url = format!("{}?store_timeout=10s&memory={memory}", server.url());
    let cache = Cache::connect(&url).await.unwrap();
    cache.invalidate_tag("t1").await.unwrap();
    let counters = || server.command(&["ZCARD", "tachikoma:g"]).integer();
    let before = counters();
    let mut copies = 0;
    for i in 0..1000 {
        let (key, tags) = (format!("k{i}"), [format!("t{}", i % 7), format!("own{i}")]);
        cache.set(&key, i, ms(300)).tags(tags).await.unwrap();
        cache.get::<i32>(&key).await.unwrap();
        copies += u64::from(cache.try_get::<i32>(&key).is_some());
    }
    assert_eq!(copies > 500, has_tier, "{copies} copies of 1000");
    let gone = || server.command(&["DBSIZE"]).integer() == 1;
    assert!(tachikoma_testkit::wait_until(ms(20_000), gone), "{:?}", server.command(&["DBSIZE"]));
    assert!(before > 0 && counters() == before, "{before}, then {}", counters());
    let tier = || cache.stats().tier.map_or((0, 0), |tier| (tier.copies, tier.bytes));
    assert!(tachikoma_testkit::wait_until(ms(20_000), || tier() == (0, 0)), "{:?}", tier());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_nothing_is_left_of_tagged_entries_that_expired() {
    leaves_nothing(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_memory_tier_nothing_is_left_of_tagged_entries_that_expired() {
    leaves_nothing(true).await;
}
