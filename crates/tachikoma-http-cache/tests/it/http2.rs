//! Through the layer on real HTTP/2 connections: calls as gRPC makes them, trailers, and names of
//! a host that contradict each other.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tachikoma_cache::Cache;
use tachikoma_http_cache::{HttpCache, HttpCacheLayer};
use tokio::sync::mpsc;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::site::response;

type Piece = Result<Frame<Bytes>, std::io::Error>;

/// A body that the test fills while it is sent.
fn told() -> (mpsc::Sender<Piece>, Body) {
    let (sender, receiver) = mpsc::channel(8);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    (sender, Body::new(StreamBody::new(pieces)))
}

fn data(bytes: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(bytes.as_bytes()))
}

fn trailers(status: &str) -> Frame<Bytes> {
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", status.parse().unwrap());
    fields.insert("grpc-message", "said".parse().unwrap());
    Frame::trailers(fields)
}

/// A service behind the layer, spoken to over HTTP/2.
struct Called {
    sender: hyper::client::conn::http2::SendRequest<Body>,
    calls: Arc<AtomicUsize>,
    cache: HttpCache,
}

impl Called {
    async fn by(
        handler: impl Fn(Request<Body>) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let inner = service_fn(move |request: Request<Body>| {
            count.fetch_add(1, SeqCst);
            let response = handler(request);
            async move { Ok::<_, Infallible>(response) }
        });
        let layer = HttpCacheLayer::new(Cache::memory().build().unwrap());
        let cache = layer.handle();
        let service = layer.layer(inner).map_request(|request: Request<_>| request.map(Body::new));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let service = TowerToHyperService::new(service);
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        Self { sender: connect(address).await, calls, cache }
    }

    async fn send(&self, request: Request<Body>) -> Response<hyper::body::Incoming> {
        let asked = self.sender.clone().send_request(request);
        tokio::time::timeout(Duration::from_secs(10), asked).await.expect("no answer").unwrap()
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

async fn connect(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Body> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

fn call(body: Body) -> Request<Body> {
    let call = Request::post("http://shop.test/shop.Cart/Get").header("te", "trailers");
    call.header("content-type", "application/grpc").body(body).unwrap()
}

const GRPC: &[(&str, &str)] =
    &[("content-type", "application/grpc"), ("cache-control", "public, max-age=60")];

async fn next(body: &mut hyper::body::Incoming) -> Frame<Bytes> {
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await;
    frame.expect("nothing comes").expect("the end").expect("broken off")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered_with_its_trailers_each_time_and_never_stored() {
    let called = Called::by(|request| {
        let (sender, body) = told();
        tokio::spawn(async move {
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            sender.send(Ok(Frame::data(asked))).await.unwrap();
            sender.send(Ok(trailers("0"))).await.unwrap();
        });
        response(200, GRPC, body)
    })
    .await;
    for n in 1..=3 {
        let answer = called.send(call(Body::from("\0\0\0\0\u{1}a"))).await;
        assert_eq!(answer.headers()["cache-status"], "tachikoma;fwd=method;detail=method");
        let whole = answer.into_body().collect().await.unwrap();
        let ended = whole.trailers().expect("trailers").clone();
        assert_eq!(
            (&ended["grpc-status"], &ended["grpc-message"]),
            (&"0".parse().unwrap(), &"said".parse().unwrap())
        );
        assert_eq!(whole.to_bytes(), "\0\0\0\0\u{1}a");
        assert_eq!(called.calls(), n);
    }
    assert_eq!(called.cache.stats().stored, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_trailers_alone_and_one_that_fails_late_arrive_as_they_are() {
    let called = Called::by(|request| {
        if request.headers().contains_key("x-late") {
            let (sender, body) = told();
            tokio::spawn(async move {
                sender.send(Ok(data("one"))).await.unwrap();
                sender.send(Ok(trailers("13"))).await.unwrap();
            });
            return response(200, GRPC, body);
        }
        let fields = [GRPC, &[("grpc-status", "5"), ("grpc-message", "none")]].concat();
        response(200, &fields, Body::empty())
    })
    .await;
    let alone = called.send(call(Body::empty())).await;
    assert_eq!(
        (alone.status(), &alone.headers()["grpc-status"]),
        (StatusCode::OK, &"5".parse().unwrap())
    );
    assert!(http_body::Body::is_end_stream(alone.body()), "one frame of headers is all of it");
    let mut late = call(Body::empty());
    late.headers_mut().insert("x-late", "1".parse().unwrap());
    let whole = called.send(late).await.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["grpc-status"], "13");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_both_ways_while_a_call_is_open() {
    let called = Called::by(|request| {
        let (sender, body) = told();
        tokio::spawn(async move {
            let mut asked = request.into_body();
            while let Some(frame) = asked.frame().await {
                let Ok(bytes) = frame.unwrap().into_data() else { break };
                sender.send(Ok(Frame::data(bytes))).await.unwrap();
            }
            sender.send(Ok(trailers("0"))).await.unwrap();
        });
        response(200, GRPC, body)
    })
    .await;
    let (sender, body) = told();
    let mut answer = called.send(call(body)).await.into_body();
    for message in ["one", "two", "three"] {
        sender.send(Ok(data(message))).await.unwrap();
        // The next one is sent only when this one has come back.
        assert_eq!(next(&mut answer).await.into_data().unwrap(), message);
    }
    drop(sender);
    assert_eq!(next(&mut answer).await.into_trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_reset_is_never_a_whole_one() {
    let read = Arc::new(tokio::sync::Notify::new());
    let reset = Arc::clone(&read);
    let called = Called::by(move |_| {
        let (sender, body) = told();
        let reset = Arc::clone(&reset);
        tokio::spawn(async move {
            sender.send(Ok(data("begin"))).await.unwrap();
            reset.notified().await;
            sender.send(Err(std::io::ErrorKind::ConnectionReset.into())).await.unwrap();
        });
        response(200, &[("cache-control", "max-age=60")], body)
    })
    .await;
    let get = Request::get("http://shop.test/").body(Body::empty()).unwrap();
    for request in [call(Body::empty()), get] {
        let mut answer = called.send(request).await.into_body();
        assert_eq!(next(&mut answer).await.into_data().unwrap(), "begin");
        read.notify_one();
        assert!(answer.collect().await.is_err(), "a clean end");
    }
    assert_eq!((called.cache.stats().stored, called.cache.stats().incomplete), (0, 1));
}

/// Trailers reach who asked, and a hit has the body and neither them nor a word of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_response_has_its_body_without_trailers() {
    let called = Called::by(|_| {
        let (sender, body) = told();
        tokio::spawn(async move {
            sender.send(Ok(data("body"))).await.unwrap();
            sender.send(Ok(trailers("0"))).await.unwrap();
        });
        response(200, &[("cache-control", "max-age=60"), ("trailer", "grpc-status")], body)
    })
    .await;
    for is_hit in [false, true, true] {
        let answer =
            called.send(Request::get("http://shop.test/").body(Body::empty()).unwrap()).await;
        let said = answer.headers()["cache-status"].to_str().unwrap().to_owned();
        assert_eq!(said.contains(";hit"), is_hit, "{said}");
        assert_eq!(answer.headers().contains_key("trailer"), !is_hit);
        let whole = answer.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().is_some(), !is_hit);
        assert_eq!(whole.to_bytes(), "body");
    }
    assert_eq!(called.calls(), 1);
}

/// HS-025: which of two hosts a handler believes cannot be known, so nothing of it is shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_names_two_hosts_is_shared_with_nobody() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&seen);
    let called = Called::by(move |request| {
        let host = request.headers().get("host").map_or("", |host| host.to_str().unwrap());
        let said = format!("{} {host}", request.uri());
        log.lock().unwrap().push(said.clone());
        response(200, &[("cache-control", "public, max-age=60")], said)
    })
    .await;
    let ask = async |authority: &str, host: Option<&str>| {
        let mut request = Request::get(format!("http://{authority}/"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let answer = called.send(request.body(Body::empty()).unwrap()).await;
        let said = answer.headers()["cache-status"].to_str().unwrap().to_owned();
        (
            said,
            String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec())
                .unwrap(),
        )
    };
    for (authority, host) in [("a.test", "evil.test"), ("evil.test", "a.test")] {
        let (said, body) = ask(authority, Some(host)).await;
        assert_eq!(said, "tachikoma;fwd=bypass;detail=target");
        assert!(body.contains("evil"));
    }
    let (said, body) = ask("a.test", None).await;
    assert!(!said.contains(";hit") && !body.contains("evil"), "{said}: {body}");
    let (said, body) = ask("A.test", Some("a.test")).await;
    assert!(said.contains(";hit") && !body.contains("evil"), "{said}: {body}");
    assert_eq!(seen.lock().unwrap().len(), 3);
}
