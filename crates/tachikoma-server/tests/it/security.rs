//! What one client can make another one see through the cache: nothing. One table, asked over
//! sockets, of the reverse proxy and of the layer in an axum app, with no option set.
//!
//! The origin answers with all that it saw of a request, so that whatever leaks shows, and counts
//! what reaches it. Framing has tests of its own; how the policy decides is tested where it stands.

mod cases;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use tachikoma_http_cache::HttpCacheLayer;
use tachikoma_server::cache::Cache;
use tachikoma_server::config::{Config, Settings, file};
use tachikoma_server::{Server, shutdown};

use tachikoma_testkit::Stopwatch;

use crate::support::{Answer, Origin, send};
use cases::{CASES, Want, page};

/// Where the cache stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Proxy,
    Layer,
}

/// The origin's logic: which page a path names, counted by path.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<std::collections::HashMap<String, usize>>>);

impl Pages {
    /// How many requests came for the pages of this case.
    fn count(&self, id: &str) -> usize {
        self.0.lock().unwrap().get(id).copied().unwrap_or_default()
    }

    fn answer(&self, head: &str, body: &[u8]) -> (u16, String, String) {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let id = target.split('/').find(|part| !part.is_empty()).unwrap_or_default();
        let case = CASES.iter().find(|(known, ..)| *known == id);
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(id.to_owned()).or_default();
        let (status, headers) = page(case.map_or("", |(_, page, _)| page), head, *count);
        *count += 1;
        (status, headers, format!("{head}\n{}", String::from_utf8_lossy(body)))
    }
}

fn proxy(pages: Pages) -> (SocketAddr, Box<dyn FnOnce()>) {
    let origin = Origin::answering(move |seen| {
        let (status, headers, body) = pages.answer(&seen.head, &seen.body);
        let mut head = format!("HTTP/1.1 {status} x\r\n");
        if !headers.is_empty() {
            let _ = write!(head, "{headers}\r\n");
        }
        let body = if status == 204 { "" } else { &body };
        let is_head = seen.head.starts_with("HEAD ");
        if status != 204 && !headers.contains("content-length") {
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        let body = if is_head || headers.contains("content-length") { "" } else { body };
        format!("{head}\r\n{body}").into_bytes()
    });
    let text =
        format!("upstream = \"{}\"\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"", origin.url());
    let settings = file::parse(&text, "test").unwrap();
    let config = Config::resolve(settings, Settings::default(), |_| None).unwrap();
    let (told, address) = mpsc::channel();
    let (end, asked) = shutdown::channel();
    let running = thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let server = Server::start(config).await.unwrap();
            told.send(server.address()).unwrap();
            server.run(asked).await.unwrap();
        });
    });
    let stop = move || {
        end.ask();
        running.join().unwrap();
        drop(origin);
    };
    (address.recv().unwrap(), Box::new(stop))
}

fn layer(pages: Pages) -> (SocketAddr, Box<dyn FnOnce()>) {
    let app = Router::new().fallback(move |request: Request<Body>| {
        let pages = pages.clone();
        async move {
            let (parts, body) = request.into_parts();
            let mut head = format!("{} {} HTTP/1.1", parts.method, parts.uri);
            for (name, value) in &parts.headers {
                let _ = write!(head, "\r\n{name}: {}", String::from_utf8_lossy(value.as_bytes()));
            }
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
            let (status, headers, body) = pages.answer(&head, &body);
            let mut response = Response::builder().status(status);
            for line in headers.lines() {
                let (name, value) = line.split_once(": ").unwrap();
                response = response.header(name, value.as_bytes());
            }
            let body = if status == 204 || status == 201 { String::new() } else { body };
            response.body(Body::from(body)).unwrap()
        }
    });
    let cache = Cache::memory().build().unwrap();
    let app = app.layer(HttpCacheLayer::new(cache));
    let (told, address) = mpsc::channel();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let running = thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            let until = async { drop(ended.await) };
            axum::serve(listener, app).with_graceful_shutdown(until).await.unwrap();
        });
    });
    let stop = move || {
        drop(end);
        running.join().unwrap();
    };
    (address.recv().unwrap(), Box::new(stop))
}

/// A request as bytes: a method and a target, header lines, maybe a body after an empty line.
fn bytes(text: &str, id: &str) -> String {
    let text = text.replace("{p}", &format!("/{id}/")).replace("{9k}", &"x".repeat(9_000));
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let (line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    let mut request = format!("{line} HTTP/1.1\r\n");
    if !fields.contains("Host: ") {
        request.push_str("Host: a.test\r\n");
    }
    if !fields.is_empty() {
        let _ = write!(request, "{fields}\r\n");
    }
    let _ = write!(request, "Connection: close\r\n\r\n{body}");
    request
}

fn said(answer: &Answer) -> String {
    answer.header("cache-status").unwrap_or_default()
}

/// Checks what came of a request that the origin saw as often as `fetched` says.
#[track_caller]
fn check(mode: Mode, id: &str, text: &str, want: Want, answer: &Answer, fetched: usize) {
    let said = said(answer);
    let is_hit = said.contains(";hit");
    let has_evil = answer.text().contains("evil")
        || answer.headers.iter().any(|(_, value)| value.contains("evil"));
    // What it says is what happened.
    let is_said = !said.is_empty() && fetched == usize::from(!is_hit);
    let is_clean = answer.status == 200 && !has_evil && is_said;
    let coding = answer.header("content-encoding");
    let is_as_sent = coding.is_none_or(|coding| coding == "x-own");
    let holds = match want {
        Want::Any => true,
        Want::Clean => is_clean,
        Want::Apart => is_clean && !is_hit,
        Want::Hit => is_clean && is_hit,
        Want::NoHit => !is_hit,
        Want::ProxyHit => is_clean && (is_hit || mode == Mode::Layer),
        Want::Status(allowed) => allowed.contains(&answer.status) && !is_hit,
        Want::HitWithoutBody => {
            answer.status == 200 && is_hit && fetched == 0 && answer.body.is_empty()
        }
        Want::AsSent => {
            answer.status == 200 && !is_hit && is_as_sent && answer.text().starts_with("GET ")
        }
        Want::ProxyStatus(allowed) => {
            let is_refused = allowed.contains(&answer.status) && fetched == 0;
            !is_hit && (mode == Mode::Layer || is_refused)
        }
    };
    assert!(
        holds,
        "{mode:?} {id} {text:?} wants {want:?}: {} {said}, fetched {fetched}: {}",
        answer.status,
        answer.text()
    );
}

/// It answers a request that nothing is wrong with, and at once: a busy machine gets some tries.
#[track_caller]
fn check_alive(mode: Mode, address: SocketAddr, id: &str) {
    let is_quick = (0..5).any(|_| {
        let watch = Stopwatch::start();
        let status = ask(address, "GET /probe", "probe").status;
        assert_eq!(status, 200, "{mode:?} after {id}");
        watch.elapsed() <= std::time::Duration::from_millis(100)
    });
    assert!(is_quick, "{mode:?} after {id}");
}

/// A request whose answer has no body, whatever its length says.
fn ask(address: SocketAddr, text: &str, id: &str) -> Answer {
    let request = bytes(text, id);
    if text.starts_with("HEAD ") {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let limit = Some(std::time::Duration::from_secs(10));
        stream.set_read_timeout(limit).unwrap();
        let _ = stream.write_all(request.as_bytes());
        let mut all = String::new();
        let _ = stream.read_to_string(&mut all);
        let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        let headers = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        return Answer { status, headers, body: body.into(), complete: true };
    }
    send(address, request)
}

#[test]
fn no_case_of_the_table_shows_one_client_what_belongs_to_another() {
    for mode in [Mode::Proxy, Mode::Layer] {
        let start = if mode == Mode::Proxy { proxy } else { layer };
        let pages = Pages::default();
        let (address, stop) = start(pages.clone());
        for (id, _, requests) in CASES {
            for (text, want) in *requests {
                let before = pages.count(id);
                let answer = ask(address, text, id);
                check(mode, id, text, *want, &answer, pages.count(id) - before);
            }
            check_alive(mode, address, id);
        }
        stop();
    }
}

/// HS-067: an unsafe request to one site says where it made something; that is not for another one.
#[test]
fn a_change_at_one_site_leaves_what_is_stored_of_another() {
    for mode in [Mode::Proxy, Mode::Layer] {
        let start = if mode == Mode::Proxy { proxy } else { layer };
        let (address, stop) = start(Pages::default());
        let victim = "GET {p}\r\nHost: other.test";
        ask(address, victim, "HS-067-victim");
        ask(address, "POST {p}\r\nContent-Length: 0\r\n\r\n", "elsewhere");
        assert!(said(&ask(address, victim, "HS-067-victim")).contains(";hit"), "{mode:?}");
        stop();
    }
}

/// HS-103: whether another user fetched something with credentials cannot be told.
#[test]
fn a_thousand_probes_for_what_only_another_user_fetched_are_never_hits() {
    for mode in [Mode::Proxy, Mode::Layer] {
        let start = if mode == Mode::Proxy { proxy } else { layer };
        let (address, stop) = start(Pages::default());
        let hits = AtomicUsize::new(0);
        thread::scope(|scope| {
            for part in 0..4 {
                let hits = &hits;
                scope.spawn(move || {
                    for i in 0..250 {
                        let path = format!("/HS-061c/{part}/{i}");
                        let own = format!("GET {path}\r\nAuthorization: Basic b");
                        ask(address, &own, "");
                        let probe = ask(address, &format!("GET {path}"), "");
                        hits.fetch_add(usize::from(said(&probe).contains(";hit")), SeqCst);
                    }
                });
            }
        });
        assert_eq!(hits.into_inner(), 0, "{mode:?}");
        stop();
    }
}
