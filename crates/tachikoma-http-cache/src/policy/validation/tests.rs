use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

const NOW: u64 = 784_111_777;
const OLDER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const EXAMPLE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const NEWER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

fn validators(fields: &[(&'static str, &str)]) -> Validators {
    Validators::read(&headers(fields))
}

#[track_caller]
fn check_etag(lines: &[&str], expected: Option<(bool, &str)>) {
    let fields: Vec<_> = lines.iter().map(|line| ("etag", *line)).collect();
    let expected = expected.map(|(weak, opaque)| ETag { weak, opaque: opaque.into() });
    assert_eq!(ETag::read(&headers(&fields)), expected, "{lines:?}");
}

#[test]
fn an_etag_is_one_quoted_tag() {
    check_etag(&["\"a\""], Some((false, "a")));
    check_etag(&["W/\"a\""], Some((true, "a")));
    check_etag(&["\"\""], Some((false, "")));
    check_etag(&["\"é\""], Some((false, "é")));
    let long = "x".repeat(8_192);
    check_etag(&[&format!("\"{long}\"")], Some((false, &long)));
    for line in ["a", "", "W/", "W/a", "w/\"a\"", "\"a", "\"a b\"", "\"a\" \"b\"", "\"a\", \"b\""] {
        check_etag(&[line], None);
    }
    check_etag(&["\"a\"", "\"a\""], None);
}

#[test]
fn tags_compare_strongly_only_if_both_are_strong() {
    let tag = |weak, opaque: &str| ETag { weak, opaque: opaque.into() };
    for (a, b, strong, weak) in [
        (tag(true, "1"), tag(true, "1"), false, true),
        (tag(true, "1"), tag(true, "2"), false, false),
        (tag(true, "1"), tag(false, "1"), false, true),
        (tag(false, "1"), tag(false, "1"), true, true),
    ] {
        assert_eq!((a.strongly_equals(&b), a.weakly_equals(&b)), (strong, weak), "{a:?} {b:?}");
    }
}

#[test]
fn the_question_carries_what_is_stored_and_replaces_the_clients_own() {
    let stored = [("etag", "W/\"v1\""), ("last-modified", EXAMPLE)];
    let mut request = headers(&[("if-none-match", "\"theirs\""), ("accept", "*/*")]);
    ask(&mut request, &headers(&stored), &validators(&stored));
    assert_eq!(request["if-none-match"], "W/\"v1\"");
    assert_eq!(request["if-modified-since"], EXAMPLE);

    let stored = [("etag", "broken"), ("last-modified", EXAMPLE)];
    let mut request = headers(&[("if-none-match", "\"theirs\"")]);
    ask(&mut request, &headers(&stored), &validators(&stored));
    assert!(!request.contains_key("if-none-match"));
    assert_eq!(request["if-modified-since"], EXAMPLE);
}

#[track_caller]
fn check_confirms(
    stored: &[(&'static str, &str)],
    answer: &[(&'static str, &str)],
    expected: bool,
) {
    let actual = confirms(&validators(stored), &validators(answer));
    assert_eq!(actual, expected, "{stored:?} {answer:?}");
}

#[test]
fn a_304_about_another_version_confirms_nothing() {
    let stored = [("etag", "\"v1\""), ("last-modified", EXAMPLE)];
    check_confirms(&stored, &[("etag", "\"v1\"")], true);
    check_confirms(&stored, &[("etag", "W/\"v1\"")], true);
    check_confirms(&stored, &[("etag", "\"v2\"")], false);
    check_confirms(&stored, &[("etag", "\"v2\""), ("last-modified", EXAMPLE)], false);
    check_confirms(&stored, &[("last-modified", EXAMPLE)], true);
    check_confirms(&stored, &[("last-modified", NEWER)], false);
    check_confirms(&stored, &[], true);
    check_confirms(&[("last-modified", EXAMPLE)], &[("etag", "\"v1\"")], false);
    check_confirms(&[("etag", "W/\"v1\"")], &[("etag", "W/\"v1\"")], true);
    check_confirms(&[("etag", "W/\"v1\"")], &[("etag", "\"v1\"")], false);
}

#[test]
fn a_304_updates_the_head_but_not_what_describes_the_body() {
    let mut stored = headers(&[
        ("cache-control", "max-age=1"),
        ("content-length", "5"),
        ("content-encoding", "gzip"),
        ("content-type", "text/plain"),
        ("x-kept", "old"),
        ("x-many", "1"),
        ("x-many", "2"),
    ]);
    let answer = headers(&[
        ("cache-control", "max-age=60"),
        ("content-length", "0"),
        ("content-encoding", "br"),
        ("content-type", "text/html"),
        ("x-many", "3"),
        ("x-many", "4"),
        ("x-new", "1"),
        ("set-cookie", "a=b"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ]);
    update(&mut stored, answer);
    let expected = headers(&[
        ("cache-control", "max-age=60"),
        ("content-length", "5"),
        ("content-encoding", "gzip"),
        ("content-type", "text/html"),
        ("x-kept", "old"),
        ("x-many", "3"),
        ("x-many", "4"),
        ("x-new", "1"),
    ]);
    assert_eq!(stored, expected);
}

#[track_caller]
fn check_unchanged(
    request: &[(&'static str, &str)],
    stored: &[(&'static str, &str)],
    expected: bool,
) {
    let date = Some(UNIX_EPOCH + Duration::from_secs(NOW));
    let actual = is_unchanged_for(&headers(request), StatusCode::OK, &validators(stored), date);
    assert_eq!(actual, expected, "{request:?} {stored:?}");
}

#[test]
fn if_none_match_is_compared_weakly_with_each_tag() {
    let stored = [("etag", "\"v1\"")];
    check_unchanged(&[("if-none-match", "\"v1\"")], &stored, true);
    check_unchanged(&[("if-none-match", "W/\"v1\"")], &stored, true);
    check_unchanged(&[("if-none-match", "\"a,b\" , W/\"v1\"")], &stored, true);
    check_unchanged(&[("if-none-match", "\"a\""), ("if-none-match", "\"v1\"")], &stored, true);
    check_unchanged(&[("if-none-match", "*")], &stored, true);
    check_unchanged(&[("if-none-match", "\"v2\"")], &stored, false);
    check_unchanged(&[("if-none-match", "v1")], &stored, false);
    check_unchanged(&[("if-none-match", "\"v1\"")], &[("last-modified", EXAMPLE)], false);
}

#[test]
fn if_modified_since_counts_only_without_if_none_match() {
    let stored = [("last-modified", EXAMPLE), ("etag", "\"v1\"")];
    check_unchanged(&[("if-modified-since", EXAMPLE)], &stored, true);
    check_unchanged(&[("if-modified-since", NEWER)], &stored, true);
    check_unchanged(&[("if-modified-since", OLDER)], &stored, false);
    check_unchanged(&[("if-modified-since", "yesterday")], &stored, false);
    let both = [("if-modified-since", NEWER), ("if-none-match", "\"v2\"")];
    check_unchanged(&both, &stored, false);
    check_unchanged(&[], &stored, false);
}

#[test]
fn without_last_modified_the_date_of_the_response_counts() {
    check_unchanged(&[("if-modified-since", EXAMPLE)], &[], true);
    check_unchanged(&[("if-modified-since", OLDER)], &[], false);
}

#[test]
fn only_a_200_becomes_a_304() {
    let request = headers(&[("if-none-match", "\"v1\"")]);
    let stored = validators(&[("etag", "\"v1\"")]);
    for status in [204, 301, 404, 500] {
        let status = StatusCode::from_u16(status).unwrap();
        assert!(!is_unchanged_for(&request, status, &stored, None), "{status}");
    }
}

#[test]
fn a_304_keeps_what_guides_caches() {
    let mut head = headers(&[
        ("cache-control", "max-age=1"),
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("date", EXAMPLE),
        ("etag", "\"v1\""),
        ("expires", NEWER),
        ("last-modified", OLDER),
        ("vary", "accept"),
    ]);
    not_modified_head(&mut head);
    let mut left: Vec<_> = head.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["cache-control", "date", "etag", "expires", "vary"]);
}

proptest! {
    #[test]
    fn no_line_makes_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(line) = HeaderValue::from_bytes(&bytes) {
            let mut headers = HeaderMap::new();
            headers.insert(ETAG, line.clone());
            let etag = ETag::read(&headers);
            let _ = names(&line, etag.as_ref());
            // A tag that can be read matches itself.
            prop_assert!(etag.is_none() || names(&line, etag.as_ref()));
        }
    }
}
