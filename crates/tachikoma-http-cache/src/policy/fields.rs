//! Decides which header fields of a response are kept when it is stored.
//!
//! RFC 9111 §3.1: what belongs to the connection is not. Stricter: neither is a cookie, nor a
//! measurement of the exchange that filled the cache.

use http::{
    HeaderMap, HeaderName,
    header::{
        AGE, CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};

use super::directives::ResponseDirectives;

/// Fields that mean something on one connection only, with those that speak to the nearest proxy
/// ([RFC 9110 §7.6.1], §11.7).
///
/// `Trailer` is not among them: it announces fields that go on with a body that goes on.
///
/// [RFC 9110 §7.6.1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
pub const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes the [hop-by-hop fields](HOP_BY_HOP) and those that `Connection` names.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        // What is not a field name names no field.
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&nominated) {
        headers.remove(name);
    }
}

/// Removes what is not stored with a response ([RFC 9111 §3.1]), also the fields that its
/// `private` and `no-cache` name (§5.2.2.4, §5.2.2.7).
///
/// `Age` is computed anew for each answer; `Server-Timing` would be a lie on a hit.
///
/// [RFC 9111 §3.1]: https://www.rfc-editor.org/rfc/rfc9111#section-3.1
pub fn remove_unstored(headers: &mut HeaderMap, directives: &ResponseDirectives) {
    remove_hop_by_hop(headers);
    for name in directives.private.fields().iter().chain(directives.no_cache.fields()) {
        headers.remove(name);
    }
    // Trailers are not stored, so none are announced.
    for name in [SET_COOKIE, AGE, TRAILER] {
        headers.remove(name);
    }
    for name in ["set-cookie2", "server-timing"] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_belongs_to_the_resource_is_stored() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("set-cookie", "a=b"),
            ("age", "7"),
            ("server-timing", "db;dur=3"),
            ("cache-control", "private=\"x-user\", no-cache=\"x-seen\""),
            ("x-user", "alice"),
            ("x-seen", "yes"),
            ("content-type", "text/plain"),
            ("x-kept", "1"),
            ("x-kept", "2"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let directives = ResponseDirectives::read(&headers);
        remove_unstored(&mut headers, &directives);
        let mut left: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        left.sort_unstable();
        assert_eq!(left, ["cache-control", "content-type", "x-kept", "x-kept"]);
    }
}
