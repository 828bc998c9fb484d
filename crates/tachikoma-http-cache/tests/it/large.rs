//! Bodies that are too large for Redis: kept by each process, and ruled by what Redis has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use futures_util::future::join_all;
use http::StatusCode;
use tachikoma_cache::{
    Cache, Clock, SystemClock, TestClock,
    store::redis::{RedisConfig, RedisStore},
};
use tachikoma_http_cache::{HttpCacheLayer, Purge};
use tachikoma_testkit::RedisServer;

use crate::{
    site::{Answer, MODES, Mode, Seen, Site, pause, request, response},
    sizes::{bytes, streamed},
};

const SIZE: usize = 12 << 20;
const MAX: usize = 16 << 20;
/// So much comes of what breaks off.
const SENT: usize = 9 << 20;
const RULE: &str = "max-age=600";
const SWR: &str = "max-age=600, stale-while-revalidate=600";

/// The bytes of a version.
fn body(version: usize) -> Vec<u8> {
    bytes(SIZE, version as u64 + 1)
}

/// An origin of one large body for each path, in its current version, of parts and of conditions;
/// what is sent whole comes in pieces.
fn origin(version: &Arc<AtomicUsize>) -> impl Fn(&Seen) -> http::Response<Body> + use<> {
    let version = Arc::clone(version);
    move |seen| {
        let version = version.load(SeqCst);
        let etag = format!("\"{version}\"");
        let tag = seen.uri.path().trim_start_matches('/').to_owned();
        let fields = [
            ("cache-control", if tag == "swr" { SWR } else { RULE }),
            ("etag", etag.as_str()),
            ("surrogate-key", tag.as_str()),
            ("vary", if tag == "vary" { "x" } else { "" }),
        ];
        if seen.headers.get("if-none-match").is_some_and(|known| *known == *etag) {
            return response(304, &fields, Body::empty());
        }
        // Each variant has its own.
        let whole =
            body(version + 9 * usize::from(seen.headers.get("x").is_some_and(|x| x == "2")));
        let Some(range) = seen.headers.get("range").map(|range| range.to_str().unwrap()) else {
            return response(200, &fields, streamed(&whole, false));
        };
        let (first, last) = range[6..].split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        let last = last.parse().unwrap_or(SIZE - 1);
        let said = format!("bytes {first}-{last}/{SIZE}");
        let mut part = response(206, &fields, streamed(&whole[first..=last], false));
        part.headers_mut().insert("content-range", said.parse().unwrap());
        part
    }
}

async fn connect(redis: &RedisServer) -> Cache {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (config, _) = RedisConfig::from_url(&redis.url()).unwrap();
    let store = RedisStore::connect(config, Arc::clone(&clock)).await.unwrap();
    // Copying large bodies keeps a busy machine from looking at Redis in time.
    let cache = Cache::on(Arc::new(store)).store_timeout(Duration::from_secs(5));
    cache.namespace("shop").clock(clock).build().unwrap()
}

/// A process on this Redis.
async fn process(
    redis: &RedisServer,
    options: impl FnOnce(HttpCacheLayer) -> HttpCacheLayer,
    origin: impl Fn(&Seen) -> http::Response<Body> + Send + Sync + 'static,
) -> Site {
    let options = |layer: HttpCacheLayer| options(layer.max_body_size(MAX));
    Site::on(connect(redis).await, TestClock::new(), Mode::Layer, options, origin).await
}

/// Two processes that share a Redis and an origin.
async fn two(redis: &RedisServer, version: &Arc<AtomicUsize>) -> [Site; 2] {
    [
        process(redis, |layer| layer, origin(version)).await,
        process(redis, |layer| layer, origin(version)).await,
    ]
}

#[track_caller]
fn check(answer: &Answer, status: u16, expected: &[u8], name: &str) {
    assert_eq!(answer.status, status, "{name}: {}", answer.said());
    let body = answer.body.as_ref().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(body == expected, "{name}: {} bytes, not {}", body.len(), expected.len());
}

/// Asks until this is said: Redis is filled behind the answer's back.
async fn until(site: &Site, path: &str, headers: &[(&str, &str)], said: &str) -> Answer {
    let mut last = String::new();
    for _ in 0..2_000 {
        let answer = site.get(path, headers).await;
        if answer.said().contains(said) {
            return answer;
        }
        last = answer.said().to_owned();
        pause().await;
    }
    panic!("{path} {headers:?}: never {said}, at last {last}");
}

/// Is it there, without asking the origin?
async fn is_there(site: &Site, path: &str, headers: &[(&str, &str)]) -> bool {
    let only = [headers, &[("cache-control", "only-if-cached")]].concat();
    site.get(path, &only).await.is_hit()
}

async fn check_life(site: &Site, store: &str) {
    let whole = body(0);
    check(&site.get("/swr", &[]).await, 200, &whole, &format!("{store} miss"));
    check(&until(site, "/swr", &[], "tachikoma;hit").await, 200, &whole, &format!("{store} hit"));
    let fetched = site.fetched();
    for (range, part) in [
        ("bytes=0-0", 0..1),
        ("bytes=9000000-9000099", 9_000_000..9_000_100),
        ("bytes=-5", SIZE - 5..SIZE),
        ("bytes=0-", 0..SIZE),
    ] {
        let answer = site.get("/swr", &[("range", range)]).await;
        assert!(answer.is_hit(), "{store} {range}: {}", answer.said());
        check(&answer, 206, &whole[part.clone()], &format!("{store} {range}"));
        let said = format!("bytes {}-{}/{SIZE}", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), said, "{store}");
    }
    let head = site.send(request("HEAD", "/swr", &[])).await;
    check(&head, 200, b"", &format!("{store} head"));
    assert!(head.is_hit() && head.header("content-length") == SIZE.to_string(), "{head:?}");
    let known = site.get("/swr", &[("if-none-match", "\"0\"")]).await;
    check(&known, 304, b"", &format!("{store} known"));
    assert!(known.is_hit() && site.fetched() == fetched, "{store}: {}", known.said());

    let asked = [("cache-control", "no-cache")];
    let validated = until(site, "/swr", &asked, "fwd=request;fwd-status=304;stored").await;
    check(&validated, 200, &whole, &format!("{store} validated"));
    let hit = until(site, "/swr", &[], "tachikoma;hit").await;
    check(&hit, 200, &whole, &format!("{store} after it"));

    let soft = Purge::url("http://shop.test/swr").soft();
    assert_eq!(site.cache.purge(&soft).await.unwrap().total(), 1, "{store}");
    let stale = site.get("/swr", &[]).await;
    assert!(stale.said().contains("detail=stale-while-revalidate"), "{store}: {}", stale.said());
    check(&stale, 200, &whole, &format!("{store} stale"));
    until_fresh(site, "/swr").await;

    let purge = Purge::url("http://shop.test/swr");
    assert_eq!(site.cache.count(&purge).await.unwrap(), 1, "{store}");
    assert_eq!(site.cache.purge(&purge).await.unwrap().total(), 1, "{store}");
    assert!(!is_there(site, "/swr", &[]).await, "{store}");
    check(&site.get("/swr", &[]).await, 200, &whole, &format!("{store} after the purge"));
}

/// Waits until a refresh is in.
async fn until_fresh(site: &Site, path: &str) {
    for _ in 0..2_000 {
        let answer = site.get(path, &[("cache-control", "only-if-cached, max-stale=0")]).await;
        if answer.is_hit() && !answer.said().contains("detail") {
            return;
        }
        pause().await;
    }
    panic!("{path} is never fresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_lives_as_any_other_in_memory() {
    for mode in MODES {
        let site =
            Site::with(mode, |layer| layer.max_body_size(MAX), origin(&Arc::default())).await;
        check_life(&site, &format!("memory {mode:?}")).await;
        assert_eq!(site.cache.stats().large_bytes, 0, "it is in the store");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_lives_as_any_other_beside_redis() {
    let redis = RedisServer::start();
    check_life(&process(&redis, |layer| layer, origin(&Arc::default())).await, "redis").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_has_the_head_and_this_process_the_body_until_it_is_purged() {
    let redis = RedisServer::start();
    let site = process(&redis, |layer| layer, origin(&Arc::default())).await;
    site.get("/a", &[]).await;
    until(&site, "/a", &[], "tachikoma;hit").await;
    let keys = redis.command(&["KEYS", "*"]);
    let keys = keys.array();
    let sizes = keys.iter().map(|key| redis.command(&["MEMORY", "USAGE", &key.text()]).integer());
    assert!(sizes.sum::<i64>() < 8_000, "{} keys", keys.len());
    let held = site.cache.stats().large_bytes;
    assert!((SIZE as u64..SIZE as u64 + 8_000).contains(&held), "{held} bytes");
    site.send(request("POST", "/a", &[])).await;
    assert_eq!(site.cache.stats().large_bytes, 0);
    assert!(!is_there(&site, "/a", &[]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_process_fetches_a_large_body_once_and_none_takes_the_others_place() {
    let redis = RedisServer::start();
    let [a, b] = two(&redis, &Arc::default()).await;
    a.get("/a", &[]).await;
    until(&a, "/a", &[], "tachikoma;hit").await;
    let asked = request("GET", "/a", &[]).map(drop);
    let explained = b.cache.explain(&asked).await;
    assert!(explained.to_string().contains("no   stored    Is its large body in the memory of"));
    assert!(explained.cache_status() == "tachikoma;fwd=miss" && explained.asks_origin);
    let first = b.get("/a", &[]).await;
    assert_eq!(first.said(), "tachikoma;fwd=miss;stored");
    check(&first, 200, &body(0), "b");
    until(&b, "/a", &[], "tachikoma;hit").await;
    for _ in 0..3 {
        for site in [&a, &b] {
            let answer = site.get("/a", &[]).await;
            assert!(answer.is_hit(), "{}", answer.said());
            check(&answer, 200, &body(0), "both");
        }
    }
    assert_eq!((a.fetched(), b.fetched()), (1, 1));
    // What one of them validates is validated for both.
    until(&b, "/a", &[("cache-control", "no-cache")], "fwd-status=304;stored").await;
    assert!(is_there(&a, "/a", &[]).await && is_there(&b, "/a", &[]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_takes_away_is_gone_at_once_here_too() {
    let redis = RedisServer::start();
    let [a, b] = two(&redis, &Arc::default()).await;
    for purge in [
        Some(Purge::url("http://shop.test/a")),
        Some(Purge::prefix("http://shop.test/")),
        Some(Purge::pattern("/a*")),
        Some(Purge::tag("a")),
        None,
    ] {
        a.get("/a", &[]).await;
        until(&a, "/a", &[], "tachikoma;hit").await;
        let Some(purge) = purge else {
            b.send(request("POST", "/a", &[])).await;
            assert!(!is_there(&a, "/a", &[]).await, "POST");
            continue;
        };
        assert_eq!(b.cache.count(&purge).await.unwrap(), 1, "{purge:?}");
        // Made stale, it is still answered from here, and validated.
        let soft = purge.clone().soft();
        assert_eq!(b.cache.purge(&soft).await.unwrap().redis, Some(1), "{purge:?}");
        let stale = a.get("/a", &[]).await;
        assert_eq!(stale.said(), "tachikoma;fwd=stale;fwd-status=304;stored");
        check(&stale, 200, &body(0), "stale");
        until(&a, "/a", &[], "tachikoma;hit").await;
        let purged = b.cache.purge(&purge).await.unwrap();
        assert!(purged.redis.is_none_or(|count| count == 1), "{purge:?}: {purged:?}");
        assert!(!is_there(&a, "/a", &[]).await, "{purge:?}");
        assert!(!a.get("/a", &[]).await.is_hit(), "{purge:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_version_is_that_of_every_process() {
    let redis = RedisServer::start();
    let version = Arc::default();
    let [a, b] = two(&redis, &version).await;
    a.get("/a", &[]).await;
    until(&a, "/a", &[], "tachikoma;hit").await;
    version.store(1, SeqCst);
    check(&b.get("/a", &[]).await, 200, &body(1), "b");
    until(&b, "/a", &[], "tachikoma;hit").await;
    // Its own bytes are those of the version before.
    let missed = a.get("/a", &[]).await;
    assert_eq!(missed.said(), "tachikoma;fwd=miss;stored");
    check(&missed, 200, &body(1), "a");
    for site in [&a, &b] {
        check(&until(site, "/a", &[], "tachikoma;hit").await, 200, &body(1), "both");
    }
    assert_eq!((a.fetched(), b.fetched()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_does_not_take_the_place_of_what_another_process_has_whole() {
    let redis = RedisServer::start();
    let [a, b] = two(&redis, &Arc::default()).await;
    a.get("/a", &[]).await;
    until(&a, "/a", &[], "tachikoma;hit").await;
    let asked = [("range", "bytes=100-199")];
    for _ in 0..2 {
        let part = b.get("/a", &asked).await;
        assert_eq!(part.said(), "tachikoma;fwd=miss;detail=elsewhere");
        check(&part, 206, &body(0)[100..200], "b");
    }
    let given = [("cache-control", "max-age=9"), ("content-range", "bytes 100-199/12582912")];
    let given = response(206, &given, "");
    let judged =
        b.cache.explain_answer(&request("GET", "/a", &asked).map(drop), &given).await.to_string();
    assert!(judged.contains("no   response  Is it no part of what another process"), "{judged}");
    assert!(a.get("/a", &asked).await.is_hit());
    // As players of videos ask.
    let all = b.get("/a", &[("range", "bytes=0-")]).await;
    assert_eq!(
        (all.status, all.said()),
        (StatusCode::PARTIAL_CONTENT, "tachikoma;fwd=miss;stored")
    );
    until(&b, "/a", &asked, "tachikoma;hit").await;
    assert!(a.get("/a", &[]).await.is_hit() && b.get("/a", &[]).await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variants_lie_apart_and_go_together() {
    let redis = RedisServer::start();
    let [a, b] = two(&redis, &Arc::default()).await;
    for site in [&a, &b] {
        for x in ["1", "2"] {
            site.get("/vary", &[("x", x)]).await;
            until(site, "/vary", &[("x", x)], "tachikoma;hit").await;
        }
    }
    assert_eq!((a.fetched(), b.fetched()), (2, 2));
    for site in [&a, &b] {
        for x in ["1", "2"] {
            let expected = body(if x == "2" { 9 } else { 0 });
            check(&site.get("/vary", &[("x", x)]).await, 200, &expected, x);
        }
    }
    assert_eq!((a.fetched(), b.fetched()), (2, 2));
    let purge = Purge::url("http://shop.test/vary");
    assert_eq!(b.cache.purge(&purge).await.unwrap().redis, Some(2));
    for x in ["1", "2"] {
        assert!(!is_there(&a, "/vary", &[("x", x)]).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_kept_than_is_allowed_and_what_was_pushed_out_is_a_miss() {
    const MOST: u64 = 40 << 20;
    let redis = RedisServer::start();
    let options = |layer: HttpCacheLayer| layer.max_large_bytes(MOST);
    let site = process(&redis, options, origin(&Arc::default())).await;
    let paths = ["/1", "/2", "/3", "/4", "/5"];
    let mut elsewhere = 0;
    for round in 0..2 {
        for path in paths {
            let answer = site.get(path, &[]).await;
            check(&answer, 200, &body(0), path);
            let is_known = answer.is_hit() || answer.said() == "tachikoma;fwd=miss;stored";
            assert!(round == 0 || is_known, "{path}: {}", answer.said());
            elsewhere += usize::from(answer.said().contains("fwd=miss;"));
            until(&site, path, &[], "tachikoma;hit").await;
            let held = site.cache.stats().large_bytes;
            assert!((SIZE as u64..=MOST).contains(&held), "{held} bytes");
        }
    }
    assert!(elsewhere >= 2, "{elsewhere} were pushed out");

    // One that is larger than all that is allowed is passed on.
    let options = |layer: HttpCacheLayer| layer.max_large_bytes(SIZE as u64);
    let site = process(&redis, options, origin(&Arc::default())).await;
    for _ in 0..2 {
        let answer = site.get("/large", &[]).await;
        assert!(answer.said().contains("uri-miss"), "{}", answer.said());
        check(&answer, 200, &body(0), "too large");
    }
    assert_eq!((site.cache.stats().large_bytes, site.cache.stats().stored), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_the_cap_is_passed_on() {
    let redis = RedisServer::start();
    let site = process(
        &redis,
        |layer| layer,
        |_| response(200, &[("cache-control", RULE)], streamed(&bytes(MAX + 1, 1), false)),
    )
    .await;
    for _ in 0..2 {
        check(&site.get("/a", &[]).await, 200, &bytes(MAX + 1, 1), "over");
    }
    assert_eq!((site.fetched(), site.cache.stats().stored), (2, 0));
    assert_eq!(site.cache.stats().large_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_readers_share_one_fetch_while_it_arrives() {
    let redis = RedisServer::start();
    let site = process(&redis, |layer| layer, origin(&Arc::default())).await;
    let (whole, mut asked) = (body(0), Vec::new());
    // Each begins while the first has read a part of it.
    let mut first = site.open(request("GET", "/a", &[])).await.into_body();
    let begun = http_body_util::BodyExt::frame(&mut first).await.unwrap().unwrap();
    asked.extend((0..50).map(|_| site.get("/a", &[])));
    let answers = join_all(asked).await;
    for answer in &answers {
        check(answer, 200, &whole, answer.said());
    }
    let rest = http_body_util::BodyExt::collect(first).await.unwrap().to_bytes();
    assert!([&begun.into_data().unwrap()[..], &rest].concat() == whole);
    assert_eq!(site.fetched(), 1);
    check(&until(&site, "/a", &[], "tachikoma;hit").await, 200, &whole, "hit");
    assert_eq!((site.fetched(), site.cache.stats().fill_bytes), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_breaks_off_for_all_and_leaves_nothing() {
    let redis = RedisServer::start();
    for (sent, breaks, promised) in [
        (SENT, true, None),
        (SENT, true, Some(SIZE)),
        (SENT, false, Some(SIZE)),
        (SIZE, false, Some(SIZE - 1)),
    ] {
        let answer = move |_: &Seen| {
            let body = streamed(&body(0)[..sent], breaks);
            let mut answer = response(200, &[("cache-control", RULE)], body);
            if let Some(promised) = promised {
                answer.headers_mut().insert("content-length", promised.into());
            }
            answer
        };
        let site = process(&redis, |layer| layer, answer).await;
        for readers in [1, 50] {
            let asked = (0..readers).map(|_| site.get("/a", &[]));
            for answer in join_all(asked).await {
                assert!(answer.body.is_err(), "{sent} {breaks} {promised:?}: a clean end");
            }
        }
        assert_eq!((site.cache.stats().stored, site.cache.stats().large_bytes), (0, 0));
        assert!(!is_there(&site, "/a", &[]).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_loses_the_bodies_and_nothing_else() {
    let redis = RedisServer::start();
    let site = process(&redis, |layer| layer, origin(&Arc::default())).await;
    site.get("/a", &[]).await;
    until(&site, "/a", &[], "tachikoma;hit").await;
    drop(site);
    let site = process(&redis, |layer| layer, origin(&Arc::default())).await;
    assert!(!is_there(&site, "/a", &[]).await);
    let missed = site.get("/a", &[]).await;
    assert_eq!(missed.said(), "tachikoma;fwd=miss;stored");
    check(&missed, 200, &body(0), "after the restart");
    check(&until(&site, "/a", &[], "tachikoma;hit").await, 200, &body(0), "then");
    assert_eq!(site.fetched(), 1);
}
