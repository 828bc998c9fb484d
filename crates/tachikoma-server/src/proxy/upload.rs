//! Takes short request bodies in before the upstream is asked: a client that sends slowly holds no
//! place there, and what was taken in can be sent once more when a kept connection was lost.
//!
//! A long body, or one of unknown length, is never held: it is passed on as it comes.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;

/// The longest body that is taken in.
const MOST: u64 = 64 << 10;

/// What all of them may hold together. Beyond it, bodies are passed on as they come.
const TOGETHER: usize = 64 << 20;

/// The room for bodies that are taken in. Cheap to clone.
#[derive(Clone)]
pub(super) struct Uploads(Arc<Semaphore>);

/// A request body.
pub(super) enum Upload {
    /// All of it, and its room.
    Whole(Bytes, Option<OwnedSemaphorePermit>),
    /// It has yet to come.
    Streamed(Body),
}

impl Uploads {
    pub(super) fn new() -> Self {
        Self::of(TOGETHER)
    }

    fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// Waits for a short body. How slow its client may be is decided where its connection is
    /// served.
    pub(super) async fn take(&self, body: Body) -> Result<Upload, Failure> {
        if body.is_end_stream() {
            return Ok(Upload::Whole(Bytes::new(), None));
        }
        let length = body.size_hint().upper().filter(|length| *length <= MOST);
        let length = length.and_then(|length| u32::try_from(length).ok());
        let room = length.and_then(|length| self.0.clone().try_acquire_many_owned(length).ok());
        let Some(room) = room else { return Ok(Upload::Streamed(body)) };
        let taken = body.collect().await.map_err(|error| Failure::from_body(&error))?;
        Ok(Upload::Whole(taken.to_bytes(), Some(room)))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::stream;

    use super::*;

    async fn is_taken(uploads: &Uploads, body: Body) -> Option<OwnedSemaphorePermit> {
        match uploads.take(body).await.expect("a body") {
            Upload::Whole(bytes, room) => room.filter(|_| !bytes.is_empty()),
            Upload::Streamed(_) => None,
        }
    }

    #[tokio::test]
    async fn a_short_body_is_taken_in_and_a_long_one_or_one_of_unknown_length_is_not() {
        let uploads = Uploads::new();
        for (length, expected) in [(1, true), (64 << 10, true), ((64 << 10) + 1, false)] {
            let room = is_taken(&uploads, Body::from(vec![0; length])).await;
            assert_eq!(room.is_some(), expected, "{length}");
        }
        let unknown = Body::from_stream(stream::iter([Ok::<_, io::Error>("x")]));
        assert!(is_taken(&uploads, unknown).await.is_none());
        let empty = uploads.take(Body::empty()).await;
        assert!(matches!(empty, Ok(Upload::Whole(bytes, None)) if bytes.is_empty()));
    }

    #[tokio::test]
    async fn what_finds_no_room_is_passed_on_as_it_comes() {
        let uploads = Uploads::of(10);
        let first = is_taken(&uploads, Body::from("123456")).await;
        assert!(first.is_some());
        assert!(is_taken(&uploads, Body::from("12345")).await.is_none());
        drop(first);
        assert!(is_taken(&uploads, Body::from("12345")).await.is_some());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_the_fault_of_its_client_and_gives_its_room_back() {
        struct Broken;
        impl http_body::Body for Broken {
            type Data = Bytes;
            type Error = io::Error;

            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
                std::task::Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())))
            }

            fn size_hint(&self) -> http_body::SizeHint {
                http_body::SizeHint::with_exact(10)
            }
        }
        let uploads = Uploads::of(10);
        for _ in 0..3 {
            let taken = uploads.take(Body::new(Broken)).await;
            assert!(matches!(taken, Err(Failure::ClientGone)));
        }
    }
}
