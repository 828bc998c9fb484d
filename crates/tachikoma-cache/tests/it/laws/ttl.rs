//! Laws 1 to 12: how long a value lives.

use std::time::Duration;

use tachikoma_cache::{ErrorKind, KeyTtl, Ttl};

use super::{MINUTE, ms};

laws! {
    // 1
    async fn a_value_is_readable_before_its_expiry_and_never_from_then_on(b) {
        b.cache.set("k", 7_u32, ms(1900)).await.unwrap();
        b.advance(1899);
        assert_eq!(b.cache.get::<u32>("k").await.unwrap().unwrap(), 7);
        b.advance(1);
        assert!(b.cache.get::<u32>("k").await.unwrap().is_none());
        assert!(!b.cache.exists("k").await.unwrap());
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::NoKey);
        assert!(!b.cache.delete("k").await.unwrap());
    }

    // 2
    async fn what_is_left_falls_with_time_and_has_three_answers(b) {
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::NoKey);
        b.cache.set("k", 7_u32, ms(1000)).await.unwrap();
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::Expires(ms(1000)));
        b.advance(400);
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::Expires(ms(600)));
        b.cache.set("k", 7_u32, Ttl::Never).await.unwrap();
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::NoExpiry);
    }

    // 3 and 4
    async fn a_set_replaces_the_ttl_also_by_the_default(b) {
        b.cache.set("k", 1_u32, ms(1000)).await.unwrap();
        b.cache.set("k", 2_u32, Ttl::Default).await.unwrap();
        let default = tachikoma_cache::DEFAULT_TTL;
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::Expires(default));
        b.cache.set("k", 3_u32, ms(500)).await.unwrap();
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::Expires(ms(500)));
    }

    // 4
    async fn touch_extends_and_get_does_not(b) {
        b.cache.set("k", 1_u32, ms(1000)).await.unwrap();
        b.advance(900);
        assert!(b.cache.get::<u32>("k").await.unwrap().is_some());
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::Expires(ms(100)));
        assert!(b.cache.touch("k", ms(5000)).await.unwrap());
        b.advance(4999);
        assert_eq!(b.cache.get::<u32>("k").await.unwrap().unwrap(), 1);
        b.advance(1);
        assert!(b.cache.get::<u32>("k").await.unwrap().is_none());
        assert!(!b.cache.touch("k", ms(5000)).await.unwrap());
        assert!(!b.cache.touch("never", MINUTE).await.unwrap());
    }

    // 5 and 7, DS-25
    async fn zero_and_overflow_are_refused(b) {
        for bad in [Duration::ZERO, Duration::MAX, ms(i64::MAX as u64), ms(1 << 53)] {
            let error = b.cache.set("k", 1_u32, bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidTtl, "{bad:?}");
            let error = b.cache.touch("k", bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidTtl, "{bad:?}");
            assert!(!b.cache.exists("k").await.unwrap());
        }
    }

    // 6
    async fn a_value_without_ttl_does_not_expire(b) {
        b.cache.set("k", 1_u32, Ttl::Never).await.unwrap();
        b.clock.advance(Duration::from_secs(20 * 365 * 86_400));
        assert!(b.cache.get::<u32>("k").await.unwrap().is_some());
    }

    // 11
    async fn a_step_of_the_wall_clock_revives_and_kills_nothing(b) {
        b.cache.set("gone", 1_u32, ms(1000)).await.unwrap();
        b.advance(1000);
        b.cache.set("here", 1_u32, MINUTE).await.unwrap();
        for step in [-86_400_000, 172_800_000] {
            b.clock.step_wall(step);
            assert!(b.cache.get::<u32>("gone").await.unwrap().is_none());
            assert!(b.cache.get::<u32>("here").await.unwrap().is_some());
        }
    }

    // 12
    async fn less_than_a_millisecond_is_one(b) {
        b.cache.set("k", 1_u32, Duration::from_nanos(1)).await.unwrap();
        assert_eq!(b.cache.ttl("k").await.unwrap(), KeyTtl::Expires(ms(1)));
        b.advance(1);
        assert!(!b.cache.exists("k").await.unwrap());
    }

    async fn an_invalid_ttl_of_a_load_returns_the_value_and_stores_nothing(b) {
        let load = || async { Ok::<_, ()>(5_u32) };
        let value = b.cache.get_or_load("k", load).ttl(Duration::ZERO).await.unwrap();
        assert_eq!(value, 5);
        super::flight::settled(&b, |b| Box::pin(async move {
            b.cache.stats().errors.of(ErrorKind::InvalidTtl) == 1
        })).await;
        assert!(!b.cache.exists("k").await.unwrap());
    }
}
