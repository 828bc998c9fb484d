//! Bodies of every size, byte for byte: through a miss, a hit, a part and a validation, from both
//! stores. Among the sizes are those at which buffers, pages and limits begin and end.

use std::pin::Pin;

use axum::body::Body;
use bytes::Bytes;
use http::Method;
use http_body::Frame;

use crate::site::{Answer, MODES, Seen, Site, pause, request, response};

/// Around 4 KiB and 10.5 KiB begin what some caches keep apart, around 64 KiB what this one asks
/// for at once.
const SIZES: [usize; 15] = [
    0,
    1,
    2,
    100,
    4_095,
    4_096,
    4_097,
    10_751,
    10_752,
    10_753,
    65_535,
    65_536,
    65_537,
    1 << 20,
    5 << 20,
];

/// The largest body that is stored by default.
const LIMIT: usize = 8 << 20;

/// Sends its pieces one by one, so that each is on its way before the next, then ends or breaks
/// off.
struct Pieces {
    left: std::vec::IntoIter<Bytes>,
    breaks: bool,
    rests: u8,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.rests = (self.rests + 1) % 4;
        if self.rests != 0 {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(match self.left.next() {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None if self.breaks => Some(Err(std::io::ErrorKind::ConnectionReset.into())),
            None => None,
        })
    }
}

/// The same bytes for the same size and seed.
pub(crate) fn bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A body in pieces of 10,000 bytes.
pub(crate) fn streamed(whole: &[u8], breaks: bool) -> Body {
    let pieces: Vec<Bytes> = whole.chunks(10_000).map(Bytes::copy_from_slice).collect();
    Body::new(Pieces { left: pieces.into_iter(), breaks, rests: 0 })
}

/// `/size` whole, `/size?stream` in pieces, `/size?length` in pieces of a known total,
/// `/size?parts` the range that is asked for. Each confirms its `ETag`.
pub(crate) fn sized(seen: &Seen) -> http::Response<Body> {
    let size: usize = seen.uri.path().trim_start_matches('/').parse().unwrap();
    let (whole, length, etag) = (bytes(size, size as u64), size.to_string(), format!("\"{size}\""));
    let fields = [("cache-control", "max-age=60"), ("etag", etag.as_str())];
    if seen.headers.get("if-none-match").is_some_and(|known| *known == *etag) {
        return response(304, &fields, Body::empty());
    }
    let with = |more: (&'static str, &str), status, body| {
        let mut response = response(status, &fields, body);
        response.headers_mut().insert(more.0, more.1.parse().unwrap());
        response
    };
    let asked = seen.headers.get("range").map(|range| range.to_str().unwrap());
    match (seen.uri.query(), asked) {
        (Some("stream"), _) => response(200, &fields, streamed(&whole, false)),
        (Some("length"), _) => with(("content-length", &length), 200, streamed(&whole, false)),
        (Some("parts"), Some(range)) => {
            let (first, last) = range[6..].split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            let range = format!("bytes {first}-{last}/{size}");
            with(("content-range", &range), 206, streamed(&whole[first..=last], false))
        }
        _ => response(200, &fields, whole),
    }
}

/// Asks until this is said: Redis is filled behind the answer's back, and on a busy machine a look
/// at much may take longer than it may, which is a miss.
async fn until(
    site: &Site,
    method: &Method,
    path: &str,
    headers: &[(&str, &str)],
    said: &str,
) -> Answer {
    for _ in 0..500 {
        let answer = site.send(request(method.as_str(), path, headers)).await;
        if answer.said().contains(said) {
            return answer;
        }
        if *method == Method::HEAD {
            // It stores nothing: where a busy Redis did not take what came, a GET brings it again.
            site.get(path, headers).await;
        }
        pause().await;
    }
    panic!("{method} {path} {headers:?}: never {said}");
}

async fn hit(site: &Site, path: &str, headers: &[(&str, &str)]) -> Answer {
    until(site, &Method::GET, path, headers, "tachikoma;hit").await
}

#[track_caller]
fn check(answer: &Answer, status: u16, expected: &[u8], name: &str) {
    assert_eq!(answer.status, status, "{name}: {}", answer.said());
    let body = answer.body.as_ref().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(body == expected, "{name}: {} bytes, not {}", body.len(), expected.len());
    let length = answer.header("content-length");
    let is_right = length.is_empty() || length == expected.len().to_string();
    assert!(is_right, "{name}: content-length {length}");
}

pub(crate) async fn check_sizes(site: &Site, store: &str) {
    for size in SIZES {
        let expected = bytes(size, size as u64);
        // What is large goes one way only: it is the same way, and takes its time.
        let all = ["", "?stream", "?length"];
        for query in if size < 1 << 20 { &all[..] } else { &all[1..2] } {
            let path = format!("/{size}{query}");
            let name = format!("{store} {path}");
            let miss = site.get(&path, &[]).await;
            assert!(!miss.is_hit(), "{name}");
            check(&miss, 200, &expected, &format!("{name} miss"));
            let stored = hit(site, &path, &[]).await;
            check(&stored, 200, &expected, &format!("{name} hit"));
            assert_eq!(stored.header("content-length"), size.to_string(), "{name}");
            let head = until(site, &Method::HEAD, &path, &[], "tachikoma;hit").await;
            assert!(head.body.as_ref().is_ok_and(Bytes::is_empty), "{name}");
            assert_eq!(head.header("content-length"), size.to_string(), "{name}");
            check_parts(site, &path, &expected, &name).await;
            let renewed = [("cache-control", "no-cache")];
            let said = "fwd=request;fwd-status=304";
            let validated = until(site, &Method::GET, &path, &renewed, said).await;
            check(&validated, 200, &expected, &format!("{name} validated"));
            check(&hit(site, &path, &[]).await, 200, &expected, &format!("{name} hit again"));
        }
        if (2..1 << 20).contains(&size) {
            check_growth(site, size, &expected, store).await;
        }
    }
}

/// Parts of what is stored whole.
async fn check_parts(site: &Site, path: &str, expected: &[u8], name: &str) {
    let size = expected.len();
    let Some(last) = size.checked_sub(1) else {
        let none = hit(site, path, &[("range", "bytes=0-0")]).await;
        assert_eq!(none.status, 416, "{name}");
        return;
    };
    let (third, half) = (size / 3, size / 2);
    for (range, part) in [
        ("0-0".to_owned(), 0..1),
        (format!("{last}-"), last..size),
        (format!("-{}", half.max(1)), size - half.max(1)..size),
        (format!("{third}-{half}"), third..half.min(last) + 1),
        (format!("0-{}", size * 2), 0..size),
    ] {
        let name = format!("{name} {range}");
        let answer = hit(site, path, &[("range", &format!("bytes={range}"))]).await;
        check(&answer, 206, &expected[part.clone()], &name);
        let said = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), said, "{name}");
    }
}

/// Parts that come one after the other become the whole.
async fn check_growth(site: &Site, size: usize, expected: &[u8], store: &str) {
    let (path, half) = (format!("/{size}?parts"), size / 2);
    for (range, part) in [
        (format!("bytes=0-{}", half - 1), 0..half),
        (format!("bytes={half}-{}", size - 1), half..size),
    ] {
        let name = format!("{store} {path} {range}");
        let asked = [("range", range.as_str())];
        check(&site.get(&path, &asked).await, 206, &expected[part.clone()], &name);
        check(&hit(site, &path, &asked).await, 206, &expected[part], &name);
    }
    let whole = hit(site, &path, &[]).await;
    check(&whole, 200, expected, &format!("{store} {path} grown whole"));
}

/// What is exactly as large as may be is stored, one byte more streams through.
pub(crate) async fn check_limit(site: &Site, store: &str) {
    for query in ["?stream", "?length"] {
        let path = format!("/{LIMIT}{query}");
        let expected = bytes(LIMIT, LIMIT as u64);
        check(&site.get(&path, &[]).await, 200, &expected, &format!("{store} {path}"));
        check(&hit(site, &path, &[]).await, 200, &expected, &format!("{store} {path}"));
        let (path, expected) =
            (format!("/{}{query}", LIMIT + 1), bytes(LIMIT + 1, LIMIT as u64 + 1));
        for _ in 0..2 {
            let answer = site.get(&path, &[]).await;
            assert!(!answer.is_hit(), "{store} {path}");
            check(&answer, 200, &expected, &format!("{store} {path}"));
        }
    }
}

#[tokio::test]
async fn bodies_of_every_size_survive_memory() {
    for mode in MODES {
        check_sizes(&Site::new(mode, sized).await, &format!("memory {mode:?}")).await;
    }
}

#[tokio::test]
async fn what_is_as_large_as_may_be_is_stored_in_memory_and_one_byte_more_is_not() {
    for mode in MODES {
        check_limit(&Site::new(mode, sized).await, &format!("memory {mode:?}")).await;
    }
}

/// Clients that leave at random offsets, misses and hits, and whole bodies for those that stay.
/// `TACHIKOMA_ABORTS` sets how many leave.
pub(crate) async fn check_aborts(site: &Site, store: &str, aborts: usize) {
    use http_body_util::BodyExt as _;
    let aborts = std::env::var("TACHIKOMA_ABORTS").map_or(aborts, |n| n.parse().unwrap());
    let offsets = bytes(aborts * 4, 0x5eed);
    // Other paths after each hundred, so that misses are left too.
    let path = |n: usize| format!("/{}?stream", 200_000 + n % 20 + n / 100 * 20);
    for (n, offset) in offsets.chunks_exact(4).enumerate() {
        let offset = u32::from_le_bytes(offset.try_into().unwrap()) as usize % 200_000;
        let mut body = site.open(request("GET", &path(n), &[])).await.into_body();
        let mut read = 0;
        while read < offset {
            let Some(frame) = body.frame().await else { break };
            read += frame.unwrap().data_ref().map_or(0, Bytes::len);
        }
        drop(body);
        if n % 10 == 0 {
            check_whole(&site.get(&path(n), &[]).await, &path(n), store);
        }
    }
    let mut paths: Vec<String> = (0..aborts).map(path).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        check_whole(&site.get(&path, &[]).await, &path, store);
        check_whole(&hit(site, &path, &[]).await, &path, store);
    }
}

#[track_caller]
fn check_whole(answer: &Answer, path: &str, store: &str) {
    let size: usize = path[1..].split('?').next().unwrap().parse().unwrap();
    check(answer, 200, &bytes(size, size as u64), &format!("{store} {path} after aborts"));
}

#[tokio::test]
async fn readers_that_leave_leave_nothing_behind() {
    for mode in MODES {
        check_aborts(&Site::new(mode, sized).await, &format!("memory {mode:?}"), 1_000).await;
    }
}
