//! Origins that break the rules, byte by byte: 502 or an aborted transfer, nothing stored, and no
//! harm to the next request (catalogue HS-087, HS-089, FM-32, FM-33, FM-38).

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tachikoma_testkit::{Stopwatch, free_port};

use crate::support::{Answer, Origin, Tachikoma, get, send};

/// An origin whose answer to `/bad` is these bytes; all else is `good` for a minute.
fn origin(bytes: Vec<u8>) -> Origin {
    Origin::start(move |seen, stream| match seen.target() {
        "/bad" => {
            let _ = stream.write_all(&bytes);
        }
        _ => good(stream),
    })
}

fn good(stream: &mut TcpStream) {
    let _ = stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\n\r\ngood",
    );
}

fn is_hit(answer: &Answer) -> bool {
    answer.header("cache-status").is_some_and(|said| said.contains("hit"))
}

/// What `/bad` is answered with, twice; the second is not a hit, and no request between or after
/// gets what is not its own.
#[track_caller]
fn check(name: &str, bytes: &[u8], expected: u16) {
    let origin = origin(bytes.to_vec());
    let server = Tachikoma::serve(&["--upstream", &origin.url(), "--proxy-body-timeout", "500ms"]);
    for round in 0..2 {
        let bad = get(server.address(), "/bad");
        assert_eq!(bad.status, expected, "{name} {round}: {bad:?}");
        assert!(!is_hit(&bad), "{name} {round}: {bad:?}");
        if expected == 502 {
            bad.assert_problem(502);
        }
        for n in 0..3 {
            let next = get(server.address(), &format!("/next/{round}/{n}"));
            assert_eq!((next.status, next.text().as_str()), (200, "good"), "{name}: {next:?}");
        }
    }
}

#[test]
fn a_response_that_two_readers_could_cut_apart_differently_is_a_502() {
    let cached = "Cache-Control: max-age=60\r\n";
    for (name, head, body) in [
        ("two lengths", "Content-Length: 4\r\nContent-Length: 5\r\n", "bad!!"),
        ("a list of lengths", "Content-Length: 4, 5\r\n", "bad!!"),
        ("length and coding", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("coding and length", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"),
        ("a negative length", "Content-Length: -1\r\n", "bad"),
        ("a signed length", "Content-Length: +3\r\n", "bad"),
        ("a length in hex", "Content-Length: 0x3\r\n", "bad"),
        ("a length that overflows", "Content-Length: 99999999999999999999\r\n", "bad"),
        ("no length at all", "Content-Length: \r\n", "bad"),
        ("another coding", "Transfer-Encoding: xchunked\r\n", "3\r\nbad\r\n0\r\n\r\n"),
        ("two codings", "Transfer-Encoding: chunked, identity\r\n", "3\r\nbad\r\n0\r\n\r\n"),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        ("a space before the colon", "X : 1\r\nContent-Length: 3\r\n", "bad"),
        ("a folded line", "X: 1\r\n 2\r\nContent-Length: 3\r\n", "bad"),
        ("a bare CR", "X: 1\r2\r\nContent-Length: 3\r\n", "bad"),
        ("NUL", "X: 1\x002\r\nContent-Length: 3\r\n", "bad"),
        ("no colon", "X\r\nContent-Length: 3\r\n", "bad"),
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{cached}{head}\r\n{body}");
        check(name, bytes.as_bytes(), 502);
    }
}

#[test]
fn a_status_line_that_is_not_one_is_a_502() {
    let rest = "Content-Length: 3\r\nCache-Control: max-age=60\r\n\r\nbad";
    for line in [
        "HTTP/1.1 99 Low",
        "HTTP/1.1 1000 High",
        "HTTP/1.1 200x OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "HTTP/11 200 OK",
        "ICY 200 OK",
        "200 OK",
        "",
    ] {
        check(line, format!("{line}\r\n{rest}").as_bytes(), 502);
    }
    check("HTTP/0.9", b"<html>only a body</html>", 502);
    check("HTTP/0.9, in lines", b"<html>\r\n\r\n</html>", 502);
    check("TLS", b"\x15\x03\x01\x00\x02\x02\x28", 502);
    check("HTTP/2", b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00", 502);
}

#[test]
fn a_body_where_there_is_none_goes_nowhere() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\n\r\nevil";
    for (name, head, status) in [
        ("204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 502),
        ("204 in chunks", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 502),
        ("204 and bytes", "HTTP/1.1 204 No Content\r\n\r\nhello", 204),
        ("304 and bytes", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", 304),
    ] {
        check(name, head.as_bytes(), status);
    }
    // Its end would be the connection's, which goes on: cut off, and not stored.
    let open = "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: max-age=60\r\n\r\nbad";
    check("no framing, kept open", open.as_bytes(), 200);
    // A second answer behind the first is for nobody.
    check("204 and an answer", format!("HTTP/1.1 204 No Content\r\n\r\n{evil}").as_bytes(), 204);
    let two = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{evil}");
    check("200 and an answer", two.as_bytes(), 200);
}

#[test]
fn a_body_for_head_is_not_the_next_answer() {
    let origin = Origin::start(|seen, stream| {
        let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\n\r\nevil";
        if seen.head.starts_with("HEAD") {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{evil}", evil.len());
            let _ = stream.write_all(head.as_bytes());
        } else {
            good(stream);
        }
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    for n in 0..5 {
        let head = format!("HEAD /{n} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let mut connection = crate::support::Connection::to(server.address());
        connection.write(head).unwrap();
        assert_eq!(connection.read_head().unwrap().status, 200);
        assert_eq!(get(server.address(), &format!("/get/{n}")).text(), "good");
    }
}

#[test]
fn a_head_without_an_end_is_a_502_and_costs_no_memory() {
    for line in [format!("X: {}\r\n", "x".repeat(1 << 20)), "a: b\r\n".repeat(20_000)] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{line}Content-Length: 3\r\n\r\nbad");
        check("a head of a MiB", bytes.as_bytes(), 502);
    }
    let origin = Origin::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        let piece = vec![b'x'; 64 << 10];
        while stream.write_all(&piece).is_ok() {}
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let base = server.resident();
    for _ in 0..20 {
        get(server.address(), "/").assert_problem(502);
    }
    let grown = server.resident().saturating_sub(base);
    assert!(grown < 32 << 20, "{grown} bytes");
}

#[test]
fn heads_of_any_number_of_fields_pass_or_are_a_502() {
    // With its length that is one more.
    for (count, status) in [(0, 200), (1, 200), (99, 200), (100, 502), (101, 502), (10_000, 502)] {
        let fields: String = "X: y\r\n".repeat(count);
        let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{fields}\r\nabc");
        check(&format!("{count} fields"), bytes.as_bytes(), status);
    }
}

#[test]
fn fields_of_one_connection_are_neither_stored_nor_passed_on() {
    let hop = "Connection: keep-alive, X-Named, \"odd\"\r\nKeep-Alive: timeout=9\r\n\
               Proxy-Authenticate: Basic\r\nProxy-Authentication-Info: x\r\n\
               Proxy-Authorization: x\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
               Upgrade: h2c\r\nX-Named: 1\r\nTrailer: x\r\n";
    let origin = Origin::answering(move |_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\n";
        format!("{head}{hop}X-Kept: 1\r\n\r\nok").into_bytes()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    for round in ["miss", "hit"] {
        let answer = get(server.address(), "/");
        assert_eq!(is_hit(&answer), round == "hit");
        assert_eq!(answer.header("x-kept").as_deref(), Some("1"));
        for gone in [
            "keep-alive",
            "proxy-authenticate",
            "proxy-authentication-info",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "upgrade",
            "x-named",
        ] {
            assert_eq!(answer.header(gone), None, "{gone} on the {round}");
        }
        let connection = answer.header("connection").unwrap_or_default();
        assert!(["", "close"].contains(&connection.as_str()), "{connection}");
    }
    assert!(get(server.address(), "/").header("trailer").is_none());
}

#[test]
fn an_upstream_that_fails_in_any_way_is_said_in_time_and_not_stored() {
    let refused = format!("http://127.0.0.1:{}", free_port());
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = format!("http://{}", hung.local_addr().unwrap());
    let closing = Origin::start(|_, stream| {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let half = Origin::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 O");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    for (url, status, most) in [
        (refused, 502, 3_000),
        ("http://no-such-host.invalid".to_owned(), 502, 6_000),
        // A network that answers nothing: connecting takes as long as it may.
        ("http://192.0.2.1".to_owned(), 504, 4_000),
        (hung, 504, 4_000),
        (closing.url(), 502, 3_000),
        (half.url(), 502, 3_000),
    ] {
        let waits = ["--proxy-connect-timeout", "500ms", "--proxy-head-timeout", "500ms"];
        let server = Tachikoma::serve(&[&["--upstream", &url][..], &waits].concat());
        let watch = Stopwatch::start();
        let answer = get(server.address(), "/");
        let took = watch.elapsed();
        // Where there is no network at all, it is unreachable at once.
        let is_status =
            answer.status == status || (url.contains("192.0.2") && answer.status == 502);
        assert!(is_status, "{url}: {answer:?}");
        answer.assert_problem(answer.status);
        assert!(took.as_millis() <= most, "{url}: {took:?}");
        assert!(!is_hit(&get(server.address(), "/")), "{url}");
    }
}

#[test]
fn the_upstream_is_let_go_when_its_client_has_left() {
    let (began, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (begun, over) = (Arc::clone(&began), Arc::clone(&ended));
    let origin = Origin::start(move |seen, stream| {
        begun.fetch_add(1, Ordering::SeqCst);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        if seen.target() == "/body" {
            let head =
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: no-store\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(b"5\r\nhello\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        } else {
            // The end of what the proxy sends: it has closed the connection.
            let _ = std::io::Read::read(stream, &mut [0]);
        }
        over.fetch_add(1, Ordering::SeqCst);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let open = server.files();
    for (n, target) in ["/body", "/never"].into_iter().enumerate() {
        // Neither is fetched for others too, nor is it a write, which goes on without its client.
        let method = if target == "/body" { "GET" } else { "OPTIONS" };
        let mut client = TcpStream::connect(server.address()).unwrap();
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
        client.write_all(head.as_bytes()).unwrap();
        let wait = |count: &AtomicUsize| {
            tachikoma_testkit::wait_until(Duration::from_secs(5), || {
                count.load(Ordering::SeqCst) == n + 1
            })
        };
        assert!(wait(&began));
        std::thread::sleep(Duration::from_millis(100));
        drop(client);
        assert!(wait(&ended), "{target}: the upstream is still busy");
    }
    let closed = || server.files() <= open;
    assert!(tachikoma_testkit::wait_until(Duration::from_secs(5), closed), "{open}");
}

#[test]
fn what_failed_once_is_asked_again_and_stale_is_served_only_where_allowed() {
    let times = AtomicUsize::new(0);
    let origin = Origin::start(move |seen, stream| {
        let n = times.fetch_add(1, Ordering::SeqCst);
        let rule = match seen.target() {
            "/lenient" => "max-age=0, stale-if-error=60",
            "/strict" => "max-age=0, stale-if-error=60, must-revalidate",
            _ => "max-age=0",
        };
        if n < 3 {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"1\"\r\n";
            let _ = stream.write_all(format!("{head}Cache-Control: {rule}\r\n\r\nkept").as_bytes());
        } else if n < 6 {
            let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
        }
        // Later it says nothing at all.
    });
    let waits = ["--proxy-head-timeout", "400ms"];
    let server = Tachikoma::serve(&[&["--upstream", &origin.url()][..], &waits].concat());
    let all = ["/lenient", "/strict", "/plain"];
    for target in all {
        assert_eq!(get(server.address(), target).text(), "kept");
    }
    let failed = [[200, 503, 503], [200, 504, 504]];
    for statuses in failed {
        for (target, status) in all.into_iter().zip(statuses) {
            let answer = get(server.address(), target);
            let is_expected = answer.status == status
                // RFC 9111 §5.2.2.2: for what must be validated and cannot be, 504.
                || (target == "/strict" && answer.status == 504);
            assert!(is_expected, "{target}: {answer:?}");
        }
    }
    let head = "GET /lenient HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    assert_eq!(send(server.address(), head).text(), "kept");
}
