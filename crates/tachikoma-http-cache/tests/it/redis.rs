//! Responses in a real Redis: shared between processes, and never a reason to fail.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use tachikoma_cache::{
    Cache, CacheBuilder, Clock, SystemClock, TestClock,
    store::{
        Store,
        redis::{RedisConfig, RedisStore},
    },
};
use tachikoma_http_cache::{HttpCacheLayer, Purge};
use tachikoma_testkit::{RedisServer, Resp, Stopwatch};
use tower::{Layer as _, ServiceExt as _};

use crate::{
    collapse::{Slow, all},
    site::{Mode, Seen, Site, pause, request, response},
    sizes::{check_aborts, check_limit, check_sizes, sized},
};

/// With patience: what is tested is what is stored, not how fast a busy machine answers.
async fn connect(redis: &RedisServer) -> Cache {
    let patience = Duration::from_secs(10);
    let (config, _) = RedisConfig::from_url(&redis.url()).unwrap();
    let config = config.timeout(patience).connect_timeout(patience).lease(6 * patience);
    on(config, |cache| cache.store_timeout(patience)).await
}

/// With the settings that are shipped: for outages.
async fn connect_as_shipped(redis: &RedisServer) -> Cache {
    on(RedisConfig::from_url(&redis.url()).unwrap().0, |cache| cache).await
}

async fn on(
    config: RedisConfig,
    settings: impl FnOnce(CacheBuilder<Arc<dyn Store>>) -> CacheBuilder<Arc<dyn Store>>,
) -> Cache {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = RedisStore::connect(config, Arc::clone(&clock)).await.unwrap();
    settings(Cache::on(Arc::new(store)).namespace("shop").clock(clock)).build().unwrap()
}

/// A process on this store.
async fn site(
    cache: Cache,
    origin: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
) -> Site {
    Site::on(cache, TestClock::new(), Mode::Layer, |layer| layer, origin).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_every_size_survive_redis() {
    let redis = RedisServer::start();
    let cache = connect(&redis).await;
    let site = site(cache, sized).await;
    check_sizes(&site, "redis").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_as_large_as_may_be_is_stored_in_redis_and_one_byte_more_is_not() {
    let redis = RedisServer::start();
    let cache = connect(&redis).await;
    let site = site(cache, sized).await;
    check_limit(&site, "redis").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_leave_leave_nothing_behind_in_redis() {
    let redis = RedisServer::start();
    let cache = connect(&redis).await;
    let site = site(cache, sized).await;
    check_aborts(&site, "redis", 200).await;
}

/// A response is as old in another process as in the one that stored it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_stored_lives_on_for_what_is_left_of_its_time() {
    let redis = RedisServer::start();
    let mut sites = Vec::new();
    for _ in 0..2 {
        let cache = connect(&redis).await;
        let site = site(cache, |seen| {
            let fields = [("cache-control", "max-age=100"), ("age", "98")];
            response(200, &fields, seen.before.to_string())
        });
        sites.push(site.await);
    }
    let only = [("cache-control", "only-if-cached")];
    sites[0].get("/", &[]).await;
    let mut seen = 0;
    for _ in 0..2_000 {
        let answer = sites[1].get("/", &only).await;
        if answer.is_hit() {
            let age: u64 = answer.header("age").parse().unwrap();
            assert!((98..100).contains(&age), "{age}");
            seen += 1;
        } else if seen > 0 {
            break;
        }
        pause().await;
    }
    // Seen for less than two seconds, and then no more.
    assert!((1..1_500).contains(&seen), "{seen} hits");
    assert!(!sites[1].get("/", &only).await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_holds_the_body_once_and_nothing_of_who_asked_for_it() {
    const BODY: usize = 10_000;
    let redis = RedisServer::start();
    let cache = connect(&redis).await;
    let site = site(cache, |_| {
        let fields = [
            ("cache-control", "public, max-age=60, no-cache=\"x-own\""),
            ("x-own", "s3ntinel"),
            ("vary", "accept"),
            ("x-all", "k3pt"),
        ];
        response(200, &fields, vec![b'x'; BODY])
    })
    .await;
    let asked = [
        ("authorization", "Basic s3ntinel"),
        ("cookie", "id=s3ntinel"),
        ("proxy-authorization", "Basic s3ntinel"),
        ("x-api-key", "s3ntinel"),
        ("accept", "text/html"),
    ];
    for _ in 0..500 {
        if site.get("/", &asked).await.is_hit() {
            break;
        }
        pause().await;
    }
    let (mut total, mut held) = (0, String::new());
    for key in redis.command(&["KEYS", "*"]).array() {
        let key = key.text();
        let read = match redis.command(&["TYPE", &key]).text().as_str() {
            "string" => redis.command(&["GET", &key]),
            "hash" => redis.command(&["HGETALL", &key]),
            "zset" => redis.command(&["ZRANGE", &key, "0", "-1"]),
            other => panic!("{key} is a {other}"),
        };
        held.push_str(&key);
        let values = if let Resp::Array(values) = read { values } else { vec![read] };
        for value in values {
            let Resp::Bulk(value) = value else { continue };
            held.push_str(&String::from_utf8_lossy(&value));
        }
        total += redis.command(&["MEMORY", "USAGE", &key]).integer();
    }
    assert!(held.contains("k3pt") && !held.contains("s3ntinel"), "{held}");
    let total = usize::try_from(total).unwrap();
    assert!((BODY..BODY + 4_000).contains(&total), "{total} bytes for a body of {BODY}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_stored_in_redis_another_one_serves_and_invalidates() {
    let redis = RedisServer::start();
    let mut sites = Vec::new();
    for _ in 0..2 {
        let cache = connect(&redis).await;
        let site = site(cache, |seen| {
            let tag = format!("all {}", seen.uri.path().trim_start_matches('/'));
            let headers =
                [("cache-control", "max-age=60"), ("vary", "x"), ("surrogate-key", tag.as_str())];
            response(200, &headers, format!("answer {}", seen.before))
        });
        sites.push(site.await);
    }
    let [a, b] = &sites[..] else { unreachable!() };
    for path in ["/a", "/b"] {
        a.get(path, &[("x", "1")]).await;
        for _ in 0..500 {
            if a.get(path, &[("x", "1")]).await.is_hit() {
                break;
            }
            pause().await;
        }
        assert!(b.get(path, &[("x", "1")]).await.is_hit(), "{path}");
        assert!(!b.get(path, &[("x", "2")]).await.is_hit(), "{path}");
    }
    assert_eq!(b.cache.purge_url("http://shop.test/a").await.unwrap().redis, Some(2));
    assert!(!a.get("/a", &[("x", "1")]).await.is_hit());
    b.cache.purge_tag("b").await.unwrap();
    assert!(!a.get("/b", &[("x", "1")]).await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_dies_hangs_or_comes_back_fails_no_request() {
    let mut redis = RedisServer::start();
    let cache = connect_as_shipped(&redis).await;
    let site = site(cache, |seen| {
        response(200, &[("cache-control", "max-age=60")], format!("answer {}", seen.before))
    })
    .await;
    let until_hit = async |path: &str| {
        for _ in 0..2_000 {
            if site.get(path, &[]).await.is_hit() {
                return;
            }
            pause().await;
        }
        panic!("{path} never became a hit");
    };
    until_hit("/").await;

    redis.stop();
    for _ in 0..5 {
        let answer = site.get("/", &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.said());
        let post = site.send(request("POST", "/other", &[])).await;
        assert_eq!(post.status, StatusCode::OK, "{}", post.said());
    }
    redis.cont();
    until_hit("/again").await;

    redis.kill();
    for _ in 0..5 {
        let answer = site.get("/", &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.said());
    }
    let posted = site.send(request("POST", "/", &[])).await;
    assert_eq!(posted.status, StatusCode::OK, "{}", posted.said());
    redis.restart();
    until_hit("/").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_its_change_invalidates_leaves_nothing_old_behind() {
    let redis = RedisServer::start();
    let cache = connect_as_shipped(&redis).await;
    let site = site(cache, |seen| {
        response(200, &[("cache-control", "max-age=60")], format!("answer {}", seen.before))
    })
    .await;
    site.get("/", &[]).await;
    while !site.get("/", &[]).await.is_hit() {
        pause().await;
    }
    redis.stop();
    let left =
        tokio::time::timeout(Duration::from_millis(50), site.send(request("POST", "/", &[])));
    assert!(left.await.is_err(), "it did not wait for the invalidation");
    redis.cont();
    let old = async {
        while site.get("/", &[]).await.text() == "answer 0" {
            pause().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), old).await.is_ok(), "still the old one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_neither_holds_answers_up_nor_lets_the_origin_be_rushed() {
    let redis = RedisServer::start();
    let calls = Arc::new(AtomicUsize::new(0));
    let headers = &[("cache-control", "max-age=60")];
    let inner = Slow { calls: Arc::clone(&calls), headers, is_ready: false };
    let service = HttpCacheLayer::new(connect_as_shipped(&redis).await).layer(inner);
    all(&service, 1).await;
    redis.stop();
    for round in 1..=3 {
        let (before, started) = (calls.load(SeqCst), Stopwatch::start());
        let answers = all(&service, 100).await;
        // The origin takes 100 ms, and asking the store 250: it is asked only once.
        started.within(Duration::from_millis(600));
        assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
        let fetched = calls.load(SeqCst) - before;
        assert!(fetched <= 10, "round {round}: {fetched} fetches");
    }
    redis.cont();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_miss_together_do_not_rush_the_origin() {
    let redis = RedisServer::start();
    let calls = Arc::new(AtomicUsize::new(0));
    let headers = &[("cache-control", "max-age=60")];
    let mut services = Vec::new();
    for _ in 0..2 {
        let inner = Slow { calls: Arc::clone(&calls), headers, is_ready: false };
        services.push(HttpCacheLayer::new(connect(&redis).await).layer(inner));
    }
    let (a, b) = tokio::join!(all(&services[0], 100), all(&services[1], 100));
    assert!(a.iter().chain(&b).all(|answer| answer.status == StatusCode::OK));
    assert!(calls.load(SeqCst) <= 6, "{} fetches", calls.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variants_that_two_processes_add_at_the_same_moment_are_all_kept() {
    let redis = RedisServer::start();
    let mut sites = Vec::new();
    for _ in 0..2 {
        let cache = connect(&redis).await;
        let site = site(cache, |seen| {
            let headers = [("cache-control", "max-age=60"), ("vary", "x")];
            response(200, &headers, format!("{:?}", seen.headers.get("x")))
        });
        sites.push(site.await);
    }
    let get = async |site: usize, x: usize| {
        let x = x.to_string();
        sites[site].get("/", &[("x", &x)]).await
    };
    get(0, 0).await;
    while !get(1, 0).await.is_hit() {
        pause().await;
    }
    let both = (1..=20).map(|x| get(x % 2, x));
    futures_util::future::join_all(both).await;
    let mut found = 0;
    for round in 0..500 {
        found = 0;
        for x in 0..=20 {
            // By the process that did not fetch it.
            let x_value = x.to_string();
            let only = [("x", x_value.as_str()), ("cache-control", "only-if-cached")];
            found += usize::from(sites[(x + 1) % 2].get("/", &only).await.is_hit());
        }
        if found == 21 {
            break;
        }
        assert!(round < 499, "{found} of 21 variants");
        pause().await;
    }
    assert_eq!(found, 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_waits_for_the_one_that_fetches_the_same_already() {
    let redis = RedisServer::start();
    let calls = Arc::new(AtomicUsize::new(0));
    let headers = &[("cache-control", "max-age=60")];
    let mut services = Vec::new();
    for _ in 0..3 {
        let inner = Slow { calls: Arc::clone(&calls), headers, is_ready: false };
        services.push(HttpCacheLayer::new(connect(&redis).await).layer(inner));
    }
    let (a, b, c) =
        tokio::join!(all(&services[0], 30), all(&services[1], 30), all(&services[2], 30));
    let answers: Vec<_> = a.iter().chain(&b).chain(&c).collect();
    assert!(answers.iter().all(|answer| answer.text() == "answer 0"), "{answers:?}");
    assert_eq!(calls.load(SeqCst), 1);
}

/// The name under which a long URL is fetched in the store does not say which one it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_began_while_its_prefix_was_purged_is_brought_to_nobody_who_comes_after() {
    let redis = RedisServer::start();
    let cache = connect(&redis).await;
    // What is looked through takes a while.
    for page in 0..100 {
        let others = (0..200).map(|n| (format!("other {page} {n}"), n));
        // On a busy machine some do not get in, and are not missed.
        let _ = cache.set_many(others, Duration::from_secs(600)).await;
    }
    let (calls, may_end) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    let origin = tower::service_fn({
        let (calls, may_end) = (Arc::clone(&calls), Arc::clone(&may_end));
        move |_: Request<Body>| {
            let (calls, may_end) = (Arc::clone(&calls), Arc::clone(&may_end));
            async move {
                let end = may_end.notified();
                let number = calls.fetch_add(1, SeqCst);
                end.await;
                let fresh = [("cache-control", "max-age=60")];
                Ok::<_, Infallible>(response(200, &fresh, number.to_string()))
            }
        }
    });
    let layer = HttpCacheLayer::new(cache).wait_limit(Duration::from_secs(600));
    let (handle, service) = (layer.handle(), layer.layer(origin));
    let until = async |number: usize| {
        for _ in 0..10_000 {
            if calls.load(SeqCst) >= number {
                return true;
            }
            pause().await;
        }
        false
    };
    for round in 0..50 {
        let path = format!("/{round}/{}", "x".repeat(5_000));
        let ask = || tokio::spawn(service.clone().oneshot(request("GET", &path, &[])));
        let prefix = Purge::prefix(format!("http://shop.test/{round}/"));
        let mut purging = Box::pin(handle.purge(&prefix));
        assert!((&mut purging).now_or_never().is_none());
        let before = calls.load(SeqCst);
        let first = ask();
        let purged = tokio::select! {
            _ = &mut purging => false,
            asked = until(before + 1) => asked,
        };
        // A busy store may not answer in time: then once more.
        if purged && purging.await.is_ok() {
            let second = ask();
            assert!(until(before + 2).await, "it waits for what began before the purge ended");
            may_end.notify_waiters();
            let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
            drop((first, second));
            return;
        }
        assert!(until(before + 1).await);
        may_end.notify_waiters();
        drop(first.await.unwrap().unwrap());
    }
    panic!("no fetch began while it was purged");
}
