use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::policy::request::admit;

const NOW: SystemTime = UNIX_EPOCH;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn decide(
    options: &Options,
    request: &[(&'static str, &str)],
    status: u16,
    response: &[(&'static str, &str)],
) -> Result<Storable, Refusal> {
    let request = headers(request);
    let facts = admit(&Method::GET, &request, false, options).unwrap();
    let status = StatusCode::from_u16(status).unwrap();
    let response = ResponseFacts::read(status, &headers(response), &options.targeted);
    let received = Received { requested_at: NOW, at: NOW, date: response.date, age: response.age };
    storable(&facts, &request, &response, &received, options)
}

#[track_caller]
#[allow(clippy::needless_pass_by_value)] // Each row reads as a table.
fn check(response: &[(&'static str, &str)], expected: Result<(), Refusal>) {
    let actual = decide(&Options::default(), &[], 200, response).map(|_| ());
    assert_eq!(actual, expected, "{response:?}");
}

#[track_caller]
fn check_cc(cache_control: &str, expected: Result<(), Refusal>) {
    check(&[("cache-control", cache_control)], expected);
}

#[test]
fn directives_decide_however_they_are_written() {
    check_cc("max-age=60", Ok(()));
    check_cc("MAX-AGE=60", Ok(()));
    check_cc("s-maxage=60", Ok(()));
    check_cc("max-age=60, no-store", Err(Refusal::NoStore));
    check_cc("max-age=60, NO-STORE", Err(Refusal::NoStore));
    check_cc("max-age=60, private", Err(Refusal::Private));
    check_cc("max-age=60, Private=\"\"", Err(Refusal::Private));
    check_cc("max-age=60, private=\"x-user\"", Ok(()));
    check_cc("public, private, max-age=60", Err(Refusal::Private));
    check_cc("s-maxage=60, private", Err(Refusal::Private));
    check(&[("cache-control", "max-age=60"), ("cache-control", "no-store")], Err(Refusal::NoStore));
}

#[test]
fn must_understand_replaces_no_store_where_the_status_is_understood() {
    let decide = |status, cache_control| {
        let response = [("cache-control", cache_control)];
        super::tests::decide(&Options::default(), &[], status, &response).map(|_| ())
    };
    let both = "max-age=60, no-store, must-understand";
    assert_eq!(decide(200, both), Ok(()));
    assert_eq!(decide(299, both), Err(Refusal::NotUnderstood));
    assert_eq!(decide(299, "max-age=60, must-understand"), Err(Refusal::NotUnderstood));
    assert_eq!(decide(299, "max-age=60"), Ok(()));
}

#[test]
fn what_can_never_be_used_is_not_stored() {
    check(&[], Err(Refusal::NeverUsable));
    check(&[("etag", "\"v1\"")], Ok(()));
    check(&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], Ok(()));
    check(&[("etag", "v1")], Err(Refusal::NeverUsable));
    check_cc("max-age=0", Err(Refusal::NeverUsable));
    check(&[("cache-control", "max-age=0"), ("etag", "\"v1\"")], Ok(()));
    check_cc("max-age=60, no-cache", Err(Refusal::NeverUsable));
    let old = ("age", "60");
    check(&[("cache-control", "max-age=60, must-revalidate"), old], Err(Refusal::NeverUsable));
    // A request may accept it, and so may one that finds the origin gone.
    check(&[("cache-control", "max-age=60"), old], Ok(()));
    check(&[("cache-control", "max-age=60"), ("age", "59")], Ok(()));
    check(&[("expires", "0")], Err(Refusal::NeverUsable));
    check_cc("max-age=0, stale-while-revalidate=9", Ok(()));
    check_cc("max-age=0, stale-while-revalidate=9, must-revalidate", Err(Refusal::NeverUsable));
}

#[test]
fn a_cookie_is_never_stored() {
    let public = ("cache-control", "public, max-age=60, s-maxage=60");
    check(&[public, ("set-cookie", "a=b")], Err(Refusal::SetCookie));
    check(&[public, ("set-cookie2", "a=b")], Err(Refusal::SetCookie));
    let named = ("cache-control", "max-age=60, no-cache=\"set-cookie\"");
    check(&[named, ("set-cookie", "a=b")], Err(Refusal::SetCookie));
}

#[test]
fn vary_must_be_a_list_of_names_without_a_star() {
    let fresh = ("cache-control", "max-age=60");
    check(&[fresh, ("vary", "accept")], Ok(()));
    check(&[fresh, ("vary", "")], Ok(()));
    check(&[fresh, ("vary", "*")], Err(Refusal::VaryStar));
    check(&[fresh, ("vary", "accept, *")], Err(Refusal::VaryStar));
    check(&[fresh, ("vary", "accept"), ("vary", "*")], Err(Refusal::VaryStar));
    check(&[fresh, ("vary", "a b")], Err(Refusal::VaryInvalid));
}

#[test]
fn credentials_need_permission() {
    let check = |name, cache_control, expected: Result<(), Refusal>| {
        let response = [("cache-control", cache_control)];
        let actual = decide(&Options::default(), &[(name, "secret")], 200, &response);
        assert_eq!(actual.map(|_| ()), expected, "{name} {cache_control}");
    };
    check("authorization", "max-age=60", Err(Refusal::Authorization));
    check("authorization", "max-age=60, proxy-revalidate", Err(Refusal::Authorization));
    check("authorization", "max-age=60, public", Ok(()));
    check("authorization", "s-maxage=60", Ok(()));
    check("authorization", "max-age=60, must-revalidate", Ok(()));
    check("cookie", "max-age=60", Err(Refusal::Cookie));
    check("cookie", "max-age=60, must-revalidate", Err(Refusal::Cookie));
    check("cookie", "max-age=60, public", Ok(()));
    check("cookie", "s-maxage=60", Ok(()));
    let vary = [("cache-control", "max-age=60, public"), ("vary", "cookie")];
    let actual = decide(&Options::default(), &[("cookie", "a=b")], 200, &vary);
    assert_eq!(actual, Err(Refusal::VaryCredentials));
    assert!(decide(&Options::default(), &[], 200, &vary).is_ok());
}

#[test]
fn an_unkeyed_header_keeps_the_response_out_unless_vary_names_it() {
    let evil = [("x-forwarded-host", "evil")];
    let fresh = ("cache-control", "public, max-age=60");
    let name = HeaderName::from_static("x-forwarded-host");
    let options = Options::default();
    assert_eq!(decide(&options, &evil, 200, &[fresh]), Err(Refusal::Unkeyed(name.clone())));
    let stored = decide(&options, &evil, 200, &[fresh, ("vary", "X-Forwarded-Host")]).unwrap();
    assert_eq!(stored.selector.fields, [(name.clone(), Some(b"evil".to_vec()))]);
    let keyed = Options { key_headers: vec![name.clone()], ..Options::default() };
    let stored = decide(&keyed, &evil, 200, &[fresh]).unwrap();
    assert_eq!(stored.selector.fields, [(name, Some(b"evil".to_vec()))]);
}

#[test]
fn a_status_about_one_client_is_never_stored() {
    let fresh = [("cache-control", "public, max-age=60, s-maxage=60")];
    for status in [304, 401, 403, 407, 416, 429, 431] {
        let actual = decide(&Options::default(), &[], status, &fresh);
        assert_eq!(actual, Err(Refusal::Status), "{status}");
    }
}

#[test]
fn a_part_is_stored_only_if_it_was_asked_for_and_says_what_it_is() {
    let fresh = ("cache-control", "max-age=60");
    let part = [fresh, ("content-range", "bytes 0-4/10")];
    let asked = [("range", "bytes=0-4")];
    let options = Options::default();
    assert!(decide(&options, &asked, 206, &part).is_ok());
    assert_eq!(decide(&options, &[], 206, &part), Err(Refusal::Part));
    assert_eq!(decide(&options, &asked, 206, &[fresh]), Err(Refusal::Part));
}

#[test]
fn other_statuses_are_stored_when_they_say_how_long_they_are_fresh() {
    let fresh = [("cache-control", "max-age=60")];
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 503, 599] {
        assert!(decide(&Options::default(), &[], status, &fresh).is_ok(), "{status}");
        let etag = [("etag", "\"v1\""), ("last-modified", "Sun, 06 Nov 1960 08:49:37 GMT")];
        let unstated = decide(&Options::default(), &[], status, &etag).is_ok();
        assert_eq!(unstated, matches!(status, 200 | 203 | 204 | 301 | 308), "{status}");
    }
}

#[test]
fn an_error_is_kept_for_ten_seconds_at_most_and_not_after_an_oversize_request() {
    let fresh = [("cache-control", "max-age=3600"), ("etag", "\"v1\"")];
    let stored = decide(&Options::default(), &[], 404, &fresh).unwrap();
    assert_eq!(stored.terms.lifetime, Duration::from_secs(10));
    let huge = "a".repeat(9_000);
    let refused = decide(&Options::default(), &[("x-a", &huge)], 400, &fresh);
    assert_eq!(refused, Err(Refusal::Oversize));
    assert!(decide(&Options::default(), &[("x-a", &huge)], 200, &fresh).is_ok());
}

#[test]
fn the_answer_to_a_head_is_not_stored() {
    let facts = admit(&Method::HEAD, &HeaderMap::new(), false, &Options::default()).unwrap();
    let fields = headers(&[("cache-control", "max-age=9")]);
    let response = ResponseFacts::read(StatusCode::OK, &fields, &[]);
    let received = Received { requested_at: NOW, at: NOW, date: None, age: None };
    let refused = storable(&facts, &HeaderMap::new(), &response, &received, &Options::default());
    assert_eq!(refused, Err(Refusal::Head));
}

proptest! {
    #[test]
    fn nothing_beside_no_store_private_or_a_cookie_makes_a_response_storable(
        status in 200u16..600, more in "[ -~]{0,40}", which in 0usize..3,
    ) {
        prop_assume!(!more.to_lowercase().contains("must-understand"));
        let forbidding = [
            ("cache-control", "no-store"), ("cache-control", "private"), ("set-cookie", "a=b"),
        ][which];
        let public = ("cache-control", "public, max-age=60");
        let response = [public, ("cache-control", &more), forbidding];
        prop_assert!(decide(&Options::default(), &[], status, &response).is_err());
    }
}
