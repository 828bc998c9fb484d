//! What the fuzzers call: one function for each kind of field that comes from outside.
//!
//! For this project's own tests. Each function takes any bytes and panics if one of its laws is
//! broken. The targets in `fuzz/` call them with bytes that libFuzzer makes; the tests below call
//! them in every run, with the kept corpora and with changes of them, so that no tool is needed.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken law is a panic")]

#[cfg(test)]
#[path = "../../tachikoma-cache/src/fuzzing/mutate.rs"]
mod mutate;
#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{AGE, CACHE_CONTROL, CONTENT_RANGE, DATE, EXPIRES, RANGE, VARY},
};

use crate::{
    key::Target,
    policy::{
        Options,
        age::{self, Received, current_age, initial_age},
        date::{self, DateField},
        decision::Refusal,
        directives::{Directive, RequestDirectives, ResponseDirectives, directives},
        freshness::freshness,
        normal::normal_value,
        range::{Held, MAX_RANGES, Part, content_range, part},
        request::{RequestFacts, admit},
        response::ResponseFacts,
        reuse::{Reuse, reuse},
        storable::{Storable, storable},
        vary::{Selector, Vary},
    },
};

/// A field that no rule knows.
const UNRELATED: HeaderName = HeaderName::from_static("x-unrelated");

/// The lines of `data` as those of one field; what no field can hold is left out.
fn lines(data: &[u8], name: &HeaderName) -> HeaderMap {
    let values = data
        .split(|byte| *byte == b'\n')
        .filter_map(|line| HeaderValue::from_bytes(line).ok().map(|value| (name.clone(), value)));
    let mut headers = HeaderMap::new();
    headers.extend(values.take(64));
    headers
}

/// The lines of `data` as a head: `name: value` each.
fn head(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.trim_ascii()), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

/// The pieces of `data` between bytes 0xFF; the last one is all that is left.
fn pieces<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut pieces = data.splitn(N, |byte| *byte == 0xFF);
    std::array::from_fn(|_| pieces.next().unwrap_or_default())
}

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

fn with(headers: &HeaderMap, name: &HeaderName, value: &'static str) -> HeaderMap {
    let mut more = headers.clone();
    more.append(name, HeaderValue::from_static(value));
    more
}

fn get(headers: &HeaderMap) -> Option<RequestFacts> {
    admit(&Method::GET, headers, false, &Options::default()).ok()
}

fn stored(headers: &HeaderMap) -> Result<Storable, Refusal> {
    let response = ResponseFacts::read(StatusCode::OK, headers, &Options::default().targeted);
    let received = Received {
        requested_at: at(1_700_000_000),
        at: at(1_700_000_000),
        date: response.date,
        age: response.age,
    };
    let facts = get(&HeaderMap::new()).expect("a plain request");
    storable(&facts, &HeaderMap::new(), &response, &received, &Options::default())
}

/// `Cache-Control`, by lines: a directive that is printed is read again as it was; one that is
/// unknown, one that is there already and the order of lines decide nothing; `no-store` stores
/// nothing; and no directive that is added makes anything fresh for longer.
pub fn cache_control(data: &[u8]) {
    let headers = lines(data, &CACHE_CONTROL);
    for line in headers.get_all(CACHE_CONTROL) {
        let read = directives(line);
        let printed: Vec<String> = read.iter().map(print).collect();
        let printed = HeaderValue::from_str(&printed.join(", "))
            .or_else(|_| HeaderValue::from_bytes(printed.join(", ").as_bytes()))
            .expect("what was in a field fits into one");
        assert_eq!(directives(&printed), read, "{line:?} {printed:?}");
    }
    let (read, asked) = (ResponseDirectives::read(&headers), RequestDirectives::read(&headers));
    let more = with(&headers, &CACHE_CONTROL, "x-fuzz=\"no-store, max-age=0\"");
    let ResponseDirectives { mut unknown, .. } = ResponseDirectives::read(&more);
    assert_eq!(unknown.pop().map(|(name, _)| name).as_deref(), Some("x-fuzz"));
    let known = ResponseDirectives { unknown, ..ResponseDirectives::read(&more) };
    assert_eq!(known, read);
    if headers.contains_key(CACHE_CONTROL) {
        assert_eq!(RequestDirectives::read(&more), asked);
    }
    let decided = stored(&headers);
    assert_eq!(stored(&more), decided, "{headers:?}");

    let lines: Vec<_> = headers.get_all(CACHE_CONTROL).iter().cloned().collect();
    let named = |line: HeaderValue| (CACHE_CONTROL, line);
    let mut reversed = HeaderMap::new();
    reversed.extend(lines.iter().rev().cloned().map(named));
    let mut doubled = headers.clone();
    doubled.extend(lines.into_iter().map(named));
    assert_eq!(stored(&doubled).map(|stored| stored.terms), stored(&headers).map(|it| it.terms));
    assert_eq!(stored(&reversed).map(|stored| stored.terms), stored(&headers).map(|it| it.terms));
    assert_eq!(RequestDirectives::read(&doubled), asked);
    assert_eq!(RequestDirectives::read(&reversed), asked);

    let forbidden = stored(&with(&headers, &CACHE_CONTROL, "no-store"));
    assert!(forbidden.is_err() || read.must_understand, "{headers:?}");
    for stricter in ["max-age=5", "s-maxage=5", "private", "no-cache", "must-revalidate"] {
        let before = ResponseDirectives::read(&headers);
        let after = ResponseDirectives::read(&with(&headers, &CACHE_CONTROL, stricter));
        assert!(before.max_age.is_none_or(|before| after.max_age <= Some(before)));
        assert!(before.s_maxage.is_none_or(|before| after.s_maxage <= Some(before)));
        assert!(after.forbids_stale() || !before.forbids_stale());
    }
}

/// A directive as a field holds it.
fn print(directive: &Directive) -> String {
    let Directive { name, value } = directive;
    let Some(value) = value else { return name.clone() };
    let mut printed = format!("{name}=\"");
    for c in value.chars() {
        if c == '"' || c == '\\' {
            printed.push('\\');
        }
        printed.push(c);
    }
    printed.push('"');
    printed
}

/// `Vary`, and two requests: each selects its own response, selection goes both ways, a field that
/// `Vary` does not name changes nothing, `*` anywhere selects never, and a value in its normal form
/// is in its normal form.
pub fn vary(data: &[u8]) {
    let [vary, one, other] = pieces(data);
    let (headers, one, other) = (lines(vary, &VARY), head(one), head(other));
    let read = Vary::read(&headers);
    let has_star = headers
        .get_all(VARY)
        .iter()
        .any(|line| line.as_bytes().split(|b| *b == b',').any(|name| name.trim_ascii() == b"*"));
    assert_eq!(read == Vary::Star, has_star, "{headers:?}");
    let Ok(names) = read.with(&[]) else {
        assert!(stored(&headers).is_err());
        return;
    };
    for normalize in [true, false] {
        let own = Selector::of(names.clone(), &one, normalize);
        let others = Selector::of(names.clone(), &other, normalize);
        let (Ok(own), Ok(others)) = (own, others) else { continue };
        assert!(own.matches(&one) && others.matches(&other), "{own:?} {others:?}");
        assert_eq!(own.matches(&other), others.matches(&one), "{own:?} {others:?}");
        assert_eq!(own.matches(&other), own == others, "{own:?} {others:?}");
        if !names.contains(&UNRELATED) {
            let more = with(&other, &UNRELATED, "1");
            assert_eq!(own.matches(&more), own.matches(&other));
        }
    }
    for (name, value) in &one {
        let normal = normal_value(name, value.as_bytes());
        assert_eq!(normal_value(name, &normal), normal, "{name}: {value:?}");
    }
}

/// `Range` against a stored part, another part of the same, and `Content-Range`: what is answered
/// are the bytes that were asked for, and none that are not held; what two parts make together is
/// what both had; and what is printed is read again as it was.
pub fn byte_range(data: &[u8]) {
    let [shape, ranges, content] = pieces(data);
    let (first, second) = shape.split_at(shape.len() / 2);
    let total = shape.first().map_or(0, |byte| u64::from(*byte));
    let (own, newer) = (held(first, total), held(second, total));
    let mut request = lines(ranges, &RANGE);
    if let Some(line) = request.get(RANGE).cloned() {
        request.insert(RANGE, line);
    }
    let combined = own.with(&newer);
    for held in [&own, &newer, &combined.held] {
        check_part(&request, held, total);
    }
    let mut bytes = Vec::new();
    for piece in &combined.pieces {
        let part = if piece.is_newer { &newer } else { &own };
        let place =
            usize::try_from(piece.part.start).unwrap()..usize::try_from(piece.part.end).unwrap();
        bytes.extend_from_slice(&content_of(part)[place]);
    }
    assert_eq!(bytes, content_of(&combined.held), "{own:?} {newer:?}");
    for byte in 0..total {
        let is_in = |held: &Held| held.spans.iter().any(|span| span.contains(&byte));
        assert_eq!(is_in(&combined.held), is_in(&own) || is_in(&newer), "{byte} {combined:?}");
    }

    let headers = lines(content, &CONTENT_RANGE);
    if let Some((range, total)) = content_range(&headers) {
        assert!(range.start < range.end && total.is_none_or(|total| range.end <= total));
        let total = total.map_or("*".to_owned(), |total| total.to_string());
        let printed = format!("bytes {}-{}/{total}", range.start, range.end - 1);
        let again = lines(printed.as_bytes(), &CONTENT_RANGE);
        assert_eq!(content_range(&again), content_range(&headers), "{headers:?}");
    }
}

/// A part of a representation of so many bytes, each the lowest byte of its position.
fn held(shape: &[u8], total: u64) -> Held {
    let mut spans: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    for lengths in shape.chunks_exact(2) {
        let start = at + u64::from(lengths[0] % 32) + u64::from(!spans.is_empty());
        let end = (start + 1 + u64::from(lengths[1] % 32)).min(total);
        if start >= end {
            break;
        }
        spans.push(start..end);
        at = end;
    }
    Held { spans, end: Some(total), total: Some(total) }
}

fn content_of(held: &Held) -> Vec<u8> {
    held.spans.iter().cloned().flatten().map(|at| at.to_le_bytes()[0]).collect()
}

fn check_part(request: &HeaderMap, held: &Held, total: u64) {
    let content = content_of(held);
    assert_eq!(held.length(), Some(content.len() as u64), "{held:?}");
    if let Some(gap) = held.gap() {
        assert!(gap.start < gap.end && gap.end <= total, "{held:?}");
        assert!(held.spans.iter().all(|span| span.end <= gap.start || gap.end <= span.start));
        assert_eq!(content.len() as u64 + (gap.end - gap.start), total, "{held:?}");
    }
    match part(request, &HeaderMap::new(), held) {
        Part::Whole => assert!(held.is_whole(), "{held:?} {request:?}"),
        Part::Missing => assert!(!held.is_whole(), "{held:?} {request:?}"),
        Part::Unsatisfiable => assert!(request.contains_key(RANGE)),
        Part::Bytes(parts) => {
            assert!(!parts.is_empty() && parts.len() <= MAX_RANGES);
            let sum: u64 = parts.iter().map(|(range, _)| range.end - range.start).sum();
            assert!(parts.len() == 1 || sum <= total, "{parts:?}");
            for (range, place) in parts {
                assert!(range.start < range.end && range.end <= total, "{range:?} {request:?}");
                let expected: Vec<u8> = range.map(|at| at.to_le_bytes()[0]).collect();
                assert_eq!(content.get(place), Some(&expected[..]), "{held:?} {request:?}");
            }
        }
    }
}

/// `Date`, `Age` and `Expires`: a date in any case is the same, and what is printed is read again
/// as it was; only the first `Age` counts and none is beyond the limit; nothing grows younger, and
/// nothing that is stale becomes fresh by waiting.
pub fn age_date(data: &[u8]) {
    let [dates, ages, expires] = pieces(data);
    let mut headers = lines(dates, &DATE);
    headers.extend(lines(ages, &AGE));
    headers.extend(lines(expires, &EXPIRES));
    for text in [dates, expires].map(String::from_utf8_lossy) {
        let read = date::parse(&text);
        assert_eq!(date::parse(&text.to_ascii_uppercase()), read, "{text:?}");
        assert_eq!(date::parse(&text.to_ascii_lowercase()), read, "{text:?}");
        if let Some(read) = read {
            assert_eq!(date::parse(&httpdate::fmt_http_date(read)), Some(read), "{text:?}");
        }
    }
    let age = age::read(&headers);
    assert_eq!(
        age::read(&with(&headers, &AGE, "7")),
        if headers.contains_key(AGE) { age } else { Some(Duration::from_secs(7)) }
    );
    if let Some(age) = age {
        assert!(age <= Duration::from_secs(1 << 31));
        let printed = lines(age.as_secs().to_string().as_bytes(), &AGE);
        assert_eq!(age::read(&printed), Some(age));
    }
    let now = at(1_700_000_000);
    let date = date::read(&headers, &DATE).valid();
    let received = Received { requested_at: now, at: now, date, age };
    let initial = initial_age(&received);
    assert!(initial >= age.unwrap_or_default());
    let response = ResponseFacts::read(StatusCode::OK, &headers, &Options::default().targeted);
    let lifetime = freshness(&response, now, &Options::default()).lifetime;
    if response.expires == DateField::Invalid {
        assert_eq!(lifetime, Duration::ZERO, "{headers:?}");
    }
    let Ok(stored) = stored(&headers) else { return };
    let facts = get(&HeaderMap::new()).expect("a plain request");
    let mut was_fresh = true;
    for waited in [0, 1, 59, 3_600, 1 << 32] {
        let then = now + Duration::from_secs(waited);
        assert_eq!(current_age(initial, now, then), initial + Duration::from_secs(waited));
        let is_fresh = matches!(reuse(&stored.terms, &facts, then), Reuse::Fresh { .. });
        assert!(was_fresh || !is_fresh, "{headers:?} after {waited} s");
        was_fresh = is_fresh;
    }
}

/// The head of a request, its target in the first line, and that of another one: a field that no
/// rule knows and the order of fields change nothing, the key that is printed is read again as it
/// was, and two requests have one key exactly if they name one resource.
pub fn request_head(data: &[u8]) {
    let [one, other] = pieces(data);
    let one = target(one);
    if let (Some(one), Some(other)) = (&one, target(other)) {
        assert_eq!(one == &other, one.key() == other.key(), "{one:?} {other:?}");
        assert_eq!(one == &other, one.key().name == other.key().name, "{one:?} {other:?}");
    }
    let Some(one) = one else { return };
    assert!(one.url().ends_with(one.path()) || one.url().contains('?'), "{one:?}");
    assert!(one.path().starts_with('/') && !one.host().is_empty(), "{one:?}");
    // A longer one is no URI, though its parts are.
    if one.url().len() < 60_000 {
        assert_eq!(one.uri().as_ref().and_then(Target::from_uri).as_ref(), Some(&one));
        assert_eq!(Target::parse(one.url()).as_ref(), Some(&one));
    }
}

fn target(data: &[u8]) -> Option<Target> {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, rest) = data.split_at(end);
    let uri = Uri::try_from(line).ok()?;
    let headers = head(rest);
    let target = Target::of(&uri, &headers, &Extensions::new());
    let more = with(&headers, &UNRELATED, "1");
    assert_eq!(Target::of(&uri, &more, &Extensions::new()), target);
    let mut names: Vec<&HeaderName> = headers.keys().collect();
    names.reverse();
    let values = |name: &HeaderName| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
    let mut reversed = HeaderMap::new();
    for name in names {
        reversed.extend(values(name).into_iter().map(|value| (name.clone(), value)));
    }
    for method in [Method::GET, Method::HEAD, Method::POST] {
        let admitted = |headers| admit(&method, headers, false, &Options::default());
        let facts = admitted(&headers);
        if !headers.contains_key(&UNRELATED) && !facts.as_ref().is_ok_and(|it| it.oversize) {
            let more = admitted(&more).map(|it| RequestFacts { oversize: false, ..it });
            assert_eq!(more, facts, "{headers:?}");
        }
        let sorted = |mut facts: RequestFacts| {
            facts.denied.sort_by(|a, b| a.as_str().cmp(b.as_str()));
            facts.must_select.sort_by(|a, b| a.as_str().cmp(b.as_str()));
            facts
        };
        assert_eq!(admitted(&reversed).map(sorted), facts.map(sorted), "{headers:?}");
    }
    target
}
