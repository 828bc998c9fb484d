//! The admin listener: who may come in, what every answer carries, and that the public one never
//! leads there.

use std::fs;
use std::io::Write as _;

use crate::support::h2::{END_HEADERS, END_STREAM, HEADERS, Raw, fields, frame};
use crate::support::{Answer, Origin, Tachikoma, get, run, send};

const TOKEN: &str = "admin-token-0123456789";

fn ask(server: &Tachikoma, method: &str, target: &str, lines: &str) -> Answer {
    let head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n");
    send(server.admin(), head)
}

fn read(server: &Tachikoma, target: &str) -> Answer {
    ask(server, "GET", target, "Host: localhost\r\n")
}

fn server(origin: &Origin) -> Tachikoma {
    Tachikoma::serve(&["--upstream", &origin.url()])
}

#[test]
fn an_address_that_others_can_reach_needs_a_token() {
    let arguments = ["serve", "--upstream", "http://127.0.0.1:9", "--listen", "127.0.0.1:0"];
    let open = [&arguments[..], &["--admin", "0.0.0.0:0"]].concat();
    let ended = run(&open, &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("no token is set"), "{}", ended.err);

    let origin = Origin::saying("hello");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    let arguments = [
        "--upstream",
        &origin.url(),
        "--admin=0.0.0.0:0",
        "--admin-token-file",
        file.to_str().unwrap(),
    ];
    let server = Tachikoma::serve(&arguments);
    let bearer = format!("Host: cache.example\r\nAuthorization: Bearer {TOKEN}\r\n");
    assert_eq!(ask(&server, "GET", "/stats", &bearer).status, 200);
    assert_eq!(ask(&server, "GET", "/stats", "Host: cache.example\r\n").status, 401);
}

#[test]
fn by_default_it_is_on_loopback_and_it_can_be_off() {
    let shown = run(&["config", "show", "--api"], &[]).out;
    assert!(shown.contains("admin = \"127.0.0.1:9090\""), "{shown}");
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url(), "--admin=off"]);
    assert!(!server.log().iter().any(|line| line.contains("\"admin\"")));
    assert_eq!(get(server.address(), "/").text(), "hello");
}

#[test]
fn without_the_token_every_way_in_is_closed_alike() {
    let origin = Origin::saying("hello");
    let arguments = ["--upstream", &origin.url()];
    let server = Tachikoma::serve_with(&arguments, &[("TACHIKOMA_ADMIN_TOKEN", TOKEN)]);
    let mut bodies = Vec::new();
    for (target, lines) in [
        ("/stats", String::new()),
        ("/stats", "Authorization: Bearer \r\n".to_owned()),
        ("/stats", "Authorization: Bearer wrong-token-0123456789\r\n".to_owned()),
        ("/stats?token=admin-token-0123456789", String::new()),
        ("/stats", "Authorization: Basic YWRtaW46YWRtaW4=\r\n".to_owned()),
        ("/stats", format!("Authorization: bearer {TOKEN}\r\n")),
        ("/nothing", String::new()),
    ] {
        let answer = ask(&server, "GET", target, &format!("Host: localhost\r\n{lines}"));
        answer.assert_problem(401);
        assert_eq!(answer.header("www-authenticate").as_deref(), Some("Bearer"));
        bodies.push(answer.body);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    // Probes say that the process lives; they need no secret and tell none.
    assert_eq!(read(&server, "/livez").status, 200);
    assert_eq!(read(&server, "/readyz").status, 200);
}

#[test]
fn a_read_token_reads_and_does_not_purge() {
    let origin = Origin::saying("hello");
    let variables =
        [("TACHIKOMA_ADMIN_TOKEN", TOKEN), ("TACHIKOMA_ADMIN_READ_TOKEN", "read-token-0123456789")];
    let server = Tachikoma::serve_with(&["--upstream", &origin.url()], &variables);
    let lines = "Host: localhost\r\nAuthorization: Bearer read-token-0123456789\r\n";
    assert_eq!(ask(&server, "GET", "/stats", lines).status, 200);
    for (method, target) in [("POST", "/purge"), ("DELETE", "/stats"), ("PUT", "/config")] {
        ask(&server, method, target, lines).assert_problem(403);
    }
}

#[test]
fn a_read_token_sends_the_origin_nothing_but_a_question() {
    let origin = Origin::saying("hello");
    let variables =
        [("TACHIKOMA_ADMIN_TOKEN", TOKEN), ("TACHIKOMA_ADMIN_READ_TOKEN", "read-token-0123456789")];
    let server = Tachikoma::serve_with(&["--upstream", &origin.url()], &variables);
    let lines = "Host: localhost\r\nAuthorization: Bearer read-token-0123456789\r\n";
    let explain = |more: &str| {
        ask(&server, "GET", &format!("/explain?url=http://a.test/x&fetch=true{more}"), lines)
    };
    for more in [
        "&method=DELETE",
        "&method=POST",
        "&method=CONNECT",
        "&method=PURGE",
        "&header=Content-Length:%2048",
        "&header=Transfer-Encoding:%20chunked",
        "&header=transfer-encoding:%20gzip",
        "&header=Connection:%20close",
        "&header=Connection:%20Host",
        "&header=Upgrade:%20websocket",
        "&header=Expect:%20100-continue",
        "&header=TE:%20trailers",
        "&header=Keep-Alive:%20timeout=9",
    ] {
        explain(more).assert_problem(400);
    }
    assert_eq!(explain(&format!("&header=X:%20{}", "y".repeat(9_000))).status, 431);
    assert!(origin.seen().is_empty(), "{:#?}", origin.seen());
    assert_eq!(explain("&header=X-Forwarded-Host:%20evil&header=Via:%201.1%20x").status, 200);
    assert_eq!(explain("&method=HEAD").status, 200);
    let seen = origin.seen();
    let heads = seen.iter().map(|seen| &seen.head[..5]).collect::<Vec<_>>();
    assert_eq!(heads, ["GET /", "HEAD "], "{seen:#?}");
    assert_eq!(seen[0].all("x-forwarded-host"), ["a.test"]);
}

#[test]
fn an_http_2_client_names_this_machine_in_its_target() {
    let origin = Origin::saying("hello");
    let server = server(&origin);
    let asked = |authority: &str| {
        let mut client = Raw::connect(server.admin(), &[]);
        let head = [(":method", "GET"), (":scheme", "http"), (":path", "/livez")];
        let head = fields(&[&head[..], &[(":authority", authority)]].concat());
        client.0.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).unwrap();
        let answer = std::iter::from_fn(|| client.read()).find(|frame| frame.kind == HEADERS);
        answer.expect("an answer").payload
    };
    // 200 is a field that every table has (RFC 7541, appendix A).
    for own in ["localhost", "127.0.0.1:9090", "[::1]"] {
        assert_eq!(asked(own)[0], 0x88, "{own}");
    }
    for other in ["evil.com", "localhost.evil.com"] {
        assert_ne!(asked(other)[0], 0x88, "{other}");
    }
}

#[test]
fn a_page_of_another_site_cannot_use_it() {
    let origin = Origin::saying("hello");
    let server = server(&origin);
    for host in ["evil.com", "localhost.evil.com", "127.0.0.1.evil.com:9090"] {
        read_as(&server, host).assert_problem(421);
    }
    for lines in [
        "Origin: https://evil\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        for method in ["GET", "POST"] {
            let lines = format!("Host: localhost\r\n{lines}");
            ask(&server, method, "/stats", &lines).assert_problem(403);
        }
    }
}

fn read_as(server: &Tachikoma, host: &str) -> Answer {
    ask(server, "GET", "/stats", &format!("Host: {host}\r\n"))
}

#[test]
fn every_answer_is_kept_out_of_caches_frames_and_other_origins() {
    let origin = Origin::saying("hello");
    let server = server(&origin);
    for target in ["/stats", "/metrics", "/livez", "/readyz", "/nothing", "/debug/pprof"] {
        let answer = read(&server, target);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", "default-src 'self'; frame-ancestors 'none'"),
        ] {
            assert_eq!(answer.header(name).as_deref(), Some(value), "{target} {name}");
        }
        for name in ["access-control-allow-origin", "cache-status", "age", "set-cookie"] {
            assert_eq!(answer.header(name), None, "{target} {name}");
        }
    }
    read(&server, "/nothing").assert_problem(404);
    ask(&server, "DELETE", "/stats", "Host: localhost\r\n").assert_problem(405);
}

#[test]
fn the_public_listener_never_leads_to_the_admin_api() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\norigin".to_vec()
    });
    let server = server(&origin);
    let admin = server.admin();
    for head in [
        "GET /stats HTTP/1.1\r\nHost: a.test\r\n".to_owned(),
        "GET /admin/stats HTTP/1.1\r\nHost: localhost\r\n".to_owned(),
        format!("GET /stats HTTP/1.1\r\nHost: {admin}\r\n"),
        format!("GET http://{admin}/stats HTTP/1.1\r\nHost: {admin}\r\n"),
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Original-URL: /stats\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Rewrite-URL: /stats\r\n".to_owned(),
    ] {
        let answer = send(server.address(), format!("{head}Connection: close\r\n\r\n"));
        assert_eq!((answer.status, answer.text().as_str()), (404, "origin"), "{head:?}");
    }
}

#[test]
fn statistics_count_what_was_served() {
    let origin = Origin::saying("hello");
    let server = server(&origin);
    for _ in 0..3 {
        assert_eq!(get(server.address(), "/").status, 200);
    }
    assert_eq!(send(server.address(), "GET / HTTP/1.1\r\n\r\n").status, 400);
    let stats = read(&server, "/stats").json();
    assert_eq!(stats["http"]["requests"], 4, "{stats}");
    assert_eq!(stats["http"]["responses"]["2xx"], 3, "{stats}");
    assert_eq!(stats["http"]["responses"]["4xx"], 1, "{stats}");
    assert_eq!(stats["http"]["in_flight"], 0, "{stats}");
    assert!(stats["process"]["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    let metrics = read(&server, "/metrics").text();
    assert!(metrics.contains("tachikoma_http_requests_total 4"), "{metrics}");
    assert!(metrics.contains("tachikoma_http_responses_total{class=\"2xx\"} 3"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(metrics.lines().count() < 300, "{metrics}");
}
