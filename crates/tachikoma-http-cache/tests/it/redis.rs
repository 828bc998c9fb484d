//! Responses in a real Redis: shared between processes, and never a reason to fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::StatusCode;
use tachikoma_cache::{
    Cache, Clock, SystemClock, TestClock,
    store::redis::{RedisConfig, RedisStore},
};
use tachikoma_http_cache::HttpCacheLayer;
use tachikoma_testkit::RedisServer;
use tower::Layer as _;

use crate::{
    bodies::{check_sizes, sized},
    collapse::{Slow, all, now},
    site::{Mode, Site, pause, request, response},
};

async fn connect(redis: &RedisServer) -> Cache {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (config, _) = RedisConfig::from_url(&redis.url()).unwrap();
    let store = RedisStore::connect(config, Arc::clone(&clock)).await.unwrap();
    Cache::on(Arc::new(store)).namespace("shop").clock(clock).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_every_size_survive_redis() {
    let redis = RedisServer::start();
    let cache = connect(&redis).await;
    let site = Site::on(cache, TestClock::new(), Mode::Layer, |layer| layer, sized).await;
    check_sizes(&site, "redis").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_stored_in_redis_another_one_serves_and_invalidates() {
    let redis = RedisServer::start();
    let mut sites = Vec::new();
    for _ in 0..2 {
        let cache = connect(&redis).await;
        let site = Site::on(
            cache,
            TestClock::new(),
            Mode::Layer,
            |layer| layer,
            |seen| {
                let tag = format!("all {}", seen.uri.path().trim_start_matches('/'));
                let headers = [
                    ("cache-control", "max-age=60"),
                    ("vary", "x"),
                    ("surrogate-key", tag.as_str()),
                ];
                response(200, &headers, format!("answer {}", seen.before))
            },
        );
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
    let cache = connect(&redis).await;
    let site = Site::on(
        cache,
        TestClock::new(),
        Mode::Layer,
        |layer| layer,
        |seen| response(200, &[("cache-control", "max-age=60")], format!("answer {}", seen.before)),
    )
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
    let cache = connect(&redis).await;
    let site = Site::on(
        cache,
        TestClock::new(),
        Mode::Layer,
        |layer| layer,
        |seen| response(200, &[("cache-control", "max-age=60")], format!("answer {}", seen.before)),
    )
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
    assert!(tokio::time::timeout(Duration::from_secs(5), old).await.is_ok(), "still the old one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_neither_holds_answers_up_nor_lets_the_origin_be_rushed() {
    let redis = RedisServer::start();
    let calls = Arc::new(AtomicUsize::new(0));
    let headers = &[("cache-control", "max-age=60")];
    let inner = Slow { calls: Arc::clone(&calls), headers, is_ready: false };
    let service = HttpCacheLayer::new(connect(&redis).await).layer(inner);
    all(&service, 1).await;
    redis.stop();
    for round in 1..=3 {
        let (before, started) = (calls.load(SeqCst), now());
        let answers = all(&service, 100).await;
        let took = started.elapsed();
        assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
        // The origin takes 100 ms, and asking the store 250: it is asked only once.
        assert!(took < Duration::from_millis(600), "round {round}: {took:?}");
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
