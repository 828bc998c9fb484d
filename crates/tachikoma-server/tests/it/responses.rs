//! Purging and explaining responses of a running server: by the admin API and by the command line.

use std::io::Write as _;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tachikoma_testkit::wait_until;

use crate::support::h2::{END_HEADERS, END_STREAM, HEADERS, Raw, fields, frame};
use crate::support::{Answer, Connection, Origin, Tachikoma, get, run, send};

const LOCAL: &str = "Host: localhost\r\n";

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

fn ask(server: &Tachikoma, method: &str, target: &str, lines: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{lines}\r\n"
    );
    send(server.admin(), format!("{head}{body}"))
}

fn purge(server: &Tachikoma, body: &Value) -> Answer {
    let lines = format!("{LOCAL}Content-Type: application/json\r\n");
    ask(server, "POST", "/purge", &lines, &body.to_string())
}

fn filled(origin: &Origin) -> Tachikoma {
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    for path in ["/a/1", "/a/2", "/b.css"] {
        get(server.address(), path);
    }
    server
}

fn is_hit(server: &Tachikoma, path: &str) -> bool {
    let head = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nCache-Control: only-if-cached\r\n");
    let answer = send(server.address(), format!("{head}Connection: close\r\n\r\n"));
    answer.header("cache-status").unwrap_or_default().contains(";hit")
}

#[test]
fn prefixes_patterns_and_urls_are_purged_and_counted() {
    let origin = Origin::saying("hello");
    for (body, count, gone) in [
        (json!({ "prefix": "http://a.test/a/" }), 2, &["/a/1", "/a/2"][..]),
        (json!({ "prefix": "/a/" }), 2, &["/a/1", "/a/2"]),
        (json!({ "pattern": "http://a.test/*.css" }), 1, &["/b.css"]),
        (json!({ "pattern": "/a/*" }), 2, &["/a/1", "/a/2"]),
        (json!({ "url": "http://a.test/a/1" }), 1, &["/a/1"]),
        (json!({ "prefix": "http://b.test/" }), 0, &[]),
    ] {
        let server = filled(&origin);
        let mut dry = body.clone();
        dry["dry_run"] = true.into();
        assert_eq!(purge(&server, &dry).json()["removed"]["memory"], count, "{body}");
        let answer = purge(&server, &body);
        assert_eq!((answer.status, &answer.json()["removed"]["memory"]), (200, &count.into()));
        for path in ["/a/1", "/a/2", "/b.css"] {
            assert_eq!(is_hit(&server, path), !gone.contains(&path), "{body} {path}");
        }
    }
}

#[test]
fn a_purge_goes_on_when_its_client_has_gone_and_is_logged() {
    const PAGES: u64 = 1_000;
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let mut client = Connection::to(server.address());
    for page in 0..PAGES {
        client.write(format!("GET /a/{page} HTTP/1.1\r\nHost: a.test\r\n\r\n")).unwrap();
        assert_eq!(client.read().map(|answer| answer.status), Some(200));
    }
    let left = || {
        let counted = purge(&server, &json!({ "prefix": "/a/", "dry_run": true })).json();
        counted["removed"]["memory"].as_u64().unwrap()
    };
    assert_eq!(left(), PAGES);
    let body = json!({ "prefix": "/a/" }).to_string();
    let head = format!("POST /purge HTTP/1.1\r\n{LOCAL}Content-Length: {}\r\n", body.len());
    let mut hasty = Connection::to(server.admin());
    // It is gone before the server reads the first byte.
    server.signal(Signal::STOP);
    hasty.write(format!("{head}Content-Type: application/json\r\n\r\n{body}")).unwrap();
    drop(hasty);
    server.signal(Signal::CONT);
    assert!(wait_until(LIMIT, || left() == 0), "{} are left", left());
    server.assert_logged(&format!("memory: Some({PAGES})"));
}

#[test]
fn what_cannot_be_purged_so_is_refused_and_nothing_is_gone() {
    let origin = Origin::saying("hello");
    let server = filled(&origin);
    for body in [
        json!({ "prefix": "a.test/a" }),
        json!({ "prefix": "" }),
        json!({ "prefix": "/a", "url": "http://a.test/" }),
        json!({ "key": "a", "soft": true }),
        json!({ "pattern": "user:*", "soft": true }),
        json!({ "prefix": 1 }),
        json!({ "prefx": "/a" }),
    ] {
        purge(&server, &body).assert_problem(400);
    }
    assert!(is_hit(&server, "/a/1"));
}

#[test]
fn the_method_purge_is_served_by_the_admin_listener_only() {
    let origin = Origin::saying("hello");
    let server = filled(&origin);
    let outsider = "PURGE /a/1 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    assert_eq!(send(server.address(), outsider).status, 405);
    assert!(is_hit(&server, "/a/1"));
    let answer = ask(&server, "PURGE", "http://a.test/a/1", LOCAL, "");
    assert_eq!((answer.status, &answer.json()["removed"]["memory"]), (200, &1.into()));
    assert!(!is_hit(&server, "/a/1") && is_hit(&server, "/a/2"));
    // A path alone is that path on every host; another machine's name without a token is refused.
    assert_eq!(ask(&server, "PURGE", "/a/2", LOCAL, "").json()["removed"]["memory"], 1);
    assert!(!is_hit(&server, "/a/2"));
    assert_eq!(ask(&server, "PURGE", "/b.css", "Host: a.test\r\n", "").status, 421);
    assert!(is_hit(&server, "/b.css"));
}

/// In HTTP/2 the host of a target is what `Host` is in HTTP/1.1.
#[test]
fn the_method_purge_over_http_2_is_that_path_on_every_host() {
    let origin = Origin::saying("hello");
    let server = filled(&origin);
    let mut client = Raw::connect(server.admin(), &[]);
    let head = [(":method", "PURGE"), (":scheme", "http"), (":authority", "localhost")];
    let head = fields(&[&head[..], &[(":path", "/a/1")]].concat());
    client.0.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).unwrap();
    let answer = std::iter::from_fn(|| client.read()).find(|frame| frame.kind == HEADERS);
    // 200 is a field that every table has (RFC 7541, appendix A).
    assert_eq!(answer.expect("an answer").payload[0], 0x88);
    assert!(!is_hit(&server, "/a/1") && is_hit(&server, "/a/2"));
}

#[test]
fn a_soft_purge_makes_stale_and_the_next_request_validates() {
    let origin = Origin::answering(|seen| {
        let fresh = "Cache-Control: max-age=60\r\nETag: \"a\"\r\n";
        let is_known = seen.all("if-none-match") == ["\"a\""];
        let answer = if is_known {
            format!("HTTP/1.1 304 x\r\n{fresh}\r\n")
        } else {
            format!("HTTP/1.1 200 x\r\n{fresh}Content-Length: 2\r\n\r\nhi")
        };
        answer.into_bytes()
    });
    let server = filled(&origin);
    let admin = server.admin().to_string();
    let purged = run(&["purge", "--prefix", "/a/", "--soft", "--admin", &admin], &[]);
    assert_eq!((purged.code, purged.out.as_str()), (Some(0), "made stale 2 in memory\n"));
    let answer = get(server.address(), "/a/1");
    let said = answer.header("cache-status").unwrap_or_default();
    assert!(said.contains("fwd=stale;fwd-status=304"), "{said}");
    assert_eq!(answer.text(), "hi");
    assert!(is_hit(&server, "/b.css"));
}

#[test]
fn explain_says_what_a_request_would_get_and_why() {
    let origin = Origin::answering(|seen| {
        let header = match seen.target() {
            "/private" => "Cache-Control: private",
            _ => "Cache-Control: max-age=60",
        };
        format!("HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: 2\r\n\r\nhi").into_bytes()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let explain = |query: &str| ask(&server, "GET", &format!("/explain?{query}"), LOCAL, "");

    let missing = explain("url=http://a.test/x").json();
    assert_eq!((&missing["decision"], &missing["asks_origin"]), (&"miss".into(), &true.into()));
    let real = get(server.address(), "/x").header("cache-status").unwrap();
    let known = explain("url=http://a.test/x").json();
    assert!(known["cache_status"].as_str().unwrap().starts_with("tachikoma;hit"), "{known}");
    assert!(real.contains("fwd=uri-miss"), "{real}");
    let asked = explain("url=http://a.test/x&header=Cache-Control:%20no-cache").json();
    assert_eq!(asked["cache_status"], "tachikoma;fwd=request");
    let last = asked["steps"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["answer"], &last["section"]), (&"no".into(), &"RFC 9111 §5.2.1.4".into()));

    let fetched = explain("url=http://a.test/private&fetch=true").json();
    assert_eq!(fetched["cache_status"], "tachikoma;fwd=uri-miss;detail=private");
    assert!(fetched["would_be_cached_with"].as_str().unwrap().contains("public"), "{fetched}");
    let real = get(server.address(), "/private").header("cache-status").unwrap();
    assert_eq!(fetched["cache_status"], real);

    for wrong in ["", "url=/x", "url=http://u@a.test/", "url=http://a.test/&header=x", "u=1"] {
        explain(wrong).assert_problem(400);
    }

    let admin = server.admin().to_string();
    let url = "http://a.test/private";
    let told = run(&["explain", url, "--fetch", "--admin", &admin], &[]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.out.contains("no   response  Is it without `private`?"), "{}", told.out);
    assert!(told.out.contains("it would be cached with: Cache-Control: public"), "{}", told.out);
    let cookie = ["explain", url, "-H", "Cookie: a=1", "--json", "--admin", &admin];
    let json: Value = serde_json::from_str(&run(&cookie, &[]).out).unwrap();
    assert_eq!(json["decision"], "miss");
}

/// HS-011, HS-017: what an operator takes out of the key, the upstream does not see; and what it
/// looks at without saying so can be put into the key.
#[test]
fn rules_of_the_file_take_a_parameter_from_both_sides_and_add_a_header_to_the_key() {
    let origin = Origin::answering(|seen| {
        let body = &seen.head;
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let rule = "[[rules]]\nprefix = '/'\nignore_query = ['utm_*']\nkey_headers = ['accept']\n";
    std::fs::write(&file, format!("upstream = '{}'\n{rule}", origin.url())).unwrap();
    let server = Tachikoma::serve(&["--config", file.to_str().unwrap()]);
    let asked = |target: &str, accept: &str| {
        let lines = format!("Host: a.test\r\nAccept: {accept}\r\nConnection: close");
        send(server.address(), format!("GET {target} HTTP/1.1\r\n{lines}\r\n\r\n"))
    };
    let is_hit = |answer: &Answer| answer.header("cache-status").unwrap().contains(";hit");
    let attack = asked("/a?utm_content=evil&b=1", "text/html");
    assert!(!is_hit(&attack) && !attack.text().contains("evil"), "{}", attack.text());
    assert_eq!(origin.only().target(), "/a?b=1");
    let victim = asked("/a?b=1", "text/html");
    assert!(is_hit(&victim) && !victim.text().contains("evil"), "{}", victim.text());
    let other = asked("/a?b=1", "application/json");
    assert!(!is_hit(&other) && other.text().contains("application/json"), "{}", other.text());
    assert!(is_hit(&asked("/a?utm_source=x&b=1", "application/json")));
    assert_eq!(origin.seen().len(), 2);
}
