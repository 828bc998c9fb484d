//! Connections that become another protocol's, and interim responses on their way.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::Signal;
use tachikoma_testkit::{Stopwatch, wait_until};

use crate::support::{Origin, Tachikoma, get, send};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

/// An origin that switches and then sends back what it gets, twice.
fn echo() -> Origin {
    Origin::start(|seen, stream| {
        if seen.all("upgrade").is_empty() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
            return;
        }
        stream.write_all(SWITCHED).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            let twice = [&bytes[..count], &bytes[..count]].concat();
            if stream.write_all(&twice).is_err() {
                return;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Both);
    })
}

fn connect(server: &Tachikoma) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn read_until(mut stream: &TcpStream, end: &[u8]) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(end) {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&seen)),
        }
    }
    String::from_utf8_lossy(&seen).to_ascii_lowercase()
}

#[test]
fn a_websocket_passes_untouched_in_both_directions() {
    let origin = echo();
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let mut socket = connect(&server);
    socket.write_all(UPGRADE.as_bytes()).unwrap();
    let head = read_until(&socket, b"\r\n\r\n");
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
    assert!(head.contains("sec-websocket-accept: x"), "{head}");
    let seen = origin.only();
    assert_eq!(seen.all("connection"), ["upgrade"]);
    assert_eq!(seen.all("upgrade"), ["websocket"]);
    assert_eq!(seen.all("sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    for bytes in [&b"\x81\x05hello"[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 500]] {
        socket.write_all(bytes).unwrap();
        let mut twice = vec![0; bytes.len() * 2];
        socket.read_exact(&mut twice).unwrap();
        assert_eq!(twice, [bytes, bytes].concat());
    }
    // The end of one side is the end of the other.
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(socket.read(&mut [0; 16]).unwrap(), 0);
}

/// HS-085.
#[test]
fn nothing_behind_the_request_reaches_the_origin_before_it_has_switched() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let early = std::sync::Arc::new(Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&early);
    let origin = Origin::start(move |_, stream| {
        held.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut bytes = [0; 1024];
        if let Ok(count) = stream.peek(&mut bytes) {
            log.lock().unwrap().extend_from_slice(&bytes[..count]);
        }
        stream.set_nonblocking(false).unwrap();
        stream.write_all(SWITCHED).unwrap();
        let count = stream.read(&mut bytes).unwrap();
        stream.write_all(&bytes[..count]).unwrap();
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let mut socket = connect(&server);
    let smuggled = "GET /admin HTTP/1.1\r\nHost: a.test\r\n\r\n";
    socket.write_all(format!("{UPGRADE}{smuggled}").as_bytes()).unwrap();
    assert!(wait_until(Duration::from_secs(5), || origin.seen().len() == 1));
    std::thread::sleep(Duration::from_millis(200));
    release.send(()).unwrap();
    read_until(&socket, b"\r\n\r\n");
    assert_eq!(read_until(&socket, b"\r\n\r\n"), smuggled.to_ascii_lowercase());
    assert_eq!(early.lock().unwrap().as_slice(), b"");
}

#[test]
fn an_origin_that_does_not_switch_answers_and_what_follows_is_the_next_request() {
    let origin = Origin::answering(|seen| {
        let body = seen.target();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let mut socket = connect(&server);
    let next = "GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n";
    socket.write_all(format!("{UPGRADE}{next}").as_bytes()).unwrap();
    assert!(read_until(&socket, b"/chat").starts_with("http/1.1 200 "));
    assert!(read_until(&socket, b"/next").starts_with("http/1.1 200 "));
    let seen = origin.seen();
    assert!(seen[1].all("upgrade").is_empty(), "{}", seen[1].head);
}

#[test]
fn no_tunnel_of_http_goes_around_the_proxy_and_nobody_switches_unasked() {
    let origin = echo();
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    for protocol in ["h2c", "HTTP/2.0", "websocket, h2c", "TLS/1.3"] {
        let asked = UPGRADE.replace("Upgrade: websocket", &format!("Upgrade: {protocol}"));
        assert_eq!(send(server.address(), asked).text(), "plain", "{protocol}");
    }
    let posted =
        UPGRADE.replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(send(server.address(), posted).text(), "plain");
    for switched in ["other", "h2c", "websocket, other"] {
        let answer = String::from_utf8(SWITCHED.to_vec()).unwrap();
        let answer = answer.replace("websocket", switched);
        let origin = Origin::answering(move |_| answer.clone().into_bytes());
        let server = Tachikoma::serve(&["--upstream", &origin.url()]);
        send(server.address(), UPGRADE).assert_problem(502);
    }
}

#[test]
fn stopping_waits_for_tunnels_and_ends_them_when_the_time_is_over() {
    let origin = echo();
    let mut server = Tachikoma::serve(&["--upstream", &origin.url(), "--drain", "700ms"]);
    let mut socket = connect(&server);
    socket.write_all(UPGRADE.as_bytes()).unwrap();
    read_until(&socket, b"\r\n\r\n");
    let watch = Stopwatch::start();
    server.signal(Signal::TERM);
    server.assert_logged("stopping");
    socket.write_all(b"x").unwrap();
    assert_eq!(read_until(&socket, b"xx"), "xx");
    assert_eq!(server.wait(), Some(0));
    let took = watch.elapsed();
    assert!((600..5000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn interim_responses_reach_the_client_before_the_final_one() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let origin = Origin::start(move |_, stream| {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\n\
                     X: 1\r\n\r\n";
        stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").unwrap();
        stream.write_all(hints.as_bytes()).unwrap();
        // The final one comes only when the client has seen these, and at once later.
        let _ = held.lock().unwrap().recv_timeout(Duration::from_secs(10));
        let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\n\r\nok";
        stream.write_all(last.as_bytes()).unwrap();
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let mut socket = connect(&server);
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    socket.write_all(request).unwrap();
    let watch = Stopwatch::start();
    assert!(read_until(&socket, b"\r\n\r\n").starts_with("http/1.1 102 "));
    let hints = read_until(&socket, b"\r\n\r\n");
    assert!(watch.elapsed() < Duration::from_secs(9), "{:?}", watch.elapsed());
    drop(release);
    assert_eq!(hints, "http/1.1 103 early hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
    assert!(read_until(&socket, b"ok").starts_with("http/1.1 200 ok\r\n"));
    // A hit says them no more, and neither is anything left of them on the connection.
    socket.write_all(request).unwrap();
    assert!(read_until(&socket, b"ok").starts_with("http/1.1 200 ok\r\n"));
    // A client of HTTP/1.0 would take one for the answer.
    socket.write_all(b"GET /old HTTP/1.0\r\nHost: a.test\r\n\r\n").unwrap();
    assert!(read_until(&socket, b"ok").starts_with("http/1.0 200 ok\r\n"));
}

#[test]
fn interim_responses_without_an_end_are_a_502() {
    let origin = Origin::start(|seen, stream| {
        if seen.target() == "/good" {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
            return;
        }
        let many = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
        let _ = stream.write_all(&many);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    get(server.address(), "/").assert_problem(502);
    assert_eq!(get(server.address(), "/good").text(), "good");
}

#[test]
fn a_client_that_expects_100_gets_it_once_and_only_where_its_body_is_read() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let mut socket = connect(&server);
    let head =
        "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    socket.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_until(&socket, b"\r\n\r\n"), "http/1.1 100 continue\r\n\r\n");
    socket.write_all(b"body").unwrap();
    assert!(read_until(&socket, b"hello").starts_with("http/1.1 200 ok\r\n"));
    let seen = origin.only();
    assert_eq!((seen.body.as_slice(), seen.all("expect").len()), (&b"body"[..], 0));
}
