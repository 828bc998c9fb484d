//! Bad requests to the admin listener, one by one (catalogue §7): each is answered at once with a
//! problem that says what is wrong, and the server goes on.

use std::time::Duration;

use tachikoma_testkit::Stopwatch;

use crate::support::{Answer, Connection, Origin, Tachikoma, send};

const JSON: &str = "Content-Type: application/json\r\n";

fn server() -> (Origin, Tachikoma) {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    (origin, server)
}

fn ask(server: &Tachikoma, line: &str, fields: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\
         Content-Length: {length}\r\n\r\n"
    );
    let watch = Stopwatch::start();
    let answer = send(server.admin(), [head.as_bytes(), body].concat());
    watch.within(Duration::from_secs(5));
    answer
}

/// A problem with this status whose detail holds this.
#[track_caller]
fn check(answer: &Answer, asked: &str, status: u16, said: &str) {
    assert_eq!(answer.status, status, "{asked}: {}", answer.text());
    answer.assert_problem(status);
    let problem = answer.json();
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(said), "{asked}\n  said: {detail}\n  not:  {said}");
    assert!(answer.body.len() < 10_000, "{asked}");
}

/// It goes on, and nothing in it broke.
#[track_caller]
fn goes_on(server: &mut Tachikoma) {
    assert_eq!(ask(server, "GET /livez", "", b"").status, 200);
    assert!(!server.has_ended());
    assert!(!server.log().iter().any(|line| line.contains("panicked")), "{:#?}", server.log());
}

#[test]
fn a_method_that_a_path_has_not() {
    let (_origin, mut server) = server();
    for path in ["/stats", "/metrics", "/livez", "/readyz", "/explain?url=http://h/"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let answer = ask(&server, &format!("{method} {path}"), JSON, b"{}");
            check(&answer, path, 405, "method");
            assert_eq!(answer.header("allow").as_deref(), Some("GET, HEAD"), "{method} {path}");
        }
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = ask(&server, &format!("{method} /purge"), JSON, b"{\"key\":\"a\"}");
        check(&answer, method, 405, "method");
        assert_eq!(answer.header("allow").as_deref(), Some("POST"), "{method}");
    }
    goes_on(&mut server);
}

#[test]
fn a_target_that_leads_nowhere() {
    let (_origin, mut server) = server();
    for path in [
        "/",
        "/Stats",
        "/stats/",
        "//stats",
        "/stats/..",
        "/%73tats",
        "/stats%00",
        "/config",
        "/debug/pprof",
        "/../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/admin/stats",
        "*",
    ] {
        check(&ask(&server, &format!("GET {path}"), "", b""), path, 404, "nothing at this path");
    }
    // The host in a target stands above the `Host` (RFC 9112 §3.2.2).
    for target in ["http://evil.test/stats", "http://evil.test:9090/purge", "http://127.evil/"] {
        check(&ask(&server, &format!("GET {target}"), "", b""), target, 421, "Host must be");
    }
    assert_eq!(ask(&server, "GET http://localhost/stats", "", b"").status, 200);
    for query in ["limit=-1", "limit=1000000000", "limit=abc", "cursor=%00", "x[]=1"] {
        assert_eq!(ask(&server, &format!("GET /stats?{query}"), "", b"").status, 200, "{query}");
    }
    let long = format!("GET /stats?{}", "a".repeat(40_000));
    assert_eq!(ask(&server, &long, "", b"").status, 431);
    goes_on(&mut server);
}

#[test]
fn a_question_that_explain_does_not_have() {
    let (_origin, mut server) = server();
    let url = "an absolute URL is needed";
    for (query, said) in [
        ("", "url is needed"),
        ("url", url),
        ("url=", url),
        ("url=x", "url: \"x\" is refused"),
        ("url=/x", url),
        ("url=http://", url),
        ("url=ftp://h/", url),
        ("url=http://u:p@h/", url),
        ("url=%ff", url),
        ("url=http://h/%00", url),
        ("url=http://[::1/", url),
        ("url=http://h/&url=http://g/", "url is there twice"),
        ("url=http://h/&fetch=maybe", "fetch: \"maybe\" is refused; true and false"),
        ("url=http://h/&header=x", "header: \"x\" is refused; `Name: value`"),
        ("url=http://h/&header=a%0d%0ab:c", "header: \"a\\r\\nb:c\" is refused"),
        ("url=http://h/&header=a:%00", "header: "),
        ("url=http://h/&method=", "method: \"\" is not the name of a method"),
        ("url=http://h/&method=G%20T", "method: \"G T\" is not"),
        ("url=http://h/&colour=red", "\"colour\" is not known here; known are url"),
        ("URL=http://h/", "\"URL\" is not known here"),
    ] {
        check(&ask(&server, &format!("GET /explain?{query}"), "", b""), query, 400, said);
    }
    goes_on(&mut server);
}

#[test]
fn a_purge_whose_body_is_wrong() {
    let (_origin, mut server) = server();
    let (text, flag) = ("is refused; a text is allowed", "is refused; true and false are allowed");
    let (object, one) = ("an object, like", "Exactly one of key, pattern, tag, url and prefix");
    let deep = format!("{{\"key\":{}1{}}}", "[".repeat(9_000), "]".repeat(9_000));
    let long = |name: &str, length| format!("{{\"{name}\":\"{}\"}}", "k".repeat(length));
    for (body, said) in [
        ("", "The body is wrong"),
        ("{", "The body is wrong"),
        ("}", "The body is wrong"),
        ("[]", object),
        ("[1]", object),
        ("null", object),
        ("true", object),
        ("\"x\"", object),
        ("1", object),
        ("{}", one),
        (r#"{"key":null}"#, one),
        (r#"{"key":"a","tag":"b"}"#, one),
        (r#"{"key":1}"#, text),
        (r#"{"key":["a"]}"#, text),
        (r#"{"pattern":{}}"#, "pattern: "),
        (r#"{"key":NaN}"#, "The body is wrong"),
        (r#"{"key":"a","key":"b"}"#, "key is there twice"),
        (r#"{"key":"a","colour":1}"#, "\"colour\" is not known here; known are key"),
        (r#"{"Key":"a"}"#, "\"Key\" is not known here"),
        (r#"{"key":"a","dry_run":"yes"}"#, flag),
        (r#"{"key":"a","dry_run":1}"#, "dry_run: \"1\""),
        (r#"{"key":"a","dry_run":null}"#, flag),
        (r#"{"key":"a","dry_run":1e400}"#, "number out of range"),
        (r#"{"key":"a","soft":999999999999999999999999}"#, "soft: "),
        (r#"{"key":"a","soft":true}"#, "Only responses can be purged softly"),
        (r#"{"key":"a"} x"#, "trailing characters"),
        (r#"{"key":"\ud800"}"#, "The body is wrong"),
        (&deep, "recursion limit"),
        (&long("key", 4_097), "at most 4096 are allowed"),
        (&long("colour", 60_000), "\"colour\" is not known here"),
        (&long(&"n".repeat(60_000), 1), "…"),
        (r#"{"pattern":"*"}"#, "matches every key"),
        (&long("pattern", 4_097), "at most 4096 are allowed"),
        (r#"{"tag":""}"#, "allowed are 1 to 256"),
        (&long("tag", 257), "allowed are 1 to 256"),
        (r#"{"url":""}"#, "is not a URL"),
        (r#"{"url":"x"}"#, "\"x\" is not a URL; allowed are"),
        (r#"{"url":"http://"}"#, "is not a URL"),
        (r#"{"url":"http://u:p@h/"}"#, "is not a URL"),
        (r#"{"url":"http://h/ x"}"#, "is not a URL"),
        (r#"{"prefix":""}"#, "names no URLs; allowed is"),
        (r#"{"prefix":"x"}"#, "names no URLs; allowed is"),
        ("\u{feff}{\"key\":\"a\"}", "The body is wrong"),
        ("\0", "The body is wrong"),
    ] {
        let shown: String = body.chars().take(60).collect();
        check(&ask(&server, "POST /purge", JSON, body.as_bytes()), &shown, 400, said);
    }
    let bad = ask(&server, "POST /purge", JSON, b"{\"key\":\"\xff\"}");
    check(&bad, "no UTF-8", 400, "The body is wrong");
    let large = long("key", 2 << 20);
    check(&ask(&server, "POST /purge", JSON, large.as_bytes()), "2 MiB", 413, "64 KiB");
    // A pattern that would make a matcher go back for ever is over at once.
    let bomb = format!(r#"{{"pattern":"{}b","dry_run":true}}"#, "*a".repeat(2_000));
    assert_eq!(ask(&server, "POST /purge", JSON, bomb.as_bytes()).status, 200);
    goes_on(&mut server);
}

#[test]
fn a_purge_of_another_type_or_that_is_not_all_there() {
    let (_origin, mut server) = server();
    for fields in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: application/jsonx\r\n",
        "Content-Type: application/json, text/plain\r\n",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
    ] {
        let answer = ask(&server, "POST /purge", fields, b"{\"key\":\"a\"}");
        check(&answer, fields, 415, "application/json");
    }
    // A body that ends early ends the connection; no answer is needed, but the server is.
    let mut broken = Connection::to(server.admin());
    let head =
        format!("POST /purge HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 9\r\n\r\n");
    broken.write(format!("{head}{{")).unwrap();
    drop(broken);
    for target in ["http://u:p@h/", "x", "*"] {
        let answer = ask(&server, &format!("PURGE {target}"), "", b"");
        assert_eq!(answer.status, 400, "{target}: {}", answer.text());
    }
    goes_on(&mut server);
}

#[test]
fn who_guesses_tokens_is_stopped() {
    let origin = Origin::saying("hello");
    let variables = [("TACHIKOMA_ADMIN_TOKEN", "admin-token-0123456789")];
    let mut server = Tachikoma::serve_with(&["--upstream", &origin.url()], &variables);
    let guess = |_: &usize| ask(&server, "GET /stats", "Authorization: Bearer guess\r\n", b"");
    // Ten in one second; a second may end in between.
    let refused = (0..200).map(|n| guess(&n)).find(|answer| answer.status != 401);
    check(&refused.expect("an end"), "a guess", 429, "Too many wrong tokens");
    goes_on(&mut server);
}

#[test]
fn what_is_purged_cannot_forge_a_line_of_the_log() {
    let (_origin, mut server) = server();
    let body = br#"{"key":"a\r\n{\"message\":\"forged\"}\u001b[31m\u2028"}"#;
    assert_eq!(ask(&server, "POST /purge", JSON, body).status, 200);
    server.assert_logged("\"message\":\"purge\"");
    for line in server.log() {
        assert!(!line.starts_with("{\"message\":\"forged\""), "{line}");
        assert!(!line.contains(['\u{1b}', '\u{2028}']), "{line:?}");
    }
    goes_on(&mut server);
}
