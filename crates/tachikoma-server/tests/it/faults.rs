//! The process is killed, drained, or short of what it needs (catalogue §5.3); its origin fails
//! (§5.2) and its clients mean harm (§2.5).

mod floods;
mod origin;

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use tachikoma_testkit::{FaultRow, Stopwatch, wait_until};

use crate::support::{Answer, Connection, Origin, Tachikoma, get};

fn tried(address: SocketAddr, target: &str) -> Option<Answer> {
    let mut connection = Connection::open(address).ok()?;
    connection.write(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")).ok()?;
    connection.read()
}

#[test]
fn fm_50_a_killed_server_is_back_within_a_second_with_good_answers() {
    let kills: u32 = std::env::var("TACHIKOMA_KILLS").map_or(10, |n| n.parse().unwrap());
    let origin = Origin::answering(|seen| {
        let body = format!("body of {}", seen.target());
        let length = body.len();
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600";
        format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache.snapshot");
    let cache = format!("memory:?snapshot={}&snapshot_interval=1s", file.display());
    let mut row = FaultRow::new("FM-50", "SIGKILL under load, with a snapshot each second");
    let (mut longest, mut damaged) = (Duration::ZERO, 0);
    let (wrong, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for kill in 0..kills {
        let clock = Stopwatch::start();
        let server = Tachikoma::serve(&["--upstream", &origin.url(), "--cache", &cache]);
        assert_eq!(get(server.address(), "/0").status, 200);
        longest = longest.max(clock.elapsed());
        let (address, over) = (server.address(), Arc::new(AtomicBool::new(false)));
        let clients: Vec<_> = (0..4_u64)
            .map(|client| {
                let (over, wrong, answered) = (over.clone(), wrong.clone(), answered.clone());
                thread::spawn(move || {
                    for n in (client..).step_by(4) {
                        if over.load(Relaxed) {
                            return;
                        }
                        let target = format!("/{}", n % 100);
                        let Some(answer) = tried(address, &target) else { continue };
                        answered.fetch_add(1, Relaxed);
                        let good = answer.text() == format!("body of {target}");
                        wrong.fetch_add(u64::from(!good), Relaxed);
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300 + u64::from(kill % 10) * 100));
        // Killed under load: some answers are there, however slow the machine.
        let some = 15 * u64::from(kill + 1);
        let _ = wait_until(Duration::from_secs(10), || answered.load(Relaxed) >= some);
        server.signal(Signal::KILL);
        over.store(true, Relaxed);
        for client in clients {
            client.join().unwrap();
        }
        damaged += server.log().iter().filter(|line| line.contains("not read to its end")).count();
    }
    row.at_most("start to first answer", Duration::from_secs(1), longest);
    row.count("wrong or partial answers", 0, wrong.load(Relaxed));
    row.count("damaged snapshots", 0, damaged as u64);
    let answered = answered.load(Relaxed);
    row.holds("answers under load", "> 100", answered, answered > 100);
    row.report();
}

/// As many requests in flight at a time.
const IN_FLIGHT: usize = 200;

/// Stops a server with requests in flight: how many failed, how long it took, its exit code.
fn drained() -> (usize, Duration, Option<i32>) {
    let seen = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&seen);
    let origin = Origin::start(move |_, stream| {
        use std::io::Write as _;
        counting.fetch_add(1, Relaxed);
        thread::sleep(Duration::from_millis(500));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
    });
    let mut server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let mut open: Vec<_> = (0..IN_FLIGHT)
        .map(|n| {
            let mut connection = Connection::to(server.address());
            connection.write(format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\n\r\n")).unwrap();
            connection
        })
        .collect();
    assert!(wait_until(Duration::from_secs(10), || seen.load(Relaxed) >= 100));
    // What the server has not read yet it need not answer.
    thread::sleep(Duration::from_millis(200));
    let clock = Stopwatch::start();
    server.signal(Signal::TERM);
    let answers = open.iter_mut().map(Connection::read);
    let good = |answer: &Option<Answer>| {
        answer.as_ref().is_some_and(|answer| answer.status == 200 && answer.text() == "done")
    };
    let failed = answers.filter(|answer| !good(answer)).count();
    let code = server.wait();
    (failed, clock.elapsed(), code)
}

/// `TACHIKOMA_DRAINED=10000` makes it as many requests as the catalogue asks for.
#[test]
fn fm_51_sigterm_drains_what_is_in_flight() {
    let requests: usize =
        std::env::var("TACHIKOMA_DRAINED").map_or(IN_FLIGHT, |n| n.parse().unwrap());
    let rounds = requests.div_ceil(IN_FLIGHT);
    let (mut failed, mut longest, mut codes) = (0, Duration::ZERO, Vec::new());
    for _ in 0..rounds {
        let (of_one, took, code) = drained();
        failed += of_one;
        longest = longest.max(took);
        codes.push(code);
    }
    let total = rounds * IN_FLIGHT;
    let mut row =
        FaultRow::new("FM-51", &format!("SIGTERM with 200 requests in flight, {total} in all"));
    row.at_most("drain", Duration::from_secs(30), longest);
    row.count("failed requests", 0, failed as u64);
    let clean = codes.iter().filter(|code| **code == Some(0)).count();
    row.holds("exit codes 0", &rounds.to_string(), clean, clean == rounds);
    row.report();
}

/// The time that a process has used of the processor, in hundredths of a second.
fn ticks(server: &Tachikoma) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn fm_53_without_file_descriptors_it_waits_and_recovers() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    assert_eq!(get(server.address(), "/").status, 200);
    let before = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: Some(64), maximum: before.maximum };
    prlimit(Some(server.pid()), Resource::Nofile, limit).unwrap();
    let held: Vec<_> = (0..120).filter_map(|_| TcpStream::connect(server.address()).ok()).collect();
    // Until it has no descriptor left for the next one.
    thread::sleep(Duration::from_millis(300));
    let used = ticks(&server);
    thread::sleep(Duration::from_secs(2));
    let percent = (ticks(&server) - used) / 2;
    let mut row = FaultRow::new("FM-53", "64 file descriptors, 120 connections");
    row.holds("processor while it waits", "≤ 20 %", format!("{percent} %"), percent <= 20);
    drop(held);
    let clock = Stopwatch::start();
    let back = wait_until(Duration::from_secs(10), || {
        tried(server.address(), "/").is_some_and(|answer| answer.status == 200)
    });
    row.at_most("answers again after", Duration::from_secs(2), clock.elapsed());
    row.holds("answers again", "yes", back, back);
    row.report();
}

#[test]
fn fm_54_within_its_bound_a_tight_address_space_is_enough() {
    const BODY: usize = 32 << 10;
    const REQUESTS: usize = 1_500;
    let origin = Origin::answering(|_| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600";
        let mut answer = format!("{head}\r\nContent-Length: {BODY}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + BODY, b'x');
        answer
    });
    let cache = ["--cache", "memory:?max_bytes=16MiB"];
    let server = Tachikoma::serve(&[&["--upstream", &origin.url()][..], &cache].concat());
    assert_eq!(get(server.address(), "/").status, 200);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    // What it has, its cache, and as much again for everything else: arenas of threads are large.
    let bytes = kib * 1024 + (16 << 20) + (160 << 20);
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    prlimit(Some(server.pid()), Resource::As, limit).unwrap();
    let mut connection = Connection::to(server.address());
    let mut failed = 0;
    for n in 0..REQUESTS {
        connection.write(format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\n\r\n")).unwrap();
        let answer = connection.read();
        failed += u64::from(answer.is_none_or(|answer| answer.body.len() != BODY));
    }
    let mut row = FaultRow::new("FM-54", "a tight address space, three times the cache's bound");
    row.count("failed requests", 0, failed);
    let mut server = server;
    let alive = !server.has_ended();
    row.holds("the process", "lives", alive, alive);
    row.report();
}

/// A server whose output goes where nothing can be written.
fn muted(origin: &Origin, output: impl Fn() -> Stdio) -> (std::process::Child, SocketAddr) {
    let port = tachikoma_testkit::free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let arguments = ["serve", "--admin", "off", "--access-log", "common", "--log", "trace"];
    let child = Command::new(env!("CARGO_BIN_EXE_tachikoma"))
        .args(arguments)
        .args(["--listen", &address.to_string(), "--upstream", &origin.url()])
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .spawn()
        .unwrap();
    (child, address)
}

#[test]
fn fm_59_a_full_disk_and_closed_pipes_of_logs_do_not_matter() {
    let origin = Origin::saying("hello");
    let mut row = FaultRow::new("FM-59", "nothing can be written to the logs");
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    let outputs: [(&str, &dyn Fn() -> Stdio); 2] = [("full disk", &full), ("closed pipe", &closed)];
    for (name, output) in outputs {
        let (mut child, address) = muted(&origin, output);
        let up = wait_until(Duration::from_secs(10), || TcpStream::connect(address).is_ok());
        let answers = (0..200).filter_map(|n| tried(address, &format!("/{n}")));
        let good = answers.filter(|answer| answer.status == 200).count();
        let alive = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        row.holds(name, "200 answers", good, up && alive && good == 200);
    }
    row.report();
}
