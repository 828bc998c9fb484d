use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::policy::Forwarded;

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

fn get(fields: &[(&str, &str)], options: &Options) -> Result<RequestFacts, Bypass> {
    admit(&Method::GET, &headers(fields), false, options)
}

#[track_caller]
fn check_bypass(fields: &[(&str, &str)], expected: Bypass) {
    assert_eq!(get(fields, &Options::default()), Err(expected), "{fields:?}");
}

#[test]
fn only_get_and_head_use_the_cache() {
    let admit = |method: Method| admit(&method, &HeaderMap::new(), false, &Options::default());
    assert!(!admit(Method::GET).unwrap().head);
    assert!(admit(Method::HEAD).unwrap().head);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PURGE", "QUERY", "get"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(admit(method.clone()), Err(Bypass::Method), "{method}");
    }
}

#[test]
fn what_the_cache_cannot_answer_passes_it_by() {
    check_bypass(&[("content-length", "4")], Bypass::RequestBody);
    check_bypass(&[("transfer-encoding", "chunked")], Bypass::RequestBody);
    check_bypass(&[("upgrade", "websocket")], Bypass::Upgrade);
    check_bypass(&[("if-match", "\"a\"")], Bypass::Precondition);
    check_bypass(&[("if-unmodified-since", "x")], Bypass::Precondition);
    check_bypass(&[("cache-control", "No-Store")], Bypass::RequestNoStore);
    let with_body = admit(&Method::GET, &HeaderMap::new(), true, &Options::default());
    assert_eq!(with_body, Err(Bypass::RequestBody));
    assert!(get(&[("content-length", "0")], &Options::default()).is_ok());
}

#[test]
fn only_a_get_asks_for_a_range() {
    let range = headers(&[("range", "bytes=0-1")]);
    let has_range = |method| admit(&method, &range, false, &Options::default()).unwrap().has_range;
    assert!(has_range(Method::GET) && !has_range(Method::HEAD));
}

fn denied(fields: &[(&str, &str)], options: &Options) -> Vec<String> {
    let facts = get(fields, options).unwrap();
    facts.denied.iter().map(ToString::to_string).collect()
}

#[test]
fn headers_that_override_or_forward_are_denied_by_default() {
    for name in [
        "X-Forwarded-Host",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Anything",
        "Forwarded",
        "X-Host",
        "X-Forwarded-Server",
        "X-HTTP-Host-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-Now-Route-Matches",
        "X-NextJS-Data",
        "X-Middleware-Subrequest",
        "X-Invoke-Path",
        "Purpose",
        "Sec-Purpose",
        "X-Real-IP",
    ] {
        assert_eq!(denied(&[(name, "x")], &Options::default()), [name.to_lowercase()]);
    }
}

#[test]
fn a_proxy_in_front_can_be_trusted_with_forwarding_but_not_with_overrides() {
    let fields = [("x-forwarded-host", "a"), ("x-forwarded-for", "b"), ("x-rewrite-url", "/c")];
    let keyed = Options { forwarded: Forwarded::Keyed, ..Options::default() };
    assert_eq!(denied(&fields, &keyed), ["x-rewrite-url"]);
    assert_eq!(always_selecting(&headers(&fields), &keyed), ["x-forwarded-host"]);
    let own = Options { forwarded: Forwarded::Overwritten, ..Options::default() };
    assert_eq!(denied(&fields, &own), ["x-rewrite-url"]);
    assert!(always_selecting(&headers(&fields), &own).is_empty());
}

#[test]
fn a_header_in_the_key_is_not_denied() {
    let name = HeaderName::from_static("sec-purpose");
    let options = Options { key_headers: vec![name.clone()], ..Options::default() };
    assert!(denied(&[("sec-purpose", "prefetch")], &options).is_empty());
    assert_eq!(always_selecting(&HeaderMap::new(), &options), [name]);
}

#[test]
fn a_huge_head_is_marked() {
    let options = Options::default();
    assert!(!get(&[("x-a", &"a".repeat(8_000))], &options).unwrap().oversize);
    assert!(get(&[("x-a", &"a".repeat(8_192))], &options).unwrap().oversize);
    let many: Vec<_> = ["x-a", "x-b", "x-c", "x-d", "x-e"].map(|n| (n, "a".repeat(7_000))).into();
    let many: Vec<_> = many.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert!(get(&many, &options).unwrap().oversize);
}

#[test]
fn cookies_count_unless_the_operator_says_that_they_do_not() {
    assert!(get(&[("cookie", "a=b")], &Options::default()).unwrap().has_cookie);
    let options = Options { ignore_cookies: true, ..Options::default() };
    assert!(!get(&[("cookie", "a=b")], &options).unwrap().has_cookie);
}

proptest! {
    #[test]
    fn an_unrelated_header_changes_nothing(name in "x-[a-e]{1,9}", value in "[ -~]{0,30}") {
        let options = Options::default();
        prop_assert_eq!(get(&[(&name, &value)], &options), get(&[], &options));
    }
}
