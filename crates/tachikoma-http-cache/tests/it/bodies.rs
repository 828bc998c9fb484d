//! Bodies: whole or not at all.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tachikoma_http_cache::EndUnproved;

use crate::{
    site::{MODES, Mode, Site, response},
    sizes::{bytes, sized, streamed},
};

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
                assert!(answer.body.is_err(), "{mode:?} {path}: a clean end");
                assert!(!answer.is_hit(), "{mode:?} {path}");
            }
        }
        assert_eq!(site.cache.stats().stored, 0, "{mode:?}");
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
