//! The proxy behind the response cache, in front of servers that know nothing of it.

use std::fs;

use serde_json::{Value, json};
use tachikoma_testkit::NginxServer;

use crate::support::{Answer, Origin, Tachikoma, get, send};

fn cache_status(answer: &Answer) -> String {
    answer.header("cache-status").unwrap_or_default()
}

#[track_caller]
fn assert_says(answer: &Answer, expected: &str) {
    let said = cache_status(answer);
    let parts: Vec<_> = said.split(';').map(str::trim).collect();
    assert!(parts.contains(&expected), "{said:?}, not {expected:?}: {answer:?}");
}

fn purge(server: &Tachikoma, asked: &Value) -> Value {
    let body = asked.to_string();
    let answer = send(
        server.admin(),
        format!(
            "POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["removed"]["memory"].clone()
}

#[test]
fn a_folder_served_by_nginx_is_cached_validated_after_a_change_and_a_502_when_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "first").unwrap();
    let mut nginx = NginxServer::serving_with(
        folder.path(),
        "location / { add_header Cache-Control \"max-age=0, must-revalidate\"; }
         location /kept/ { add_header Cache-Control \"max-age=60\"; }",
    );
    fs::create_dir(folder.path().join("kept")).unwrap();
    fs::write(folder.path().join("kept/b.txt"), "kept").unwrap();
    let server = Tachikoma::serve(&["--upstream", &nginx.url()]);

    let first = get(server.address(), "/kept/b.txt");
    assert_says(&first, "fwd=uri-miss");
    assert_says(&first, "stored");
    let second = get(server.address(), "/kept/b.txt");
    assert_says(&second, "hit");
    assert_eq!((second.text().as_str(), second.header("age").is_some()), ("kept", true));
    assert_eq!(nginx.requests().len(), 1);

    assert_says(&get(server.address(), "/a.txt"), "fwd=uri-miss");
    let validated = get(server.address(), "/a.txt");
    assert_says(&validated, "fwd=stale");
    assert_says(&validated, "fwd-status=304");
    assert_eq!((validated.status, validated.text().as_str()), (200, "first"));
    fs::write(folder.path().join("a.txt"), "second, and longer").unwrap();
    let changed = get(server.address(), "/a.txt");
    assert_eq!(changed.text(), "second, and longer");
    assert_says(&changed, "fwd=stale");

    nginx.kill();
    assert_says(&get(server.address(), "/kept/b.txt"), "hit");
    for target in ["/a.txt", "/other"] {
        let answer = get(server.address(), target);
        assert!([502, 504].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
    }
    nginx.restart();
    assert_eq!(get(server.address(), "/a.txt").text(), "second, and longer");
}

#[test]
fn a_url_is_counted_and_purged_over_the_admin_listener() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let url = json!({ "url": "http://a.test/x?y", "dry_run": true });
    assert_eq!(purge(&server, &url), json!(0));
    assert_eq!(get(server.address(), "/x?y").status, 200);
    assert_eq!(purge(&server, &url), json!(1));
    assert_says(&get(server.address(), "/x?y"), "hit");
    assert_eq!(purge(&server, &json!({ "url": "http://a.test/x?y" })), json!(1));
    assert_says(&get(server.address(), "/x?y"), "fwd=uri-miss");
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_tag_is_purged_wherever_it_is() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\n\
          Surrogate-Key: page shop\r\n\r\nok"
            .to_vec()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    assert_eq!(get(server.address(), "/").status, 200);
    assert_says(&get(server.address(), "/"), "hit");
    assert_eq!(purge(&server, &json!({ "tag": "shop", "dry_run": true })), json!(1));
    assert_eq!(purge(&server, &json!({ "tag": "shop" })), json!(1));
    assert_eq!(get(server.address(), "/").status, 200);
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn what_one_client_sends_about_itself_is_not_shown_to_another() {
    let origin = Origin::answering(|seen| {
        let body = format!("{:?}", seen.all("x-forwarded-host"));
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nCache-Control: max-age=60\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let attack = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Host: evil\r\n\r\n";
    assert!(!send(server.address(), attack).text().contains("evil"));
    let victim = get(server.address(), "/");
    assert!(!victim.text().contains("evil"), "{victim:?}");
    assert_says(&victim, "hit");
}

/// A CDN in front says who the client is in fields of its own.
#[test]
fn fields_that_name_the_client_or_the_way_end_here_and_keep_nothing_out_of_the_cache() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    for name in [
        "CF-Connecting-IP",
        "True-Client-IP",
        "Client-IP",
        "X-Cluster-Client-IP",
        "X-Forwarded-Client-Cert",
        "X-Forwarded-Anything",
        "X-Original-Host",
        "X-Real-IP",
    ] {
        let before = origin.seen().len();
        let lines = format!("Host: a.test\r\n{name}: 6.6.6.6\r\nConnection: close");
        let ask = || send(server.address(), format!("GET /{name} HTTP/1.1\r\n{lines}\r\n\r\n"));
        assert_says(&ask(), "stored");
        assert_says(&ask(), "hit");
        let seen = origin.seen()[before].clone();
        assert!(!seen.head.contains("6.6.6.6"), "{}", seen.head);
    }
}

#[test]
fn statistics_count_hits_and_misses_of_responses() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    for _ in 0..4 {
        assert_eq!(get(server.address(), "/").status, 200);
    }
    let ask = |target: &str| {
        send(
            server.admin(),
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        )
    };
    let stats = ask("/stats").json();
    assert_eq!(stats["response_cache"]["hits"], 3, "{stats}");
    assert_eq!(stats["response_cache"]["misses"], 1, "{stats}");
    let metrics = ask("/metrics").text();
    let line = "tachikoma_response_cache_exchanges_total{outcome=\"hit\"} 3";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn many_requests_for_one_page_ask_the_upstream_once() {
    let origin = Origin::start(|_, stream| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\n\r\nok";
        let _ = std::io::Write::write_all(stream, answer.as_bytes());
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let address = server.address();
    let clients: Vec<_> =
        (0..50).map(|_| std::thread::spawn(move || get(address, "/").text())).collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), "ok");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_body_whose_end_is_not_proved_is_passed_on_and_never_stored() {
    for version in ["1.0", "1.1"] {
        let origin = Origin::start(move |_, stream| {
            let answer = format!("HTTP/{version} 200 OK\r\nCache-Control: max-age=60\r\n\r\npart?");
            let _ = std::io::Write::write_all(stream, answer.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
        let server = Tachikoma::serve(&["--upstream", &origin.url()]);
        for _ in 0..2 {
            let answer = get(server.address(), "/");
            assert_eq!((answer.status, answer.text().as_str()), (200, "part?"), "{version}");
            assert!(!cache_status(&answer).contains("stored"), "{answer:?}");
        }
        assert_eq!(origin.seen().len(), 2, "{version}");
    }
}

#[test]
fn a_body_in_chunks_is_stored_when_its_last_one_came() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nwhole\r\n0\r\n\r\n"
            .to_vec()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    for expected in ["fwd=uri-miss", "hit"] {
        let answer = get(server.address(), "/");
        assert_eq!((answer.text().as_str(), answer.complete), ("whole", true));
        assert_says(&answer, expected);
    }
}

#[test]
fn what_broke_off_is_not_stored_and_the_next_request_gets_the_whole() {
    let times = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::start(move |_, stream| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\n";
        let first = times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        let answer = format!("{head}{}", if first { "who" } else { "whole" });
        let _ = std::io::Write::write_all(stream, answer.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    assert!(!get(server.address(), "/").complete);
    let whole = get(server.address(), "/");
    assert_eq!((whole.text().as_str(), whole.complete), ("whole", true));
    assert_says(&get(server.address(), "/"), "hit");
}
