//! Decides which header fields pass through the proxy, in both directions.
//!
//! Pure functions on header maps. Hop-by-hop fields end here (RFC 9110 §7.6.1); what a client says
//! about its own address, its host or its scheme is replaced by what this server knows (RFC 7239,
//! and the `X-Forwarded-*` family that came before it).

use std::net::{IpAddr, SocketAddr};

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

/// The name of this hop in `Via`.
const PSEUDONYM: &str = "tachikoma";

/// Fields that mean something on one connection only.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a client must not be believed about: who it is and which server it means.
///
/// Besides the fields that this proxy writes itself, their relatives that one framework or another
/// believes: an origin that reflects them would let one client choose what others are shown.
const FORWARDING: [HeaderName; 15] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-forwarded-by"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-original-host"),
    HeaderName::from_static("x-http-host-override"),
    HeaderName::from_static("x-client-ip"),
];

/// Fields that are for everyone on the path, so that no connection may take them away.
///
/// Dropping `Cache-Control: private` or `Vary` because `Connection` names it would make a private
/// response shared; dropping `Host`, credentials or framing would change what a request is.
const NEVER_NAMED: [&str; 22] = [
    "age",
    "authorization",
    "cache-control",
    "cdn-cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expires",
    "host",
    "if-match",
    "if-none-match",
    "last-modified",
    "pragma",
    "range",
    "set-cookie",
    "transfer-encoding",
    "vary",
    "via",
];

/// `Connection` names a field that is not its to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamesEndToEnd;

/// Removes the hop-by-hop fields and those that `Connection` names.
///
/// # Errors
///
/// `Connection` names an end-to-end field ([`NEVER_NAMED`]); nothing is removed then.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Result<(), NamesEndToEnd> {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for name in value.as_bytes().split(|byte| *byte == b',') {
            let name = name.trim_ascii().to_ascii_lowercase();
            if NEVER_NAMED.iter().any(|never| never.as_bytes() == name) {
                return Err(NamesEndToEnd);
            }
            // What is not a field name names no field.
            if let Ok(name) = HeaderName::from_bytes(&name) {
                named.push(name);
            }
        }
    }
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    Ok(())
}

/// Whether the body has no transfer coding but `chunked`, which is undone where it arrives.
pub(crate) fn is_only_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a body ends when its connection does (RFC 9112 §6.3), whole or not.
pub(crate) fn is_unframed<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let has_body = ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&response.status());
    has_body && !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING)
}

/// Forgets what the client says about itself and its host.
pub(crate) fn drop_claims(headers: &mut HeaderMap) {
    for name in &FORWARDING {
        headers.remove(name);
    }
}

/// Says who asks, which host they meant, and that this hop was here.
pub(crate) fn add_forwarding(headers: &mut HeaderMap, peer: Option<SocketAddr>, from: Version) {
    // `Expect` was answered on this connection: hyper sends 100 when the body is first read.
    headers.remove(EXPECT);
    drop_claims(headers);
    let host = headers.get(HOST).cloned();
    let mut forwarded = String::new();
    if let Some(peer) = peer {
        let (plain, node) = match peer.ip().to_canonical() {
            IpAddr::V4(ip) => (ip.to_string(), ip.to_string()),
            // RFC 7239 §6: in brackets and quotes.
            IpAddr::V6(ip) => (ip.to_string(), format!("\"[{ip}]\"")),
        };
        insert(headers, "x-forwarded-for", &plain);
        forwarded = format!("for={node};");
    }
    if let Some(host) = host {
        if let Ok(host) = host.to_str() {
            forwarded.push_str("host=\"");
            forwarded.push_str(host);
            forwarded.push_str("\";");
        }
        headers.insert(HeaderName::from_static("x-forwarded-host"), host);
    }
    forwarded += "proto=http";
    insert(headers, "forwarded", &forwarded);
    insert(headers, "x-forwarded-proto", "http");
    add_via(headers, from);
}

/// Adds this hop to `Via`, with the version in which the message came (RFC 9110 §7.6.3).
pub(crate) fn add_via(headers: &mut HeaderMap, received: Version) {
    let version = match received {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    if let Ok(value) = HeaderValue::from_str(&format!("{version} {PSEUDONYM}")) {
        headers.append(VIA, value);
    }
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // The values are made of addresses and a Host that was checked: always valid.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[track_caller]
    fn check_kept(lines: &[(&'static str, &'static str)], kept: &[&str]) {
        let mut headers = headers(lines);
        strip_hop_by_hop(&mut headers).expect("stripped");
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, kept, "{lines:?}");
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_end_here() {
        check_kept(
            &[
                ("connection", "close, X-One"),
                ("connection", " x-two ,,\t"),
                ("x-one", "1"),
                ("x-two", "2"),
                ("x-three", "3"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("proxy-authenticate", "Basic"),
                ("proxy-authorization", "Basic x"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("trailer", "x-sum"),
            ],
            &["trailer", "x-three"],
        );
        check_kept(&[("connection", "bad name, \"x\""), ("x", "1")], &["x"]);
    }

    #[test]
    fn connection_cannot_take_away_what_is_for_everyone() {
        for name in ["Cache-Control", "close, VARY", "set-cookie", "host", "Content-Length"] {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_str(name).expect("text"));
            assert_eq!(strip_hop_by_hop(&mut headers), Err(NamesEndToEnd), "{name}");
        }
    }

    #[track_caller]
    fn check_forwarded(peer: &str, expected: &[(&str, &str)]) {
        let mut headers = headers(&[
            ("host", "a.test:81"),
            ("forwarded", "for=evil"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "123"),
            ("x-real-ip", "6.6.6.6"),
            ("via", "1.0 first"),
        ]);
        add_forwarding(&mut headers, Some(peer.parse().expect("a peer")), Version::HTTP_11);
        let actual: Vec<_> =
            headers.iter().map(|(n, v)| (n.as_str(), v.to_str().expect("text"))).collect();
        for line in expected {
            assert!(actual.contains(line), "{line:?} is not in {actual:?}");
        }
        assert!(!format!("{actual:?}").contains("evil"), "{actual:?}");
        assert!(!format!("{actual:?}").contains("6.6.6.6"), "{actual:?}");
        assert!(!headers.contains_key("x-forwarded-port"));
    }

    #[test]
    fn what_the_client_says_about_itself_is_replaced_by_what_is_known() {
        check_forwarded(
            "192.0.2.7:999",
            &[
                ("host", "a.test:81"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-host", "a.test:81"),
                ("x-forwarded-proto", "http"),
                ("forwarded", "for=192.0.2.7;host=\"a.test:81\";proto=http"),
                ("via", "1.0 first"),
                ("via", "1.1 tachikoma"),
            ],
        );
        check_forwarded(
            "[2001:db8::1]:9",
            &[
                ("x-forwarded-for", "2001:db8::1"),
                ("forwarded", "for=\"[2001:db8::1]\";host=\"a.test:81\";proto=http"),
            ],
        );
        check_forwarded("[::ffff:192.0.2.7]:9", &[("x-forwarded-for", "192.0.2.7")]);
    }
}
