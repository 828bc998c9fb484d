//! Requests whose form is wrong or whose target is another server's: refused, and not forwarded.

use std::time::Duration;

use tachikoma_testkit::Stopwatch;

use crate::support::{Connection, Origin, Tachikoma, send};

/// Sends `bytes` and expects this status, with the upstream asked as often as `forwarded` says.
#[track_caller]
fn check(origin: &Origin, server: &Tachikoma, bytes: &str, status: u16, forwarded: usize) {
    let before = origin.seen().len();
    let answer = send(server.address(), bytes);
    assert_eq!(answer.status, status, "{bytes:?}: {answer:?}");
    assert_eq!(origin.seen().len() - before, forwarded, "{bytes:?}");
}

fn pair() -> (Origin, Tachikoma) {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    (origin, server)
}

#[test]
fn a_request_for_another_server_goes_nowhere() {
    let (origin, server) = pair();
    for bytes in [
        "GET http://127.0.0.1:22/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET http://169.254.169.254/latest/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET http://u:p@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET @evil/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
    ] {
        check(&origin, &server, bytes, 400, 0);
    }
    for method in ["CONNECT", "TRACE", "PURGE", "BAN"] {
        let target = if method == "CONNECT" { "a.test:443" } else { "/" };
        let bytes = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n\r\n", "a.test:443");
        check(&origin, &server, &bytes, 405, 0);
    }
    // Wherever `Host` points, the request goes to the one upstream.
    check(&origin, &server, "GET //evil/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 200, 1);
}

#[test]
fn an_absolute_target_reaches_the_upstream_in_origin_form() {
    let (origin, server) = pair();
    for (target, seen) in [
        ("http://a.test", "/"),
        ("http://a.test/x?y", "/x?y"),
        ("http://a.test?q=1", "/?q=1"),
        ("/account#x.css", "/account"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let answer = send(server.address(), &bytes);
        // A raw `#` is refused or cut off, never forwarded and never part of a key.
        if answer.status == 200 {
            assert_eq!(origin.seen().last().unwrap().target(), seen, "{target}");
        } else {
            assert_eq!((answer.status, target.contains('#')), (400, true));
        }
    }
}

#[test]
fn a_request_that_two_servers_could_read_differently_is_refused() {
    let (origin, server) = pair();
    for lines in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +1\r\n",
        "Bad Name: x\r\n",
        "Name : x\r\n",
        " leading: x\r\n",
        "X: a\r\n folded\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\nx");
        check(&origin, &server, &bytes, 400, 0);
    }
}

#[test]
fn a_transfer_coding_that_is_not_understood_is_501() {
    let (origin, server) = pair();
    let coded =
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    check(&origin, &server, coded, 501, 0);
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let (origin, server) = pair();
    let long = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    check(&origin, &server, &long, 431, 0);
    let many = "x: y\r\n".repeat(101);
    check(&origin, &server, &format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n"), 431, 0);
    let fits = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    check(&origin, &server, &fits, 200, 1);
}

#[test]
fn a_client_that_is_too_slow_loses_its_connection() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&[
        "--upstream",
        &origin.url(),
        "--limit-head-timeout",
        "200ms",
        "--limit-body-timeout",
        "200ms",
    ]);
    for (bytes, status) in [
        ("", None),
        ("GET / HTTP/1.1\r\nHost: a", None),
        ("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\npart", Some(408)),
    ] {
        let watch = Stopwatch::start();
        let mut slow = Connection::to(server.address());
        slow.write(bytes).unwrap();
        let answer = slow.read();
        let actual = answer.as_ref().map(|answer| answer.status);
        assert!(actual == status || actual == Some(408), "{bytes:?}: {answer:?}");
        let took = watch.elapsed();
        assert!((200..3000).contains(&took.as_millis()), "{bytes:?}: {took:?}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::answering(|seen| {
        let body = seen.target();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let mut connection = Connection::to(server.address());
    let requests: Vec<_> =
        (0..100).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\n\r\n")).collect();
    connection.write(requests.concat()).unwrap();
    for n in 0..100 {
        assert_eq!(connection.read().expect("an answer").text(), format!("/{n}"));
    }
}

#[test]
fn without_a_route_there_is_a_404_and_options_star_is_about_the_server() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let answer = send(server.address(), "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(answer.status, 204);
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")));
    assert!(origin.seen().is_empty());
}

#[test]
fn more_clients_than_there_is_room_for_wait_their_turn() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url(), "--limit-connections", "2"]);
    let mut kept: Vec<_> = (0..2).map(|_| Connection::to(server.address())).collect();
    for connection in &mut kept {
        connection.write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        assert_eq!(connection.read().expect("an answer").status, 200);
    }
    let address = server.address();
    let waiting = std::thread::spawn(move || crate::support::get(address, "/").status);
    std::thread::sleep(Duration::from_millis(100));
    assert!(!waiting.is_finished());
    drop(kept);
    assert_eq!(waiting.join().unwrap(), 200);
}
