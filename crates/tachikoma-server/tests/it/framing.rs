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

/// HS-099.
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
    let claimed = "GET /claimed HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Host: 127.0.0.1:22\r\n\r\n";
    check(&origin, &server, claimed, 200, 1);
    assert!(!origin.seen().last().unwrap().head.contains("127.0.0.1:22"));
}

/// HS-095.
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

/// Sends `bytes` and expects one answer with one of these statuses, the end of the connection
/// behind it, and that the upstream saw nothing.
#[track_caller]
fn check_last(origin: &Origin, server: &Tachikoma, bytes: &[u8], statuses: &[u16]) {
    let before = origin.seen().len();
    let shown = String::from_utf8_lossy(bytes);
    let mut connection = Connection::to(server.address());
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let _ = connection.write([bytes, smuggled].concat());
    let answer = connection.read().unwrap_or_else(|| panic!("no answer to {shown:?}"));
    assert!(statuses.contains(&answer.status), "{shown:?}: {answer:?}");
    assert!(connection.is_at_end(), "{shown:?}: the connection goes on");
    assert_eq!(origin.seen().len(), before, "{shown:?}");
}

/// HS-081, HS-083.
#[test]
fn a_request_that_two_servers_could_read_differently_is_refused() {
    let (origin, server) = pair();
    for lines in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked;x\r\n",
        "Transfer-Encoding: Chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1, 2\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: 1 1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content_Length\r\n",
        "Bad Name: x\r\n",
        "Bad@Name: x\r\n",
        "Name\t: x\r\n",
        "Name : x\r\n",
        ": x\r\n",
        " leading: x\r\n",
        "X: a\r\n folded\r\n",
        "X: a\r\n\tfolded\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X: a\x7fb\r\n",
        "X\0: a\r\n",
        "H\u{e9}: a\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\nx");
        check_last(&origin, &server, bytes.as_bytes(), &[400, 501]);
    }
    for head in [
        // The version of the message decides what a coding means.
        "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1 x\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a.test\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / http/1.1\r\nHost: a.test\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        check_last(&origin, &server, head.as_bytes(), &[400, 505]);
    }
}

#[test]
fn a_length_beside_chunks_is_not_forwarded_and_ends_the_connection() {
    for order in [
        ["Content-Length: 4", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 4"],
    ] {
        let origin = Origin::answering(|_| {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok".to_vec()
        });
        let server = Tachikoma::serve(&["--upstream", &origin.url()]);
        let [first, second] = order;
        let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{first}\r\n{second}\r\n\r\n");
        let mut connection = Connection::to(server.address());
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
        connection.write(format!("{head}0\r\n\r\n{smuggled}")).unwrap();
        assert!(connection.read().is_some_and(|answer| [200, 400].contains(&answer.status)));
        assert!(connection.is_at_end(), "what follows is nobody's request");
        for seen in origin.seen() {
            assert_eq!(
                (seen.target(), seen.all("content-length").len()),
                ("/", 0),
                "{}",
                seen.head
            );
        }
    }
}

#[test]
fn chunks_that_are_none_end_the_exchange() {
    let (origin, server) = pair();
    for body in [
        "x\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1\nx\n0\n\n",
        "2\r\nx\r\n0\r\n\r\n",
        "1\r\nxx\r\n0\r\n\r\n",
        "1 \0\r\nx\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nx\r\n",
    ] {
        let head = "POST /chunks HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut connection = Connection::to(server.address());
        connection
            .write(format!("{head}{body}GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"))
            .unwrap();
        if let Some(answer) = connection.read() {
            assert!((400..600).contains(&answer.status), "{body:?}: {answer:?}");
            assert!(connection.is_at_end(), "{body:?}");
        }
    }
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| seen.target() == "/chunks"), "{seen:#?}");
}

/// HS-093.
#[test]
fn a_mixed_line_of_requests_is_answered_in_order_until_the_first_that_is_none() {
    let origin = Origin::answering(|seen| {
        let body = seen.target();
        let rule = if body.contains("hit") { "max-age=60" } else { "no-store" };
        let status = if body.contains("error") { "500 Oops" } else { "200 OK" };
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nCache-Control: {rule}\r\n\r\n{body}"
        )
        .into_bytes()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let mut line = String::new();
    let target = |n: u32| match n % 4 {
        0 => "/hit".to_owned(),
        1 => format!("/miss/{n}"),
        2 => format!("/error/{n}"),
        _ => format!("/post/{n}"),
    };
    for n in 0..100 {
        let (method, body) =
            if n % 4 == 3 { ("POST", "Content-Length: 3\r\n\r\nabc") } else { ("GET", "\r\n") };
        line.push_str(&[method, " ", &target(n), " HTTP/1.1\r\nHost: a.test\r\n", body].concat());
    }
    line += "GET / HTTP/1.1\r\nBad Name: x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut connection = Connection::to(server.address());
    connection.write(line).unwrap();
    for n in 0..100 {
        assert_eq!(connection.read().expect("an answer").text(), target(n), "{n}");
    }
    assert_eq!(connection.read().expect("an answer").status, 400);
    assert!(connection.is_at_end());
    assert!(origin.seen().iter().all(|seen| seen.target() != "/smuggled"));
}

/// HS-103.
#[test]
fn nothing_tells_what_others_fetched_with_their_credentials() {
    let origin = Origin::answering(|seen| {
        // A shared cache may keep this by its word, but not what was asked for with credentials.
        let body = if seen.all("authorization").is_empty() && seen.all("cookie").is_empty() {
            "none"
        } else {
            "mine"
        };
        format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\n\r\n{body}")
            .into_bytes()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    for (n, line) in ["Authorization: Bearer b", "Cookie: session=b"].into_iter().enumerate() {
        for probe in 0..500 {
            let target = format!("/{n}/{probe}");
            let mine = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{line}\r\n\r\n");
            assert_eq!(send(server.address(), mine).text(), "mine");
            let probed = crate::support::get(server.address(), &target);
            let said = probed.header("cache-status").unwrap();
            assert!(!said.contains("hit") && probed.text() == "none", "{target}: {said}");
            assert_eq!(probed.header("age"), None);
        }
    }
}

/// HS-029.
#[test]
fn a_head_that_is_too_large_is_431() {
    let (origin, server) = pair();
    let long = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    check(&origin, &server, &long, 431, 0);
    let many = "x: y\r\n".repeat(101);
    check(&origin, &server, &format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n"), 431, 0);
    // A line of 9 kB is one that an origin with the usual limit would refuse.
    let line = |length: usize| format!("X: {}\r\n", "x".repeat(length));
    let head = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n");
    check(&origin, &server, &head(&line(9_000)), 431, 0);
    check(&origin, &server, &head(&line(8_000).repeat(3)), 200, 1);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(9_000));
    check(&origin, &server, &long, 414, 0);
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

/// HS-093.
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
