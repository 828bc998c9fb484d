//! Many requests at once: one fetch, nobody hangs, nothing that is not shared is shared.

use std::{
    convert::Infallible,
    future::Future as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::body::Body;
use futures_util::future::{BoxFuture, join_all};
use http::{Request, Response};
use tachikoma_cache::Cache;
use tachikoma_http_cache::{CacheBody, HttpCacheLayer, HttpCacheService};
use tachikoma_testkit::Stopwatch;
use tower::{Layer as _, Service, ServiceExt as _};

use crate::site::{Answer, read, request, response};

/// Takes 100 ms, and must be polled ready before each call.
pub(crate) struct Slow {
    pub(crate) calls: Arc<AtomicUsize>,
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) is_ready: bool,
}

impl Clone for Slow {
    /// A clone is not ready because the original was.
    fn clone(&self) -> Self {
        Self { calls: Arc::clone(&self.calls), headers: self.headers, is_ready: false }
    }
}

async fn wait(millis: u64) {
    let _ = tokio::time::timeout(Duration::from_millis(millis), std::future::pending::<()>()).await;
}

/// Waits until the source was asked so often.
async fn asked(calls: &AtomicUsize, times: usize) {
    let patience = Stopwatch::start();
    while calls.load(SeqCst) < times {
        assert!(patience.elapsed() < Duration::from_secs(20), "{calls:?} of {times} fetches");
        wait(1).await;
    }
}

impl Service<Request<Body>> for Slow {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without being ready");
        let number = self.calls.fetch_add(1, SeqCst);
        let headers = self.headers;
        Box::pin(async move {
            wait(100).await;
            Ok(response(200, headers, format!("answer {number}")))
        })
    }
}

pub(crate) type Cached = HttpCacheService<Slow>;

fn slow(headers: &'static [(&'static str, &'static str)]) -> (Cached, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let inner = Slow { calls: Arc::clone(&calls), headers, is_ready: false };
    let layer = HttpCacheLayer::new(Cache::memory().build().unwrap());
    (layer.layer(inner), calls)
}

async fn ask(service: &Cached, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(service, "GET", path, headers).await
}

async fn send(service: &Cached, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let response = service.clone().oneshot(request(method, path, headers)).await.unwrap();
    read(response.map(Body::new)).await
}

/// Sends each of these ten times at once.
fn mixed(
    service: &Cached,
    kinds: &[(&'static str, &'static [(&'static str, &'static str)])],
) -> impl Future<Output = Vec<Answer>> + use<> {
    let asked: Vec<_> = (0..10)
        .flat_map(|_| kinds.to_vec())
        .map(|(method, headers)| {
            let service = service.clone();
            tokio::spawn(async move { send(&service, method, "/", headers).await })
        })
        .collect();
    async move { join_all(asked).await.into_iter().map(Result::unwrap).collect() }
}

/// A condition that what [`slow`] sends meets, one that it does not, and a HEAD.
const MIXED: [(&str, &[(&str, &str)]); 3] =
    [("GET", &[("if-none-match", "\"a\"")]), ("GET", &[("if-none-match", "\"b\"")]), ("HEAD", &[])];

pub(crate) fn all(service: &Cached, count: usize) -> impl Future<Output = Vec<Answer>> + use<> {
    let service = service.clone();
    async move {
        let asked = (0..count).map(|_| {
            let service = service.clone();
            tokio::spawn(async move { ask(&service, "/", &[]).await })
        });
        join_all(asked).await.into_iter().map(Result::unwrap).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_make_one_fetch() {
    let (service, calls) = slow(&[("cache-control", "max-age=60")]);
    let started = Stopwatch::start();
    let answers = all(&service, 1_000).await;
    assert_eq!(calls.load(SeqCst), 1);
    assert!(answers.iter().all(|answer| answer.text() == "answer 0"));
    let waited = answers.iter().filter(|answer| answer.said().contains("collapsed")).count();
    let hits = answers.iter().filter(|answer| answer.is_hit()).count();
    assert!(waited > 100 && waited + hits == 999, "{waited} collapsed, {hits} hits");
    started.within(Duration::from_secs(3));
}

/// FM-28.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_proves_uncacheable_is_shared_with_nobody_and_nobody_queues() {
    for headers in [
        &[("cache-control", "private, max-age=60")][..],
        &[("cache-control", "no-store")],
        &[("cache-control", "max-age=60"), ("set-cookie", "a=b")],
        &[("cache-control", "max-age=60"), ("vary", "*")],
    ] {
        let (service, calls) = slow(headers);
        for round in 1..=2 {
            let started = Stopwatch::start();
            let mut texts: Vec<_> = all(&service, 100).await.iter().map(Answer::text).collect();
            started.within(Duration::from_millis(300));
            texts.sort_unstable();
            texts.dedup();
            assert_eq!((texts.len(), calls.load(SeqCst)), (100, 100 * round), "{headers:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_and_heads_wait_for_the_fetch_under_way() {
    let (service, calls) = slow(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
    let leader = all(&service, 1);
    let (first, answers) = tokio::join!(tokio::spawn(leader), async {
        asked(&calls, 1).await;
        mixed(&service, &MIXED).await
    });
    assert_eq!((first.unwrap()[0].text().as_str(), calls.load(SeqCst)), ("answer 0", 1));
    for answers in answers.chunks(3) {
        let [same, other, head] = answers else { panic!("{answers:?}") };
        assert_eq!((same.status.as_u16(), same.text().as_str()), (304, ""));
        assert_eq!((other.status.as_u16(), other.text().as_str()), (200, "answer 0"));
        assert_eq!((head.status.as_u16(), head.text().as_str()), (200, ""));
        assert_eq!((head.header("content-length"), head.header("etag")), ("8", "\"a\""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_and_heads_share_nothing_that_proves_uncacheable() {
    for headers in [
        &[("cache-control", "private, max-age=60"), ("etag", "\"a\"")][..],
        &[("cache-control", "no-store"), ("etag", "\"a\"")],
        &[("cache-control", "max-age=60"), ("etag", "\"a\""), ("set-cookie", "a=b")],
        &[("cache-control", "max-age=60"), ("etag", "\"a\""), ("vary", "*")],
    ] {
        let (service, calls) = slow(headers);
        let started = Stopwatch::start();
        let leader = tokio::spawn(all(&service, 1));
        asked(&calls, 1).await;
        let answers = mixed(&service, &MIXED).await;
        started.within(Duration::from_millis(400));
        leader.await.unwrap();
        assert_eq!(calls.load(SeqCst), 31, "{headers:?}");
        assert!(answers.iter().all(|answer| !answer.said().contains("collapsed")), "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_and_heads_are_waited_for_by_nobody() {
    let (service, calls) = slow(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
    let started = Stopwatch::start();
    let first = tokio::spawn(mixed(&service, &MIXED));
    wait(30).await;
    let plain = all(&service, 2).await;
    started.within(Duration::from_millis(400));
    assert!(plain.iter().all(|answer| answer.status == 200));
    first.await.unwrap();
    assert_eq!(calls.load(SeqCst), 31);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variants_are_fetched_side_by_side_and_each_once() {
    let (service, calls) = slow(&[("cache-control", "max-age=60"), ("vary", "x")]);
    ask(&service, "/", &[("x", "0")]).await;
    let started = Stopwatch::start();
    let asked = (0..20).map(|i| {
        let service = service.clone();
        tokio::spawn(async move { ask(&service, "/", &[("x", ["1", "2"][i % 2])]).await })
    });
    join_all(asked).await;
    assert!(calls.load(SeqCst) <= 4, "{} fetches", calls.load(SeqCst));
    started.within(Duration::from_millis(450));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_goes_away_hangs_nobody() {
    let (service, calls) = slow(&[("cache-control", "max-age=60")]);
    for round in 0..100_u64 {
        let path = format!("/{round}");
        let leader = tokio::spawn({
            let (service, path) = (service.clone(), path.clone());
            async move { ask(&service, &path, &[]).await }
        });
        wait(1).await;
        let followers: Vec<_> = (0..3)
            .map(|_| {
                let (service, path) = (service.clone(), path.clone());
                tokio::spawn(async move { ask(&service, &path, &[]).await })
            })
            .collect();
        let killer = tokio::spawn(async move {
            wait(round % 13 * 10).await;
            leader.abort();
        });
        if round % 10 == 9 {
            for follower in followers {
                let answer = tokio::time::timeout(Duration::from_secs(5), follower).await;
                assert!(answer.expect("a follower hangs").is_ok());
            }
            killer.await.unwrap();
        }
    }
    assert!(calls.load(SeqCst) <= 200, "{} fetches", calls.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_never_polled_again_holds_others_up_no_longer_than_the_limit() {
    let calls = Arc::new(AtomicUsize::new(0));
    let headers = &[("cache-control", "max-age=60")];
    let inner = Slow { calls: Arc::clone(&calls), headers, is_ready: false };
    let layer = HttpCacheLayer::new(Cache::memory().build().unwrap());
    let service = layer.wait_limit(Duration::from_millis(50)).layer(inner);
    let mut leader = Box::pin(service.clone().oneshot(request("GET", "/", &[])));
    let started = leader.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(started.is_pending());
    let answer = tokio::time::timeout(Duration::from_secs(2), ask(&service, "/", &[])).await;
    assert_eq!(answer.expect("held up").text(), "answer 1");
    drop(leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_after_an_invalidation_does_not_get_what_was_asked_for_before() {
    for tag in [false, true] {
        let calls = Arc::new(AtomicUsize::new(0));
        let headers = &[("cache-control", "max-age=60"), ("surrogate-key", "t")];
        let inner = Slow { calls: Arc::clone(&calls), headers, is_ready: false };
        let layer = HttpCacheLayer::new(Cache::memory().build().unwrap());
        let (cache, service) = (layer.handle(), layer.layer(inner));
        let ask = || {
            let service = service.clone();
            tokio::spawn(async move { ask(&service, "/", &[]).await.text() })
        };
        let before = [ask(), ask()];
        asked(&calls, 1).await;
        if tag {
            cache.purge_tag("t").await.unwrap();
        } else {
            cache.purge_url("http://shop.test/").await.unwrap();
        }
        let after = ask();
        for asked in before {
            // One of them waited for the other, and may look again when that was invalidated.
            assert!(["answer 0", "answer 1"].contains(&asked.await.unwrap().as_str()));
        }
        assert_eq!(after.await.unwrap(), "answer 1", "by tag: {tag}");
        assert_eq!(ask().await.unwrap(), "answer 1", "by tag: {tag}");
        assert_eq!(calls.load(SeqCst), 2);
    }
}

#[tokio::test]
async fn a_hit_never_waits_for_the_inner_service() {
    #[derive(Clone)]
    struct ReadyOnce(Arc<AtomicUsize>);
    impl Service<Request<Body>> for ReadyOnce {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            if self.0.fetch_add(1, SeqCst) == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::ready(Ok(response(200, &[("cache-control", "max-age=60")], "once")))
        }
    }
    let layer = HttpCacheLayer::new(Cache::memory().build().unwrap());
    let service = layer.layer(ReadyOnce(Arc::default()));
    for hit in [false, true] {
        let asked = service.clone().oneshot(request("GET", "/", &[]));
        let answer = tokio::time::timeout(Duration::from_secs(2), asked).await.expect("it waited");
        let answer = read(answer.unwrap().map(|body: CacheBody<Body>| Body::new(body))).await;
        assert_eq!((answer.text().as_str(), answer.is_hit()), ("once", hit));
    }
}

/// The contract of `tower`: a service is called only after it said that it is ready, and that very
/// one. A mock that is not ready holds up misses, and neither `poll_ready` nor a hit.
#[tokio::test]
async fn the_service_below_is_called_only_when_it_is_ready_and_hits_do_not_ask_it() {
    type Inner = tower_test::mock::Mock<Request<Body>, Response<Body>>;
    let (inner, mut handle): (Inner, _) = tower_test::mock::pair();
    let layer = HttpCacheLayer::new(Cache::memory().build().unwrap());
    let mut service = layer.layer(inner);
    handle.allow(0);
    let ready = service.ready();
    tokio::time::timeout(Duration::from_secs(2), ready).await.expect("it waits").unwrap();
    let mut miss = Box::pin(service.clone().oneshot(request("GET", "/", &[])));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut miss).await.is_err());
    handle.allow(1);
    let answered = async {
        let (_, respond) = handle.next_request().await.unwrap();
        respond.send_response(response(200, &[("cache-control", "max-age=60")], "once"));
    };
    let (answer, ()) = tokio::join!(miss, answered);
    assert_eq!(read(answer.unwrap().map(Body::new)).await.text(), "once");
    // Not ready any more, and not needed.
    let hit = service.oneshot(request("GET", "/", &[]));
    let hit = tokio::time::timeout(Duration::from_secs(2), hit).await.expect("it waits").unwrap();
    assert!(read(hit.map(Body::new)).await.is_hit());
}
