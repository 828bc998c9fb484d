//! Clients that send or take so little that they would hold the places at an upstream for ever.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use tachikoma_testkit::{Stopwatch, wait_until};

use crate::support::h2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Raw, WINDOW_UPDATE, frame, request,
};
use crate::support::{Connection, Origin, Tachikoma, send};

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

fn server(origin: &Origin) -> Tachikoma {
    Tachikoma::serve(&[
        "--upstream",
        &origin.url(),
        "--proxy-max-concurrent=2",
        "--proxy-wait-timeout=100ms",
        "--limit-body-timeout=2s",
    ])
}

/// Whether others reach the upstream; no cache answers for it.
fn is_free(server: &Tachikoma) -> bool {
    let lines = "Host: a.test\r\nCache-Control: no-store\r\nConnection: close";
    send(server.address(), format!("GET /free HTTP/1.1\r\n{lines}\r\n\r\n")).status == 200
}

#[test]
fn who_sends_a_body_byte_by_byte_gives_the_place_back() {
    let origin = Origin::saying("hello");
    let server = server(&origin);
    let slow: Vec<_> = (0..2)
        .map(|_| {
            let mut client = Connection::to(server.address());
            let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n";
            client.write(head).unwrap();
            thread::spawn(move || {
                let watch = Stopwatch::start();
                while watch.elapsed() < LIMIT && !client.has_answer() && client.write("x").is_ok() {
                    thread::sleep(Duration::from_millis(100));
                }
                client.has_answer().then(|| client.read().map(|answer| answer.status))
            })
        })
        .collect();
    assert!(wait_until(LIMIT, || !is_free(&server)), "they have no place");
    assert!(wait_until(LIMIT, || is_free(&server)), "they keep their places");
    for client in slow {
        assert_eq!(client.join().unwrap(), Some(Some(408)));
    }
}

#[test]
fn who_sends_a_short_body_slowly_holds_no_place() {
    let origin = Origin::saying("hello");
    let server = server(&origin);
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut client = Connection::to(server.address());
            let lines = "Host: a.test\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
            client.write(format!("POST /slow HTTP/1.1\r\n{lines}")).unwrap();
            // It is being waited for.
            assert_eq!(client.read_head().map(|answer| answer.status), Some(100));
            client.write("12345").unwrap();
            client
        })
        .collect();
    for _ in 0..10 {
        assert!(is_free(&server));
    }
    assert!(origin.seen().iter().all(|seen| seen.target() == "/free"));
    for mut client in slow {
        client.write("67890").unwrap();
        assert_eq!(client.read().map(|answer| answer.text()).as_deref(), Some("hello"));
        assert_eq!(origin.seen().pop().map(|seen| seen.body).as_deref(), Some(&b"1234567890"[..]));
    }
}

#[test]
fn a_stream_that_nobody_takes_ends_beside_one_that_moves() {
    let body = "x".repeat(16 << 20);
    let origin = Origin::answering(move |seen| {
        let body = if seen.target() == "/free" { "" } else { &body };
        let head = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: ";
        format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let server = server(&origin);
    let mut client = Raw::connect(server.address(), &[(4, 10_000)]);
    for stream in [1, 3] {
        let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/large"));
        client.0.write_all(&head).unwrap();
    }
    assert!(wait_until(LIMIT, || !is_free(&server)), "they have no place");
    // Of the third stream each byte is taken, of the first what came by itself.
    let (done, is_done) = std::sync::mpsc::channel();
    let taking = thread::spawn(move || {
        let mut writer = client.0.try_clone().unwrap();
        let mut after = 0_u32;
        let mut is_over = false;
        while let Some(came) = client.read() {
            is_over = is_over || is_done.try_recv().is_ok();
            match (came.kind, came.stream) {
                (PING, _) if came.flags == 0 => {
                    writer.write_all(&frame(PING, 1, 0, &came.payload)).unwrap();
                }
                (DATA, 3) if is_over && after > 10 => return true,
                (DATA, 3) => {
                    after += u32::from(is_over);
                    let room = u32::try_from(came.payload.len()).unwrap().to_be_bytes();
                    writer.write_all(&frame(WINDOW_UPDATE, 0, 0, &room)).unwrap();
                    writer.write_all(&frame(WINDOW_UPDATE, 0, 3, &room)).unwrap();
                    thread::sleep(Duration::from_millis(50));
                }
                (RST_STREAM, 3) => return false,
                _ => {}
            }
        }
        false
    });
    assert!(wait_until(LIMIT, || is_free(&server)), "the stream that nobody takes keeps its place");
    done.send(()).unwrap();
    assert!(taking.join().unwrap(), "the stream that moves has ended");
}
