//! The proxy that breaks connections, in front of a server that echoes.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tachikoma_testkit::{Fault, FaultProxy, Stopwatch};

/// Echoes each connection until it ends; lives as long as the test process.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    port
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).expect("the proxy accepts");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket option");
    stream
}

/// Sends and reads as many bytes back, or what comes before the connection ends.
fn echoed(stream: &mut TcpStream, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(text.len() as u64).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn by_default_everything_passes() {
    let proxy = FaultProxy::to(echo());
    let mut stream = connect(&proxy);
    assert_eq!(echoed(&mut stream, "hello").expect("an echo"), "hello");
    assert_eq!(proxy.accepted(), 1);
}

#[test]
fn a_delay_holds_each_reply_back() {
    let proxy = FaultProxy::to(echo());
    let mut stream = connect(&proxy);
    proxy.set(Fault::Delay(Duration::from_millis(100)));
    let timer = Stopwatch::start();
    assert_eq!(echoed(&mut stream, "hello").expect("an echo"), "hello");
    assert!(timer.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_stall_answers_nothing_and_lets_go_afterwards() {
    let proxy = FaultProxy::to(echo());
    let mut stream = connect(&proxy);
    proxy.set(Fault::Stall);
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket option");
    assert!(echoed(&mut stream, "hello").is_err());
    proxy.set(Fault::Pass);
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket option");
    assert_eq!(echoed(&mut stream, "hello").expect("the bytes held back"), "hello");
}

#[test]
fn refusing_closes_what_is_open_and_refuses_what_comes() {
    let proxy = FaultProxy::to(echo());
    let mut stream = connect(&proxy);
    assert_eq!(echoed(&mut stream, "hello").expect("an echo"), "hello");
    proxy.set(Fault::Refuse);
    assert_ne!(echoed(&mut stream, "hello").unwrap_or_default(), "hello");
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).expect_err("it is refused");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    proxy.set(Fault::Pass);
    assert_eq!(echoed(&mut connect(&proxy), "hello").expect("an echo"), "hello");
}

#[test]
fn a_cut_ends_the_connection_after_that_many_bytes() {
    let proxy = FaultProxy::to(echo());
    proxy.set(Fault::CutAfter(3));
    assert_eq!(echoed(&mut connect(&proxy), "hello").expect("a part"), "hel");
    assert_eq!(echoed(&mut connect(&proxy), "again").expect("a part"), "aga");
}

#[test]
fn corruption_flips_one_bit_of_one_byte() {
    let proxy = FaultProxy::to(echo());
    proxy.set(Fault::CorruptAt(6));
    let mut stream = connect(&proxy);
    assert_eq!(echoed(&mut stream, "hello").expect("an echo"), "hello");
    assert_eq!(echoed(&mut stream, "abc").expect("an echo"), "acc");
    assert_eq!(echoed(&mut stream, "abc").expect("an echo"), "abc");
}

#[test]
fn a_throttle_slows_replies_down() {
    let proxy = FaultProxy::to(echo());
    proxy.set(Fault::Throttle(20));
    let timer = Stopwatch::start();
    assert_eq!(echoed(&mut connect(&proxy), "hello").expect("an echo"), "hello");
    assert!(timer.elapsed() >= Duration::from_millis(250), "{:?}", timer.elapsed());
}

#[test]
fn dropping_connections_leaves_the_proxy_open_for_new_ones() {
    let proxy = FaultProxy::to(echo());
    let mut stream = connect(&proxy);
    assert_eq!(echoed(&mut stream, "hello").expect("an echo"), "hello");
    proxy.drop_connections();
    assert_ne!(echoed(&mut stream, "hello").unwrap_or_default(), "hello");
    assert_eq!(echoed(&mut connect(&proxy), "hello").expect("an echo"), "hello");
}

#[test]
fn requests_are_cut_and_changed_as_replies_are() {
    let proxy = FaultProxy::to(echo());
    proxy.set(Fault::CutRequestsAfter(3));
    // What was echoed before the end may be lost with the connection.
    assert_ne!(echoed(&mut connect(&proxy), "hello").unwrap_or_default(), "hello");
    proxy.set(Fault::CorruptRequestAt(1));
    assert_eq!(echoed(&mut connect(&proxy), "abc").expect("an echo"), "acc");
}

#[test]
fn a_half_closed_connection_takes_requests_and_answers_none() {
    let proxy = FaultProxy::to(echo());
    let mut stream = connect(&proxy);
    assert_eq!(echoed(&mut stream, "hello").expect("an echo"), "hello");
    proxy.set(Fault::HalfClose);
    assert_eq!(echoed(&mut stream, "hello").expect("the end"), "");
    assert!(stream.write_all(b"more").is_ok());
    assert_eq!(echoed(&mut connect(&proxy), "hello").expect("the end"), "");
}

#[test]
fn another_target_is_for_new_connections() {
    let proxy = FaultProxy::to(echo());
    let mut stream = connect(&proxy);
    assert_eq!(echoed(&mut stream, "hello").expect("an echo"), "hello");
    let nobody = tachikoma_testkit::free_port();
    proxy.retarget(nobody);
    assert_eq!(echoed(&mut stream, "hello").expect("an echo"), "hello");
    assert_ne!(echoed(&mut connect(&proxy), "hello").unwrap_or_default(), "hello");
}
