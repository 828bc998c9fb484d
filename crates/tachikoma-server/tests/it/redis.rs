//! Redis stopped, killed and restarted under load through the binary: no client sees an error.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;
use tachikoma_testkit::{RedisServer, Stopwatch, allowed, wait_until};

use crate::support::{Answer, Connection, Origin, Tachikoma, get, send};

/// What a read may take beyond its own time while Redis is away (the bound).
const READ: Duration = Duration::from_millis(300);
/// What a write may take beyond its own time while Redis is away (the bound).
const WRITE: Duration = Duration::from_millis(600);
/// How soon after its return Redis must be in use again.
const RECOVERY: Duration = Duration::from_secs(2);

const CLIENTS: u32 = 6;

/// The phases of the drill. A request that meets the absence, at its beginning or its end, is
/// counted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Healthy = 0,
    Away = 1,
    Over = 2,
}

struct Drill {
    phase: AtomicU32,
    quit: AtomicBool,
}

impl Drill {
    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u32, SeqCst);
    }

    fn is_away(&self) -> bool {
        self.phase.load(SeqCst) == Phase::Away as u32
    }
}

/// The longest request while all was well, and while Redis was away.
#[derive(Debug, Default, Clone, Copy)]
struct Longest {
    healthy: Duration,
    away: Duration,
    requests: u32,
}

impl Longest {
    fn count(&mut self, away: bool, took: Duration) {
        let longest = if away { &mut self.away } else { &mut self.healthy };
        *longest = (*longest).max(took);
        self.requests += 1;
    }

    fn and(self, other: Self) -> Self {
        Self {
            healthy: self.healthy.max(other.healthy),
            away: self.away.max(other.away),
            requests: self.requests + other.requests,
        }
    }
}

fn put(address: SocketAddr, path: &str) -> Answer {
    let body = json!({ "title": "changed" }).to_string();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    send(address, head + &body)
}

/// Reads pages and a mission on kept connections until the drill is over.
fn reader(drill: Arc<Drill>, address: SocketAddr, mission: String) -> JoinHandle<Longest> {
    thread::spawn(move || {
        let (mut longest, mut connection) = (Longest::default(), Connection::to(address));
        for number in 0.. {
            if drill.quit.load(SeqCst) {
                break;
            }
            let target =
                if number % 3 == 0 { mission.clone() } else { format!("/page/{}", number % 40) };
            let (away, watch) = (drill.is_away(), Stopwatch::start());
            connection.write(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")).unwrap();
            let answer = connection.read().expect("an answer");
            longest.count(away || drill.is_away(), watch.elapsed());
            assert!(answer.status == 200 && answer.complete, "{target}: {answer:?}");
        }
        longest
    })
}

/// Changes a mission now and then: 200 when the invalidation is in, 202 when it is pending.
fn writer(drill: Arc<Drill>, address: SocketAddr, mission: String) -> JoinHandle<Longest> {
    thread::spawn(move || {
        let mut longest = Longest::default();
        while !drill.quit.load(SeqCst) {
            let (away, watch) = (drill.is_away(), Stopwatch::start());
            let answer = put(address, &mission);
            longest.count(away || drill.is_away(), watch.elapsed());
            match answer.status {
                200 => {}
                202 => assert_eq!(
                    answer.header("cache-invalidation").as_deref(),
                    Some("pending"),
                    "{answer:?}"
                ),
                _ => panic!("{answer:?}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
        longest
    })
}

fn is_ready(server: &Tachikoma) -> bool {
    let head = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = send(server.admin(), head);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["status"] == "ready"
}

fn is_hit(server: &Tachikoma) -> bool {
    let said = get(server.address(), "/page/0").header("cache-status").unwrap_or_default();
    said.contains(";hit")
}

/// Waits until Redis is in use again; returns how long it took.
fn recovered(server: &Tachikoma) -> Duration {
    let watch = Stopwatch::start();
    let back = wait_until(RECOVERY * 2, || is_ready(server) && is_hit(server));
    let took = watch.elapsed();
    assert!(back && took <= RECOVERY, "not back after {took:?}");
    took
}

/// Where a commit does not wait for the disk, which other programs may keep busy for seconds.
fn folder_in_memory() -> tempfile::TempDir {
    const IN_MEMORY: &str = "/dev/shm";
    if Path::new(IN_MEMORY).is_dir() {
        tempfile::tempdir_in(IN_MEMORY).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A server over Redis, with a mission in its database.
fn start(folder: &tempfile::TempDir, redis: &RedisServer, origin: &Origin) -> (Tachikoma, String) {
    let database = format!("sqlite://{}/t.db", folder.path().display());
    let cache = redis.url_with("drill");
    let server = Tachikoma::serve(&[
        "--api",
        "--database",
        &database,
        "--cache",
        &cache,
        "--upstream",
        &origin.url(),
    ]);
    let body = json!({ "title": "held" }).to_string();
    let created = send(
        server.address(),
        format!(
            "POST /api/v1/missions HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    // 202 where Redis is away: the row is there, and other processes are told later.
    assert!([201, 202].contains(&created.status), "{created:?}");
    let path = format!("/api/v1/missions/{}", created.json()["id"].as_str().expect("an id"));
    (server, path)
}

#[test]
fn redis_stopped_killed_and_restarted_under_load_is_seen_by_no_client() {
    let (folder, mut redis) = (folder_in_memory(), RedisServer::start());
    let origin = Origin::saying("a page");
    let (mut server, mission) = start(&folder, &redis, &origin);
    let drill = Arc::new(Drill { phase: AtomicU32::new(0), quit: AtomicBool::new(false) });
    let readers: Vec<_> =
        (0..CLIENTS).map(|_| reader(drill.clone(), server.address(), mission.clone())).collect();
    let writers = [writer(drill.clone(), server.address(), mission.clone())];
    let hold = |time| thread::sleep(Duration::from_millis(time));
    assert!(wait_until(RECOVERY, || is_hit(&server)), "the cache is not used at all");

    hold(1500);
    drill.enter(Phase::Away);
    redis.stop();
    hold(2000);
    assert!(!is_ready(&server), "a stopped Redis is not noticed");
    redis.cont();
    let after_stop = recovered(&server);
    drill.enter(Phase::Healthy);
    hold(500);
    drill.enter(Phase::Away);
    redis.kill();
    hold(2000);
    assert!(!is_ready(&server), "a dead Redis is not noticed");
    redis.restart();
    let after_kill = recovered(&server);
    drill.enter(Phase::Over);
    drill.quit.store(true, SeqCst);

    let all = |threads: Vec<JoinHandle<Longest>>| {
        let ended = threads.into_iter().map(|thread| thread.join().expect("no client fails"));
        ended.fold(Longest::default(), Longest::and)
    };
    let (reads, writes) = (all(readers), all(writers.into()));
    println!("reads {reads:?}\nwrites {writes:?}\nback after {after_stop:?}, {after_kill:?}");
    assert!(reads.away <= allowed(reads.healthy + READ, reads.away), "{reads:?}");
    assert!(writes.away <= allowed(writes.healthy + WRITE, writes.away), "{writes:?}");
    assert!(!server.has_ended());
    let noisy = server.log().iter().filter(|line| line.contains("\"WARN\"")).count();
    assert!(noisy <= 40, "{noisy} warnings: {:#?}", server.log());
}

#[test]
fn a_server_starts_while_redis_is_away_and_uses_it_once_it_is_there() {
    let (folder, mut redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
    redis.kill();
    let origin = Origin::saying("a page");
    let (server, mission) = start(&folder, &redis, &origin);
    assert!(!is_ready(&server));
    assert_eq!(get(server.address(), "/page/0").text(), "a page");
    assert_eq!(put(server.address(), &mission).status, 202);
    redis.restart();
    recovered(&server);
}

#[test]
fn the_admin_says_what_the_memory_tier_does() {
    let mut redis = RedisServer::start();
    let origin = Origin::saying("a page");
    let url = redis.url_with("tier");
    let server = Tachikoma::serve(&["--upstream", &origin.url(), "--cache", &url]);
    let ask = |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        send(server.admin(), head)
    };
    let is = |state: &str| {
        let tier = ask("/stats").json()["cache"]["tier"].clone();
        tier["state"] == state && tier["copies"].is_u64() && tier["bytes"].is_u64()
    };
    assert!(wait_until(RECOVERY, || is("following")), "{}", ask("/stats").text());
    assert_eq!(ask("/readyz").json(), json!({ "status": "ready", "memory_tier": "following" }));
    assert!(ask("/metrics").text().contains("tachikoma_cache_tier_following 1"));
    redis.kill();
    assert!(wait_until(RECOVERY, || is("lapsed")), "{}", ask("/stats").text());
    assert!(ask("/metrics").text().contains("tachikoma_cache_tier_following 0"));
    let ready = ask("/readyz").json();
    assert_eq!(ready, json!({ "status": "degraded", "memory_tier": "lapsed" }));
}

#[test]
fn a_password_of_redis_is_in_no_log_and_no_answer() {
    let redis = RedisServer::builder().password("hunter2-hunter2").start();
    let origin = Origin::saying("a page");
    let url = redis.url_with("secret");
    assert!(url.contains("hunter2"), "{url}");
    let server =
        Tachikoma::serve(&["--upstream", &origin.url(), "--log", "debug", "--cache", &url]);
    assert!(wait_until(RECOVERY, || is_hit(&server)));
    drop(redis);
    assert!(wait_until(RECOVERY, || !is_ready(&server)));
    let stats =
        send(server.admin(), "GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(stats.json()["cache"]["status"], "degraded", "{}", stats.text());
    assert!(!stats.text().contains("hunter2"), "{}", stats.text());
    assert!(!server.log().join("\n").contains("hunter2"), "{:#?}", server.log());
}
