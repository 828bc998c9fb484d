//! HTTP/2 for clients: requests as real clients make them, and floods as no client does.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tachikoma_testkit::{Stopwatch, wait_until};

use crate::support::h2::{
    END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, fields, floods, frame, request,
};
use crate::support::{Origin, Tachikoma, get};

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn client(address: SocketAddr) -> Sender {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let io = TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

async fn ask(sender: &mut Sender, request: Request<Full<Bytes>>) -> Answered {
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned();
    Answered { status, headers, body: body.to_bytes(), trailers }
}

fn to(uri: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(uri).body(Full::default()).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("in time");
    });
}

#[test]
fn a_client_with_prior_knowledge_is_served_and_shares_the_cache_with_http_1() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    assert_eq!(get(server.address(), "/x").text(), "hello");
    run(async {
        let mut sender = client(server.address()).await;
        let hit = ask(&mut sender, to("http://a.test/x")).await;
        assert_eq!((hit.status.as_u16(), &hit.body[..]), (200, &b"hello"[..]));
        assert!(hit.headers["cache-status"].to_str().unwrap().contains("hit"), "{:?}", hit.headers);
        let miss = ask(&mut sender, to("http://a.test/y?z")).await;
        assert_eq!(&miss.body[..], b"hello");
        assert!(!miss.headers.contains_key("connection"), "{:?}", miss.headers);
    });
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[1].target(), seen[1].all("host")), ("/y?z", vec!["a.test"]));
    assert_eq!(seen[1].all("via"), ["2 tachikoma"]);
}

/// RFC 9113 §8.2.3: what may come in crumbs goes on as one field.
#[test]
fn the_crumbs_of_a_cookie_go_to_the_origin_as_one() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    run(async {
        let mut sender = client(server.address()).await;
        let request = Request::builder().uri("http://a.test/x");
        let request = request.header("cookie", "a=1").header("cookie", "b=2; c=3");
        let request = request.header("cookie", "d=4").body(Full::default()).unwrap();
        assert_eq!(ask(&mut sender, request).await.status, 200);
    });
    assert_eq!(origin.only().all("cookie"), ["a=1; b=2; c=3; d=4"]);
}

#[test]
fn many_requests_of_one_connection_are_answered_at_once() {
    let origin = Origin::start(|seen, stream| {
        std::thread::sleep(Duration::from_millis(300));
        let body = seen.target();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes());
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    run(async {
        let sender = client(server.address()).await;
        let watch = Stopwatch::start();
        let asking = (0..50).map(|n| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let answer = ask(&mut sender, to(&format!("http://a.test/{n}"))).await;
                assert_eq!(answer.body, format!("/{n}"));
            })
        });
        for asked in asking.collect::<Vec<_>>() {
            asked.await.unwrap();
        }
        assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
    });
}

#[test]
fn a_large_body_goes_up_and_down_whole() {
    let origin = Origin::answering(|seen| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len());
        [head.as_bytes(), &seen.body].concat()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    run(async {
        let mut sender = client(server.address()).await;
        let body: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        let request = Request::post("http://a.test/").body(Full::from(body.clone())).unwrap();
        let answer = ask(&mut sender, request).await;
        assert!(answer.body == body, "{} bytes", answer.body.len());
    });
}

#[test]
fn trailers_of_the_origin_reach_the_client() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\
          Cache-Control: max-age=60\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n"
            .to_vec()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    run(async {
        let mut sender = client(server.address()).await;
        let answer = ask(&mut sender, to("http://a.test/")).await;
        assert_eq!(answer.trailers.expect("trailers")["x-sum"], "7");
    });
    let request = "GET /1 HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n";
    let mut socket = std::net::TcpStream::connect(server.address()).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut seen = Vec::new();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while !seen.ends_with(b"0\r\nx-sum: 7\r\n\r\n") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut socket, &mut byte).unwrap();
        seen.push(byte[0]);
    }
}

/// As gRPC does it: `POST`, a status in the trailers, sometimes nothing but that.
#[test]
fn a_call_with_its_status_in_the_trailers_passes_each_time_and_is_never_stored() {
    let origin = Origin::answering(|seen| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n\
                    Cache-Control: public, max-age=60\r\n";
        if seen.target() == "/shop.Cart/None" {
            return format!("{head}Grpc-Status: 5\r\nContent-Length: 0\r\n\r\n").into_bytes();
        }
        let size = seen.body.len();
        let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n");
        [head.as_bytes(), &seen.body, b"\r\n0\r\nGrpc-Status: 0\r\nGrpc-Message: ok\r\n\r\n"]
            .concat()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let call = |target: &str, body: &'static str| {
        let call = Request::post(format!("http://a.test{target}")).header("te", "trailers");
        let call = call.header("content-type", "application/grpc");
        call.body(Full::from(body)).unwrap()
    };
    run(async {
        let mut sender = client(server.address()).await;
        for message in ["\0\0\0\0\u{1}a", "\0\0\0\0\u{1}b", "\0\0\0\0\u{1}a"] {
            let answer = ask(&mut sender, call("/shop.Cart/Get", message)).await;
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, message.as_bytes()));
            let trailers = answer.trailers.expect("trailers");
            assert_eq!(
                (&trailers["grpc-status"], &trailers["grpc-message"]),
                (&"0".parse().unwrap(), &"ok".parse().unwrap())
            );
            let said = answer.headers["cache-status"].to_str().unwrap();
            assert!(!said.contains("stored") && !said.contains(";hit"), "{said}");
        }
        let alone = ask(&mut sender, call("/shop.Cart/None", "")).await;
        assert_eq!((&alone.headers["grpc-status"], alone.body.len()), (&"5".parse().unwrap(), 0));
    });
    assert_eq!(origin.seen().len(), 4);
}

/// HS-025.
#[test]
fn a_request_that_names_two_hosts_or_none_is_refused() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    run(async {
        let mut sender = client(server.address()).await;
        for (host, status) in [("b.test", 400), ("a.test, b.test", 400), ("A.test:80", 200)] {
            let request = Request::get("http://a.test/").header("host", host);
            let answer = ask(&mut sender, request.body(Full::default()).unwrap()).await;
            assert_eq!(answer.status.as_u16(), status, "{host}");
        }
        let two = Request::get("http://a.test/").header("host", "a.test").header("host", "a.test");
        assert_eq!(ask(&mut sender, two.body(Full::default()).unwrap()).await.status, 400);
        let connect = Request::connect("a.test:443").body(Full::default()).unwrap();
        assert_eq!(sender.send_request(connect).await.unwrap().status(), 405);
        let mut long = to("http://a.test/");
        long.headers_mut().insert("x", "y".repeat(9_000).parse().unwrap());
        assert_eq!(ask(&mut sender, long).await.status, 431);
        let mut many = to("http://a.test/");
        for n in 0..101 {
            let name: http::HeaderName = format!("x-{n}").parse().unwrap();
            many.headers_mut().insert(name, "y".parse().unwrap());
        }
        assert_eq!(ask(&mut sender, many).await.status, 431);
    });
    // `:authority` and `:path` as no library would send them.
    for head in [
        fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]),
        fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "u@a"), (":path", "/")]),
        fields(&[(":method", "GET"), (":scheme", "ftp"), (":authority", "a"), (":path", "/")]),
        fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "")]),
        fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "x")]),
        [request("GET", "/"), fields(&[("connection", "x")])].concat(),
        [request("GET", "/"), fields(&[("transfer-encoding", "chunked")])].concat(),
        [request("GET", "/"), fields(&[("X-Upper", "x")])].concat(),
        [request("GET", "/"), fields(&[(":path", "/2")])].concat(),
        [request("GET", "/"), fields(&[("x", "a\r\nb: c")])].concat(),
    ] {
        let before = origin.seen().len();
        let mut raw = Raw::connect(server.address(), &[]);
        raw.0.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).unwrap();
        let refused = loop {
            match raw.read() {
                // 200 is one byte, from the static table; no other status is.
                Some(answer) if answer.kind == HEADERS => break answer.payload[0] != 0x88,
                Some(end) if [RST_STREAM, GOAWAY].contains(&end.kind) => break true,
                Some(_) => {}
                None => break true,
            }
        };
        assert!(refused, "{:?}", String::from_utf8_lossy(&head));
        assert_eq!(origin.seen().len(), before);
    }
}

/// HS-091; what others notice of it is measured in `faults`.
#[test]
fn floods_of_frames_end_their_connection_and_nothing_else() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    assert_eq!(get(server.address(), "/").text(), "hello");
    let base = server.resident();
    for (name, flood) in floods() {
        let watch = Stopwatch::start();
        assert!(Raw::connect(server.address(), &[]).flooded_out(flood), "{name}");
        assert!(watch.elapsed() < Duration::from_secs(10), "{name}: {:?}", watch.elapsed());
        let watch = Stopwatch::start();
        assert_eq!(get(server.address(), "/").text(), "hello", "{name}");
        assert!(watch.elapsed() < Duration::from_secs(1), "{name}: {:?}", watch.elapsed());
    }
    let grown = server.resident().saturating_sub(base);
    assert!(grown <= 20 << 20, "{grown} bytes");
}

#[test]
fn a_client_that_takes_nothing_of_what_it_asked_for_loses_its_connection() {
    let body = "x".repeat(1 << 20);
    let origin = Origin::answering(move |_| {
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: max-age=60\r\n\r\n{body}"
        )
        .into_bytes()
    });
    let limit = ["--limit-body-timeout", "400ms", "--limit-head-timeout", "600ms"];
    let server = Tachikoma::serve(&[&["--upstream", &origin.url()][..], &limit].concat());
    assert_eq!(get(server.address(), "/").body.len(), 1 << 20);
    let base = server.resident();
    // No room for a single byte of any response, and none for the connection.
    let watch = Stopwatch::start();
    let mut raws: Vec<_> = (0..20)
        .map(|_| {
            let mut raw = Raw::connect(server.address(), &[(4, 0)]);
            for n in 0..100 {
                let head =
                    frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &request("GET", "/"));
                raw.0.write_all(&head).unwrap();
            }
            raw
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let grown = server.resident().saturating_sub(base);
    assert!(grown <= 20 << 20, "{grown} bytes");
    for raw in &mut raws {
        // Its settings are acknowledged; it must not keep alive by answering pings.
        while raw.read().is_some() {}
    }
    assert!(watch.elapsed() < Duration::from_secs(10), "{:?}", watch.elapsed());
    assert_eq!(get(server.address(), "/").status, 200);
}

#[test]
fn an_idle_connection_is_closed_with_a_word_and_a_dead_one_without() {
    let origin = Origin::saying("hello");
    let limit = ["--limit-body-timeout", "30s", "--limit-head-timeout", "300ms"];
    let server = Tachikoma::serve(&[&["--upstream", &origin.url()][..], &limit].concat());
    let watch = Stopwatch::start();
    let mut raw = Raw::connect(server.address(), &[]);
    let mut kinds = Vec::new();
    while let Some(frame) = raw.read() {
        kinds.push(frame.kind);
    }
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
    let took = watch.elapsed();
    assert!((300..5000).contains(&took.as_millis()), "{took:?}");
    // Nor is half a preface waited for.
    let mut half = std::net::TcpStream::connect(server.address()).unwrap();
    half.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    half.write_all(b"PRI * HT").unwrap();
    assert_eq!(std::io::Read::read(&mut half, &mut [0]).unwrap_or(0), 0);
}

#[test]
fn open_requests_are_finished_when_the_server_stops() {
    let origin = Origin::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(700));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let mut server = Tachikoma::serve(&["--upstream", &origin.url()]);
    run(async {
        let mut sender = client(server.address()).await;
        let asking = tokio::spawn(async move { ask(&mut sender, to("http://a.test/")).await });
        let origin = &origin;
        tokio::task::block_in_place(|| {
            assert!(wait_until(Duration::from_secs(5), || origin.seen().len() == 1));
        });
        server.signal(rustix::process::Signal::TERM);
        assert_eq!(&asking.await.unwrap().body[..], b"ok");
    });
    assert_eq!(server.wait(), Some(0));
}
