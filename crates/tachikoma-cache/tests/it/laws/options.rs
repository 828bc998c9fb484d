//! Laws 10 and 23, and what else an option of a load promises.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tachikoma_cache::{
    Clock, ErrorKind, Hit, KeyTtl, LoadError, LoadOptions, Loaded, Source, TestClock, Time, Ttl,
};

use super::flight::settled;
use super::{MINUTE, ms};
use crate::bench::Bench;

async fn is_stored(b: &Bench) {
    settled(b, |b| Box::pin(async move { b.cache.exists("k").await.unwrap() })).await;
}

type Optional = Result<Option<Hit<u32>>, LoadError<()>>;

async fn optional(b: &Bench, options: LoadOptions, value: Option<u32>) -> Optional {
    let load = b.cache.get_or_load_optional("k", move || async move { Ok(value) });
    load.options(options).await
}

#[track_caller]
fn value(got: Optional) -> Option<u32> {
    got.unwrap().map(|hit| *hit)
}

/// The clock of a machine so slow that it moves by 5 ms each time somebody looks at it.
#[derive(Debug)]
struct Slow(TestClock);

impl Clock for Slow {
    fn now(&self) -> Time {
        self.0.advance(ms(5));
        self.0.now()
    }

    fn wall(&self) -> SystemTime {
        self.0.wall()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }

    fn is_real(&self) -> bool {
        false
    }
}

laws! {
    // 10
    async fn jitter_shortens_each_ttl_by_less_than_its_fraction(b) {
        let mut lives = Vec::new();
        for i in 0..50 {
            let key = i.to_string();
            let load = b.cache.get_or_load(&key, || async { Ok::<u32, ()>(1) });
            load.ttl(MINUTE).jitter(0.5).await.unwrap();
            for _ in 0..2000 {
                if b.cache.exists(&key).await.unwrap() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            match b.cache.ttl(&key).await.unwrap() {
                KeyTtl::Expires(left) => lives.push(left),
                other => panic!("{other:?}"),
            }
        }
        assert!(lives.iter().all(|life| *life <= MINUTE && *life >= MINUTE / 2), "{lives:?}");
        lives.sort_unstable();
        lives.dedup();
        assert!(lives.len() > 10, "they are spread: {lives:?}");
    }

    // 10, DS-26
    async fn all_of_the_jitter_leaves_a_millisecond_and_none_changes_nothing(b) {
        for round in 0..20 {
            for (jitter, ttl) in [(1.0, ms(1)), (1.0, ms(2)), (0.0, MINUTE)] {
                let key = format!("{round} {jitter} {ttl:?}");
                let load = b.cache.get_or_load(&key, || async { Ok::<u32, ()>(1) });
                load.ttl(ttl).jitter(jitter).await.unwrap();
                while !b.cache.exists(&key).await.unwrap() {
                    tokio::task::yield_now().await;
                }
                match b.cache.ttl(&key).await.unwrap() {
                    KeyTtl::Expires(left) if jitter == 0.0 => assert_eq!(left, ttl),
                    KeyTtl::Expires(left) => assert!(ms(1) <= left && left <= ttl, "{left:?}"),
                    other => panic!("{key}: {other:?}"),
                }
            }
        }
    }

    // DS-26
    async fn an_option_that_is_not_allowed_returns_the_value_and_stores_nothing(b) {
        let load = || b.cache.get_or_load("k", || async { Ok::<u32, ()>(1) });
        for (bad, kind) in [
            (load().jitter(1.01), ErrorKind::Config),
            (load().load_timeout(ms(0)), ErrorKind::Config),
            (load().early_refresh(f64::NAN), ErrorKind::Config),
            (load().negative_ttl(ms(0)), ErrorKind::InvalidTtl),
        ] {
            let before = b.cache.stats().errors.of(kind);
            assert_eq!(bad.await.unwrap(), 1);
            assert_eq!(b.cache.stats().errors.of(kind), before + 1);
            assert!(!b.cache.exists("k").await.unwrap());
        }
    }

    async fn a_value_is_renewed_in_the_background_before_it_ends(b) {
        let early = LoadOptions::new().ttl(ms(10_000)).early_refresh(100.0);
        let load = |value| {
            let clock = b.clock.clone();
            b.cache.get_or_load("k", move || async move {
                clock.advance(ms(1000));
                Ok::<u32, ()>(value)
            }).options(early)
        };
        load(1).await.unwrap();
        is_stored(&b).await;
        b.advance(9999);
        // With this factor and so near the end all but one in 100,000 draws say yes.
        let hit = load(2).await.unwrap();
        assert_eq!((*hit, hit.source(), hit.is_stale()), (1, Source::Hit, false));
        settled(&b, |b| Box::pin(async move {
            b.cache.get::<u32>("k").await.unwrap().is_some_and(|hit| hit == 2)
        })).await;
        let plain = b.cache.get_or_load("k", || async { Ok::<u32, ()>(3) }).await.unwrap();
        assert_eq!((*plain, b.cache.stats().loads), (2, 2));
    }

    // 23, DS-39
    async fn that_there_is_nothing_is_remembered_only_if_that_is_asked_for(b) {
        let plain = LoadOptions::new().ttl(MINUTE);
        let negative = plain.negative_ttl(ms(1000));
        assert_eq!(value(optional(&b, plain, None).await), None);
        // A right to store that was not used may take a moment to be given back.
        while !b.cache.exists("k").await.unwrap() {
            assert_eq!(value(optional(&b, plain, Some(1)).await), Some(1), "None was not stored");
        }
        b.cache.delete("k").await.unwrap();

        assert_eq!(value(optional(&b, negative, None).await), None);
        let loads = b.cache.stats().loads;
        assert_eq!(value(optional(&b, negative, Some(2)).await), None, "remembered");
        assert_eq!(b.cache.stats().loads, loads);
        b.advance(1000);
        assert_eq!(value(optional(&b, negative, Some(3)).await), Some(3), "asked again");
    }

    // 21, 23
    async fn a_key_remembered_to_have_nothing_has_no_value_for_all_other_calls(b) {
        let negative = LoadOptions::new().ttl(MINUTE).negative_ttl(MINUTE);
        assert_eq!(value(optional(&b, negative, None).await), None);
        assert_eq!(value(optional(&b, negative, Some(9)).await), None);
        assert!(b.cache.get::<u32>("k").await.unwrap().is_none());
        assert!(b.cache.get::<Option<u32>>("k").await.unwrap().is_none());
        assert!(!b.cache.exists("k").await.unwrap());
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::NoKey);
        assert!(!b.cache.touch("k", MINUTE).await.unwrap());
        assert!(!b.cache.delete("k").await.unwrap(), "there was no value to delete");
        assert_eq!(value(optional(&b, negative, None).await), None);
        let text = || async { Ok::<Option<String>, ()>(Some("x".to_owned())) };
        let other = b.cache.get_or_load_optional("k", text).options(negative).await.unwrap();
        assert_eq!(other.unwrap().as_str(), "x", "nothing of one type is not nothing of another");
        b.cache.delete("k").await.unwrap();

        assert_eq!(value(optional(&b, negative, None).await), None);
        let load = b.cache.get_or_load("k", || async { Ok::<u32, ()>(4) });
        assert_eq!(load.ttl(MINUTE).await.unwrap(), 4, "a plain load loads");
        is_stored(&b).await;
        assert_eq!(value(optional(&b, negative, None).await), Some(4));
        b.cache.delete("k").await.unwrap();

        assert_eq!(value(optional(&b, negative, None).await), None);
        assert!(b.cache.set_if_absent("k", 5_u32, MINUTE).await.unwrap());
        assert_eq!(value(optional(&b, negative, None).await), Some(5));
        b.cache.set("k", 6_u32, MINUTE).await.unwrap();
        assert_eq!(b.cache.get::<u32>("k").await.unwrap().unwrap(), 6);
    }

    async fn that_a_value_has_gone_takes_the_stale_one_away(b) {
        let stale = LoadOptions::new().ttl(ms(1000)).stale_if_error(MINUTE).retry_after(ms(0));
        assert_eq!(value(optional(&b, stale, Some(1)).await), Some(1));
        is_stored(&b).await;
        b.advance(2000);
        assert_eq!(value(optional(&b, stale, None).await), None);
        b.advance(1);
        let fails = b.cache.get_or_load("k", || async { Err::<u32, _>("no") }).options(stale).await;
        assert!(matches!(fails, Err(LoadError::Source(_))), "{fails:?}");
    }

    async fn what_is_not_to_be_stored_takes_the_older_one_away(b) {
        let stale = LoadOptions::new().ttl(ms(1000)).stale_if_error(MINUTE).retry_after(ms(0));
        b.cache.get_or_load("k", || async { Ok::<u32, ()>(1) }).options(stale).await.unwrap();
        is_stored(&b).await;
        b.advance(2000);
        let pass = |_| async { Ok::<_, ()>(Loaded::new(2_u32).do_not_store()) };
        let hit = b.cache.get_or_load_with("k", pass).options(stale).await.unwrap();
        assert_eq!((*hit, hit.source()), (2, Source::Loaded));
        assert!(!b.cache.exists("k").await.unwrap());
        b.advance(1);
        let fails = b.cache.get_or_load("k", || async { Err::<u32, _>("no") }).options(stale).await;
        assert!(matches!(fails, Err(LoadError::Source(_))), "{fails:?}");
    }

    /// Time goes on between the load and the write.
    async fn what_has_gone_takes_the_older_one_away_on_a_slow_machine(b) {
        let slow = Arc::new(Slow(b.clock.clone()));
        let cache = b.with(|cache| cache.clock(slow));
        let stale = LoadOptions::new().ttl(ms(1000)).stale_if_error(MINUTE).retry_after(ms(0));
        b.cache.get_or_load("k", || async { Ok::<u32, ()>(1) }).options(stale).await.unwrap();
        is_stored(&b).await;
        b.advance(2000);
        let nothing = || async { Ok::<Option<u32>, ()>(None) };
        let found = cache.get_or_load_optional("k", nothing).options(stale).await.unwrap();
        assert!(found.is_none());
        b.advance(1000);
        let fails = b.cache.get_or_load("k", || async { Err::<u32, _>("no") }).options(stale).await;
        assert!(matches!(fails, Err(LoadError::Source(_))), "{fails:?}");
    }

    async fn a_loader_may_say_how_long_its_value_lives_and_what_it_belongs_to(b) {
        let load = |_| async { Ok::<_, ()>(Loaded::new(1_u32).ttl(ms(7000)).tags(["late"])) };
        b.cache.get_or_load_with("k", load).ttl(MINUTE).tags(["early"]).await.unwrap();
        is_stored(&b).await;
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::Expires(ms(7000)));
        for tag in ["late", "early"] {
            b.cache.get_or_load_with("k", load).tags(["early"]).await.unwrap();
            is_stored(&b).await;
            b.cache.invalidate_tag(tag).await.unwrap();
            assert!(!b.cache.exists("k").await.unwrap(), "{tag}");
        }
    }

    /// A tag that is only known after the load, invalidated while it runs.
    async fn a_late_tag_that_was_invalidated_during_the_load_takes_the_value_away(b) {
        let cache = b.cache.clone();
        let load = move |_| async move {
            cache.invalidate_tag("late").await.unwrap();
            Ok::<_, ()>(Loaded::new(1_u32).tags(["late"]))
        };
        b.cache.get_or_load_with("k", load).ttl(MINUTE).await.unwrap();
        for _ in 0..20 {
            assert!(!b.cache.exists("k").await.unwrap(), "it was read before the invalidation");
            tokio::task::yield_now().await;
        }
    }

    async fn a_value_that_is_not_modified_begins_a_new_life_with_its_tags(b) {
        let stale = LoadOptions::new().ttl(ms(1000)).stale_if_error(MINUTE);
        let first = |_| async { Ok::<_, ()>(Loaded::new("v1".to_owned()).tags(["late"])) };
        b.cache.get_or_load_with("k", first).options(stale).await.unwrap();
        is_stored(&b).await;
        b.advance(5000);
        let again = |cx: tachikoma_cache::LoadCx<String>| async move {
            assert_eq!(cx.stale().map(|value| value.as_str()), Some("v1"));
            Ok::<_, ()>(Loaded::not_modified())
        };
        let hit = b.cache.get_or_load_with("k", again).options(stale).await.unwrap();
        assert_eq!((hit.as_str(), hit.source(), hit.is_stale()), ("v1", Source::Loaded, false));
        is_stored(&b).await;
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::Expires(ms(1000)));
        b.cache.invalidate_tag("late").await.unwrap();
        assert!(!b.cache.exists("k").await.unwrap(), "it kept its tag");
    }

    async fn not_modified_without_a_value_at_hand_is_an_error_that_says_so(b) {
        let load = |cx: tachikoma_cache::LoadCx<u32>| async move {
            assert!(cx.stale().is_none());
            Ok::<_, ()>(Loaded::not_modified())
        };
        let error = b.cache.get_or_load_with("k", load).await.unwrap_err();
        assert!(matches!(error, LoadError::NotModified), "{error:?}");
        assert!(error.to_string().contains("cx.stale()"), "{error}");
        assert_eq!(b.cache.stats().load_failures, 1);
        let next = |_| async { Ok::<_, ()>(Loaded::new(1_u32)) };
        assert_eq!(b.cache.get_or_load_with("k", next).await.unwrap(), 1);
    }

    // DS-25
    async fn a_ttl_of_a_loader_that_is_not_allowed_stores_nothing(b) {
        // Keys of their own: a right to store that was not used takes a moment to be given back.
        for (key, bad) in [("a", ms(0)), ("b", std::time::Duration::MAX)] {
            let load = move |_| async move { Ok::<_, ()>(Loaded::new(1_u32).ttl(bad)) };
            assert_eq!(b.cache.get_or_load_with(key, load).await.unwrap(), 1);
        }
        settled(&b, |b| Box::pin(async move {
            b.cache.stats().errors.of(ErrorKind::InvalidTtl) == 2
        })).await;
        assert!(!b.cache.exists("a").await.unwrap() && !b.cache.exists("b").await.unwrap());
        let load = |_| async { Ok::<_, ()>(Loaded::new(1_u32).ttl(Ttl::Never)) };
        b.cache.get_or_load_with("k", load).await.unwrap();
        is_stored(&b).await;
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::NoExpiry);
    }

    // RG-05
    async fn rg_moka_208_no_kind_of_loader_runs_on_a_hit(b) {
        b.cache.set("k", 1_u32, MINUTE).await.unwrap();
        let plain = b.cache.get_or_load("k", || async { Err::<u32, _>("called") }).await.unwrap();
        let maybe = b.cache.get_or_load_optional("k", || async { Err::<Option<u32>, _>("called") });
        let with = b.cache.get_or_load_with("k", |_| async { Err::<Loaded<u32>, _>("called") });
        assert_eq!((*plain, *maybe.await.unwrap().unwrap(), *with.await.unwrap()), (1, 1, 1));
        assert_eq!(b.cache.stats().loads, 0);
    }
}
