//! The origin is slow, breaks off or fails while many clients ask for the same (catalogue §5.2,
//! FM-28 to FM-39), and clients leave in the middle.
//!
//! `TACHIKOMA_ABORTS` sets how many clients leave; 300 by default.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use tachikoma_testkit::{FaultRow, Stopwatch};

use crate::support::{Answer, Connection, Origin, Tachikoma, get};

fn asking(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n")
}

/// Answers to requests that were sent at once, each on a connection of its own.
fn together(server: &Tachikoma, requests: &[String]) -> Vec<Option<Answer>> {
    let mut open: Vec<_> = requests.iter().map(|_| Connection::to(server.address())).collect();
    for (connection, request) in open.iter_mut().zip(requests) {
        connection.write(request).unwrap();
    }
    open.iter_mut().map(Connection::read).collect()
}

#[test]
fn fm_28_what_proves_uncacheable_is_given_to_nobody_else_and_nobody_queues() {
    let mut row = FaultRow::new("FM-28", "100 clients wait for what may not be shared");
    for rule in [
        "Cache-Control: private, max-age=60",
        "Cache-Control: no-store",
        "Cache-Control: max-age=60\r\nSet-Cookie: id=1",
        "Cache-Control: max-age=60\r\nVary: *",
        "Cache-Control: max-age=60\r\nVary: X",
    ] {
        let times = AtomicUsize::new(0);
        let origin = Origin::start(move |_, stream| {
            let body = format!("{:04}", times.fetch_add(1, SeqCst));
            thread::sleep(Duration::from_millis(100));
            let head = format!("HTTP/1.1 200 OK\r\n{rule}\r\nContent-Length: 4\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        });
        let server = Tachikoma::serve(&["--upstream", &origin.url()]);
        assert_eq!(get(server.address(), "/warm").status, 200);
        // So long as the same takes for a hundred pages, nobody waiting, and as long again. A busy
        // machine gets some tries, each for another page; nothing is shared in any.
        let (mut took, mut bar, mut shared) = (Duration::MAX, Duration::ZERO, 0);
        for try_ in 0..8 {
            let apart: Vec<_> =
                (0..100).map(|n| asking(&format!("/apart/{try_}/{n}"), "")).collect();
            let watch = Stopwatch::start();
            together(&server, &apart);
            bar = (watch.elapsed() * 2).max(Duration::from_millis(300));
            let of = |n| asking(&format!("/{try_}"), &format!("X: {n}\r\n"));
            let requests: Vec<_> = (0..100).map(of).collect();
            let watch = Stopwatch::start();
            let answers = together(&server, &requests);
            took = watch.elapsed();
            let bodies: BTreeSet<_> = answers.iter().flatten().map(Answer::text).collect();
            shared += 100 - bodies.len();
            if took <= bar {
                break;
            }
        }
        let name = rule.replace("Cache-Control: ", "").replace("\r\n", ", ");
        row.count(&format!("shared: {name}"), 0, shared as u64);
        row.at_most(&format!("all done: {name}"), bar, took);
    }
    row.report();
}

/// A port to which nobody can connect: its queue is full, and nothing is ever taken from it.
fn deaf() -> (String, Vec<TcpStream>, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let wait = Duration::from_millis(200);
    let queued = (0..10_000).map_while(|_| TcpStream::connect_timeout(&address, wait).ok());
    (format!("http://{address}"), queued.collect(), listener)
}

#[test]
fn fm_33_each_kind_of_silence_ends_by_its_own_time() {
    let mut row = FaultRow::new("FM-33", "an origin that says nothing, or no more");
    let waits = [
        "--proxy-connect-timeout",
        "500ms",
        "--proxy-head-timeout",
        "1s",
        "--proxy-body-timeout",
        "1500ms",
    ];
    let (url, _queued, _listener) = deaf();
    let silent = Origin::start(|_, _| {});
    let stalled = Origin::start(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nCache-Control: max-age=60\r\n\r\npart";
        let _ = stream.write_all(head.as_bytes());
    });
    for (name, url, least, status) in [
        ("connecting", url, 500, 504),
        ("before the head", silent.url(), 1_000, 504),
        ("within the body", stalled.url(), 1_500, 200),
    ] {
        let server = Tachikoma::serve(&[&["--upstream", &url][..], &waits].concat());
        let least = Duration::from_millis(least);
        // A busy machine gets some tries, but never ends anything too early.
        let (mut shortest, mut early, mut clean) = (Duration::MAX, 0, 0);
        for _ in 0..3 {
            let watch = Stopwatch::start();
            let answer = get(server.address(), "/");
            let took = watch.elapsed();
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            clean += u64::from(status == 200 && answer.complete);
            early += u64::from(took < least * 9 / 10);
            shortest = shortest.min(took);
            if shortest <= least * 11 / 10 {
                break;
            }
        }
        row.at_most(name, least * 11 / 10, shortest);
        row.count(&format!("too early, {name}"), 0, early);
        row.count(&format!("clean ends, {name}"), 0, clean);
    }
    row.report();
}

#[test]
fn fm_34_what_breaks_off_breaks_off_for_each_of_its_readers() {
    let mut row = FaultRow::new("FM-34", "the origin closes in the middle of a body");
    for (name, framing) in [
        ("length", "Content-Length: 1000\r\n\r\nonly the beginning"),
        ("chunks", "Transfer-Encoding: chunked\r\n\r\n12\r\nonly the beginning\r\n"),
        ("half a chunk", "Transfer-Encoding: chunked\r\n\r\nff\r\nonly the beginning"),
    ] {
        for readers in [1, 50] {
            let origin = Origin::start(move |_, stream| {
                let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
                let _ = stream.write_all(format!("{head}{framing}").as_bytes());
                // Until all of them read.
                thread::sleep(Duration::from_millis(200));
                let _ = stream.shutdown(std::net::Shutdown::Both);
            });
            let server = Tachikoma::serve(&["--upstream", &origin.url()]);
            let answers = together(&server, &vec![asking("/", ""); readers]);
            let clean = answers.iter().flatten().filter(|answer| answer.complete).count();
            let later = get(server.address(), "/").header("cache-status").unwrap_or_default();
            row.count(&format!("clean ends, {name}, {readers} readers"), 0, clean as u64);
            let stored = u64::from(later.contains(";hit"));
            row.count(&format!("stored, {name}, {readers} readers"), 0, stored);
        }
    }
    row.report();
}

/// Bytes that tell by themselves to which path they belong, and where.
fn body_of(target: &str, size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(size + 40);
    while body.len() < size {
        let _ = writeln!(body, "{target} at {}", body.len());
    }
    body.truncate(size);
    body
}

/// A small generator: the same offsets in each run.
fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    usize::try_from(*seed >> 33).unwrap()
}

#[test]
fn fm_36_a_client_that_reads_nothing_holds_up_no_other_and_costs_no_memory() {
    const SIZE: usize = 6 << 20;
    let origin = Origin::answering(|seen| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
        let body = body_of(seen.target(), SIZE);
        [format!("{head}Content-Length: {SIZE}\r\n\r\n").as_bytes(), &body].concat()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    assert_eq!(get(server.address(), "/warm").body.len(), SIZE);
    let base = server.resident();
    let (mut longest, mut wrong, mut held) = (Duration::ZERO, 0, Vec::new());
    for round in 0..4 {
        let target = format!("/{round}");
        let mut slow = Connection::to(server.address());
        slow.write(asking(&target, "")).unwrap();
        held.push(slow);
        thread::sleep(Duration::from_millis(50));
        let watch = Stopwatch::start();
        let answer = get(server.address(), &target);
        longest = longest.max(watch.elapsed());
        wrong += u64::from(answer.body != body_of(&target, SIZE));
    }
    let mut row = FaultRow::new("FM-36", "a client that reads nothing of what another one reads");
    row.at_most("6 MiB to the other one", Duration::from_secs(5), longest);
    row.count("wrong bodies", 0, wrong);
    // Each is stored, and is held once.
    row.count("MiB more", 64, server.resident().saturating_sub(base) >> 20);
    row.count("fetched", 5, origin.seen().len() as u64);
    drop(held);
    row.report();
}

#[test]
fn fm_37_clients_that_leave_in_the_middle_leave_nothing_wrong_behind() {
    const SIZE: usize = 300_000;
    const PATHS: usize = 20;
    let aborts: usize = std::env::var("TACHIKOMA_ABORTS").map_or(300, |n| n.parse().unwrap());
    let origin = Origin::start(|seen, stream| {
        let body = body_of(seen.target(), SIZE);
        let is_chunked = seen.target().ends_with(['1', '3', '5', '7', '9']);
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n";
        let framing = if is_chunked {
            "Transfer-Encoding: chunked\r\n\r\n".to_owned()
        } else {
            format!("Content-Length: {SIZE}\r\n\r\n")
        };
        let _ = stream.write_all(format!("{head}{framing}").as_bytes());
        for piece in body.chunks(37_111) {
            let sent = if is_chunked {
                let size = format!("{:x}\r\n", piece.len());
                stream.write_all(&[size.as_bytes(), piece, b"\r\n"].concat())
            } else {
                stream.write_all(piece)
            };
            if sent.is_err() {
                return;
            }
        }
        if is_chunked {
            let _ = stream.write_all(b"0\r\n\r\n");
        }
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let (mut seed, mut wrong) = (0x5eed_cafe, 0);
    // Other paths after some aborts, so that they fall on misses too.
    let target = |n: usize| format!("/{}/{}", n * 5 / aborts, n % PATHS);
    let mut check = |target: &str| {
        let answer = get(server.address(), target);
        wrong += u64::from(!answer.complete || answer.body != body_of(target, SIZE));
    };
    for n in 0..aborts {
        let mut client = TcpStream::connect(server.address()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(asking(&target(n), "").as_bytes()).unwrap();
        let mut left = vec![0; next(&mut seed) % SIZE];
        let _ = client.read_exact(&mut left);
        drop(client);
        if n % 7 == 0 {
            check(&target(n));
        }
    }
    let targets: BTreeSet<_> = (0..aborts).map(target).collect();
    for target in &targets {
        check(target);
        check(target);
    }
    let is_hit = |target: &String| {
        get(server.address(), target).header("cache-status").is_some_and(|s| s.contains(";hit"))
    };
    let missing = targets.iter().filter(|target| !is_hit(target)).count();
    let mut row = FaultRow::new("FM-37", "clients leave at random offsets of a body");
    row.count("wrong bodies", 0, wrong);
    row.count("not stored in the end", 0, missing as u64);
    row.report();
}

#[test]
fn fm_39_ten_thousand_requests_for_what_is_stale_make_one_refresh() {
    const CLIENTS: usize = 8;
    const EACH: usize = 1_250;
    let times = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&times);
    let origin = Origin::start(move |seen, stream| {
        if seen.target() != "/" {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        // Stale within a second at first; the refresh takes a while.
        let rule = if count.fetch_add(1, SeqCst) == 0 {
            "max-age=1, stale-while-revalidate=60"
        } else {
            thread::sleep(Duration::from_millis(300));
            "max-age=600"
        };
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: {rule}\r\nContent-Length: 2\r\n\r\n");
        let _ = stream.write_all(format!("{head}ok").as_bytes());
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    assert_eq!(get(server.address(), "/").text(), "ok");
    thread::sleep(Duration::from_millis(1_100));
    let address = server.address();
    let misses: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(move || {
                    let mut connection = Connection::to(address);
                    let is_miss = |answer: Answer| {
                        let said = answer.header("cache-status").unwrap_or_default();
                        answer.text() != "ok" || !said.contains(";hit")
                    };
                    (0..EACH / 50)
                        .map(|_| {
                            connection.write(asking("/", "").repeat(50)).unwrap();
                            let answers = (0..50).map(|_| connection.read().expect("an answer"));
                            answers.filter(|answer| is_miss(answer.clone())).count()
                        })
                        .sum::<usize>()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let refreshed = times.load(SeqCst) - 1;
    let mut row = FaultRow::new("FM-39", "10,000 requests for a response that is stale");
    row.count("not from the cache", 0, misses as u64);
    row.holds("refreshes", "1", refreshed, refreshed == 1);
    row.report();
}
