use std::time::UNIX_EPOCH;

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::policy::{
    Options, age::Received, request::admit, response::ResponseFacts, storable::storable,
};

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + secs)
}

fn request(fields: &[(&'static str, &str)]) -> RequestFacts {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    admit(&Method::GET, &headers, false, &Options::default()).unwrap()
}

/// The terms of a response with this `Cache-Control` that was created and received at zero.
fn terms(cache_control: &str) -> Terms {
    let mut headers = HeaderMap::new();
    headers.insert("cache-control", HeaderValue::from_str(cache_control).unwrap());
    headers.insert("etag", HeaderValue::from_static("\"v1\""));
    let facts = ResponseFacts::read(http::StatusCode::OK, &headers, &[]);
    let received = Received { requested_at: at(0), at: at(0), date: Some(at(0)), age: None };
    let options = Options::default();
    storable(&request(&[]), &HeaderMap::new(), &facts, &received, &options).unwrap().terms
}

fn fresh(ttl: u64) -> Reuse {
    Reuse::Fresh { ttl: Duration::from_secs(ttl) }
}

fn stale(by: u64, allowed: StaleUse) -> Reuse {
    Reuse::Stale { by: Duration::from_secs(by), allowed }
}

const VALIDATE: Reuse = Reuse::Validate { fresh: false };
const REQUEST: Reuse = Reuse::Validate { fresh: true };

#[track_caller]
#[allow(clippy::needless_pass_by_value)] // Each row reads as a table.
fn check(response: &str, asked: &str, age: u64, expected: Reuse) {
    let fields = [("cache-control", asked)];
    let request = request(if asked.is_empty() { &[] } else { &fields });
    assert_eq!(
        reuse(&terms(response), &request, at(age)),
        expected,
        "{response:?} {asked:?} {age}"
    );
}

#[test]
fn a_response_is_stale_once_its_age_reaches_its_lifetime() {
    check("max-age=60", "", 0, fresh(60));
    check("max-age=60", "", 59, fresh(1));
    check("max-age=60", "", 60, VALIDATE);
    check("max-age=0", "", 0, VALIDATE);
    check("max-age=60, s-maxage=10", "", 10, VALIDATE);
}

#[test]
fn no_cache_is_always_validated() {
    check("max-age=60, no-cache", "", 0, VALIDATE);
    check("max-age=60, no-cache", "max-stale", 0, VALIDATE);
    check("max-age=60, no-cache=\"x-a\"", "", 0, fresh(60));
}

#[test]
fn a_request_may_ask_for_more() {
    check("max-age=60", "no-cache", 0, REQUEST);
    check("max-age=60", "max-age=0", 0, REQUEST);
    check("max-age=60", "max-age=10", 9, fresh(51));
    check("max-age=60", "max-age=10", 10, REQUEST);
    check("max-age=60", "max-age=100", 59, fresh(1));
    check("max-age=60", "max-age=100", 60, VALIDATE);
    check("max-age=60", "min-fresh=10", 50, fresh(10));
    check("max-age=60", "min-fresh=10", 51, REQUEST);
    check("max-age=60", "max-age=x", 1, REQUEST);
    check("max-age=60", "min-fresh=x", 1, REQUEST);
}

#[test]
fn a_request_may_accept_stale_responses() {
    check("max-age=60", "max-stale", 1_000, stale(940, StaleUse::MaxStale));
    check("max-age=60", "max-stale=10", 70, stale(10, StaleUse::MaxStale));
    check("max-age=60", "max-stale=10", 71, VALIDATE);
    check("max-age=60", "max-stale=x", 61, VALIDATE);
    check("max-age=60", "max-age=10, max-stale=20", 30, fresh(30));
    check("max-age=60", "max-age=10, max-stale=20", 31, REQUEST);
    check("max-age=60", "min-fresh=10, max-stale", 51, REQUEST);
    check("max-age=60", "no-cache, max-stale", 70, VALIDATE);
}

#[test]
fn what_forbids_stale_use_forbids_every_kind_of_it() {
    for forbidding in ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"] {
        let response =
            format!("max-age=60, stale-while-revalidate=99, stale-if-error=99, {forbidding}");
        check(&response, "", 61, VALIDATE);
        check(&response, "max-stale", 61, VALIDATE);
        let asked = request(&[("cache-control", "stale-if-error=99")]);
        for failed in [Failed::Answered, Failed::Disconnected] {
            let options = Options::default();
            let allowed = stale_if_error(&terms(&response), &asked, failed, at(61), &options);
            assert_eq!(allowed, None, "{response}");
        }
    }
}

#[test]
fn a_stale_response_is_served_while_it_is_refreshed() {
    let response = "max-age=60, stale-while-revalidate=30";
    check(response, "", 60, stale(0, StaleUse::WhileRevalidate));
    check(response, "", 89, stale(29, StaleUse::WhileRevalidate));
    check(response, "", 90, VALIDATE);
    check(response, "max-age=60", 70, VALIDATE);
    check(response, "min-fresh=1", 70, VALIDATE);
    check(response, "no-cache", 70, VALIDATE);
}

/// What a failing origin is covered with: for how long it was stale, and what allows it.
fn covered(response: &str, asked: &str, failed: Failed, age: u64) -> Option<(u64, StaleUse)> {
    let asked = request(&[("cache-control", asked)]);
    let options = Options::default();
    let allowed = stale_if_error(&terms(response), &asked, failed, at(age), &options);
    allowed.map(|(by, allowed)| (by.as_secs(), allowed))
}

#[test]
fn a_stale_response_is_served_when_the_origin_fails() {
    let check = |response: &str, asked: &str, age: u64, expected: Option<u64>| {
        let expected = expected.map(|by| (by, StaleUse::IfError));
        let actual = covered(response, asked, Failed::Answered, age);
        assert_eq!(actual, expected, "{response} {asked:?} {age}");
    };
    check("max-age=60, stale-if-error=30", "x", 89, Some(29));
    check("max-age=60, stale-if-error=30", "x", 90, None);
    check("max-age=60", "stale-if-error=30", 89, Some(29));
    check("max-age=60", "x", 61, None);
    check("max-age=60, stale-if-error=30", "no-cache", 70, None);
}

#[test]
fn a_cache_that_is_disconnected_sends_what_it_has_for_an_hour() {
    let check = |response: &str, asked: &str, age: u64, expected: Option<u64>| {
        let expected = expected.map(|by| (by, StaleUse::Disconnected));
        let actual = covered(response, asked, Failed::Disconnected, age);
        assert_eq!(actual, expected, "{response} {asked:?} {age}");
    };
    check("max-age=60", "x", 61, Some(1));
    check("max-age=60", "x", 60 + 3_599, Some(3_599));
    check("max-age=60", "x", 60 + 3_600, None);
    check("max-age=0", "x", 1, None);
    for asked in ["max-age=600", "min-fresh=1", "no-cache"] {
        check("max-age=60", asked, 61, None);
    }
    for forbidding in ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"] {
        check(&format!("max-age=60, {forbidding}"), "x", 61, None);
    }
    let stated = covered("max-age=60, stale-if-error=30", "x", Failed::Disconnected, 70);
    assert_eq!(stated, Some((10, StaleUse::IfError)));
}

#[test]
fn credentials_share_only_what_says_that_it_is_shared() {
    let check = |response: &str, name: &'static str, expected: Reuse| {
        let request = request(&[(name, "secret")]);
        assert_eq!(reuse(&terms(response), &request, at(0)), expected, "{response} {name}");
    };
    let authorization = || Reuse::Refused(Refusal::Authorization);
    check("max-age=60", "authorization", authorization());
    check("max-age=60, public", "authorization", fresh(60));
    check("max-age=60, s-maxage=60", "authorization", fresh(60));
    check("max-age=60, must-revalidate", "authorization", fresh(60));
    check("max-age=60, proxy-revalidate", "authorization", authorization());
    check("max-age=60", "cookie", Reuse::Refused(Refusal::Cookie));
    check("max-age=60, must-revalidate", "cookie", Reuse::Refused(Refusal::Cookie));
    check("max-age=60, public", "cookie", fresh(60));
    check("max-age=60, s-maxage=60", "cookie", fresh(60));
}

#[test]
fn a_response_is_kept_for_its_stale_windows_and_to_be_validated() {
    let kept = |response: &str, hour: u64| {
        terms(response).worth_keeping(at(10), Duration::from_secs(hour)).as_secs()
    };
    assert_eq!(kept("max-age=60", 0), 50);
    assert_eq!(kept("max-age=60", 3_600), 3_650);
    assert_eq!(kept("max-age=60, stale-if-error=9000", 3_600), 9_050);
    assert_eq!(kept("max-age=5", 7), 7);
}

fn rank(reuse: &Reuse) -> u8 {
    match reuse {
        Reuse::Fresh { .. } => 2,
        Reuse::Stale { .. } => 1,
        Reuse::Validate { .. } | Reuse::Refused(_) => 0,
    }
}

proptest! {
    #[test]
    fn growing_older_never_makes_a_response_fresher(
        max_age: u16,
        swr: u16,
        age: u16,
        more: u16,
        asked in "|max-stale=[0-9]{1,4}|max-age=[0-9]{1,4}",
    ) {
        let terms = terms(&format!("max-age={max_age}, stale-while-revalidate={swr}"));
        let request = request(&[("cache-control", &asked)]);
        let rank_at = |age: u64| rank(&reuse(&terms, &request, at(age)));
        prop_assert!(rank_at(age.into()) >= rank_at(u64::from(age) + u64::from(more)));
    }

    #[test]
    fn what_is_called_fresh_is_fresh(max_age: u16, age: u16, asked in "[a-z0-9=, -]{0,30}") {
        let terms = terms(&format!("max-age={max_age}"));
        if !asked.contains("no-store") {
            let request = request(&[("cache-control", &asked)]);
            if let Reuse::Fresh { ttl } = reuse(&terms, &request, at(age.into())) {
                prop_assert_eq!(ttl.as_secs() + u64::from(age), u64::from(max_age));
                prop_assert!(!ttl.is_zero());
            }
        }
    }
}
