//! What a HEAD tells about what is stored, and a POST whose answer is stored.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use tachikoma_cache::{Cache, TestClock};
use tachikoma_http_cache::HttpCacheLayer;
use tokio::sync::Notify;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::site::{MODES, Mode, Site, pause, read, request, response};

/// Answers GET once, and a HEAD after it with `head`.
async fn with_head(mode: Mode, head: &'static [(&'static str, &'static str)]) -> Site {
    let site = Site::new(mode, move |seen| {
        if seen.method == "HEAD" {
            return response(200, head, "");
        }
        let fields = [("cache-control", "max-age=10"), ("etag", "\"a\""), ("x-seen", "get")];
        response(200, &fields, format!("answer {}", seen.before))
    })
    .await;
    site.get("/", &[]).await;
    site.advance(10);
    site
}

#[tokio::test]
async fn a_head_about_the_same_version_updates_what_is_stored() {
    for mode in MODES {
        let head = &[
            ("etag", "\"a\""),
            ("cache-control", "max-age=60"),
            ("content-length", "8"),
            ("x-seen", "head"),
        ];
        let site = with_head(mode, head).await;
        site.send(request("HEAD", "/", &[])).await;
        let updated = site.get("/", &[]).await;
        assert_eq!(updated.said(), "tachikoma;hit;ttl=60", "{mode:?}");
        assert_eq!((updated.text().as_str(), updated.header("x-seen")), ("answer 0", "head"));
        assert_eq!(site.fetched(), 2, "{mode:?}");
    }
}

#[tokio::test]
async fn a_head_about_another_version_makes_what_is_stored_unusable() {
    for head in [
        &[("etag", "\"b\""), ("cache-control", "max-age=60")][..],
        &[("content-length", "99"), ("cache-control", "max-age=60")],
        &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("cache-control", "max-age=60")],
        &[("etag", "\"a\""), ("cache-control", "no-store")],
    ] {
        let site = with_head(Mode::Layer, head).await;
        site.send(request("HEAD", "/", &[])).await;
        let answer = site.get("/", &[("cache-control", "max-stale")]).await;
        assert_eq!(answer.said(), "tachikoma;fwd=uri-miss;stored", "{head:?}");
        assert_eq!(answer.text(), "answer 2", "{head:?}");
    }
}

/// Answers each request with these fields.
async fn answering(mode: Mode, fields: &'static [(&'static str, &'static str)]) -> Site {
    Site::new(mode, move |seen| response(200, fields, format!("{} {}", seen.method, seen.before)))
        .await
}

#[tokio::test]
async fn the_answer_to_a_post_is_stored_if_it_says_it_is_that_of_a_get() {
    for mode in MODES {
        let fields = &[("cache-control", "max-age=60"), ("content-location", "/cart?id=1")];
        let site = answering(mode, fields).await;
        site.get("/cart?id=1", &[]).await;
        let posted = site.send(request("POST", "/cart?id=1", &[])).await;
        assert_eq!(posted.said(), "tachikoma;fwd=method;stored;detail=method", "{mode:?}");
        assert_eq!(posted.text(), "POST 1");
        let got = site.get("/cart?id=1", &[]).await;
        assert_eq!((got.text().as_str(), got.is_hit()), ("POST 1", true), "{mode:?}");
        assert!(site.send(request("HEAD", "/cart?id=1", &[])).await.is_hit(), "{mode:?}");
        assert!(!site.send(request("POST", "/cart?id=1", &[])).await.is_hit(), "{mode:?}");
    }
}

#[tokio::test]
async fn no_other_answer_to_a_post_is_stored() {
    for fields in [
        &[("cache-control", "max-age=60")][..],
        &[("cache-control", "max-age=60"), ("content-location", "/other")],
        &[("content-location", "/cart"), ("etag", "\"a\"")],
        &[("cache-control", "public"), ("content-location", "/cart"), ("etag", "\"a\"")],
        &[("cache-control", "max-age=60, private"), ("content-location", "/cart")],
        &[("cache-control", "max-age=60"), ("content-location", "/cart"), ("set-cookie", "a=b")],
    ] {
        let site = answering(Mode::Layer, fields).await;
        site.get("/cart", &[]).await;
        let posted = site.send(request("POST", "/cart", &[])).await;
        assert_eq!(posted.status, StatusCode::OK);
        let got = site.get("/cart", &[]).await;
        assert_eq!((got.text().as_str(), got.is_hit()), ("GET 2", false), "{fields:?}");
    }
    let fields = &[("cache-control", "max-age=60"), ("content-location", "/cart")];
    let site = answering(Mode::Layer, fields).await;
    site.send(request("POST", "/cart", &[("cookie", "a=b")])).await;
    assert!(!site.get("/cart", &[]).await.is_hit(), "what a cookie brought");
    site.send(request("PUT", "/put", &[])).await;
    assert!(!site.get("/put", &[]).await.is_hit(), "only POST is defined so");
}

/// A page that a write changes, when the test lets the write end.
#[derive(Clone, Default)]
struct Page {
    version: Arc<AtomicUsize>,
    asked: Arc<Notify>,
    may_end: Arc<Notify>,
}

impl Page {
    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        if request.method() != "GET" {
            self.asked.notify_one();
            self.may_end.notified().await;
            self.version.fetch_add(1, SeqCst);
        }
        let version = self.version.load(SeqCst).to_string();
        Ok(response(200, &[("cache-control", "max-age=60")], version))
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_to_its_write_leaves_nothing_old_behind() {
    for method in ["PUT", "POST", "DELETE"] {
        let page = Page::default();
        let inner = service_fn({
            let page = page.clone();
            move |request| page.clone().answer(request)
        });
        let service = HttpCacheLayer::new(Cache::memory().build().unwrap()).layer(inner);
        let send = |method: &str| service.clone().oneshot(request(method, "/", &[]));
        let get = async || read(send("GET").await.unwrap().map(Body::new)).await;
        assert_eq!(get().await.text(), "0");
        assert!(get().await.is_hit());
        let writing = tokio::spawn(send(method));
        page.asked.notified().await;
        writing.abort();
        assert!(writing.await.is_err_and(|error| error.is_cancelled()));
        page.may_end.notify_one();
        for round in 0.. {
            if get().await.text() == "1" {
                break;
            }
            assert!(round < 2_000, "{method}: the old page is left");
            pause().await;
        }
    }
}

#[tokio::test]
async fn a_write_that_its_client_left_is_given_up_when_no_answer_comes() {
    for method in ["PUT", "POST"] {
        let page = Page::default();
        let inner = service_fn({
            let page = page.clone();
            move |request| page.clone().answer(request)
        });
        let clock = TestClock::new();
        let cache = Cache::memory().clock(Arc::new(clock.clone())).build().unwrap();
        let service = HttpCacheLayer::new(cache).layer(inner);
        let held = || Arc::strong_count(&page.version);
        let before = held();
        let writing = tokio::spawn(service.clone().oneshot(request(method, "/", &[])));
        page.asked.notified().await;
        writing.abort();
        assert!(writing.await.is_err_and(|error| error.is_cancelled()));
        clock.advance(Duration::from_secs(59));
        pause().await;
        assert!(held() > before, "{method}: given up too early");
        clock.advance(Duration::from_secs(1));
        for round in 0.. {
            if held() == before {
                break;
            }
            assert!(round < 2_000, "{method}: it goes on");
            pause().await;
        }
    }
}

#[tokio::test]
async fn each_url_that_a_write_invalidates_is_counted_and_nothing_else() {
    let site = Site::new(Mode::Layer, |seen| match (seen.method.as_str(), seen.before) {
        ("POST", _) => response(201, &[("location", "/7"), ("content-location", "/8")], ""),
        (_, 0) => response(200, &[("cache-control", "max-age=9"), ("etag", "\"a\"")], ""),
        _ => response(200, &[("cache-control", "no-store"), ("etag", "\"b\"")], ""),
    })
    .await;
    site.get("/", &[]).await;
    site.send(request("HEAD", "/", &[("cache-control", "no-cache")])).await;
    assert!(!site.get("/", &[("cache-control", "only-if-cached")]).await.is_hit());
    assert_eq!(site.cache.stats().invalidations, 0);
    site.send(request("POST", "/", &[])).await;
    assert_eq!(site.cache.stats().invalidations, 3);
}
