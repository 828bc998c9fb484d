//! Three servers on one database and one Redis whose cache has dependencies: the answers of the API
//! are kept as pages, and go on every server when what they show is changed on one of them.

use std::time::Duration;

use serde_json::{Value, json};
use tachikoma_testkit::{RedisServer, Stopwatch, wait_until};
use tempfile::TempDir;

use crate::support::{Answer, Tachikoma, get, send};

const LIMIT: Duration = Duration::from_secs(20);

/// How far a memory tier may be behind: the default.
const FRESHNESS: Duration = Duration::from_secs(1);

struct Nodes {
    _folder: TempDir,
    _redis: Option<RedisServer>,
    servers: Vec<Tachikoma>,
}

impl Nodes {
    fn start(settings: &str) -> Self {
        let (folder, redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
        let database = format!("sqlite://{}/t.db", folder.path().display());
        let cache = format!("{}?store_timeout=10s{settings}", redis.url());
        let flags = ["--api", "--database", &database, "--cache", &cache];
        let servers = (0..3).map(|_| Tachikoma::serve(&flags)).collect();
        Self { _folder: folder, _redis: Some(redis), servers }
    }

    /// A write at the first server that is in.
    fn write(&self, line: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = send(self.servers[0].address(), head + &body);
        assert!(matches!(answer.status, 200 | 201 | 204), "{line}: {answer:?}");
        answer
    }

    fn get(&self, server: usize, path: &str) -> Answer {
        get(self.servers[server].address(), path)
    }

    /// Waits until each of these pages comes from the response cache of each server.
    fn until_kept(&self, paths: &[&str]) {
        for server in 0..self.servers.len() {
            for path in paths {
                let kept = || is_hit(&self.get(server, path));
                assert!(wait_until(LIMIT, kept), "{path} is not kept on {server}");
            }
        }
    }
}

fn is_hit(answer: &Answer) -> bool {
    answer.header("cache-status").unwrap_or_default().contains(";hit")
}

fn let_freshness_pass() {
    let watch = Stopwatch::start();
    assert!(wait_until(LIMIT, || watch.elapsed() > FRESHNESS));
}

#[test]
fn what_shows_a_mission_goes_on_every_server_when_that_changes() {
    let nodes = Nodes::start("&dependencies=true");
    let created = nodes.write("POST /api/v1/missions", &json!({ "title": "v1" }));
    let path = created.header("location").unwrap();
    let other = nodes.write("POST /api/v1/missions", &json!({ "title": "other" }));
    let other = other.header("location").unwrap();
    let (specs, spec) = (format!("{path}/specs"), format!("{path}/specs/a"));
    nodes.write(&format!("PUT {spec}"), &json!({ "title": "s1" }));
    let pages = [path.as_str(), "/api/v1/missions", &specs, &spec, &other];
    for round in 2..6_u64 {
        nodes.until_kept(&pages);
        let title = format!("v{round}");
        nodes.write(&format!("PUT {path}"), &json!({ "title": title }));
        let_freshness_pass();
        for server in 0..3 {
            assert_eq!(nodes.get(server, &path).json()["title"], json!(title), "{server}");
            let list = nodes.get(server, "/api/v1/missions").json();
            let items = list["items"].as_array().unwrap();
            assert!(items.iter().any(|item| item["title"] == title), "{server}: {list}");
            assert!(is_hit(&nodes.get(server, &other)), "another mission's page has no reason");
        }
        nodes.until_kept(&pages);
        let title = format!("s{round}");
        nodes.write(&format!("PUT {spec}"), &json!({ "title": title }));
        let_freshness_pass();
        for server in 0..3 {
            assert_eq!(nodes.get(server, &spec).json()["title"], json!(title), "{server}");
            let list = nodes.get(server, &specs).json();
            assert_eq!(list["items"][0]["title"], json!(title), "{server}");
            assert!(is_hit(&nodes.get(server, &path)), "the mission itself has not changed");
        }
    }
    nodes.until_kept(&pages);
    let kept = nodes.get(1, &path);
    assert_eq!(kept.header("tachikoma-cache-control"), None, "it is for this server alone");
    assert_eq!(kept.header("cache-control").as_deref(), Some("no-cache"));
    nodes.write(&format!("DELETE {path}"), &json!({}));
    let_freshness_pass();
    for server in 0..3 {
        for page in [&path, &specs, &spec] {
            assert_eq!(nodes.get(server, page).status, 404, "{page} on {server}");
        }
        let list = nodes.get(server, "/api/v1/missions").json();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    }
}

/// The same at once, for who brings the ticket of the write.
#[test]
fn with_its_ticket_a_write_is_seen_in_every_page_at_once() {
    let nodes = Nodes::start("&dependencies=true");
    let created = nodes.write("POST /api/v1/missions", &json!({ "title": "v1" }));
    let path = created.header("location").unwrap();
    for version in 2..52_u64 {
        nodes.until_kept(&[&path, "/api/v1/missions"]);
        let written = nodes.write(&format!("PUT {path}"), &json!({ "title": "changed" }));
        let ticket = written.header("cache-ticket").unwrap();
        for server in [1, 2, 0] {
            for page in [path.as_str(), "/api/v1/missions"] {
                let head = format!(
                    "GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                     Cache-Ticket: {ticket}\r\n\r\n"
                );
                let seen = send(nodes.servers[server].address(), head).json();
                let seen = seen.get("items").map_or(&seen, |items| &items[0]);
                assert_eq!(seen["version"], json!(version), "{page} on {server}");
            }
        }
    }
}

#[test]
fn without_dependencies_no_page_is_kept() {
    let nodes = Nodes::start("");
    let created = nodes.write("POST /api/v1/missions", &json!({ "title": "v1" }));
    let path = created.header("location").unwrap();
    for _ in 0..20 {
        assert!(!is_hit(&nodes.get(0, &path)));
    }
}

#[test]
fn in_memory_a_page_is_gone_when_the_write_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}/t.db", folder.path().display());
    let cache = "memory:?dependencies=true";
    let flags = ["--api", "--database", &database, "--cache", cache];
    let servers = vec![Tachikoma::serve(&flags)];
    let node = Nodes { _folder: folder, _redis: None, servers };
    let created = node.write("POST /api/v1/missions", &json!({ "title": "v1" }));
    let path = created.header("location").unwrap();
    for version in 2..102_u64 {
        node.until_kept(&[&path, "/api/v1/missions"]);
        node.write(&format!("PUT {path}"), &json!({ "title": "changed" }));
        assert_eq!(node.get(0, &path).json()["version"], json!(version));
        let list = node.get(0, "/api/v1/missions").json();
        assert_eq!(list["items"][0]["version"], json!(version));
    }
}
