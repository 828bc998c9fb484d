use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
    }
    headers
}

fn response(line: &str) -> ResponseDirectives {
    ResponseDirectives::read(&headers(&[line]))
}

fn request(line: &str) -> RequestDirectives {
    RequestDirectives::read(&headers(&[line]))
}

#[allow(clippy::unnecessary_wraps)] // Each directive it is compared with may be absent.
fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[track_caller]
fn check_max_age(line: &str, expected: Option<Duration>) {
    assert_eq!(response(line).max_age, expected, "{line:?}");
}

#[test]
fn max_age_is_read_in_every_spelling() {
    check_max_age("max-age=60", secs(60));
    check_max_age("MAX-AGE=60", secs(60));
    check_max_age("Max-Age=\"60\"", secs(60));
    check_max_age("  max-age = 60  ", secs(60));
    check_max_age("public,max-age=60,foo", secs(60));
    check_max_age(",, ,max-age=060,", secs(60));
    check_max_age("foo=\"a, max-age=1\", max-age=60", secs(60));
    check_max_age("xmax-age=60", None);
    check_max_age("max-age-x=60", None);
}

#[test]
fn a_value_that_is_no_number_counts_as_zero() {
    for value in ["", "-1", "+5", "1.5", "60a", "a60", "'60'", "\"60", "60;x=1", "0x10", "1e3", "٣"]
    {
        check_max_age(&format!("max-age={value}"), secs(0));
    }
    check_max_age("max-age", secs(0));
}

#[test]
fn a_value_too_large_is_two_to_the_31() {
    check_max_age("max-age=2147483648", secs(1 << 31));
    check_max_age("max-age=2147483649", secs(1 << 31));
    check_max_age("max-age=99999999999999999999999999", secs(1 << 31));
}

#[test]
fn of_two_values_the_stricter_one_holds() {
    check_max_age("max-age=60, max-age=0", secs(0));
    check_max_age("max-age=0, max-age=60", secs(0));
    check_max_age("max-age=60, max-age=x", secs(0));
    let read = ResponseDirectives::read(&headers(&["s-maxage=9", "public", "s-maxage=7"]));
    assert_eq!((read.s_maxage, read.public), (secs(7), true));
    assert_eq!(request("min-fresh=3, min-fresh=5").min_fresh, secs(5));
    let ten = Some(MaxStale::For(Duration::from_secs(10)));
    assert_eq!(request("max-stale=10, max-stale").max_stale, ten);
    assert_eq!(request("max-stale, max-stale=10").max_stale, ten);
}

#[test]
fn a_prohibition_is_seen_however_it_is_written() {
    for line in [
        "no-store",
        "NO-STORE",
        "No-Store=1",
        "max-age=60,no-store",
        "max-age=60 ,\tno-store",
        "foo=\"bar, no-store",
        "foo=\"a\\\"b\", no-store",
        "foo\", no-store, \"",
        "foo=a\", no-store, \"",
        "no-store\u{e9}, no-store",
    ] {
        assert!(response(line).no_store, "{line:?}");
    }
    for line in ["foo=\"no-store\"", "no-storex", "foo=\"a, no-store, b\""] {
        assert!(!response(line).no_store, "{line:?}");
    }
    assert_eq!(response("PRIVATE").private, Scope::Whole);
}

#[test]
fn private_and_no_cache_may_name_fields() {
    let fields = |line: &str| response(line).private;
    let named = |names: &[&'static str]| {
        Scope::Fields(names.iter().map(|name| HeaderName::from_static(name)).collect())
    };
    assert_eq!(fields("private=\"x-user\""), named(&["x-user"]));
    assert_eq!(fields("private=\"X-User, x-b\""), named(&["x-user", "x-b"]));
    assert_eq!(fields("private=x-user"), named(&["x-user"]));
    assert_eq!(fields("private=\"x-a\", private=\"x-b\""), named(&["x-a", "x-b"]));
    for whole in [
        "private",
        "private=",
        "private=\"\"",
        "private=\"a b\"",
        "private=\"x-a\", private",
        "private, private=\"x-a\"",
        "private=\"content-type\"",
        "private=\"vary\"",
    ] {
        assert_eq!(fields(whole), Scope::Whole, "{whole:?}");
    }
    assert_eq!(response("no-cache=\"x-user\"").no_cache, named(&["x-user"]));
}

#[test]
fn unknown_directives_are_kept() {
    let read = response("community=\"UCI\", max-age=1, Foo");
    assert_eq!(
        read.unknown,
        [("community".to_owned(), Some("UCI".to_owned())), ("foo".to_owned(), None)]
    );
}

#[test]
fn pragma_counts_only_without_cache_control() {
    let mut headers = HeaderMap::new();
    headers.insert(PRAGMA, HeaderValue::from_static("foo, No-Cache"));
    assert!(RequestDirectives::read(&headers).no_cache);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
    assert!(!RequestDirectives::read(&headers).no_cache);
}

#[test]
fn the_directives_of_a_request_are_read() {
    let read = request("no-store, no-cache, only-if-cached, max-age=5, max-stale");
    assert!(read.no_store && read.no_cache && read.only_if_cached);
    assert_eq!((read.max_age, read.max_stale), (secs(5), Some(MaxStale::Any)));
    assert_eq!(request("max-stale=x").max_stale, Some(MaxStale::For(Duration::ZERO)));
    assert_eq!(request("min-fresh=x").min_fresh, secs(1 << 31));
}

#[test]
fn four_directives_forbid_stale_reuse() {
    for line in ["must-revalidate", "proxy-revalidate", "s-maxage=5", "no-cache"] {
        assert!(response(line).forbids_stale(), "{line:?}");
    }
    for line in ["max-age=5", "public", "no-cache=\"x-a\"", "immutable"] {
        assert!(!response(line).forbids_stale(), "{line:?}");
    }
}

proptest! {
    #[test]
    fn no_line_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(line) = HeaderValue::from_bytes(&bytes) {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, line);
            let _ = (ResponseDirectives::read(&headers), RequestDirectives::read(&headers));
        }
    }

    #[test]
    fn no_store_is_seen_after_any_other_line(line in "[ -~]{0,40}") {
        prop_assert!(ResponseDirectives::read(&headers(&[&line, "no-store"])).no_store);
    }

    #[test]
    fn more_lines_never_lengthen_a_lifetime(a: u32, more in "[ -~]{0,40}") {
        let line = format!("max-age={a}");
        let alone = response(&line).max_age;
        prop_assert!(ResponseDirectives::read(&headers(&[&line, &more])).max_age <= alone);
    }
}
