//! Bodies: whole or not at all, from every store, at every size.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tachikoma_http_cache::EndUnproved;

use crate::site::{MODES, Mode, Site, pause, response};

const SIZES: [usize; 9] = [0, 1, 100, 4_096, 10_752, 65_536, 65_537, 1 << 20, 5 << 20];

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
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.rests = (self.rests + 1) % 4;
        if self.rests != 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(match self.left.next() {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None if self.breaks => Some(Err(std::io::ErrorKind::ConnectionReset.into())),
            None => None,
        })
    }
}

fn bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state & 0xff) as u8
        })
        .collect()
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A body in pieces of 10,000 bytes.
fn streamed(whole: &[u8], breaks: bool) -> Body {
    let pieces: Vec<Bytes> = whole.chunks(10_000).map(Bytes::copy_from_slice).collect();
    Body::new(Pieces { left: pieces.into_iter(), breaks, rests: 0 })
}

/// `/size` whole, `/size?stream` in pieces, `/size?length` in pieces of a known total.
pub(crate) fn sized(seen: &crate::site::Seen) -> http::Response<Body> {
    let size: usize = seen.uri.path().trim_start_matches('/').parse().unwrap();
    let whole = bytes(size, size as u64);
    let length = size.to_string();
    let fresh = ("cache-control", "max-age=60");
    match seen.uri.query() {
        Some("stream") => response(200, &[fresh], streamed(&whole, false)),
        Some(_) => response(200, &[fresh, ("content-length", &length)], streamed(&whole, false)),
        None => response(200, &[fresh], whole),
    }
}

pub(crate) async fn check_sizes(site: &Site, name: &str) {
    for size in SIZES {
        let expected = hash(&bytes(size, size as u64));
        for query in ["", "?stream", "?length"] {
            let path = format!("/{size}{query}");
            let miss = site.get(&path, &[]).await;
            assert_eq!(hash(miss.body.as_ref().unwrap()), expected, "{name} {path}");
            let mut hit = site.get(&path, &[]).await;
            for _ in 0..500 {
                // Redis is filled behind the answer's back.
                if hit.is_hit() {
                    break;
                }
                pause().await;
                hit = site.get(&path, &[]).await;
            }
            assert!(hit.is_hit(), "{name} {path}: {}", hit.said());
            assert_eq!(hash(hit.body.as_ref().unwrap()), expected, "{name} {path}");
            assert_eq!(hit.header("content-length"), size.to_string(), "{name} {path}");
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
async fn a_body_over_the_cap_streams_through_and_is_not_stored() {
    for mode in MODES {
        for query in ["", "?stream", "?length"] {
            let site = Site::with(mode, |layer| layer.max_body_size(50_000), sized).await;
            for _ in 0..2 {
                let path = format!("/50001{query}");
                let answer = site.get(&path, &[]).await;
                assert_eq!(answer.body.as_ref().unwrap().len(), 50_001);
                assert!(!answer.is_hit(), "{mode:?} {path}");
            }
            let path = format!("/50000{query}");
            site.get(&path, &[]).await;
            assert!(site.get(&path, &[]).await.is_hit(), "{mode:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_broken_body_breaks_for_its_reader_and_is_not_stored() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            let whole = bytes(30_000, 1);
            let fresh = ("cache-control", "max-age=60");
            match seen.uri.path() {
                "/stream" => response(200, &[fresh], streamed(&whole, true)),
                "/short" => {
                    response(200, &[fresh, ("content-length", "40000")], streamed(&whole, true))
                }
                _ => response(200, &[fresh, ("content-length", "40000")], streamed(&whole, false)),
            }
        })
        .await;
        for path in ["/stream", "/short", "/ends-early"] {
            for _ in 0..2 {
                let answer = site.get(path, &[]).await;
                // In an app, what ends early ends early for the server above, which then breaks
                // off.
                let is_judged_above = mode == Mode::Layer && path == "/ends-early";
                assert!(answer.body.is_err() || is_judged_above, "{mode:?} {path}: a clean end");
                assert!(!answer.is_hit(), "{mode:?} {path}");
            }
        }
        assert_eq!(site.cache.stats().stored, 0, "{mode:?}");
    }
}

#[tokio::test]
async fn readers_that_leave_leave_nothing_behind() {
    for mode in MODES {
        let size = 200_000;
        let site = Site::new(mode, move |_| {
            response(200, &[("cache-control", "max-age=60")], streamed(&bytes(size, 7), false))
        })
        .await;
        for round in 0..100_usize {
            let path = format!("/{}", round % 10);
            let mut body = site.open(crate::site::request("GET", &path, &[])).await.into_body();
            let mut read = 0;
            while read < (round * 7_919) % size {
                let Some(frame) = body.frame().await else { break };
                read += frame.unwrap().data_ref().map_or(0, Bytes::len);
            }
            drop(body);
        }
        for path in 0..10 {
            for _ in 0..2 {
                let answer = site.get(&format!("/{path}"), &[]).await;
                assert_eq!(hash(answer.body.as_ref().unwrap()), hash(&bytes(size, 7)), "{mode:?}");
            }
            assert!(site.get(&format!("/{path}"), &[]).await.is_hit());
        }
    }
}

#[tokio::test]
async fn a_body_whose_end_cannot_be_proved_is_not_stored() {
    let site = Site::new(Mode::Layer, |seen| {
        let fresh = ("cache-control", "max-age=60");
        let whole = bytes(30_000, 1);
        let mut answer = match seen.uri.path() {
            "/closes" => response(200, &[fresh, ("connection", "close")], streamed(&whole, false)),
            _ => response(200, &[fresh], streamed(&whole, false)),
        };
        if seen.uri.path() == "/marked" {
            answer.extensions_mut().insert(EndUnproved);
        }
        answer
    })
    .await;
    for path in ["/closes", "/marked"] {
        assert_eq!(site.get(path, &[]).await.said(), "tachikoma;fwd=uri-miss;detail=end-unproved");
        assert!(!site.get(path, &[]).await.is_hit(), "{path}");
    }
    site.get("/streamed", &[]).await;
    assert!(site.get("/streamed", &[]).await.is_hit());
}

#[tokio::test]
async fn a_huge_body_is_not_held_in_memory() {
    static PIECE: [u8; 1 << 20] = [0; 1 << 20];
    /// A piece is counted while anybody holds it.
    struct Counted(#[allow(dead_code)] Arc<()>);
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &PIECE
        }
    }
    /// One GiB, never all at once.
    struct Huge(u32, Arc<()>);
    impl http_body::Body for Huge {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0 += 1;
            let piece = || Bytes::from_owner(Counted(Arc::clone(&self.1)));
            Poll::Ready((self.0 <= 1_024).then(|| Ok(Frame::data(piece()))))
        }
    }
    let held = Arc::new(());
    let pieces = Arc::clone(&held);
    let site = Site::new(Mode::Layer, move |_| {
        let body = Body::new(Huge(0, Arc::clone(&pieces)));
        response(200, &[("cache-control", "max-age=60")], body)
    })
    .await;
    let mut body = site.open(crate::site::request("GET", "/", &[])).await.into_body();
    let (mut total, mut most) = (0, 0);
    while let Some(frame) = body.frame().await {
        total += frame.unwrap().data_ref().map_or(0, Bytes::len);
        most = most.max(Arc::strong_count(&held));
    }
    assert_eq!(total, 1 << 30);
    assert!(most < 16, "{most} pieces of 1 MiB held at once");
}
