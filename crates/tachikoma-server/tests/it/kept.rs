//! Connections to the upstream that are kept, and lost just when they are used again (RFC 9112
//! §9.3.1): what is asked once more, what never is, and what is not put at that risk at all.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Answer, Tachikoma, head, send};

/// An origin that answers the first request of each connection without a word about closing, and
/// closes when the next one begins. It remembers the request lines that came, in order, each with
/// the number of the request on its connection and the bytes of content that were read.
struct Fickle {
    url: String,
    seen: Arc<Mutex<Vec<(String, usize, usize)>>>,
}

impl Fickle {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let log = Arc::clone(&log);
                std::thread::spawn(move || fickle(stream, &log));
            }
        });
        Self { url, seen }
    }

    /// The request lines that begin so: the number on the connection, and bytes of content.
    fn of(&self, begin: &str) -> Vec<(usize, usize)> {
        let seen = self.seen.lock().unwrap();
        let those = seen.iter().filter(|(line, ..)| line.starts_with(begin));
        those.map(|(_, number, bytes)| (*number, *bytes)).collect()
    }
}

fn fickle(mut stream: TcpStream, log: &Mutex<Vec<(String, usize, usize)>>) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for number in 1..=2 {
        let Some(head) = head(&mut stream) else { return };
        let head = head.to_ascii_lowercase();
        let line = head.lines().next().unwrap().to_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |text| text.parse().unwrap());
        if number == 2 {
            log.lock().unwrap().push((line, number, 0));
            return;
        }
        let (mut bytes, mut end, mut read) = (vec![0; 64 << 10], Vec::new(), 0);
        let is_chunked = head.contains("transfer-encoding: chunked");
        while if is_chunked { !end.ends_with(b"0\r\n\r\n") } else { read < length } {
            let Ok(count @ 1..) = stream.read(&mut bytes) else { return };
            read += bytes[..count].iter().map(|byte| usize::from(*byte == b'x')).sum::<usize>();
            end.extend_from_slice(&bytes[count.saturating_sub(5)..count]);
            end.drain(..end.len().saturating_sub(5));
        }
        log.lock().unwrap().push((line, number, read));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
}

/// Leaves one kept connection behind, whose next request is lost.
fn warmed() -> (Fickle, Tachikoma) {
    let origin = Fickle::start();
    let server = Tachikoma::serve(&["--upstream", &origin.url]);
    assert_eq!(ask(&server, "GET", "/warm", None).status, 200);
    (origin, server)
}

fn ask(server: &Tachikoma, method: &str, target: &str, body: Option<(&str, &[u8])>) -> Answer {
    let (framing, body) = body.unwrap_or_default();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n");
    send(server.address(), [head.as_bytes(), body].concat())
}

/// Asks until a request was lost with its kept connection: one may not be kept again yet. Returns
/// what the origin saw, and the answer.
fn lost(method: &str, body: &[u8]) -> (Vec<(usize, usize)>, Answer) {
    let framing = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    for _ in 0..20 {
        let (origin, server) = warmed();
        let answer = ask(&server, method, "/lost", Some((&framing, body)));
        let seen = origin.of(&format!("{} /lost", method.to_lowercase()));
        if seen.first().is_some_and(|(number, _)| *number == 2) {
            return (seen, answer);
        }
    }
    panic!("no connection is ever kept");
}

#[test]
fn what_means_the_same_twice_is_asked_once_more_with_its_whole_body() {
    for (method, size) in
        [("GET", 0), ("OPTIONS", 0), ("DELETE", 0), ("PUT", 0), ("PUT", 5), ("PUT", 64 << 10)]
    {
        let (seen, answer) = lost(method, &vec![b'x'; size]);
        assert_eq!((answer.status, seen), (200, vec![(2, 0), (1, size)]), "{method} {size}");
    }
}

#[test]
fn what_may_mean_something_else_twice_is_asked_once_and_its_loss_is_said() {
    for (method, body) in [("POST", &b"xxxxx"[..]), ("POST", b""), ("PATCH", b"xxxxx")] {
        let (seen, answer) = lost(method, body);
        answer.assert_problem(502);
        assert_eq!(seen, [(2, 0)], "{method} {}", body.len());
    }
}

#[test]
fn a_body_that_could_not_be_sent_again_gets_a_connection_of_its_own() {
    let body = vec![b'x'; 4 << 20];
    let chunked = [b"400000\r\n".as_slice(), &body, b"\r\n0\r\n\r\n"].concat();
    for method in ["PUT", "POST"] {
        let length = format!("Content-Length: {}\r\n", body.len());
        let framings = [(length.as_str(), &body), ("Transfer-Encoding: chunked\r\n", &chunked)];
        for (framing, bytes) in framings {
            let (origin, server) = warmed();
            let answer = ask(&server, method, "/large", Some((framing, bytes)));
            assert_eq!(answer.status, 200, "{method} {framing}");
            let begin = format!("{} /large", method.to_lowercase());
            assert_eq!(origin.of(&begin), [(1, body.len())], "{method} {framing}");
        }
    }
}
