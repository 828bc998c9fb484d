//! What the proxy forwards, what it keeps to itself, and what it says when the upstream fails.

use std::io::Write as _;
use std::time::Duration;

use tachikoma_testkit::Stopwatch;

use crate::support::{Connection, Origin, Tachikoma, get, send};

fn proxy(origin: &Origin) -> Tachikoma {
    Tachikoma::serve(&["--upstream", &origin.url()])
}

fn request(method: &str, target: &str, lines: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{lines}\r\n")
}

#[test]
fn a_request_goes_to_the_upstream_with_host_and_target_as_they_were() {
    let origin = Origin::saying("hello");
    let server = proxy(&origin);
    let answer = get(server.address(), "/a%2e/../b//?x=%zz&&y");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert_eq!(answer.header("via").as_deref(), Some("1.1 tachikoma"));
    let seen = origin.only();
    assert_eq!(seen.target(), "/a%2e/../b//?x=%zz&&y");
    assert_eq!(seen.all("host"), ["a.test"]);
    assert_eq!(seen.all("via"), ["1.1 tachikoma"]);
}

#[test]
fn what_the_client_says_about_itself_does_not_reach_the_upstream() {
    let origin = Origin::saying("hello");
    let server = proxy(&origin);
    let claims = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-host: evil\r\n\
                  X-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6;host=evil\r\n\
                  X-Forwarded-Port: 123\r\nX-Real-IP: 6.6.6.6\r\nX-Host: evil\r\n";
    assert_eq!(send(server.address(), request("GET", "/", claims)).status, 200);
    let seen = origin.only();
    assert!(!seen.head.contains("evil") && !seen.head.contains("6.6.6.6"), "{}", seen.head);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-host"), ["a.test"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("forwarded"), ["for=127.0.0.1;host=\"a.test\";proto=http"]);
    assert!(seen.all("x-forwarded-port").is_empty() && seen.all("x-real-ip").is_empty());
}

#[test]
fn hop_by_hop_fields_end_at_this_hop_in_both_directions() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Own\r\nX-Own: 1\r\n\
          Keep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Kept: 1\r\n\r\nok"
            .to_vec()
    });
    let server = proxy(&origin);
    let lines = "Connection: X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\nUpgrade: websocket\r\n\
                 Keep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: Basic x\r\n\
                 X-Theirs: 1\r\n";
    let answer = send(server.address(), request("GET", "/", lines));
    assert_eq!(answer.header("x-kept").as_deref(), Some("1"));
    for gone in ["x-own", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    let seen = origin.only();
    assert_eq!(seen.all("x-theirs"), ["1"]);
    let gone = ["x-mine", "te", "upgrade", "keep-alive", "proxy-connection", "proxy-authorization"];
    for gone in gone {
        assert!(seen.all(gone).is_empty(), "{gone} in {}", seen.head);
    }
}

#[test]
fn connection_cannot_take_away_a_field_that_is_for_everyone() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: private\r\n\
          Connection: cache-control\r\n\r\nok"
            .to_vec()
    });
    let server = proxy(&origin);
    get(server.address(), "/").assert_problem(502);
    let lines = "Connection: Host\r\n";
    send(server.address(), request("GET", "/", lines)).assert_problem(400);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn bodies_stream_both_ways_whole_and_in_chunks() {
    let origin = Origin::answering(|seen| {
        let mut answer =
            format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n", seen.body.len());
        answer.push_str(&String::from_utf8_lossy(&seen.body));
        answer.into_bytes()
    });
    let server = proxy(&origin);
    let body = "x".repeat(1 << 20);
    let length = format!("Content-Length: {}\r\n", body.len());
    let whole = request("POST", "/", &length) + &body;
    let chunked = request("POST", "/", "Transfer-Encoding: chunked\r\n")
        + &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for bytes in [whole, chunked] {
        let answer = send(server.address(), bytes);
        assert_eq!((answer.status, answer.body.len(), answer.complete), (201, 1 << 20, true));
    }
}

#[test]
fn the_first_bytes_of_an_answer_arrive_before_its_last() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let origin = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfir").unwrap();
        // The rest comes only when the client has seen the beginning.
        held.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        stream.write_all(b"st!").unwrap();
    });
    let server = proxy(&origin);
    let stream = std::net::TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (&stream).write_all(request("GET", "/", "").as_bytes()).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"fir") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut (&stream), &mut byte).unwrap();
        seen.push(byte[0]);
    }
    release.send(()).unwrap();
    std::io::Read::read_to_end(&mut (&stream), &mut seen).unwrap();
    assert!(seen.ends_with(b"first!"));
}

#[test]
fn a_body_that_breaks_off_at_the_origin_breaks_off_at_the_client() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly a part",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nonly a part",
    ] {
        let origin = Origin::start(move |_, stream| {
            stream.write_all(answer.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        });
        let server = proxy(&origin);
        let mut connection = Connection::to(server.address());
        connection.write(request("GET", "/", "")).unwrap();
        let complete =
            connection.read().is_some_and(|answer| answer.complete && answer.status == 200);
        assert!(!complete, "{answer:?}");
    }
}

#[test]
fn an_upstream_that_is_gone_is_a_502_and_its_return_is_seen_at_once() {
    let port = tachikoma_testkit::free_port();
    let url = format!("http://127.0.0.1:{port}");
    let server = Tachikoma::serve(&["--upstream", &url]);
    let watch = Stopwatch::start();
    let answer = get(server.address(), "/");
    answer.assert_problem(502);
    assert!(watch.elapsed() < Duration::from_secs(2), "{:?}", watch.elapsed());
    assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
    server.assert_logged("Connection refused");

    let _origin = Origin::at(port, |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback");
    });
    assert_eq!(get(server.address(), "/").text(), "back");
}

#[test]
fn a_kept_connection_that_the_upstream_closed_is_no_error() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let server = proxy(&origin);
    for _ in 0..50 {
        assert_eq!(get(server.address(), "/").status, 200);
    }
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_a_504() {
    let origin = Origin::start(|_, _| {});
    let server = Tachikoma::serve(&["--upstream", &origin.url(), "--proxy-head-timeout", "200ms"]);
    let watch = Stopwatch::start();
    get(server.address(), "/").assert_problem(504);
    let took = watch.elapsed();
    assert!((200..2000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn a_body_that_stalls_is_cut_off_after_its_own_time() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart").unwrap();
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url(), "--proxy-body-timeout", "200ms"]);
    let watch = Stopwatch::start();
    let answer = get(server.address(), "/");
    assert!(!answer.complete, "{answer:?}");
    let took = watch.elapsed();
    assert!((200..2000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn an_answer_that_is_not_http_is_a_502_and_harms_nobody_else() {
    let many = "a: b\r\n".repeat(20_000);
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
        "HTTP/1.1 200x OK\r\n\r\n".to_owned(),
        "HTTP/1.1 99 Low\r\n\r\n".to_owned(),
        "HTTP/9.9 200 OK\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
    ] {
        let shown = answer[..answer.len().min(60)].to_owned();
        let origin = Origin::answering(move |seen| match seen.target() {
            "/good" => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood".to_vec(),
            _ => answer.clone().into_bytes(),
        });
        let server = proxy(&origin);
        let bad = get(server.address(), "/bad");
        assert_eq!(bad.status, 502, "{shown:?}: {bad:?}");
        assert_eq!(get(server.address(), "/good").text(), "good", "{shown:?}");
    }
}

/// HS-063: the answer of another server is never taken for that of the upstream, so a 304 of
/// somebody else confirms nothing.
#[test]
fn a_redirect_is_passed_on_and_never_followed() {
    let elsewhere = Origin::answering(|seen| {
        let is_known = !seen.all("if-none-match").is_empty();
        let status = if is_known { "304 Not Modified" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\n\r\n")
            .into_bytes()
    });
    let target = elsewhere.url();
    let origin = Origin::answering(move |seen| {
        let answer = if seen.all("if-none-match").is_empty() {
            let rules = "Cache-Control: max-age=0, stale-if-error=60\r\nETag: \"a\"";
            format!("HTTP/1.1 200 OK\r\n{rules}\r\nContent-Length: 3\r\n\r\nown")
        } else {
            format!("HTTP/1.1 302 Found\r\nLocation: {target}/\r\nContent-Length: 0\r\n\r\n")
        };
        answer.into_bytes()
    });
    let server = proxy(&origin);
    assert_eq!(get(server.address(), "/").text(), "own");
    let moved = get(server.address(), "/");
    assert_eq!(moved.status, 302, "{moved:?}");
    assert_eq!(moved.header("location"), Some(format!("{}/", elsewhere.url())));
    // And what was stored is not confirmed by it.
    let again = get(server.address(), "/");
    for answer in [moved, again] {
        assert!(!answer.header("cache-status").unwrap().contains("hit"), "{answer:?}");
    }
    assert_eq!((origin.seen().len(), elsewhere.seen().len()), (3, 0));
}
