//! An origin server that answers with exactly the bytes a test gives it, and remembers requests.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The request line and the header lines, as sent.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The values of a field in the order they came.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

type Answers = dyn Fn(&Seen, &mut TcpStream) + Send + Sync;

/// A server on a free port. Dropping it closes the port and forgets its connections.
pub(crate) struct Origin {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicBool>,
}

impl Origin {
    /// Answers each request with the bytes that `answer` returns, and keeps the connection.
    pub(crate) fn answering(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(move |seen, stream| {
            let _ = stream.write_all(&answer(seen));
        })
    }

    /// A `200` with this body, which may be stored for a minute.
    pub(crate) fn saying(body: &'static str) -> Self {
        Self::answering(move |_| {
            let length = body.len();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Type: text/plain\r\n\
                 Cache-Control: max-age=60\r\n\r\n{body}"
            )
            .into_bytes()
        })
    }

    pub(crate) fn start(answers: impl Fn(&Seen, &mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::at(0, answers)
    }

    /// On this port of 127.0.0.1.
    pub(crate) fn at(
        port: u16,
        answers: impl Fn(&Seen, &mut TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let ended = Arc::new(AtomicBool::new(false));
        let (log, stop) = (Arc::clone(&seen), Arc::clone(&ended));
        let answers: Arc<Answers> = Arc::new(answers);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answers, stop) = (Arc::clone(&log), answers.clone(), Arc::clone(&stop));
                thread::spawn(move || serve(stream, &log, &*answers, &stop));
            }
        });
        Self { address, seen, ended }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that came up to now.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The one request that came.
    #[track_caller]
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen[0].clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the accept, which then sees that it is over and closes the port.
        let _ = TcpStream::connect(self.address);
        let _ = tachikoma_testkit::wait_until(Duration::from_secs(5), || {
            TcpStream::connect(self.address).is_err()
        });
    }
}

/// Reads the head of a request and nothing behind it; `None` when it ended before.
pub(crate) fn head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Seen>>, answers: &Answers, ended: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(seen) = read(&mut reader, ended) {
        log.lock().unwrap().push(seen.clone());
        answers(&seen, &mut writer);
    }
}

fn read(reader: &mut BufReader<TcpStream>, ended: &AtomicBool) -> Option<Seen> {
    let mut head = String::new();
    loop {
        let before = head.len();
        match reader.read_line(&mut head) {
            Ok(0) => return None,
            // A part of a line stays in `head`, and the rest of it comes after.
            Ok(_) if head.ends_with('\n') && head[before..].trim().is_empty() => break,
            Ok(_) => {}
            Err(_) if ended.load(Ordering::SeqCst) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    let mut seen = Seen { head, body: Vec::new() };
    let length = seen.all("content-length").first().and_then(|length| length.parse().ok());
    if let Some(length) = length {
        reader.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        reader.take(length).read_to_end(&mut seen.body).ok()?;
        reader.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    } else if !seen.all("transfer-encoding").is_empty() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = u64::from_str_radix(line.trim(), 16).ok()?;
            reader.take(size).read_to_end(&mut seen.body).ok()?;
            reader.read_line(&mut line).ok()?;
            if size == 0 {
                break;
            }
        }
    }
    Some(seen)
}
