#![allow(clippy::cast_possible_truncation, reason = "positions below a hundred")]
#![allow(clippy::single_range_in_vec_init, reason = "one range is meant")]

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_str(value).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

/// These bytes of a response that is stored whole.
fn bytes(parts: &[Range<u64>]) -> Part {
    let place = |at: u64| usize::try_from(at).unwrap();
    let parts = parts.iter().map(|part| (part.clone(), place(part.start)..place(part.end)));
    Part::Bytes(parts.collect())
}

#[track_caller]
#[allow(clippy::needless_pass_by_value)] // Each row reads as a table.
fn check(range: &str, expected: Part) {
    let actual = part(&headers(&[("range", range)]), &HeaderMap::new(), &Held::whole(10));
    assert_eq!(actual, expected, "{range:?}");
}

#[test]
fn one_range_of_bytes_is_a_part() {
    check("bytes=0-0", bytes(&[0..1]));
    check("bytes=2-5", bytes(&[2..6]));
    check("bytes=2-", bytes(&[2..10]));
    check("bytes=-3", bytes(&[7..10]));
    check("bytes=-99", bytes(&[0..10]));
    check("bytes=9-99", bytes(&[9..10]));
    check("Bytes=0-18446744073709551615", bytes(&[0..10]));
    check("bytes=0-99999999999999999999999", bytes(&[0..10]));
}

#[test]
fn a_range_behind_the_end_is_unsatisfiable() {
    check("bytes=10-", Part::Unsatisfiable);
    check("bytes=10-20", Part::Unsatisfiable);
    check("bytes=-0", Part::Unsatisfiable);
    check("bytes=99999999999999999999999-", Part::Unsatisfiable);
    let empty = part(&headers(&[("range", "bytes=0-")]), &HeaderMap::new(), &Held::whole(0));
    assert_eq!(empty, Part::Unsatisfiable);
}

#[test]
fn what_is_no_range_of_bytes_is_answered_whole() {
    for range in [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=a-b",
        "bytes=1-2,x",
        "bytes=1-2,4-3",
        "bytes=,",
        "lines=1-2",
        "bytes=+1-2",
        "bytes=1-2-3",
        "bytes 1-2",
        "bytes=0x1-2",
    ] {
        check(range, Part::Whole);
    }
    let twice = headers(&[("range", "bytes=0-1"), ("range", "bytes=2-3")]);
    assert_eq!(part(&twice, &HeaderMap::new(), &Held::whole(10)), Part::Whole);
    assert_eq!(part(&HeaderMap::new(), &HeaderMap::new(), &Held::whole(10)), Part::Whole);
}

#[test]
fn if_range_needs_the_same_strong_validator() {
    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    let check = |condition: &str, stored: &[(&'static str, &str)], is_part: bool| {
        let request = headers(&[("range", "bytes=0-1"), ("if-range", condition)]);
        let expected = if is_part { bytes(&[0..2]) } else { Part::Whole };
        assert_eq!(
            part(&request, &headers(stored), &Held::whole(10)),
            expected,
            "{condition} {stored:?}"
        );
    };
    check("\"a\"", &[("etag", "\"a\"")], true);
    check("\"a\"", &[("etag", "\"b\"")], false);
    check("W/\"a\"", &[("etag", "W/\"a\"")], false);
    check("\"a\"", &[("etag", "W/\"a\"")], false);
    check("\"a\"", &[], false);
    check(OLD, &[("last-modified", OLD), ("date", NEW)], true);
    check(OLD, &[("last-modified", OLD), ("date", OLD)], false);
    check(OLD, &[("last-modified", OLD)], false);
    check(NEW, &[("last-modified", OLD), ("date", NEW)], false);
    check("x", &[("etag", "\"a\"")], false);
}

#[test]
fn several_ranges_are_several_parts_up_to_sixteen() {
    check("bytes=1-2,4-5", bytes(&[1..3, 4..6]));
    check("bytes=4-5 , 1-2,, -1", bytes(&[4..6, 1..3, 9..10]));
    check("bytes=0-0,20-30", bytes(&[0..1]));
    check("bytes=20-30,40-", Part::Unsatisfiable);
    let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
    check(&many(10), bytes(&vec![0..1; 10]));
    check(&many(11), Part::Whole);
    let long = part(&headers(&[("range", &many(16))]), &HeaderMap::new(), &Held::whole(100));
    assert_eq!(long, bytes(&vec![0..1; 16]));
    let longer = part(&headers(&[("range", &many(17))]), &HeaderMap::new(), &Held::whole(100));
    assert_eq!(longer, Part::Whole);
}

fn held(content_range: &str, length: u64) -> Option<Held> {
    Held::part(&headers(&[("content-range", content_range)]), length)
}

#[test]
fn a_part_is_what_content_range_says() {
    let part = |start, end, total| Some(Held { spans: vec![start..end], end: total, total });
    assert_eq!(held("bytes 4-9/20", 6), part(4, 10, Some(20)));
    assert_eq!(held("Bytes 0-9/10", 10), Some(Held::whole(10)));
    assert_eq!(held("bytes 4-9/*", 6), part(4, 10, None));
    for invalid in [
        "bytes */10",
        "bytes 9-4/20",
        "bytes 4-9/9",
        "bytes 4-/20",
        "bytes 4-9",
        "lines 4-9/20",
        "bytes 4-99999999999999999999/*",
        "bytes 4-18446744073709551615/20",
        "",
    ] {
        assert_eq!(held(invalid, 6), None, "{invalid}");
    }
    let multipart =
        [("content-range", "bytes 4-9/20"), ("content-type", "Multipart/ByteRanges; boundary=x")];
    assert_eq!(Held::part(&headers(&multipart), 6), None);
    assert_eq!(held("bytes 4-9/20", 0), None);
}

#[test]
fn where_a_part_contradicts_itself_what_came_counts() {
    let last = Held { spans: Vec::from([4..9]), end: Some(9), total: None };
    assert_eq!(held("bytes 4-9/10", 5), Some(last.clone()));
    let middle = Held { spans: Vec::from([4..9]), end: None, total: None };
    assert_eq!(held("bytes 4-9/20", 5), Some(middle));
    let tag = Validators { etag: ETag::read(&headers(&[("etag", "\"a\"")])), last_modified: None };
    assert!(!last.combines(&tag, &last, &tag));
}

/// What a request gets of bytes 4 to 8 and 12 to 15 of twenty.
#[track_caller]
#[allow(clippy::needless_pass_by_value)] // Each row reads as a table.
fn check_parts(range: &str, expected: Part) {
    let held = Held { spans: vec![4..9, 12..16], end: Some(20), total: Some(20) };
    let actual = part(&headers(&[("range", range)]), &HeaderMap::new(), &held);
    assert_eq!(actual, expected, "{range:?}");
}

#[test]
fn of_parts_only_what_is_held_is_an_answer() {
    check_parts("bytes=4-8", Part::Bytes(vec![(4..9, 0..5)]));
    check_parts("bytes=13-14", Part::Bytes(vec![(13..15, 6..8)]));
    check_parts("bytes=5-5,12-12", Part::Bytes(vec![(5..6, 1..2), (12..13, 5..6)]));
    check_parts("bytes=20-", Part::Unsatisfiable);
    for missing in ["bytes=3-4", "bytes=8-9", "bytes=8-12", "bytes=-1", "bytes=0-", "x", ""] {
        check_parts(missing, Part::Missing);
    }
}

fn tagged(tag: &str) -> Validators {
    Validators { etag: ETag::read(&headers(&[("etag", tag)])), last_modified: None }
}

#[test]
fn parts_are_combined_only_under_one_strong_validator_and_length() {
    let (first, second) = (held("bytes 0-4/10", 5).unwrap(), held("bytes 5-9/10", 5).unwrap());
    let check = |own: &str, other: &str, expected: bool| {
        let actual = first.combines(&tagged(own), &second, &tagged(other));
        assert_eq!(actual, expected, "{own} {other}");
    };
    check("\"a\"", "\"a\"", true);
    check("\"a\"", "\"b\"", false);
    check("W/\"a\"", "W/\"a\"", false);
    check("", "", false);
    let longer = held("bytes 5-9/11", 5).unwrap();
    assert!(!first.combines(&tagged("\"a\""), &longer, &tagged("\"a\"")));
    let unknown = held("bytes 5-9/*", 5).unwrap();
    assert!(!unknown.combines(&tagged("\"a\""), &unknown, &tagged("\"a\"")));
}

#[test]
fn what_is_combined_is_in_order_and_the_newer_bytes_win() {
    let (first, second) = (held("bytes 0-5/10", 6).unwrap(), held("bytes 4-9/10", 6).unwrap());
    let Combined { pieces, held } = first.with(&second);
    assert!(held.is_whole());
    let pieces: Vec<_> = pieces.into_iter().map(|piece| (piece.part, piece.is_newer)).collect();
    assert_eq!(pieces, [(0..4, false), (0..2, true), (2..6, true)]);
}

/// The bytes of a representation in which each byte is its own position.
fn bytes_of(held: &Held) -> Vec<u8> {
    held.spans.iter().flat_map(Clone::clone).map(|at| at as u8).collect()
}

fn spans() -> impl Strategy<Value = Held> {
    prop::collection::btree_set(0_u64..100, 0..40).prop_map(|positions| {
        let mut spans: Vec<Range<u64>> = Vec::new();
        for at in positions {
            match spans.last_mut().filter(|last| last.end == at) {
                Some(last) => last.end += 1,
                None => spans.push(at..at + 1),
            }
        }
        Held { spans, end: Some(100), total: Some(100) }
    })
}

proptest! {
    #[test]
    fn each_byte_of_an_answer_is_the_one_that_was_asked_for(
        held in spans(),
        line in "bytes=([0-9]{0,2}-[0-9]{0,3},?){1,4}",
    ) {
        let stored = bytes_of(&held);
        if let Part::Bytes(parts) = part(&headers(&[("range", &line)]), &HeaderMap::new(), &held) {
            for (range, place) in parts {
                let expected: Vec<u8> = range.map(|at| at as u8).collect();
                prop_assert_eq!(&stored[place], &expected[..]);
            }
        }
    }

    #[test]
    fn two_parts_make_exactly_what_either_holds(older in spans(), newer in spans()) {
        let (old_bytes, new_bytes) = (bytes_of(&older), bytes_of(&newer));
        let Combined { pieces, held } = older.with(&newer);
        let mut bytes = Vec::new();
        for Piece { part, is_newer } in pieces {
            let of = if is_newer { &new_bytes } else { &old_bytes };
            bytes.extend_from_slice(&of[part.start as usize..part.end as usize]);
        }
        prop_assert_eq!(&bytes, &bytes_of(&held));
        let all: std::collections::BTreeSet<u8> =
            old_bytes.iter().chain(&new_bytes).copied().collect();
        prop_assert_eq!(bytes, all.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_range_of_the_whole_lies_within_it(
        line in "bytes=[0-9]{0,3}-[0-9]{0,3}",
        length in 0_u64..500,
    ) {
        let request = headers(&[("range", &line)]);
        if let Part::Bytes(parts) = part(&request, &HeaderMap::new(), &Held::whole(length)) {
            for (range, _) in parts {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }
    }
}

#[test]
fn ranges_of_a_part_are_together_no_more_than_the_part() {
    for total in ["*", "1000"] {
        let range = format!("bytes 0-99/{total}");
        let held = Held::part(&headers(&[("content-range", &range)]), 100).unwrap();
        let part = |range: &str| part(&headers(&[("range", range)]), &HeaderMap::new(), &held);
        assert_eq!(part("bytes=0-49,50-99"), bytes(&[0..50, 50..100]), "{total}");
        assert_eq!(part("bytes=0-99,0-0"), Part::Missing, "{total}");
        let sixteen = format!("bytes={}", ["0-99"; 16].join(","));
        assert_eq!(part(&sixteen), Part::Missing, "{total}");
    }
}
