//! Many readers of one response while it arrives: each gets it at once, whole, at its own pace.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tachikoma_cache::{Cache, TestClock};
use tachikoma_http_cache::{HttpCache, HttpCacheLayer, HttpCacheService};
use tokio::sync::mpsc;
use tower::{Layer as _, Service, ServiceExt as _};

use crate::site::{pause, read, request, response};

type Piece = Result<Frame<Bytes>, std::io::Error>;

/// Says what the test tells it to; ends when the test lets go of it.
struct Told {
    pieces: mpsc::Receiver<Piece>,
    open: Arc<AtomicUsize>,
}

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.pieces.poll_recv(cx)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.open.fetch_sub(1, SeqCst);
    }
}

/// Each call opens a response that the test fills.
#[derive(Clone)]
struct Stage {
    calls: Arc<AtomicUsize>,
    /// The bodies whose source is still held.
    open: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<mpsc::Sender<Piece>>>>,
    headers: &'static [(&'static str, &'static str)],
}

impl Service<Request<Body>> for Stage {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let number = self.calls.fetch_add(1, SeqCst);
        self.open.fetch_add(1, SeqCst);
        let (sender, pieces) = mpsc::channel(4);
        self.told.lock().unwrap().push(sender);
        let body = Body::new(Told { pieces, open: Arc::clone(&self.open) });
        let number = number.to_string();
        let mut headers = self.headers.to_vec();
        headers.push(("x-call", &number));
        let response = response(200, &headers, body);
        Box::pin(async move { Ok(response) })
    }
}

struct Play {
    stage: Stage,
    service: HttpCacheService<Stage>,
    cache: HttpCache,
    clock: TestClock,
}

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

impl Play {
    fn new(headers: &'static [(&'static str, &'static str)]) -> Self {
        Self::with(headers, |layer| layer)
    }

    fn with(
        headers: &'static [(&'static str, &'static str)],
        options: impl FnOnce(HttpCacheLayer) -> HttpCacheLayer,
    ) -> Self {
        let (calls, open, told) = Default::default();
        let stage = Stage { calls, open, told, headers };
        let clock = TestClock::new();
        let cache = Cache::memory().clock(Arc::new(clock.clone())).build().unwrap();
        let layer = options(HttpCacheLayer::new(cache));
        let cache = layer.handle();
        Self { service: layer.layer(stage.clone()), stage, cache, clock }
    }

    async fn open(&self) -> Response<Body> {
        self.open_with(&[]).await
    }

    async fn open_with(&self, headers: &[(&str, &str)]) -> Response<Body> {
        self.send("GET", headers).await
    }

    async fn send(&self, method: &str, headers: &[(&str, &str)]) -> Response<Body> {
        self.send_to(method, "/", headers).await
    }

    async fn send_to(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let asked = self.service.clone().oneshot(request(method, path, headers));
        let answer = tokio::time::timeout(Duration::from_secs(5), asked).await;
        answer.expect("no answer").unwrap().map(Body::new)
    }

    async fn say(&self, call: usize, bytes: impl Into<Bytes>) {
        let told = self.stage.told.lock().unwrap()[call].clone();
        let said = told.send(Ok(Frame::data(bytes.into())));
        tokio::time::timeout(Duration::from_secs(5), said).await.expect("not read").unwrap();
    }

    fn end(&self, call: usize) {
        let (closed, _) = mpsc::channel(1);
        self.stage.told.lock().unwrap()[call] = closed;
    }

    fn calls(&self) -> usize {
        self.stage.calls.load(SeqCst)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            pause().await;
        }
        panic!("never: {what}");
    }
}

async fn next(body: &mut Body) -> Bytes {
    let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await;
    frame.expect("nothing comes").unwrap().unwrap().into_data().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_reads_a_response_while_it_arrives() {
    let play = Play::new(FRESH);
    let mut first = play.open().await;
    play.say(0, "begin ").await;
    assert_eq!(next(first.body_mut()).await, "begin ");
    let mut others = join_all((0..50).map(|_| play.open())).await;
    for other in &mut others {
        assert_eq!(other.headers()["cache-status"], "tachikoma;fwd=uri-miss;collapsed");
        assert_eq!(next(other.body_mut()).await, "begin ");
    }
    play.say(0, "end").await;
    play.end(0);
    for answer in others.into_iter().chain([first]) {
        assert_eq!(read(answer).await.text().trim_start_matches("begin "), "end");
    }
    assert_eq!(play.calls(), 1);
    let hit = read(play.open().await).await;
    assert!(hit.is_hit() && hit.text() == "begin end", "{hit:?}");
    assert_eq!(hit.header("content-length"), "9");
    assert_eq!(play.cache.stats().fill_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_holds_nobody_up() {
    let play = Play::new(FRESH);
    // It never reads a byte, and keeps its place.
    let first = play.open().await;
    let second = tokio::spawn(read(play.open().await));
    for _ in 0..100 {
        play.say(0, vec![7; 10_000]).await;
    }
    play.end(0);
    assert_eq!(second.await.unwrap().body.unwrap().len(), 1_000_000);
    assert!(read(play.open().await).await.is_hit());
    assert_eq!(read(first).await.body.unwrap().len(), 1_000_000);
    assert_eq!(play.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_whose_readers_are_gone_is_stored_whole_or_given_up() {
    let play = Play::new(FRESH);
    let mut first = play.open().await;
    play.say(0, "begin ").await;
    assert_eq!(next(first.body_mut()).await, "begin ");
    drop(first);
    play.say(0, "end").await;
    play.end(0);
    play.until("stored", |play| play.cache.stats().stored == 1).await;
    let hit = read(play.open().await).await;
    assert!(hit.is_hit() && hit.text() == "begin end", "{hit:?}");

    for limit in [Duration::ZERO, Duration::from_millis(50)] {
        let play = Play::with(FRESH, |layer| layer.finish_limit(limit));
        let mut first = play.open().await;
        play.say(0, "begin ").await;
        assert_eq!(next(first.body_mut()).await, "begin ");
        drop(first);
        // The origin is let go of, and the next one does not get the beginning.
        play.until("given up", |play| play.stage.open.load(SeqCst) == 0).await;
        let second = play.open().await;
        play.say(1, "whole").await;
        play.end(1);
        assert_eq!(read(second).await.text(), "whole");
        assert_eq!((play.calls(), play.cache.stats().stored), (2, 1), "{limit:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_breaks_off_for_every_reader() {
    let play = Play::new(FRESH);
    let readers = join_all((0..50).map(|_| play.open())).await;
    assert_eq!(play.calls(), 1);
    play.say(0, "begin").await;
    let told = play.stage.told.lock().unwrap()[0].clone();
    told.send(Err(std::io::ErrorKind::ConnectionReset.into())).await.unwrap();
    for reader in join_all(readers.into_iter().map(read)).await {
        assert!(reader.body.is_err(), "a clean end");
    }
    assert_eq!((play.cache.stats().stored, play.cache.stats().incomplete), (0, 1));
    assert!(!play.open().await.headers()["cache-status"].to_str().unwrap().contains("hit"));
    assert_eq!(play.calls(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_variant_does_not_wait_for_the_first_one_to_end() {
    let play = Play::new(&[("cache-control", "max-age=60"), ("vary", "x")]);
    let one = play.open_with(&[("x", "1")]).await;
    let two = play.open_with(&[("x", "2")]).await;
    let two_again = play.open_with(&[("x", "2")]).await;
    assert_eq!(play.calls(), 2);
    assert_eq!(two.headers()["x-call"], two_again.headers()["x-call"]);
    for (call, text) in [(0, "first"), (1, "second")] {
        play.say(call, text).await;
        play.end(call);
    }
    assert_eq!(read(two_again).await.text(), "second");
    assert_eq!(read(two).await.text(), "second");
    assert_eq!(read(one).await.text(), "first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_to_store_is_read_to_the_end_by_who_reads_it_and_then_by_each_alone() {
    let play = Play::with(FRESH, |layer| layer.max_body_size(100_000));
    let readers = join_all((0..5).map(|_| play.open())).await;
    let reading: Vec<_> = readers.into_iter().map(|reader| tokio::spawn(read(reader))).collect();
    for _ in 0..200 {
        play.say(0, vec![7; 10_000]).await;
    }
    assert_eq!(play.cache.stats().fill_bytes, 0);
    let late = [play.open().await, play.open().await];
    assert_eq!(play.calls(), 3, "its beginning is not there any more");
    play.end(0);
    for reader in reading {
        assert_eq!(reader.await.unwrap().body.unwrap().len(), 2_000_000);
    }
    assert_eq!(play.cache.stats().stored, 0);
    drop(late);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_held_by_all_together_than_is_allowed() {
    let play = Play::with(FRESH, |layer| layer.max_fill_bytes(50_000));
    let mut first = play.open().await;
    for _ in 0..4 {
        play.say(0, vec![7; 10_000]).await;
        assert_eq!(next(first.body_mut()).await.len(), 10_000);
    }
    assert_eq!(play.cache.stats().fill_bytes, 40_000);
    // The second one finds room for a page, and not for more.
    play.cache.purge_url("http://shop.test/").await.unwrap();
    let mut second = play.open().await;
    for _ in 0..4 {
        play.say(1, vec![7; 10_000]).await;
        assert_eq!(next(second.body_mut()).await.len(), 10_000);
    }
    assert!(play.cache.stats().fill_bytes <= 50_000);
    for call in [0, 1] {
        play.end(call);
    }
    assert!(read(first).await.body.is_ok() && read(second).await.body.is_ok());
    assert_eq!(play.cache.stats().fill_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_reach_the_client_that_asked_the_origin_and_are_not_stored() {
    let play = Play::new(FRESH);
    let first = play.open().await;
    play.say(0, "body").await;
    let told = play.stage.told.lock().unwrap()[0].clone();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    told.send(Ok(Frame::trailers(trailers.clone()))).await.unwrap();
    let whole = first.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers(), Some(&trailers));
    assert_eq!(whole.to_bytes(), "body");
    let hit = play.open().await.into_body().collect().await.unwrap();
    assert_eq!(hit.trailers(), None);
    assert_eq!((hit.to_bytes(), play.calls()), (Bytes::from("body"), 1));
}

#[tokio::test]
async fn a_condition_and_a_head_are_answered_from_a_head_that_arrived() {
    let play = Play::new(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
    let first = play.open().await;
    play.say(0, "begun").await;
    let same = play.open_with(&[("if-none-match", "\"a\"")]).await;
    assert_eq!(
        (same.status(), same.headers().contains_key("content-length")),
        (304.try_into().unwrap(), false)
    );
    assert!(read(same).await.body.unwrap().is_empty());
    let head = play.send("HEAD", &[]).await;
    assert_eq!(
        (head.status(), head.headers()["etag"].to_str().unwrap()),
        (http::StatusCode::OK, "\"a\"")
    );
    let head = read(head).await;
    assert!(head.said().contains("collapsed") && head.body.unwrap().is_empty());
    let other = play.open_with(&[("if-none-match", "\"b\"")]).await;
    play.say(0, " and done").await;
    play.stage.told.lock().unwrap().clear();
    assert_eq!(read(first).await.text(), "begun and done");
    assert_eq!(read(other).await.text(), "begun and done");
    assert_eq!(play.stage.calls.load(SeqCst), 1);
}

/// Says what was decided of a new page.
async fn said_of(play: &Play, path: &str) -> (String, Response<Body>) {
    let answer = play.send_to("GET", path, &[]).await;
    (answer.headers()["cache-status"].to_str().unwrap().to_owned(), answer)
}

async fn say_and_read(play: &Play, call: usize, times: usize, body: &mut Body) {
    for _ in 0..times {
        play.say(call, vec![7; 10_000]).await;
        assert_eq!(next(body).await.len(), 10_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_too_slowly_gives_its_room_to_what_finds_none() {
    let headers = &[("cache-control", "max-age=60"), ("content-length", "900000")];
    let play = Play::with(headers, |layer| layer.max_fill_bytes(1_000_000));
    let (said, mut slow) = said_of(&play, "/slow").await;
    assert!(said.ends_with("stored"), "{said}");
    say_and_read(&play, 0, 1, slow.body_mut()).await;
    let (said, _) = said_of(&play, "/early").await;
    assert!(said.ends_with("detail=no-room"), "{said}");

    play.clock.advance(Duration::from_secs(11));
    let (said, mut quick) = said_of(&play, "/quick").await;
    assert!(said.ends_with("stored"), "{said}");
    assert_eq!(play.cache.stats().fill_bytes, 900_000);
    // Nobody is brought the one that gave way, and it reaches its client whole.
    let (_, again) = said_of(&play, "/slow").await;
    drop(again);
    assert_eq!(play.calls(), 4);
    say_and_read(&play, 0, 89, slow.body_mut()).await;
    play.end(0);
    assert!(read(slow).await.body.unwrap().is_empty());
    assert_eq!(play.cache.stats().stored, 0);

    // 64 KiB a second are a pace …
    say_and_read(&play, 2, 70, quick.body_mut()).await;
    play.clock.advance(Duration::from_secs(10));
    let (said, _) = said_of(&play, "/late").await;
    assert!(said.ends_with("detail=no-room"), "{said}");
    // … and so it is not enough to have been quick once.
    play.clock.advance(Duration::from_secs(10));
    let (said, _) = said_of(&play, "/later").await;
    assert!(said.ends_with("stored"), "{said}");
    say_and_read(&play, 2, 20, quick.body_mut()).await;
    play.end(2);
    assert!(read(quick).await.body.unwrap().is_empty());
}
