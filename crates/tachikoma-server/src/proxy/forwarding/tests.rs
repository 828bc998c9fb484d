use http::Version;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::fields::add_forwarding;
use super::*;
use crate::config::networks::Network;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

fn trusted() -> TrustedProxies {
    let networks = ["10.0.0.0/8", "2001:db8:1::/48"];
    TrustedProxies::from(networks.map(|text| text.parse::<Network>().expect("good")).to_vec())
}

/// What the upstream is told of a request with these fields, from this peer: `X-Forwarded-For`,
/// `-Host` and `-Proto`, `Forwarded`; and who the client is.
fn told(peer: &str, lines: &[(&'static str, &str)]) -> ([String; 4], String) {
    let peer: IpAddr = peer.parse().expect("an address");
    let mut headers = headers(lines);
    headers.insert(HOST, HeaderValue::from_static("a.test"));
    let way = Forwarding::believed(&headers, peer, &trusted());
    let way = way.unwrap_or_else(|| Forwarding::direct(peer));
    let secure = way.secure.unwrap_or(false);
    add_forwarding(&mut headers, Some(&way), secure, Version::HTTP_11);
    let said = [X_FOR, X_HOST, X_PROTO, FORWARDED].map(|name| {
        let values: Vec<_> = headers.get_all(&name).iter().collect();
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values[0].to_str().expect("text").to_owned()
    });
    (said, way.client().expect("a client").to_string())
}

#[track_caller]
fn check(peer: &str, lines: &[(&'static str, &str)], said: [&str; 4], client: &str) {
    let (actual, who) = told(peer, lines);
    assert_eq!((actual.each_ref().map(String::as_str), who.as_str()), (said, client), "{lines:?}");
}

const FOR: &str = "x-forwarded-for";
const EVIL: [(&str, &str); 4] = [
    (FOR, "6.6.6.6"),
    ("x-forwarded-host", "evil"),
    ("x-forwarded-proto", "https"),
    ("forwarded", "for=6.6.6.6;host=evil;proto=https"),
];

#[test]
fn who_is_not_trusted_is_believed_nothing() {
    for (peer, node) in [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "\"[2001:db8::1]\""),
    ] {
        let plain = node.trim_matches(['"', '[', ']']);
        let forwarded = format!("for={node};host=\"a.test\";proto=http");
        check(peer, &EVIL, [plain, "a.test", "http", &forwarded], plain);
    }
}

#[test]
fn the_way_that_a_trusted_proxy_names_goes_on_and_it_is_added() {
    let x = [(FOR, "192.0.2.7"), ("x-forwarded-host", "b.test"), ("x-forwarded-proto", "https")];
    let forwarded = [("forwarded", "for=192.0.2.7;host=b.test;proto=https")];
    let said = "for=192.0.2.7;host=\"b.test\";proto=https, for=10.0.0.1";
    for lines in [&x[..], &forwarded] {
        check("10.0.0.1", lines, ["192.0.2.7, 10.0.0.1", "b.test", "https", said], "192.0.2.7");
        check(
            "::ffff:10.0.0.1",
            lines,
            ["192.0.2.7, 10.0.0.1", "b.test", "https", said],
            "192.0.2.7",
        );
    }
    // It says nothing, or only a part.
    let own = "for=10.0.0.1;host=\"a.test\";proto=http";
    check("10.0.0.1", &[], ["10.0.0.1", "a.test", "http", own], "10.0.0.1");
    let own = "for=10.0.0.1;host=\"a.test\";proto=https";
    for lines in [("x-forwarded-proto", "https"), ("forwarded", "proto=https")] {
        check("10.0.0.1", &[lines], ["10.0.0.1", "a.test", "https", own], "10.0.0.1");
    }
}

#[test]
fn the_client_is_the_nearest_that_is_no_trusted_proxy() {
    for (said, client) in [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 10.1.1.1", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7, 10.1.1.1", "192.0.2.7"),
        ("10.6.6.6, 192.0.2.7", "192.0.2.7"),
        ("10.2.2.2, 10.1.1.1", "10.2.2.2"),
        ("[2001:db8::1]:443, 2001:db8:1::1", "2001:db8::1"),
    ] {
        assert_eq!(told("10.0.0.1", &[(FOR, said)]).1, client, "{said}");
    }
    // Over several lines, with ports.
    let (said, client) =
        told("10.0.0.1", &[(FOR, "6.6.6.6"), (FOR, "192.0.2.7:99,, ::ffff:10.1.1.1")]);
    assert_eq!(
        (said[0].as_str(), client.as_str()),
        ("6.6.6.6, 192.0.2.7, 10.1.1.1, 10.0.0.1", "192.0.2.7")
    );
    // What each trusted proxy says of its own client counts, and nothing that is said before.
    let chain = "for=6.6.6.6;host=evil;proto=https, for=192.0.2.7;host=b.test;proto=https, \
                 for=10.1.1.1;host=inside;proto=http";
    let said = "for=6.6.6.6, for=192.0.2.7;host=\"b.test\";proto=https, for=10.1.1.1, \
                for=10.0.0.1";
    let nodes = "6.6.6.6, 192.0.2.7, 10.1.1.1, 10.0.0.1";
    check("10.0.0.1", &[("forwarded", chain)], [nodes, "b.test", "https", said], "192.0.2.7");
}

#[test]
fn what_is_not_understood_goes_on_in_no_field() {
    for (said, nodes) in [
        ("evil", "10.0.0.1"),
        ("6.6.6.6, unknown", "10.0.0.1"),
        ("evil, 192.0.2.7", "192.0.2.7, 10.0.0.1"),
        ("6.6.6.6;evil, 192.0.2.7", "192.0.2.7, 10.0.0.1"),
        ("192.0.2.7\", evil", "10.0.0.1"),
        ("192.0.2.7 6.6.6.6", "10.0.0.1"),
        ("ä, 192.0.2.7", "192.0.2.7, 10.0.0.1"),
    ] {
        assert_eq!(told("10.0.0.1", &[(FOR, said)]).0[0], nodes, "{said}");
    }
    for said in [
        "for=6.6.6.6, for=\"evil",
        "for=\"evil, for=6.6.6.6;host=\"a.test\"",
        "for=6.6.6.6;host=evil;host=a.test",
        "for=6.6.6.6 host=evil",
        "for=_evil",
        "for=unknown",
        "6.6.6.6",
    ] {
        let own = "for=10.0.0.1;host=\"a.test\";proto=http";
        let lines = [("forwarded", said)];
        check("10.0.0.1", &lines, ["10.0.0.1", "a.test", "http", own], "10.0.0.1");
    }
    for (name, said) in [
        ("x-forwarded-host", "evil/x"),
        ("x-forwarded-host", "user@evil"),
        ("x-forwarded-host", "evil, a.test"),
        ("x-forwarded-host", "evil\"x"),
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-proto", "evil"),
        ("forwarded", "host=\"evil/x\""),
        ("forwarded", "proto=evil"),
    ] {
        let own = "for=10.0.0.1;host=\"a.test\";proto=http";
        check("10.0.0.1", &[(name, said)], ["10.0.0.1", "a.test", "http", own], "10.0.0.1");
    }
    let twice = [("x-forwarded-host", "b.test"), ("x-forwarded-host", "evil")];
    assert_eq!(told("10.0.0.1", &twice).0[1], "a.test");
}

/// A proxy that writes `X-Forwarded-*` leaves what its clients write in `Forwarded`.
#[test]
fn one_family_alone_is_believed() {
    let forwarded = ("forwarded", "for=6.6.6.6;host=evil;proto=https");
    let said = "for=192.0.2.7;host=\"a.test\";proto=http, for=10.0.0.1";
    let lines = [(FOR, "192.0.2.7"), forwarded];
    check("10.0.0.1", &lines, ["192.0.2.7, 10.0.0.1", "a.test", "http", said], "192.0.2.7");
    let lines = [("x-forwarded-proto", "http"), forwarded];
    let own = "for=10.0.0.1;host=\"a.test\";proto=http";
    check("10.0.0.1", &lines, ["10.0.0.1", "a.test", "http", own], "10.0.0.1");
}

#[test]
fn only_the_nearest_nodes_go_on() {
    let many = vec!["192.0.2.7"; 1_000].join(",");
    let (said, client) = told("10.0.0.1", &[(FOR, &many)]);
    assert_eq!(said[0].split(", ").count(), MAX_NODES);
    assert_eq!(said[3].split(", ").count(), MAX_NODES);
    assert_eq!(client, "192.0.2.7");
}

#[test]
fn what_is_believed_is_a_part_of_what_is_asked_for() {
    let trusted = trusted();
    let peer = IpAddr::from([10, 0, 0, 1]);
    for (host, proto, uri, keyed) in [
        ("b.test", "https", "https://a.test/x?y", Some("b.test")),
        ("A.test", "https", "https://a.test/x?y", None),
        ("b.test", "http", "/x?y", Some("b.test")),
        ("evil, b.test", "evil", "/x?y", None),
    ] {
        let mut request = Request::get("/x?y").header(HOST, "a.test").body(()).expect("good");
        let said = headers(&[("x-forwarded-host", host), ("x-forwarded-proto", proto)]);
        let way = Forwarding::believed(&said, peer, &trusted);
        let way = way.map(|way| Forwarding {
            host: way.host.filter(|host| !host.as_bytes().eq_ignore_ascii_case(b"a.test")),
            ..way
        });
        way.expect("it is trusted").apply(&mut request).expect("good");
        let actual = request.headers().get(X_HOST).map(|host| host.to_str().expect("text"));
        assert_eq!((request.uri().to_string().as_str(), actual), (uri, keyed), "{host} {proto}");
    }
}

proptest! {
    #[test]
    fn whatever_a_trusted_proxy_says_the_upstream_gets_addresses_and_one_host(
        lines in vec(("[a-z0-9;=,\" .:_\\[\\]\\\\]{0,40}", 0_usize..4), 0..6),
    ) {
        let names = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"];
        let lines: Vec<_> = lines.iter().map(|(line, at)| (names[*at], line.as_str())).collect();
        let ([nodes, host, proto, forwarded], client) = told("10.0.0.1", &lines);
        let nodes: Vec<&str> = nodes.split(", ").collect();
        prop_assert!(nodes.iter().all(|node| node.parse::<IpAddr>().is_ok()), "{nodes:?}");
        prop_assert_eq!(*nodes.last().expect("one"), "10.0.0.1");
        prop_assert!(nodes.contains(&client.as_str()));
        prop_assert!(target::checked(host.as_bytes()).is_ok());
        prop_assert!(["http", "https"].contains(&proto.as_str()));
        let elements = elements(forwarded.as_bytes()).expect("it is of the form");
        let said = elements.iter().map(|element| node(element.node.as_ref().expect("a node")));
        let said: Vec<_> = said.collect();
        let nodes: Vec<_> = nodes.iter().map(|node| node.parse().ok()).collect();
        prop_assert_eq!(said, nodes);
        let hosts: Vec<_> = elements.iter().filter_map(|e| e.host.as_ref()).collect();
        prop_assert_eq!(hosts, [&host]);
    }
}
