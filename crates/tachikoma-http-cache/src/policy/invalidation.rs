//! Decides what an unsafe request makes invalid. Never removes anything itself.
//!
//! RFC 9111 §4.4: the target, and what `Location` and `Content-Location` name on the same origin.

use http::{
    HeaderMap, Method, StatusCode, Uri,
    header::{CONTENT_LOCATION, LOCATION},
};

/// Whether a method may change something ([RFC 9110 §9.2.1]). An unknown one may.
///
/// [RFC 9110 §9.2.1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
pub fn is_unsafe(method: &Method) -> bool {
    let safe = ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH"];
    !safe.contains(&method.as_str())
}

/// The URIs that the answer to an unsafe request makes invalid ([RFC 9111 §4.4]); none unless
/// it is a 2xx or 3xx.
///
/// `target` is absolute. Another origin's URIs are never among them: a response may not empty
/// the cache of someone else's.
///
/// [RFC 9111 §4.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.4
pub fn invalidated(
    method: &Method,
    target: &Uri,
    status: StatusCode,
    response: &HeaderMap,
) -> Vec<Uri> {
    if !is_unsafe(method) || !(status.is_success() || status.is_redirection()) {
        return Vec::new();
    }
    let mut uris = vec![target.clone()];
    for name in [LOCATION, CONTENT_LOCATION] {
        for value in response.get_all(name) {
            let named = value.to_str().ok().and_then(|reference| resolve(target, reference.trim()));
            uris.extend(named.filter(|uri| is_same_origin(target, uri) && uri != target));
        }
    }
    uris
}

/// Whether the answer to a POST is what a GET of its target would bring ([RFC 9110 §9.3.3]): it is
/// a
/// 200, and says so by a `Content-Location` that is the target.
///
/// Such an answer may be stored if it also states how long it is fresh, as any answer does.
///
/// [RFC 9110 §9.3.3]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.3
pub fn represents_target(target: &Uri, status: StatusCode, response: &HeaderMap) -> bool {
    let mut lines = response.get_all(CONTENT_LOCATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return false;
    };
    let named = line.to_str().ok().and_then(|reference| resolve(target, reference.trim()));
    status == StatusCode::OK && named.is_some_and(|named| named == *target)
}

fn is_same_origin(a: &Uri, b: &Uri) -> bool {
    let same_authority = match (a.authority(), b.authority()) {
        (Some(a), Some(b)) => a.as_str().eq_ignore_ascii_case(b.as_str()),
        (None, None) => true,
        _ => false,
    };
    a.scheme() == b.scheme() && same_authority
}

/// Resolves a reference against an absolute URI ([RFC 3986 §5.2]); its fragment is dropped.
///
/// [RFC 3986 §5.2]: https://www.rfc-editor.org/rfc/rfc3986#section-5.2
pub fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next()?;
    let scheme = base.scheme_str()?;
    if has_scheme(reference) {
        return reference.parse().ok();
    }
    if reference.starts_with("//") {
        return format!("{scheme}:{reference}").parse().ok();
    }
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let (path, query) = if path.is_empty() {
        (base.path().to_owned(), query.or(base.query()))
    } else if path.starts_with('/') {
        (without_dot_segments(path), query)
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        (without_dot_segments(&format!("{folder}/{path}")), query)
    };
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let authority = base.authority()?;
    format!("{scheme}://{authority}{path}{query}").parse().ok()
}

fn has_scheme(reference: &str) -> bool {
    reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

/// RFC 3986 §5.2.4, of a path that starts with `/`.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_resolve(reference: &str, expected: &str) {
        let base = "http://a/b/c/d?q".parse().unwrap();
        let actual = resolve(&base, reference).map(|uri| uri.to_string());
        assert_eq!(actual.as_deref(), Some(expected), "{reference:?}");
    }

    #[test]
    fn references_resolve_as_the_rfc_shows() {
        check_resolve("g", "http://a/b/c/g");
        check_resolve("./g", "http://a/b/c/g");
        check_resolve("g/", "http://a/b/c/g/");
        check_resolve("/g", "http://a/g");
        check_resolve("//g", "http://g/");
        check_resolve("?y", "http://a/b/c/d?y");
        check_resolve("g?y", "http://a/b/c/g?y");
        check_resolve("#s", "http://a/b/c/d?q");
        check_resolve("g#s", "http://a/b/c/g");
        check_resolve("", "http://a/b/c/d?q");
        check_resolve(".", "http://a/b/c/");
        check_resolve("..", "http://a/b/");
        check_resolve("../g", "http://a/b/g");
        check_resolve("../../../g", "http://a/g");
        check_resolve("/./g/../h", "http://a/h");
        check_resolve("https://x/y", "https://x/y");
    }

    fn uris(method: &str, status: u16, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let target = "http://shop.test/cart?id=1".parse().unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let uris = invalidated(&method, &target, status, &headers);
        uris.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unsafe_request_that_succeeds_invalidates_its_target() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "FROBNICATE"] {
            for status in [200, 204, 301, 302, 303] {
                assert_eq!(uris(method, status, &[]), ["http://shop.test/cart?id=1"], "{method}");
            }
            for status in [400, 404, 409, 500, 503] {
                assert!(uris(method, status, &[]).is_empty(), "{method} {status}");
            }
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(uris(method, 200, &[]).is_empty(), "{method}");
        }
    }

    #[test]
    fn only_the_same_origin_goes_with_it() {
        let own = [("location", "/orders/7"), ("content-location", "http://SHOP.test/orders")];
        assert_eq!(
            uris("POST", 201, &own),
            ["http://shop.test/cart?id=1", "http://shop.test/orders/7", "http://SHOP.test/orders"]
        );
        for foreign in
            ["http://other.test/", "//other.test/", "https://shop.test/", "http://shop.test:81/"]
        {
            assert_eq!(uris("POST", 201, &[("location", foreign)]).len(), 1, "{foreign}");
        }
    }

    #[test]
    fn a_post_represents_its_target_only_where_content_location_names_it() {
        let target: Uri = "http://shop.test/cart?id=1".parse().unwrap();
        let check = |status, lines: &[&'static str], expected| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_LOCATION, HeaderValue::from_static(line));
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(represents_target(&target, status, &headers), expected, "{lines:?}");
        };
        check(200, &["/cart?id=1"], true);
        check(200, &["http://shop.test/cart?id=1"], true);
        check(200, &["?id=1"], true);
        check(200, &["/cart"], false);
        check(200, &["http://other.test/cart?id=1"], false);
        check(200, &["/cart?id=1", "/cart?id=1"], false);
        check(200, &[], false);
        check(201, &["/cart?id=1"], false);
        check(404, &["/cart?id=1"], false);
    }

    proptest! {
        #[test]
        fn what_a_reference_resolves_to_never_panics_and_keeps_no_dots(reference in "[ -~]{0,40}") {
            let base = "http://a/b/c/d?q".parse().unwrap();
            if let Some(uri) = resolve(&base, &reference).filter(|_| !has_scheme(&reference)) {
                let dots = uri.path().split('/').any(|segment| segment == "." || segment == "..");
                prop_assert!(!dots || reference.starts_with("//"));
            }
        }
    }
}
