//! Decides which header fields pass through the proxy, in both directions.
//!
//! Pure functions on header maps. Hop-by-hop fields end here (RFC 9110 §7.6.1); what a client says
//! about its own address, its host or its scheme is replaced by what is known (`forwarding`).

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HeaderName};
use http::header::{TRANSFER_ENCODING, VIA};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use tachikoma_http_cache::policy::fields::remove_hop_by_hop;
use tachikoma_http_cache::policy::request::is_forwarding;

use super::forwarding::{self, Forwarding};

/// The name of this hop in `Via` and `CDN-Loop`.
pub(super) const PSEUDONYM: &str = "tachikoma";

/// Fields that are for everyone on the path, so that no connection may take them away.
///
/// Dropping `Cache-Control: private` or `Vary` because `Connection` names it would make a private
/// response shared; dropping `Host`, credentials or framing would change what a request is.
const NEVER_NAMED: [&str; 34] = [
    "age",
    "authorization",
    "cache-control",
    "cdn-cache-control",
    "cdn-loop",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-security-policy",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "origin",
    "pragma",
    "range",
    "set-cookie",
    "strict-transport-security",
    "surrogate-control",
    "surrogate-key",
    "transfer-encoding",
    "vary",
    "via",
    "www-authenticate",
];

/// `Connection` names a field that is not its to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamesEndToEnd;

/// Refuses a `Connection` that names an end-to-end field ([`NEVER_NAMED`]).
pub(crate) fn check_named(headers: &HeaderMap) -> Result<(), NamesEndToEnd> {
    for value in headers.get_all(CONNECTION) {
        for name in value.as_bytes().split(|byte| *byte == b',') {
            let name = name.trim_ascii().to_ascii_lowercase();
            if NEVER_NAMED.iter().any(|never| never.as_bytes() == name) {
                return Err(NamesEndToEnd);
            }
        }
    }
    Ok(())
}

/// Removes the hop-by-hop fields and those that `Connection` names.
///
/// # Errors
///
/// `Connection` names an end-to-end field; nothing is removed then.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Result<(), NamesEndToEnd> {
    check_named(headers)?;
    remove_hop_by_hop(headers);
    Ok(())
}

/// How long a response is and where it ends is said in two ways, or in none that can be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misframed;

/// Leaves at most one `Content-Length`, if what the head says about the body can be true.
///
/// # Errors
///
/// Two lengths that differ or that are no numbers, a length beside a transfer coding (RFC 9112
/// §6.3), or a body promised where there is none (204, RFC 9110 §8.6): a response that two
/// recipients could take apart differently is given to none.
pub(crate) fn settle_length<B>(response: &mut Response<B>) -> Result<(), Misframed> {
    let status = response.status();
    let headers = response.headers_mut();
    let has_coding = headers.contains_key(TRANSFER_ENCODING);
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for member in value.as_bytes().split(|byte| *byte == b',') {
            let member = member.trim_ascii();
            let digits = std::str::from_utf8(member)
                .ok()
                .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
            let number = digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or(Misframed)?;
            if length.is_some_and(|other| other != number) {
                return Err(Misframed);
            }
            length = Some(number);
        }
    }
    if length.is_some() && has_coding {
        return Err(Misframed);
    }
    if status == StatusCode::NO_CONTENT && (has_coding || length.is_some_and(|length| length > 0)) {
        return Err(Misframed);
    }
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
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

/// Forgets what the client says about itself, its host and its way here.
///
/// An origin that reflects such a field would let one client choose what others are shown, and the
/// response cache stores nothing that was asked for with one: both go by the same list.
pub(crate) fn drop_claims(headers: &mut HeaderMap) {
    // For the cache this one stands for another target; it names a host all the same.
    let is_claim = |name: &&HeaderName| is_forwarding(name) || *name == "x-original-host";
    let claims: Vec<HeaderName> = headers.keys().filter(is_claim).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Makes one `Cookie` of the pieces that HTTP/2 may send it in (RFC 9113 §8.2.3).
pub(crate) fn join_crumbs(headers: &mut HeaderMap) {
    let crumbs: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // What is joined of values is a value.
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, cookie);
    }
}

/// Says how the request came here, and that this hop was on its way.
pub(super) fn add_forwarding(
    headers: &mut HeaderMap,
    way: Option<&Forwarding>,
    secure: bool,
    from: Version,
) {
    // `Expect` was answered on this connection: hyper sends 100 when the body is first read.
    headers.remove(EXPECT);
    drop_claims(headers);
    forwarding::say(headers, way, secure);
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
    fn check_length(status: u16, lines: &[(&'static str, &'static str)], expected: Option<&str>) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        *response.headers_mut() = headers(lines);
        let settled = settle_length(&mut response).is_ok();
        let actual: Vec<_> = response.headers().get_all(CONTENT_LENGTH).iter().collect();
        assert_eq!(settled, expected.is_some(), "{status} {lines:?}");
        if let Some(expected) = expected {
            let expected: Vec<_> =
                Some(expected).filter(|value| !value.is_empty()).into_iter().collect();
            assert_eq!(actual, expected, "{status} {lines:?}");
        }
    }

    #[test]
    fn a_response_says_its_length_once_or_is_refused() {
        let length = "content-length";
        check_length(200, &[], Some(""));
        check_length(200, &[(length, "5")], Some("5"));
        check_length(200, &[(length, "5"), (length, "5")], Some("5"));
        check_length(200, &[(length, "5, 5")], Some("5"));
        check_length(304, &[(length, "5")], Some("5"));
        check_length(204, &[(length, "0")], Some("0"));
        for bad in ["", "x", "-1", "+1", "5,", "5 5", "5, 6", "99999999999999999999"] {
            check_length(200, &[(length, bad)], None);
        }
        check_length(200, &[(length, "5"), (length, "6")], None);
        check_length(200, &[(length, "5"), ("transfer-encoding", "chunked")], None);
        check_length(204, &[(length, "5")], None);
        check_length(204, &[("transfer-encoding", "chunked")], None);
    }
}
