//! Whom the upstream and the access log are told of, behind proxies that are trusted and others.

use std::net::IpAddr;

use crate::support::{Answer, Connection, Origin, Seen, Tachikoma, run, send};

/// Trusts 127.0.0.2 and what is in 10.0.0.0/8, and nobody else.
fn serve(origin: &Origin, more: &[&str]) -> Tachikoma {
    let base = ["--upstream", &origin.url(), "--trusted-proxies", "127.0.0.2,10.0.0.0/8"];
    Tachikoma::serve(&[&base[..], more].concat())
}

/// Says to its caller what it was told.
fn echo() -> Origin {
    Origin::answering(|seen| {
        let body = [told(seen).join("|"), seen.all("host").join("|")].join(" ");
        let length = body.len();
        let head = format!("Content-Length: {length}\r\nCache-Control: max-age=60");
        format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").into_bytes()
    })
}

fn told(seen: &Seen) -> Vec<&str> {
    let names = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"];
    names.into_iter().flat_map(|name| seen.all(name)).collect()
}

/// Asks from this address, with these lines.
fn ask(server: &Tachikoma, from: &str, target: &str, lines: &[&str]) -> Answer {
    let from: IpAddr = from.parse().unwrap();
    let mut connection = Connection::from(from, server.address()).unwrap();
    let lines: String = lines.iter().flat_map(|line| [*line, "\r\n"]).collect();
    let head = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{lines}");
    connection.write(format!("{head}\r\n")).unwrap();
    connection.read().expect("a response")
}

const CLAIMS: [&str; 3] =
    ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https"];

#[test]
fn who_is_not_trusted_is_overruled() {
    let origin = Origin::saying("hello");
    let server = serve(&origin, &[]);
    let forwarded = ["Forwarded: for=6.6.6.6;host=evil;proto=https"];
    for lines in [&CLAIMS[..], &forwarded, &[CLAIMS[0], forwarded[0]]] {
        let before = origin.seen().len();
        ask(&server, "127.0.0.1", &format!("/{before}"), lines);
        let seen = origin.seen()[before].clone();
        let own = "for=127.0.0.1;host=\"a.test\";proto=http";
        assert_eq!(told(&seen), ["127.0.0.1", "a.test", "http", own], "{lines:?}");
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_added() {
    let origin = Origin::saying("hello");
    let server = serve(&origin, &[]);
    for lines in [
        &["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Host: b.test", "X-Forwarded-Proto: https"][..],
        &["Forwarded: for=192.0.2.7;host=b.test;proto=https"],
    ] {
        let before = origin.seen().len();
        ask(&server, "127.0.0.2", &format!("/{before}"), lines);
        let seen = origin.seen()[before].clone();
        let said = "for=192.0.2.7;host=\"b.test\";proto=https, for=127.0.0.2";
        assert_eq!(told(&seen), ["192.0.2.7, 127.0.0.2", "b.test", "https", said], "{lines:?}");
        assert_eq!((seen.all("host"), seen.target()), (vec!["a.test"], &*format!("/{before}")));
    }
    let lines = ["X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.1.1", "X-Real-IP: 6.6.6.6"];
    ask(&server, "127.0.0.2", "/chain", &lines);
    let seen = origin.seen().pop().unwrap();
    assert_eq!(seen.all("x-forwarded-for"), ["6.6.6.6, 192.0.2.7, 10.1.1.1, 127.0.0.2"]);
    assert_eq!((seen.all("x-forwarded-proto"), seen.all("x-real-ip")), (vec!["http"], vec![]));
}

#[test]
fn what_a_trusted_proxy_lets_pass_of_its_clients_is_not_smuggled_on() {
    let origin = Origin::saying("hello");
    let server = serve(&origin, &[]);
    let own = "for=127.0.0.2;host=\"a.test\";proto=http";
    for lines in [
        // Left open, to be closed by what the proxy adds.
        &["Forwarded: for=\"evil, for=6.6.6.6;host=\"a.test\""][..],
        &["Forwarded: for=\"evil", "Forwarded: for=\"6.6.6.6"],
        &["Forwarded: for=6.6.6.6;host=evil;host=a.test"],
        &["Forwarded: evil"],
        &["X-Forwarded-Host: evil", "X-Forwarded-Host: a.test"],
        &["X-Forwarded-Host: evil/x"],
        &["X-Forwarded-Host: user@evil"],
        &["X-Forwarded-Proto: evil"],
        &["X-Forwarded-For: evil"],
        // The one family that its proxy does not write.
        &["X-Forwarded-Proto: http", "Forwarded: for=6.6.6.6;host=evil;proto=https"],
        &["X-Forwarded-Port: 666", "X-Host: evil", "X-Real-IP: 6.6.6.6"],
    ] {
        let before = origin.seen().len();
        let answer = ask(&server, "127.0.0.2", &format!("/{before}"), lines);
        assert_eq!(answer.status, 200, "{lines:?}: {answer:?}");
        let seen = origin.seen()[before].clone();
        assert_eq!(told(&seen), ["127.0.0.2", "a.test", "http", own], "{lines:?}");
        assert!(!seen.head.contains("evil") && !seen.head.contains("6.6.6.6"), "{}", seen.head);
    }
    // A field that `Connection` names is for this hop, and cannot be taken from it so.
    let lines = ["Connection: X-Forwarded-For", "X-Forwarded-For: 192.0.2.7"];
    ask(&server, "127.0.0.2", "/named", &lines);
    let seen = origin.seen().pop().unwrap();
    assert_eq!(seen.all("x-forwarded-for"), ["192.0.2.7, 127.0.0.2"]);
}

#[test]
fn what_the_upstream_is_told_of_scheme_and_host_keeps_responses_apart() {
    let origin = echo();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "admin-token-0123456789").unwrap();
    let server = serve(&origin, &["--admin-token-file", token.to_str().unwrap()]);
    let said = |from: &str, lines: &[&str]| {
        let answer = ask(&server, from, "/", lines);
        let cache = answer.header("cache-status").unwrap();
        (answer.text(), cache.starts_with("tachikoma;hit"))
    };
    let (https, host) = ("X-Forwarded-Proto: https", "X-Forwarded-Host: b.test");
    let kinds: [(&str, &[&str], &str); 4] = [
        ("127.0.0.2", &[https, host], "b.test|https"),
        ("127.0.0.2", &[https], "a.test|https"),
        ("127.0.0.2", &[host], "b.test|http|"),
        ("127.0.0.2", &[], "a.test|http|"),
    ];
    for (from, lines, part) in kinds {
        let (text, is_hit) = said(from, lines);
        assert!(text.contains(part) && !is_hit, "{lines:?}: {text}");
    }
    for (from, lines, part) in kinds {
        let (text, is_hit) = said(from, lines);
        assert!(text.contains(part) && is_hit, "{lines:?}: {text}");
    }
    // Who the client is selects nothing; whom nobody trusts gets what is for its own words.
    let (text, is_hit) = said("127.0.0.2", &[https, "X-Forwarded-For: 192.0.2.9"]);
    assert!(text.contains("a.test|https") && is_hit, "{text}");
    let (text, is_hit) = said("127.0.0.1", &[https, host]);
    assert!(text.contains("a.test|http|") && is_hit, "{text}");
    assert_eq!(origin.seen().len(), kinds.len());
    // A path is purged in whichever scheme it was asked for, with each host that was named.
    let lines = "Host: a.test\r\nAuthorization: Bearer admin-token-0123456789\r\n";
    let answer = send(server.admin(), format!("PURGE / HTTP/1.1\r\n{lines}\r\n"));
    assert_eq!((answer.status, &answer.json()["removed"]["memory"]), (200, &4.into()));
    for (from, lines, _) in kinds {
        assert!(!said(from, lines).1, "{lines:?}");
    }
}

#[test]
fn the_access_log_names_the_client_that_a_trusted_proxy_names() {
    let origin = Origin::saying("hello");
    let server = serve(&origin, &["--access-log", "common"]);
    for (from, client) in [("127.0.0.2", "192.0.2.7"), ("127.0.0.1", "127.0.0.1")] {
        ask(&server, from, "/", &["X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.1.1"]);
        assert!(server.line().starts_with(&format!("{client} - - ")), "{from}");
    }
    let server = serve(&origin, &["--access-log", "json"]);
    ask(&server, "127.0.0.2", "/", &["X-Forwarded-For: 192.0.2.7"]);
    let line: serde_json::Value = serde_json::from_str(&server.line()).unwrap();
    assert_eq!((&line["peer"], &line["client"]), (&"127.0.0.2".into(), &"192.0.2.7".into()));
}

#[test]
fn a_network_that_is_none_is_refused_and_those_in_force_are_shown() {
    let allowed = "an IP address, or a network that begins where its prefix says";
    for bad in ["10.0.0.0/33", "10.0.0.7/8", "lb.test", "10.0.0.1:80", ""] {
        let list = format!("10.0.0.1,{bad}");
        let ended = run(&["config", "check", "--api", "--trusted-proxies", &list], &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        for part in ["--trusted-proxies", &format!("'{bad}'"), allowed] {
            assert!(ended.err.contains(part), "{part}: {}", ended.err);
        }
    }
    let variables = [("TACHIKOMA_TRUSTED_PROXIES", "10.0.0.0/8,2001:DB8::1")];
    let shown = run(&["config", "show", "--api"], &variables).out;
    assert!(shown.contains("trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::1\"]"), "{shown}");
    assert!(run(&["config", "show", "--api"], &[]).out.contains("trusted_proxies = []"));
}
