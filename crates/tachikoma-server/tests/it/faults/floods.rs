//! What honest clients notice while others flood the server with HTTP/2 frames (HS-091).
//!
//! The other end of the comparison is the same machine with a client that asks as fast as it can:
//! who floods uses the processor as well.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tachikoma_testkit::{FaultRow, Stopwatch};

use crate::support::h2::{END_HEADERS, END_STREAM, HEADERS, Raw, floods, frame, request};
use crate::support::{Connection, Origin, Tachikoma, get};

/// So many requests are measured beside each flood.
const ASKED: usize = 300;

/// What is below this is noise: a slice of the scheduler's time.
const NOISE: Duration = Duration::from_millis(20);

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// The time that the slowest of a hundred hits takes while `load` runs again and again.
fn p99_beside(address: SocketAddr, load: impl Fn() + Sync) -> Duration {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                load();
            }
        });
        let mut connection = Connection::to(address);
        let mut times: Vec<Duration> = (0..ASKED)
            .map(|_| {
                let watch = Stopwatch::start();
                connection.write(GET).unwrap();
                assert_eq!(connection.read().expect("an answer").text(), "hello");
                let took = watch.elapsed();
                // The floods go on for longer than these requests alone would take.
                thread::sleep(Duration::from_millis(1));
                took
            })
            .collect();
        over.store(true, Relaxed);
        times.sort_unstable();
        times[ASKED * 99 / 100 - 1]
    })
}

/// Connections that ask for much and take nothing of it.
fn take_nothing(server: &Tachikoma) -> Vec<Raw> {
    let open = |_| {
        let mut raw = Raw::connect(server.address(), &[(4, 0)]);
        let asked =
            |n: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &request("GET", "/"));
        let all: Vec<u8> = (0..100).flat_map(asked).collect();
        std::io::Write::write_all(&mut raw.0, &all).unwrap();
        raw
    };
    (0..20).map(open).collect()
}

#[test]
fn hs_091_other_clients_are_served_as_fast_as_beside_a_busy_one() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    assert_eq!(get(server.address(), "/").text(), "hello");
    let (all, address) = (floods(), server.address());
    let beside_busy = || {
        p99_beside(address, || {
            let mut connection = Connection::to(address);
            connection.write(GET.repeat(1_000)).unwrap();
            for _ in 0..1_000 {
                connection.read().unwrap();
            }
        })
    };
    let mut row = FaultRow::new("HS-091", "floods of HTTP/2 frames beside honest clients");
    let base = server.resident();
    let mut bar = (beside_busy() * 2).max(NOISE);
    let mut measure = |name: &str, load: &(dyn Fn() + Sync)| {
        let mut p99 = p99_beside(address, load);
        // A busy machine gets some tries, each beside another look at how busy it is.
        for _ in 0..6 {
            if p99 <= bar {
                break;
            }
            bar = (beside_busy() * 2).max(NOISE);
            p99 = p99_beside(address, load);
        }
        row.at_most(&format!("p99 of a hit, {name}"), bar, p99);
    };
    for (name, flood) in &all {
        measure(name, &|| {
            Raw::connect(address, &[]).flooded_out(flood.clone());
        });
    }
    let held = take_nothing(&server);
    measure("no window", &|| thread::sleep(Duration::from_millis(10)));
    drop(held);
    let grown = server.resident().saturating_sub(base) >> 20;
    row.count("MiB more", 20, grown);
    row.report();
}
