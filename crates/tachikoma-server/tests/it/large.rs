//! Bodies far larger than memory should be, through the real process: what it holds stays small.
//!
//! `TACHIKOMA_BODY_MIB` says how large they are; 256 by default.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tachikoma_testkit::{RedisServer, wait_until};

use crate::support::{Answer, Origin, Tachikoma, get, head, resident, run, send};

fn mebibytes() -> u64 {
    std::env::var("TACHIKOMA_BODY_MIB").map_or(256, |text| text.parse().expect("a number"))
}

/// What the process may hold above what it held before.
const ROOM: u64 = 64 << 20;

/// An origin that sends so many MiB: with a length under `/length`, in chunks under `/chunked`.
fn origin(mib: u64, sent: Arc<AtomicU64>) -> Origin {
    Origin::start(move |seen, stream| {
        if seen.target() == "/small" {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall");
            return;
        }
        let rule = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
        let is_chunked = seen.target().starts_with("/chunked");
        let head = if is_chunked {
            format!("{rule}Transfer-Encoding: chunked\r\n\r\n")
        } else {
            format!("{rule}Content-Length: {}\r\n\r\n", mib << 20)
        };
        let piece = vec![b'x'; 1 << 20];
        let chunk = [b"100000\r\n".as_slice(), &piece, b"\r\n"].concat();
        if stream.write_all(head.as_bytes()).is_err() {
            return;
        }
        for _ in 0..mib {
            if stream.write_all(if is_chunked { &chunk } else { &piece }).is_err() {
                return;
            }
            sent.fetch_add(1 << 20, Ordering::SeqCst);
        }
        if is_chunked {
            let _ = stream.write_all(b"0\r\n\r\n");
        }
    })
}

/// The most that the process held while `watched` ran.
fn most<T>(server: &Tachikoma, watched: impl FnOnce() -> T) -> (T, u64) {
    let process = server.id();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::SeqCst) {
                most = most.max(resident(process));
                std::thread::sleep(Duration::from_millis(10));
            }
            most
        });
        let result = watched();
        done.store(true, Ordering::SeqCst);
        (result, watching.join().unwrap())
    })
}

/// Reads an answer to its end and forgets it; how many bytes came.
fn drain(server: &Tachikoma, target: &str) -> u64 {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let (mut bytes, mut all) = (vec![0; 256 << 10], 0);
    loop {
        match stream.read(&mut bytes).unwrap() {
            0 => return all,
            count => all += count as u64,
        }
    }
}

#[test]
fn a_body_far_above_the_cap_streams_through_and_is_not_held() {
    let mib = mebibytes();
    let origin = origin(mib, Arc::default());
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    assert_eq!(get(server.address(), "/small").text(), "small");
    let base = server.resident();
    for target in ["/length", "/chunked"] {
        let (read, most) = most(&server, || drain(&server, target));
        assert!(read >= mib << 20, "{target}: {read} bytes");
        let held = most.saturating_sub(base);
        println!("{target}: {mib} MiB, at most {} KiB above {} KiB", held >> 10, base >> 10);
        assert!(held <= ROOM, "{target}: {held} bytes above {base}");
    }
    let again = get(server.address(), "/small");
    assert_eq!(again.text(), "small");
}

#[test]
fn a_client_that_reads_nothing_holds_the_origin_back() {
    let sent = Arc::new(AtomicU64::new(0));
    let origin = origin(1024, Arc::clone(&sent));
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    assert_eq!(get(server.address(), "/small").text(), "small");
    let base = server.resident();
    let clients: Vec<_> = ["/length", "/chunked", "/length?2", "/chunked?2"]
        .into_iter()
        .map(|target| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            let head = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    // Until nothing moves any more.
    let mut last = u64::MAX;
    let still = wait_until(Duration::from_secs(2), || {
        std::thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut last, sent.load(Ordering::SeqCst)) == last
    });
    assert!(still, "{} bytes and more", sent.load(Ordering::SeqCst));
    // Buffers of three sockets and of two servers, four times; not what a fast reader gets.
    assert!(sent.load(Ordering::SeqCst) <= 160 << 20, "{}", sent.load(Ordering::SeqCst));
    let held = server.resident().saturating_sub(base);
    assert!(held <= ROOM, "{held} bytes");
    drop(clients);
    assert_eq!(get(server.address(), "/small").text(), "small");
}

/// An origin that counts the bytes of `x` that come, forgets them, and answers at the end.
fn counting(received: Arc<AtomicU64>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let received = Arc::clone(&received);
            std::thread::spawn(move || {
                let Some(head) = head(&mut stream) else { return };
                let head = head.to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: Option<u64> = length.map(|text| text.parse().unwrap());
                let (mut bytes, mut seen, mut end) = (vec![0; 256 << 10], 0, Vec::new());
                while length != Some(seen) && !end.ends_with(b"\r\n0\r\n\r\n") {
                    let Ok(count @ 1..) = stream.read(&mut bytes) else { return };
                    let body = &bytes[..count];
                    let content = body.iter().map(|byte| u64::from(*byte == b'x')).sum::<u64>();
                    seen += content;
                    received.fetch_add(content, Ordering::SeqCst);
                    end.extend_from_slice(&body[count.saturating_sub(16)..]);
                    end.drain(..end.len().saturating_sub(16));
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            });
        }
    });
    url
}

#[test]
fn a_large_upload_streams_through_and_one_above_the_limit_is_cut_off() {
    let mib = mebibytes() / 4;
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    let url = counting(count);
    let limit = format!("{mib}MiB");
    let server = Tachikoma::serve(&["--upstream", &url, "--limit-body-bytes", &limit]);
    let base = server.resident();
    let piece = vec![b'x'; 1 << 20];
    let upload = |chunked: bool, mib: u64| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let framing = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", mib << 20)
        };
        let head =
            format!("PUT / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let (chunk, end) = (b"100000\r\n".as_slice(), b"0\r\n\r\n".as_slice());
        for _ in 0..mib {
            let written = if chunked {
                stream.write_all(&[chunk, &piece, b"\r\n"].concat())
            } else {
                stream.write_all(&piece)
            };
            if written.is_err() {
                break;
            }
        }
        if chunked {
            let _ = stream.write_all(end);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    };
    for chunked in [false, true] {
        received.store(0, Ordering::SeqCst);
        let (answer, most) = most(&server, || upload(chunked, mib));
        assert_eq!(answer, "HTTP/1.1 200 OK");
        assert_eq!(received.load(Ordering::SeqCst), mib << 20);
        assert!(most.saturating_sub(base) <= ROOM, "{most} bytes, {base} before");
    }
    received.store(0, Ordering::SeqCst);
    let answer = upload(false, mib + 1);
    assert!(answer.starts_with("HTTP/1.1 413 ") || answer.is_empty(), "{answer}");
    assert_eq!(received.load(Ordering::SeqCst), 0);
    let answer = upload(true, mib + 8);
    assert!(answer.starts_with("HTTP/1.1 413 ") || answer.is_empty(), "{answer}");
    assert!(received.load(Ordering::SeqCst) <= mib << 20);
}

/// Two processes on one Redis: each keeps what is too large for it, and either purges it for both.
#[test]
fn a_body_over_8_mib_is_kept_by_each_process_and_purged_by_either() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let origin = origin(12, Arc::default());
    let file = folder.path().join("t.toml");
    std::fs::write(&file, "[responses]\nmax_body_size = '64MiB'\n").unwrap();
    // Without copies of what Redis has: what one process purges the other sees at once.
    let cache = format!("{}&memory=off", redis.url_with("large"));
    let start = || {
        let (file, url, cache) = (file.to_str().unwrap(), origin.url(), cache.as_str());
        Tachikoma::serve(&["--config", file, "--upstream", &url, "--cache", cache])
    };
    let said = |answer: &Answer| {
        assert!(answer.status == 200 && answer.complete, "{:?}", answer.headers);
        assert_eq!(answer.body.len(), 12 << 20);
        answer.header("cache-status").unwrap()
    };
    let until_hit = |server: &Tachikoma| {
        let is_hit = || said(&get(server.address(), "/length")).contains(";hit");
        assert!(wait_until(Duration::from_secs(20), is_hit), "never a hit");
    };
    let is_there = |server: &Tachikoma| {
        let asked = "GET /length HTTP/1.1\r\nHost: a.test\r\nCache-Control: only-if-cached\r\n";
        let answer = send(server.address(), format!("{asked}Connection: close\r\n\r\n"));
        answer.header("cache-status").unwrap().contains(";hit")
    };
    let (one, mut other) = (start(), start());
    assert_eq!(said(&get(one.address(), "/length")), "tachikoma;fwd=uri-miss;stored");
    until_hit(&one);
    assert_eq!(said(&get(other.address(), "/length")), "tachikoma;fwd=miss;stored");
    until_hit(&other);
    assert!(is_there(&one), "the other took its place");

    let admin = other.admin().to_string();
    let purged = run(&["purge", "--admin", &admin, "--url", "http://a.test/length"], &[]);
    assert_eq!((purged.code, purged.out.as_str()), (Some(0), "removed 1 in redis\n"), "{purged:?}");
    assert!(!is_there(&one) && !is_there(&other));

    until_hit(&one);
    let stats = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let stats = send(one.admin(), stats).text();
    let line = stats.lines().find(|line| line.starts_with("tachikoma_response_cache_large_bytes "));
    let held: u64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((12 << 20..13 << 20).contains(&held), "{held} bytes");
    // One that starts anew has no body, and says so.
    other = start();
    assert!(is_there(&one) && !is_there(&other));
    assert_eq!(said(&get(other.address(), "/length")), "tachikoma;fwd=miss;stored");
    until_hit(&other);
}
