//! Fields of an origin as they come in practice and as they should not: what is a hit afterwards,
//! through the whole server (catalogue §7, HTTP in from the origin).

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Origin, Tachikoma, get, send};

/// One row: the lines of the head, and whether the second request is a hit.
type Row = (&'static str, bool);

/// Each row is a resource of one origin; each is asked for twice.
#[track_caller]
fn check(lines: &[(String, bool)]) {
    let heads: Vec<String> = lines.iter().map(|(lines, _)| lines.clone()).collect();
    let origin = Origin::answering(move |seen| {
        let row: usize = seen.target().trim_start_matches('/').parse().unwrap();
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\nok", heads[row]).into_bytes()
    });
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    let mut wrong = String::new();
    for (row, (lines, expected)) in lines.iter().enumerate() {
        let target = format!("/{row}");
        let first = get(server.address(), &target);
        let second = get(server.address(), &target);
        for answer in [&first, &second] {
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{lines:?}");
        }
        let said = second.header("cache-status").unwrap_or_default();
        if said.contains(";hit") != *expected {
            let _ = writeln!(wrong, "{lines:?} should be a hit: {expected}, is {said}");
        }
    }
    assert_eq!(wrong, "");
}

fn field(name: &str, rows: &[Row], more: &str) -> Vec<(String, bool)> {
    let line = |value: &str| {
        let next = format!("\r\n{name}: ");
        format!("{name}: {}\r\n{more}", value.replace(" | ", &next))
    };
    rows.iter().map(|(value, hit)| (line(value), *hit)).collect()
}

#[test]
fn cache_control_in_every_spelling() {
    check(&field(
        "Cache-Control",
        &[
            ("max-age=60", true),
            ("MAX-AGE=60", true),
            ("Max-Age=60", true),
            ("max-age=\"60\"", true),
            ("max-age=60,", true),
            (",, max-age=60", true),
            ("  max-age=60  ", true),
            ("max-age=060", true),
            ("max-age=2147483648", true),
            ("max-age=99999999999999999999", true),
            ("s-maxage=60", true),
            ("s-maxage=60, max-age=0", true),
            ("public, max-age=60", true),
            ("max-age=60, unknown", true),
            ("max-age=60, unknown=\"a, no-store\"", true),
            ("x=\"\\\"\", max-age=60", true),
            ("nostore, max-age=60", true),
            ("only-if-cached, max-age=60", true),
            ("immutable, max-age=60", true),
            ("must-revalidate, max-age=60", true),
            ("proxy-revalidate, max-age=60", true),
            ("no-transform, max-age=60", true),
            ("must-understand, max-age=60", true),
            ("stale-while-revalidate=60, max-age=60", true),
            ("private=\"x\", max-age=60", true),
            ("public | max-age=60", true),
            ("", false),
            ("public", false),
            ("no-store", false),
            ("NO-STORE, max-age=60", false),
            ("max-age=60 | no-store", false),
            ("max-age=60,no-store", false),
            ("no-cache, max-age=60", false),
            ("private, max-age=60", false),
            ("PRIVATE,max-age=60", false),
            ("max-age=0", false),
            ("max-age=-1", false),
            ("max-age=+60", false),
            ("max-age=abc", false),
            ("max-age=", false),
            ("max-age", false),
            ("max-age='60'", false),
            ("max-age=0x3c", false),
            ("max-age=60, max-age=0", false),
            ("max-age=0, max-age=60", false),
            ("s-maxage=0, max-age=60", false),
            ("max-age=60; no-store", false),
            ("no-store=\"x\", max-age=60", false),
        ],
        "",
    ));
}

#[test]
fn vary_that_selects_nothing_is_never_a_hit() {
    let many: Vec<String> = (0..200).map(|n| format!("x-{n}")).collect();
    let many: &'static str = (many.join(", ") + ", *").leak();
    check(&field(
        "Vary",
        &[
            ("*", false),
            ("x, *", false),
            ("x | *", false),
            (many, false),
            ("caf\u{e9}", false),
            ("a b", false),
            ("x", true),
        ],
        "Cache-Control: max-age=60\r\n",
    ));
}

#[test]
fn age_as_others_count_it() {
    check(&field(
        "Age",
        &[
            ("0", true),
            ("59", true),
            (" 5 ", true),
            ("0005", true),
            ("0, 100", true),
            ("0 | 100", true),
            ("-5", true),
            ("five", true),
            ("", true),
            ("1.5", true),
            ("60", false),
            ("61", false),
            ("100, 0", false),
            ("100 | 0", false),
            ("2147483647", false),
            ("2147483648", false),
            ("99999999999999999999", false),
        ],
        "Cache-Control: max-age=60\r\n",
    ));
}

fn date(from_now: i64) -> String {
    #[expect(clippy::disallowed_methods, reason = "the origin's clock is the machine's")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = now.checked_add_signed(from_now).unwrap();
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at))
}

#[test]
fn expires_in_three_formats_and_many_wrong_ones() {
    let now = date(0);
    let rows = [
        ("Sun, 06 Nov 2039 08:49:37 GMT", true),
        ("Sunday, 06-Nov-39 08:49:37 GMT", true),
        ("Sun Nov  6 08:49:37 2039", true),
        ("Fri, 31 Dec 9999 23:59:59 GMT", true),
        ("Sun, 06 Nov 1994 08:49:37 GMT", false),
        ("0", false),
        ("-1", false),
        ("never", false),
        ("", false),
        ("Sun, 06 Nov 2039 08:49:37 +0000", false),
        ("2039-11-06T08:49:37Z", false),
        ("Sun, 06 Nov 2039", false),
        ("Sun, 99 Nov 2039 08:49:37 GMT", false),
        ("Sun, 06 Nov 99999 08:49:37 GMT", false),
        ("Sun, 06 Nov 2039 25:49:37 GMT", false),
    ];
    let mut lines = field("Expires", &rows, &format!("Date: {now}\r\n"));
    lines.push((format!("Date: {now}\r\nExpires: {now}\r\n"), false));
    lines.push((format!("Expires: {}\r\nCache-Control: max-age=0\r\n", date(600)), false));
    lines.push((format!("Expires: {}\r\nCache-Control: max-age=60\r\n", date(-600)), true));
    check(&lines);
}

#[test]
fn a_date_that_is_wrong_is_not_believed_and_an_old_one_counts() {
    let line = |value: &str| format!("Cache-Control: max-age=60\r\n{value}");
    let dated = |from_now| line(&format!("Date: {}\r\n", date(from_now)));
    check(&[
        (line(""), true),
        (dated(0), true),
        (dated(3_600), true),
        (dated(-30), true),
        (dated(-3_600), false),
        (line("Date: yesterday\r\n"), true),
        (line("Date:\r\n"), true),
        (line("Date: 0\r\n"), true),
    ]);
}

#[test]
fn an_entity_tag_is_sent_back_as_it_came_or_not_at_all() {
    let long = format!("\"{}\"", "x".repeat(8_000));
    for (etag, is_sent) in [
        ("\"a\"", true),
        ("W/\"a\"", true),
        ("\"\"", true),
        ("\"a,b\"", true),
        ("\"caf\u{e9}\"", true),
        (long.as_str(), true),
        ("a", false),
        ("\"a", false),
        ("", false),
        ("\"a\" \"b\"", false),
        ("W/", false),
        ("w/\"a\"", false),
    ] {
        let line = etag.to_owned();
        let origin = Origin::answering(move |_| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=0\r\n";
            format!("{head}ETag: {line}\r\n\r\nok").into_bytes()
        });
        let server = Tachikoma::serve(&["--upstream", &origin.url()]);
        for _ in 0..2 {
            assert_eq!(get(server.address(), "/").text(), "ok", "{etag:?}");
        }
        let seen = origin.seen();
        let sent = seen[1].all("if-none-match");
        // A tag that is none may go unused; it is never changed on its way.
        let good = if is_sent { sent == [etag] } else { sent.is_empty() || sent == [etag] };
        assert!(good, "{etag:?}: {sent:?}");
    }
}

#[test]
fn heads_of_any_number_of_request_fields_pass_or_are_a_431() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url()]);
    // With `Host` that is one more.
    for (count, status) in [(0, 200), (1, 200), (99, 200), (100, 431), (101, 431), (10_000, 431)] {
        let fields: String = "X: y\r\n".repeat(count);
        let head = format!("GET /{count} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        assert_eq!(send(server.address(), head).status, status, "{count}");
    }
}
