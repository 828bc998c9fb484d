//! Pages that handlers build from cached values: they go when these go, and no handler names one.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::{Request, Response};
use tachikoma_cache::{Cache, TestClock, dependencies::carry};
use tachikoma_http_cache::{HttpCacheLayer, HttpCacheService};
use tachikoma_testkit::{RedisServer, Stopwatch, allowed};
use tokio::sync::Semaphore;
use tower::{Layer as _, Service, ServiceExt as _};

use crate::site::{Answer, read, request, response};

const MINUTE: Duration = Duration::from_secs(60);
const FRESH: (&str, &str) = ("cache-control", "max-age=600");

/// An application: what it shows is in a cache, its pages are in a layer before it.
#[derive(Clone)]
struct App {
    data: Cache,
    /// What the source of `loaded` says.
    source: Arc<AtomicU32>,
    /// What `slow` waits for.
    gate: Arc<Semaphore>,
    calls: Arc<AtomicU32>,
}

impl App {
    async fn value(&self, key: &str) -> String {
        let value = self.data.get::<String>(key).await.unwrap();
        value.map_or_else(|| "-".to_owned(), |value| value.as_str().to_owned())
    }

    async fn loaded(&self) -> String {
        let (app, data) = (self.clone(), self.data.clone());
        let outer = move || async move {
            let inner = Arc::clone(&app.source);
            let load = move || async move { Ok::<_, ()>(inner.load(SeqCst).to_string()) };
            let part = app.data.get_or_load("inner", load).ttl(MINUTE).await.unwrap();
            Ok::<_, ()>(format!("[{}]", part.as_str()))
        };
        data.get_or_load("outer", outer).ttl(MINUTE).await.unwrap().as_str().to_owned()
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        self.calls.fetch_add(1, SeqCst);
        match request.uri().path() {
            "/both" => {
                let text = self.value("a").await + &self.value("b").await;
                response(200, &[FRESH], text)
            }
            "/loaded" => response(200, &[FRESH], self.loaded().await),
            "/spawned" => {
                let app = self.clone();
                let read = carry(async move { app.value("a").await });
                response(200, &[FRESH], tokio::spawn(read).await.unwrap())
            }
            "/listed" => {
                let keys = self.data.keys().await.unwrap().keys.len().to_string();
                response(200, &[FRESH], keys)
            }
            "/vary" => {
                let headers = [FRESH, ("vary", "accept-language")];
                response(200, &headers, self.value("a").await)
            }
            "/etag" => {
                let text = self.value("a").await;
                let etag = format!("\"{text}\"");
                let headers = [("cache-control", "max-age=10"), ("etag", etag.as_str())];
                let known = request.headers().get("if-none-match");
                if known.is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
                    return response(304, &headers, Body::empty());
                }
                response(200, &headers, text)
            }
            "/refreshed" => {
                let swr = ("cache-control", "max-age=10, stale-while-revalidate=100");
                response(200, &[swr], self.value("a").await)
            }
            // Reads the one before its head, the other while its body is read.
            "/stream" => {
                let first = self.value("a").await;
                let rest = stream::once(async move {
                    self.gate.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(Bytes::from(first + &self.value("b").await))
                });
                response(200, &[FRESH], Body::from_stream(rest))
            }
            "/slow" => {
                let text = self.value("a").await;
                self.gate.acquire().await.unwrap().forget();
                response(200, &[FRESH], text)
            }
            path => response(404, &[], path.to_owned()),
        }
    }
}

impl Service<Request<Body>> for App {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let app = self.clone();
        Box::pin(async move { Ok(app.answer(request).await) })
    }
}

/// The application with its pages, on one node.
#[derive(Clone)]
struct Node {
    app: App,
    service: HttpCacheService<App>,
}

impl Node {
    fn on(data: Cache) -> Self {
        let pages = data.namespace("http").unwrap();
        let app = App {
            data,
            source: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            calls: Arc::default(),
        };
        let layer = HttpCacheLayer::new(pages).dependencies(true);
        Self { service: layer.layer(app.clone()), app }
    }

    fn memory() -> Self {
        Self::on(Cache::memory().dependencies(true).build().unwrap())
    }

    fn timed() -> (Self, TestClock) {
        let clock = TestClock::new();
        let cache = Cache::memory().dependencies(true).clock(Arc::new(clock.clone()));
        (Self::on(cache.build().unwrap()), clock)
    }

    async fn redis(server: &RedisServer) -> Self {
        let port = server.port();
        let url =
            format!("redis://127.0.0.1:{port}/0?memory=on&dependencies=true&store_timeout=10s");
        Self::on(Cache::connect(&url).await.unwrap())
    }

    async fn open(&self, path: &str) -> Response<Body> {
        let answer = self.service.clone().oneshot(request("GET", path, &[]));
        let answer = tokio::time::timeout(Duration::from_secs(20), answer).await;
        answer.expect("no answer").unwrap().map(Body::new)
    }

    async fn get(&self, path: &str) -> Answer {
        read(self.open(path).await).await
    }

    async fn set(&self, key: &str, value: &str) {
        self.app.data.set(key, value.to_owned(), MINUTE).tags(["t"]).await.unwrap();
    }

    /// Asks until the page is a hit: storing delays no answer.
    async fn settled(&self, path: &str) -> String {
        let watch = Stopwatch::start();
        loop {
            let answer = self.get(path).await;
            if answer.is_hit() {
                return answer.text();
            }
            assert!(watch.elapsed() < MINUTE, "{path} is never a hit: {}", answer.said());
        }
    }

    async fn begun(&self, calls: u32) {
        let watch = Stopwatch::start();
        while self.app.calls.load(SeqCst) < calls {
            assert!(watch.elapsed() < MINUTE);
            tokio::task::yield_now().await;
        }
    }
}

/// In memory, and with copies in memory of what is in Redis.
async fn both() -> (RedisServer, [Node; 2]) {
    let server = RedisServer::start();
    let redis = Node::redis(&server).await;
    (server, [Node::memory(), redis])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_when_anything_that_it_shows_is_changed_and_stays_otherwise() {
    let (_server, nodes) = both().await;
    for node in nodes {
        let data = node.app.data.clone();
        assert_eq!(node.get("/both").await.text(), "--");
        assert_eq!(node.settled("/both").await, "--");
        node.set("a", "1").await;
        assert_eq!(node.get("/both").await.text(), "1-", "absent before");
        node.set("b", "2").await;
        assert_eq!(node.get("/both").await.text(), "12");
        assert_eq!(node.settled("/both").await, "12");
        node.set("other", "x").await;
        data.delete("another").await.unwrap();
        assert!(node.get("/both").await.is_hit(), "not what it shows");
        data.delete("a").await.unwrap();
        assert_eq!(node.get("/both").await.text(), "-2");
        node.set("a", "3").await;
        node.settled("/both").await;
        data.invalidate_tag("t").await.unwrap();
        assert_eq!(node.get("/both").await.text(), "--");
        node.set("a", "4").await;
        assert_eq!(node.settled("/both").await, "4-");
        data.expire_tag("t").await.unwrap();
        assert!(!node.get("/both").await.is_hit(), "stale");
        node.set("a", "5").await;
        node.settled("/both").await;
        data.clear().await.unwrap();
        assert_eq!(node.get("/both").await.text(), "--");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_do_variants_spawned_tasks_and_loads_inside_of_loads() {
    let (_server, nodes) = both().await;
    for node in nodes {
        let data = node.app.data.clone();
        for path in ["/spawned", "/vary"] {
            node.set("a", "1").await;
            assert_eq!(node.settled(path).await, "1");
            node.set("a", "2").await;
            assert_eq!(node.get(path).await.text(), "2", "{path}");
            assert_eq!(node.settled(path).await, "2");
            data.delete("a").await.unwrap();
            assert_eq!(node.get(path).await.text(), "-", "{path}");
        }
        assert_eq!(node.settled("/loaded").await, "[0]");
        node.app.source.store(1, SeqCst);
        data.delete("inner").await.unwrap();
        assert_eq!(node.get("/loaded").await.text(), "[1]");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_reads_while_it_is_read_counts_also_when_its_client_has_gone() {
    let (_server, nodes) = both().await;
    for node in nodes {
        node.set("a", "1").await;
        node.set("b", "2").await;
        for leaves in [false, true] {
            let open = node.open("/stream").await;
            let reader = if leaves {
                drop(open);
                None
            } else {
                Some(tokio::spawn(read(open)))
            };
            node.app.gate.add_permits(1);
            if let Some(reader) = reader {
                assert_eq!(reader.await.unwrap().text(), "12");
            }
            // A miss would wait at the gate.
            let watch = Stopwatch::start();
            loop {
                let open = node.open("/stream").await;
                if open.headers()["cache-status"].as_bytes().starts_with(b"tachikoma;hit") {
                    break;
                }
                node.app.gate.add_permits(1);
                read(open).await;
                assert!(watch.elapsed() < MINUTE);
            }
            let key = if leaves { "a" } else { "b" };
            node.set(key, if leaves { "1" } else { "2" }).await;
            let open = node.open("/stream").await;
            assert!(!open.headers()["cache-status"].as_bytes().starts_with(b"tachikoma;hit"));
            node.app.gate.add_permits(1);
            read(open).await;
            node.app.data.delete("a").await.unwrap();
            node.set("a", "1").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_after_a_change_does_not_get_what_was_begun_before() {
    for path in ["/slow", "/stream"] {
        let node = Node::memory();
        node.set("a", "1").await;
        node.set("b", "").await;
        let first = {
            let node = node.clone();
            tokio::spawn(async move { node.get(path).await })
        };
        node.begun(1).await;
        // It has read what is changed now.
        tokio::task::yield_now().await;
        let before = node.app.calls.load(SeqCst);
        assert_eq!(before, 1);
        crate::site::pause().await;
        node.set("a", "2").await;
        let second = {
            let node = node.clone();
            tokio::spawn(async move { node.get(path).await })
        };
        crate::site::pause().await;
        node.app.gate.add_permits(2);
        assert!(["1", "2"].contains(&first.await.unwrap().text().as_str()));
        assert_eq!(second.await.unwrap().text(), "2", "{path}");
        node.app.gate.add_permits(10);
        assert_eq!(node.settled(path).await, "2", "{path}");
    }
}

#[tokio::test]
async fn what_is_not_known_to_depend_on_what_is_not_stored_and_says_so() {
    let node = Node::memory();
    for _ in 0..2 {
        let answer = node.get("/listed").await;
        assert!(!answer.is_hit());
        assert!(answer.said().contains("dependencies"), "{}", answer.said());
    }
    // A layer that is not told to does not care.
    let cache = Cache::memory().dependencies(true).build().unwrap();
    let layer = HttpCacheLayer::new(cache.namespace("http").unwrap());
    let service = layer.layer(Node::on(cache).app);
    for hit in [false, true] {
        let answer = service.clone().oneshot(request("GET", "/listed", &[])).await.unwrap();
        assert_eq!(read(answer.map(Body::new)).await.is_hit(), hit);
    }
}

#[tokio::test]
async fn what_was_validated_or_refreshed_goes_with_what_was_read_for_it() {
    let (node, clock) = Node::timed();
    for path in ["/etag", "/refreshed"] {
        node.set("a", "1").await;
        assert_eq!(node.settled(path).await, "1");
        clock.advance(Duration::from_secs(15));
        // The same value anew: a 304 or a refresh, with marks of their own.
        node.app.data.touch("a", MINUTE).await.unwrap();
        assert_eq!(node.get(path).await.text(), "1");
        assert_eq!(node.settled(path).await, "1");
        node.set("a", "2").await;
        assert_eq!(node.get(path).await.text(), "2", "{path}");
        assert_eq!(node.settled(path).await, "2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_on_one_node_makes_the_pages_of_all_fresh_within_the_freshness() {
    let server = RedisServer::start();
    let nodes =
        [Node::redis(&server).await, Node::redis(&server).await, Node::redis(&server).await];
    nodes[0].set("b", "x").await;
    for round in 0..10 {
        let writer = &nodes[round % 3];
        for node in &nodes {
            // Whatever it shows is a page of before.
            node.settled("/both").await;
        }
        writer.set("a", &round.to_string()).await;
        let watch = Stopwatch::start();
        for node in &nodes {
            while node.get("/both").await.text() != format!("{round}x") {
                let waited = watch.elapsed();
                assert!(
                    waited <= allowed(Duration::from_secs(1), waited),
                    "{round} after {waited:?}"
                );
            }
        }
        // And nothing older comes back.
        for node in nodes.iter().cycle().take(9) {
            assert_eq!(node.get("/both").await.text(), format!("{round}x"));
        }
    }
}
