//! A request body that can be sent once more, because its beginning is remembered.
//!
//! The upstream may close a kept connection just when a request goes out on it. What was sent is
//! lost then, and of a body that was read from the client nothing is left to send: so what a short
//! body has given is kept until its response is there. It is passed on as it comes all the same.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

/// The longest body that is remembered.
const MOST: u64 = 64 << 10;

/// A short body. Cheap to clone.
#[derive(Clone)]
pub(super) struct Replay(Arc<Mutex<Shared>>);

struct Shared {
    /// What the client has still to send.
    rest: Body,
    /// What it sent.
    given: Vec<Bytes>,
    /// How often it was begun.
    turn: usize,
}

impl Replay {
    /// Whether a body is short enough to be remembered.
    pub(super) fn is_possible(body: &Body) -> bool {
        body.size_hint().upper().is_some_and(|most| most <= MOST)
    }

    pub(super) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Shared { rest: body, given: Vec::new(), turn: 0 })))
    }

    /// The body from its beginning. One that was begun before has no more to give.
    pub(super) fn begin(&self) -> Turn {
        let mut shared = self.lock();
        shared.turn += 1;
        Turn { replay: self.clone(), number: shared.turn, next: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing in here is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body, once.
pub(super) struct Turn {
    replay: Replay,
    number: usize,
    /// The piece that comes next of those that are remembered.
    next: usize,
}

impl http_body::Body for Turn {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let mut shared = this.replay.lock();
        if shared.turn != this.number {
            let over = io::Error::from(io::ErrorKind::BrokenPipe);
            return Poll::Ready(Some(Err(axum::Error::new(over))));
        }
        if let Some(piece) = shared.given.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let frame = ready!(Pin::new(&mut shared.rest).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(piece) = frame.data_ref()
        {
            shared.given.push(piece.clone());
            this.next += 1;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.replay.lock();
        self.next == shared.given.len() && shared.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.replay.lock();
        let again: usize = shared.given.iter().skip(self.next).map(Bytes::len).sum();
        let (again, rest) = (again as u64, shared.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(again.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper() {
            hint.set_upper(again.saturating_add(upper));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    fn pieces(pieces: &'static [&'static str]) -> Body {
        Body::from_stream(stream::iter(pieces.iter().map(|piece| Ok::<_, io::Error>(*piece))))
    }

    #[tokio::test]
    async fn a_body_comes_again_from_its_beginning_wherever_it_was_left() {
        for left_after in 0..4 {
            let replay = Replay::new(pieces(&["one", "two", "three"]));
            let mut first = replay.begin();
            for _ in 0..left_after {
                first.frame().await.expect("a piece").expect("no error");
            }
            let second = replay.begin();
            assert!(first.frame().await.is_some_and(|frame| frame.is_err()), "{left_after}");
            let all = second.collect().await.expect("a body").to_bytes();
            assert_eq!(all, "onetwothree", "{left_after}");
        }
    }

    #[tokio::test]
    async fn its_length_stays_what_it_was() {
        let replay = Replay::new(Body::from("12345"));
        let mut first = replay.begin();
        assert_eq!((first.size_hint().exact(), first.is_end_stream()), (Some(5), false));
        first.frame().await.expect("a piece").expect("no error");
        assert_eq!((first.size_hint().exact(), first.is_end_stream()), (Some(0), true));
        let second = replay.begin();
        assert_eq!((second.size_hint().exact(), second.is_end_stream()), (Some(5), false));
    }

    #[test]
    fn a_long_body_and_one_of_unknown_length_are_not_remembered() {
        assert!(Replay::is_possible(&Body::empty()));
        assert!(Replay::is_possible(&Body::from(vec![0; 64 << 10])));
        assert!(!Replay::is_possible(&Body::from(vec![0; (64 << 10) + 1])));
        assert!(!Replay::is_possible(&pieces(&["x"])));
    }
}
