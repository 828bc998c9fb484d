//! Three servers on one database and one Redis: who brings the ticket of a write along is shown
//! nothing older, whichever server answers.

use std::time::Duration;

use serde_json::json;
use tachikoma_testkit::{Fault, FaultProxy, RedisServer, Stopwatch, wait_until};
use tempfile::TempDir;

use crate::support::{Answer, Tachikoma, get, send};

const LIMIT: Duration = Duration::from_secs(20);
const ROUNDS: u64 = 200;

struct Nodes {
    _folder: TempDir,
    redis: RedisServer,
    /// Before each of the servers but the first: they hear of changes late.
    late: Vec<FaultProxy>,
    servers: Vec<Tachikoma>,
}

impl Nodes {
    fn start(settings: &str) -> Self {
        let (folder, redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
        let database = format!("sqlite://{}/t.db", folder.path().display());
        let late: Vec<_> = (0..2).map(|_| FaultProxy::to(redis.port())).collect();
        let ports = std::iter::once(redis.port()).chain(late.iter().map(FaultProxy::port));
        let servers = ports.map(|port| {
            let cache = format!("redis://127.0.0.1:{port}/0?memory=on{settings}");
            Tachikoma::serve(&["--api", "--database", &database, "--cache", &cache])
        });
        let servers = servers.collect();
        for proxy in &late {
            proxy.set(Fault::Delay(Duration::from_millis(2)));
        }
        Self { _folder: folder, redis, late, servers }
    }

    fn write(&self, line: &str, body: &serde_json::Value) -> Answer {
        self.write_at(0, line, body)
    }

    fn write_at(&self, server: usize, line: &str, body: &serde_json::Value) -> Answer {
        let body = body.to_string();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        send(self.servers[server].address(), head + &body)
    }

    /// A new mission: its path.
    fn mission(&self) -> String {
        let created = self.write("POST /api/v1/missions", &json!({ "title": "new" }));
        created.header("location").expect("a mission")
    }

    fn change(&self, path: &str) -> Answer {
        self.change_at(0, path)
    }

    fn change_at(&self, server: usize, path: &str) -> Answer {
        self.write_at(server, &format!("PUT {path}"), &json!({ "title": "changed" }))
    }

    /// Waits until a server finds a mission in its cache.
    fn until_warm(&self, server: usize, path: &str) {
        let is_warm = || {
            let answer = get(self.servers[server].address(), path);
            answer.header("server-timing").unwrap_or_default().ends_with("hit")
        };
        assert!(wait_until(LIMIT, is_warm), "no hit on server {server}");
    }

    fn read(&self, server: usize, path: &str, ticket: &str) -> Answer {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Cache-Ticket: {ticket}\r\n\r\n"
        );
        send(self.servers[server].address(), head)
    }
}

/// The version that an answer shows, of the mission or of the first of a list.
fn version(answer: &Answer) -> Option<u64> {
    let seen = answer.json();
    seen.get("items").map_or(&seen, |items| &items[0])["version"].as_u64()
}

#[test]
fn after_a_write_the_ticket_shows_it_on_every_server() {
    let nodes = Nodes::start("&store_timeout=10s");
    let path = nodes.mission();
    let (mut current, mut rounds) = (1, 0);
    while rounds < ROUNDS {
        let server = 1 + usize::from(current % 2 == 0);
        nodes.until_warm(server, &path);
        let written = nodes.change(&path);
        current += 1;
        // 202 on a machine that is too busy promises nothing.
        let Some(ticket) = written.header("cache-ticket") else {
            assert_eq!(written.status, 202, "{written:?}");
            assert!(current < 2 * ROUNDS, "{rounds} of {current} writes were in");
            continue;
        };
        rounds += 1;
        // What is no ticket counts as a new one.
        let ticket = if rounds % 10 == 0 { "bad" } else { &ticket };
        for path in [path.as_str(), "/api/v1/missions"] {
            let seen = version(&nodes.read(server, path, ticket));
            assert_eq!(seen, Some(current), "{path} with the ticket {ticket}");
        }
    }
}

/// The test above shows nothing if no server is ever behind.
#[test]
fn a_server_that_is_cut_off_is_behind_but_for_those_with_a_ticket() {
    let nodes = Nodes::start("");
    let path = nodes.mission();
    let (mut current, mut behind) = (1, 0);
    while behind < 3 {
        nodes.until_warm(1, &path);
        nodes.late[0].set(Fault::Stall);
        let written = nodes.change(&path);
        current += 1;
        let without = get(nodes.servers[1].address(), &path);
        behind += u32::from(written.status == 200 && version(&without) != Some(current));
        if let Some(ticket) = written.header("cache-ticket") {
            assert_eq!(version(&nodes.read(1, &path, &ticket)), Some(current));
        }
        nodes.late[0].set(Fault::Pass);
        assert!(current < 30, "it was behind {behind} times");
    }
}

/// A write is 202 where it was not told in 500 ms, and only there.
#[test]
fn of_a_thousand_writes_without_faults_none_is_pending() {
    let nodes = Nodes::start("");
    for proxy in &nodes.late {
        proxy.set(Fault::Pass);
    }
    let path = nodes.mission();
    let mut late = 0;
    for number in 0..1000 {
        let watch = Stopwatch::start();
        let written = nodes.change_at(number % 3, &path);
        let took = watch.elapsed();
        match written.status {
            200 => assert!(written.header("cache-ticket").is_some()),
            202 if took >= Duration::from_millis(500) => late += 1,
            status => panic!("{status} after {took:?}: {written:?}"),
        }
    }
    println!("{late} of 1000 writes were late: the machine was busy");
    assert!(late <= 10, "{late} of 1000 writes were late");
}

#[test]
fn what_no_server_was_told_of_has_no_ticket() {
    let mut nodes = Nodes::start("");
    let path = nodes.mission();
    nodes.redis.kill();
    let written = nodes.change(&path);
    assert_eq!((written.status, written.header("cache-ticket")), (202, None), "{written:?}");
    // A ticket costs no answer, though nobody can be asked.
    let seen = nodes.read(0, &path, "1-000000000000000000000000000000ff");
    assert_eq!((seen.status, version(&seen)), (200, Some(2)));
}
