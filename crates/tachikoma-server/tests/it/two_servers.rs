//! Two servers on one Redis: what is purged at one of them is gone at the other, also what the
//! other was just fetching.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tachikoma_testkit::{RedisServer, wait_until};

use crate::support::{Answer, Origin, Tachikoma, get, send};

const LIMIT: Duration = Duration::from_secs(20);

/// With and without copies in the memory of each server.
const SETTINGS: [&str; 2] = ["&memory=off", ""];

/// An origin whose page has a version, and that can be made to wait with it.
struct Page {
    version: Arc<AtomicU32>,
    held: Arc<AtomicBool>,
    origin: Origin,
}

impl Page {
    fn start() -> Self {
        let (version, held) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicBool::new(false)));
        let (now, wait) = (Arc::clone(&version), Arc::clone(&held));
        let origin = Origin::answering(move |_| {
            // Read first: what is sent is what it was when it was asked for.
            let body = now.load(SeqCst).to_string();
            assert!(wait_until(LIMIT, || !wait.load(SeqCst)));
            let length = body.len();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: s-maxage=600\r\n\
                 Surrogate-Key: news page\r\n\r\n{body}"
            )
            .into_bytes()
        });
        Self { version, held, origin }
    }

    fn servers(&self, redis: &RedisServer, settings: &str) -> [Tachikoma; 2] {
        let cache = format!("{}?store_timeout=10s{settings}", redis.url());
        let origin = self.origin.url();
        [(); 2].map(|()| Tachikoma::serve(&["--cache", &cache, "--upstream", &origin]))
    }
}

fn purge(server: &Tachikoma, body: &Value) -> Answer {
    let body = body.to_string();
    let head = format!(
        "POST /purge HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    send(server.admin(), head + &body)
}

fn is_hit(answer: &Answer) -> bool {
    answer.header("cache-status").unwrap_or_default().contains(";hit")
}

#[test]
fn a_purge_at_one_server_reaches_the_other() {
    for settings in SETTINGS {
        let (redis, page) = (RedisServer::start(), Page::start());
        let [one, other] = page.servers(&redis, settings);
        for (round, body) in
            [json!({ "tag": "news" }), json!({ "tag": "page", "soft": true })].iter().enumerate()
        {
            let version = page.version.load(SeqCst).to_string();
            get(one.address(), "/page");
            let seen = || {
                let answer = get(other.address(), "/page");
                assert_eq!(answer.text(), version, "round {round} {settings}");
                is_hit(&answer)
            };
            // Stored after it was answered; and a copy is made by the read before.
            assert!(wait_until(LIMIT, seen) && wait_until(LIMIT, seen));
            page.version.fetch_add(1, SeqCst);
            let answer = purge(&one, body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            // Of what all servers share it is counted once, wherever it is purged.
            assert_eq!(answer.json()["removed"]["redis"], json!(1), "{body} {settings}");
            let newer = page.version.load(SeqCst).to_string();
            assert_eq!(get(one.address(), "/page").text(), newer, "{body} {settings}");
            let reached = || get(other.address(), "/page").text() == newer;
            assert!(wait_until(LIMIT, reached), "{body} {settings}");
            for server in [&one, &other] {
                assert_eq!(get(server.address(), "/page").text(), newer, "{body} {settings}");
            }
        }
    }
}

#[test]
fn what_the_other_server_was_fetching_is_not_used_after_a_purge() {
    for settings in SETTINGS {
        let (redis, page) = (RedisServer::start(), Page::start());
        let [one, other] = page.servers(&redis, settings);
        for (path, body) in [
            ("/tag", json!({ "tag": "news" })),
            ("/url", json!({ "url": "http://a.test/url" })),
            ("/prefix", json!({ "prefix": "/pre" })),
        ] {
            let before = page.origin.seen().len();
            page.held.store(true, SeqCst);
            let address = other.address();
            let fetching = thread::spawn(move || get(address, path).status);
            assert!(wait_until(LIMIT, || page.origin.seen().len() > before));
            page.version.fetch_add(1, SeqCst);
            let newer = page.version.load(SeqCst).to_string();
            assert_eq!(purge(&one, &body).status, 200);
            page.held.store(false, SeqCst);
            assert_eq!(fetching.join().unwrap(), 200, "who asked before has its answer");
            for _ in 0..5 {
                for server in [&one, &other] {
                    let seen = get(server.address(), path).text();
                    assert_eq!(seen, newer, "{body} {settings}");
                }
            }
        }
    }
}
