//! The reference API through the binary: behind the data cache, purged over the admin listener.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, Origin, Tachikoma, get, run, send};

fn serve(folder: &TempDir, more: &[&str]) -> Tachikoma {
    let database = format!("sqlite://{}/t.db", folder.path().display());
    Tachikoma::serve(&[&["--api", "--database", &database], more].concat())
}

fn send_json(address: std::net::SocketAddr, line: &str, lines: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\n{lines}Content-Length: {length}\r\n\r\n"
    );
    send(address, head + body)
}

fn purge(server: &Tachikoma, asked: &Value) -> Answer {
    send_json(server.admin(), "POST /purge", "", &asked.to_string())
}

fn new_mission(server: &Tachikoma) -> String {
    let body = json!({ "title": "Map sector 338", "description": "by foot" }).to_string();
    let created = send_json(server.address(), "POST /api/v1/missions", "", &body);
    assert_eq!(created.status, 201, "{created:?}");
    format!("/api/v1/missions/{}", created.json()["id"].as_str().expect("an id"))
}

/// What the data cache did for this answer.
fn outcome(answer: &Answer) -> String {
    let timing = answer.header("server-timing").unwrap_or_default();
    let outcome = timing.split("desc=").nth(1).unwrap_or_default();
    outcome.split([';', ',']).next().unwrap_or_default().to_owned()
}

#[test]
fn a_mission_is_loaded_once_and_then_found_until_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&folder, &[]);
    let path = new_mission(&server);
    let outcomes: Vec<_> = (0..3).map(|_| outcome(&get(server.address(), &path))).collect();
    assert_eq!(outcomes[1..], ["hit", "hit"], "{outcomes:?}");
    let change = json!({ "title": "Map sector 339", "version": 1 }).to_string();
    let changed = send_json(server.address(), &format!("PUT {path}"), "", &change);
    assert_eq!(changed.status, 200, "{changed:?}");
    let read = get(server.address(), &path);
    assert_eq!((outcome(&read).as_str(), read.json()["version"].as_u64()), ("load", Some(2)));
}

#[test]
fn the_api_has_its_own_paths_and_the_upstream_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::saying("origin");
    let both = serve(&folder, &["--upstream", &origin.url()]);
    assert_eq!(get(both.address(), "/apiary").text(), "origin");
    assert_eq!(get(both.address(), "/api/openapi.json").status, 200);
    get(both.address(), "/api/nothing").assert_problem(404);
    assert!(origin.seen().iter().all(|seen| !seen.target().starts_with("/api/")));
    drop(both);

    let alone = serve(&folder, &[]);
    get(alone.address(), "/").assert_problem(404);
}

#[test]
fn a_purge_removes_what_it_names_and_says_how_much() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&folder, &[]);
    let path = new_mission(&server);
    let fill = || assert_eq!(get(server.address(), &path).status, 200);
    let memory = |answer: &Answer| answer.json()["removed"]["memory"].clone();

    fill();
    let counted = purge(&server, &json!({ "pattern": "mission:*", "dry_run": true }));
    assert_eq!((counted.status, memory(&counted)), (200, json!(1)), "{counted:?}");
    assert_eq!(outcome(&get(server.address(), &path)), "hit");
    let removed = purge(&server, &json!({ "pattern": "mission:*" }));
    assert_eq!((removed.status, memory(&removed)), (200, json!(1)), "{removed:?}");
    assert_eq!(outcome(&get(server.address(), &path)), "load");

    let key = format!("mission:{}", path.rsplit('/').next().unwrap());
    fill();
    let one = json!({ "key": key, "dry_run": true });
    assert_eq!(memory(&purge(&server, &one)), json!(1));
    assert_eq!(memory(&purge(&server, &json!({ "key": key }))), json!(1));
    assert_eq!(memory(&purge(&server, &json!({ "key": key }))), json!(0));
    assert_eq!(outcome(&get(server.address(), &path)), "load");

    let dry = json!({ "tag": key, "dry_run": true });
    assert_eq!(memory(&purge(&server, &dry)), json!(1));
    let tagged = purge(&server, &json!({ "tag": key }));
    assert_eq!((tagged.status, memory(&tagged)), (200, json!(1)), "{tagged:?}");
    assert_eq!(memory(&purge(&server, &dry)), json!(0));
    assert_eq!(outcome(&get(server.address(), &path)), "load");
    server.assert_logged("\"message\":\"purge\"");
}

#[test]
fn a_purge_that_is_asked_for_the_wrong_way_removes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&folder, &[]);
    let post = |body: &str| send_json(server.admin(), "POST /purge", "", body);
    let deep = format!("{{\"key\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"key":"a","tag":"b"}"#,
        r#"{"key":1}"#,
        r#"{"key":null}"#,
        r#"{"key":NaN}"#,
        r#"{"key":"a","key":"b"}"#,
        r#"{"key":"a","colour":1}"#,
        r#"{"key":"a","dry_run":"yes"}"#,
        r#"{"key":"a","dry_run":1e400}"#,
        r#"{"pattern":"*"}"#,
        r#"{"pattern":"**"}"#,
        r#"{"tag":""}"#,
        r#"{"tag":"","dry_run":true}"#,
        "{\"key\":\"\u{0}\"}",
    ] {
        let answer = post(body);
        assert_eq!(answer.status, 400, "{body:?}: {}", answer.text());
        answer.assert_problem(400);
    }
    // 100,000 brackets are more than a body may be, too; fewer are still too deep.
    post(&deep).assert_problem(413);
    post(&format!("{{\"key\":{}1{}}}", "[".repeat(9_000), "]".repeat(9_000))).assert_problem(400);
    let large = format!("{{\"key\":\"{}\"}}", "x".repeat(5_000));
    post(&large).assert_problem(400);

    let raw = |head: &str| send(server.admin(), format!("POST /purge HTTP/1.1\r\n{head}\r\n"));
    let json = "Host: localhost\r\nContent-Type: application/json\r\n";
    raw(&format!("{json}Content-Length: 1073741824\r\n")).assert_problem(413);
    raw("Host: localhost\r\nContent-Length: 0\r\n").assert_problem(415);
    raw("Host: localhost\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n").assert_problem(415);
    raw(&format!("{json}Content-Encoding: gzip\r\nContent-Length: 0\r\n")).assert_problem(415);
    raw(&format!("{json}Content-Length: 9\r\n")).assert_problem(408);
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let answer = send_json(server.admin(), &format!("{method} /purge"), "", "{}");
        answer.assert_problem(405);
        assert_eq!(answer.header("allow").as_deref(), Some("POST"));
    }
}

#[test]
fn the_command_line_purges_and_shows_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&folder, &[]);
    let path = new_mission(&server);
    assert_eq!(get(server.address(), &path).status, 200);
    let admin = server.admin().to_string();
    let at = ["--admin", admin.as_str()];
    let run_at = |arguments: &[&str]| run(&[arguments, &at[..]].concat(), &[]);

    let dry = run_at(&["purge", "--pattern", "mission:*", "--dry-run"]);
    assert_eq!((dry.code, dry.out.as_str()), (Some(0), "would remove 1 in memory\n"), "{dry:?}");
    let done = run_at(&["purge", "--pattern", "mission:*"]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "removed 1 in memory\n"), "{done:?}");
    let key = run_at(&["purge", "no:such:key"]);
    assert_eq!(key.out, "removed 0 in memory\n", "{key:?}");
    let all = run_at(&["purge", "--pattern", "*"]);
    assert_eq!(all.code, Some(1), "{all:?}");
    assert!(all.err.contains("400 Bad Request"), "{all:?}");
    assert_eq!(run_at(&["purge"]).code, Some(2));
    assert_eq!(run_at(&["purge", "a", "--tag", "b"]).code, Some(2));

    let stats: Value = serde_json::from_str(&run_at(&["stats"]).out).unwrap();
    assert!(stats["cache"]["misses"].as_u64() > Some(0), "{stats}");
    assert_eq!(stats["cache"]["status"], "up");
    drop(server);
    let gone = run_at(&["stats"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.contains("is the server running?"), "{gone:?}");
}

#[test]
fn a_cache_or_database_that_cannot_be_opened_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}/no/such/folder/t.db", folder.path().display());
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--api", "--database"];
    let ended = run(&[&arguments[..], &[&database]].concat(), &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("database"), "{ended:?}");

    let good = format!("sqlite://{}/t.db", folder.path().display());
    for cache in ["memory:?colour=blue", "memory:?max_bytes=10XB", "memory:?max_entries=-1"] {
        let ended = run(&[&arguments[..], &[&good, "--cache", cache]].concat(), &[]);
        assert_eq!(ended.code, Some(2), "{cache}: {ended:?}");
        assert!(ended.err.contains("cache: "), "{ended:?}");
    }
}
