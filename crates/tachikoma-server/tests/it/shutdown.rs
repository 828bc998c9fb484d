//! Signals: the first drains, the second ends at once, and a deadline bounds the draining.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::Signal;
use tachikoma_testkit::{Stopwatch, wait_until};

use crate::support::{Connection, Origin, Tachikoma};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// An origin whose answer's second half waits until the test lets it go.
fn held() -> (Origin, std::sync::mpsc::Sender<()>) {
    let (release, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(20));
        let _ = stream.write_all(b"half");
    });
    (origin, release)
}

fn in_flight(origin: &Origin, server: &Tachikoma) -> Connection {
    let mut connection = Connection::to(server.address());
    connection.write(REQUEST).unwrap();
    assert!(wait_until(Duration::from_secs(5), || !origin.seen().is_empty()));
    connection
}

#[test]
fn at_the_first_signal_open_requests_are_finished_and_no_new_ones_taken() {
    for signal in [Signal::TERM, Signal::INT] {
        let (origin, release) = held();
        let mut server = Tachikoma::serve(&["--upstream", &origin.url()]);
        let idle = Connection::to(server.address());
        let mut open = in_flight(&origin, &server);
        server.signal(signal);
        let closed = wait_until(Duration::from_secs(5), || {
            std::net::TcpStream::connect(server.address()).is_err()
        });
        assert!(closed, "the port is still open");
        assert!(!server.has_ended());
        release.send(()).unwrap();
        let answer = open.read().expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "halfhalf"));
        drop(idle);
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn what_is_not_done_when_the_drain_time_is_over_is_cut_off() {
    let (origin, _release) = held();
    let mut server = Tachikoma::serve(&["--upstream", &origin.url(), "--drain", "300ms"]);
    let mut open = in_flight(&origin, &server);
    let watch = Stopwatch::start();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let took = watch.elapsed();
    assert!((300..4000).contains(&took.as_millis()), "{took:?}");
    assert!(open.read().is_none_or(|answer| !answer.complete));
    server.assert_logged("cut off");
}

#[test]
fn the_second_signal_ends_at_once() {
    let (origin, _release) = held();
    let mut server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let _open = in_flight(&origin, &server);
    server.signal(Signal::TERM);
    server.assert_logged("stopping");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(143));
}

#[test]
fn an_impatient_interrupt_ends_at_once_and_a_hangup_changes_nothing() {
    let (origin, _release) = held();
    let mut server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let _open = in_flight(&origin, &server);
    for _ in 0..2 {
        server.signal(Signal::HUP);
        server.assert_logged("SIGHUP changes nothing");
    }
    assert!(!server.has_ended());
    server.signal(Signal::INT);
    server.assert_logged("stopping");
    server.signal(Signal::HUP);
    server.signal(Signal::INT);
    assert_eq!(server.wait(), Some(130));
}

/// Asks until the server is gone, and counts the whole answers that came. An answer that was begun
/// must come to its end, and a connection ends with the word `close` or between two answers.
fn ask_until_closed(address: std::net::SocketAddr, served: &AtomicU32) {
    while let Ok(mut connection) = Connection::open(address) {
        while connection.write(REQUEST).is_ok() {
            let Some(answer) = connection.read() else { break };
            assert!(answer.complete && answer.status == 200, "{answer:?}");
            served.fetch_add(1, Ordering::SeqCst);
            if answer.header("connection").as_deref() == Some("close") {
                break;
            }
        }
    }
}

#[test]
fn no_answer_of_many_breaks_off_while_the_server_drains() {
    let origin = Origin::saying("hello");
    let mut server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let address = server.address();
    let served = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| ask_until_closed(address, &served));
        }
        let busy = || served.load(Ordering::SeqCst) > 100;
        assert!(wait_until(Duration::from_secs(20), busy), "{served:?}");
        server.signal(Signal::TERM);
    });
    assert_eq!(server.wait(), Some(0));
}
