//! Decides whether an HTTP/2 client is alive: it asks, or it takes what it asked for.
//!
//! On HTTP/1 a client that stops reading stops the connection, which has a deadline. On HTTP/2 it
//! can keep the connection busy and take nothing of a response, so what counts is whether any of
//! its responses moves. One that does not move ends beside those that do: it would hold its place
//! at an upstream for as long as they last.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::timed::least_within;

/// How many looks in a row must find a response untaken before it ends: one may come just between
/// two of its pieces.
const LOOKS: u32 = 2;

/// What a client is given room for at once. A body from the cache may come as one piece of many
/// MiB; that would count as one step, however long a client takes for it.
const PIECE: usize = 16 << 10;

/// What is known of one connection.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Responses under way, by the number of their request.
    answers: Mutex<HashMap<u64, Arc<Answer>>>,
    requests: AtomicU64,
    /// Steps forward: requests that came, pieces of responses that were taken.
    steps: AtomicU64,
    open: AtomicUsize,
    /// Responses whose next piece the client has no room for.
    untaken: AtomicUsize,
}

/// What happened since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Something moved, or the server is the one to be waited for.
    Alive,
    /// No request is open, and none came.
    Idle,
    /// All that is open waits for the client, and none of it moved.
    Stalled,
}

impl Pulse {
    /// A request came.
    pub(super) fn stream(self: &Arc<Self>) -> Stream {
        self.steps.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        let number = self.requests.fetch_add(1, Relaxed);
        Stream { pulse: Arc::clone(self), number, untaken: false }
    }

    /// Ends the responses that the client has no room for, or next to none: less than the least
    /// pace, and for longer than this. To be called each time such a span has passed.
    pub(super) fn end_untaken(&self, span: Duration) {
        let answers: Vec<_> = self.answers().values().cloned().collect();
        for answer in answers {
            answer.look(least_within(span));
        }
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<u64, Arc<Answer>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Relaxed) == 0
    }

    /// Where it is now, to be compared later.
    pub(super) fn beat(&self) -> u64 {
        self.steps.load(Relaxed)
    }

    pub(super) fn since(&self, last: &mut u64) -> Beat {
        let now = self.steps.load(Relaxed);
        let moved = std::mem::replace(last, now) != now;
        match (self.open.load(Relaxed), self.untaken.load(Relaxed)) {
            _ if moved => Beat::Alive,
            (0, _) => Beat::Idle,
            (open, untaken) if open == untaken => Beat::Stalled,
            _ => Beat::Alive,
        }
    }
}

/// One open request.
#[derive(Debug)]
pub(super) struct Stream {
    pulse: Arc<Pulse>,
    number: u64,
    untaken: bool,
}

impl Stream {
    fn is_untaken(&mut self, untaken: bool) {
        if untaken != self.untaken {
            self.untaken = untaken;
            if untaken {
                self.pulse.untaken.fetch_add(1, Relaxed);
            } else {
                self.pulse.untaken.fetch_sub(1, Relaxed);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.is_untaken(false);
        self.pulse.answers().remove(&self.number);
        self.pulse.open.fetch_sub(1, Relaxed);
        self.pulse.steps.fetch_add(1, Relaxed);
    }
}

/// A body in pieces of a bounded length.
#[derive(Debug)]
struct Pieces {
    inner: Body,
    /// What is left of the last piece that came.
    rest: Bytes,
}

impl Pieces {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

/// A response under way, as far as others than its reader see it.
#[derive(Debug)]
struct Answer {
    /// `None` once it was ended for its reader.
    body: Mutex<Option<Pieces>>,
    untaken: AtomicBool,
    /// Bytes that were taken since the last look.
    taken: AtomicU64,
    /// Looks in a row that found it untaken.
    looks: AtomicU32,
}

impl Answer {
    fn body(&self) -> MutexGuard<'_, Option<Pieces>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, least: u64) {
        let is_slow = self.untaken.load(Relaxed) && self.taken.swap(0, Relaxed) < least;
        if !is_slow {
            self.looks.store(0, Relaxed);
        } else if self.looks.fetch_add(1, Relaxed) + 1 >= LOOKS {
            // Not dropped under the lock.
            let body = self.body().take();
            drop(body);
        }
    }
}

/// The body of a response, which is asked for its next piece when the client has room for it.
pub(super) struct PulseBody {
    answer: Arc<Answer>,
    stream: Stream,
}

impl PulseBody {
    pub(super) fn new(inner: Body, mut stream: Stream) -> Self {
        stream.is_untaken(true);
        let answer = Arc::new(Answer {
            body: Mutex::new(Some(Pieces { inner, rest: Bytes::new() })),
            untaken: AtomicBool::new(true),
            taken: AtomicU64::new(0),
            looks: AtomicU32::new(0),
        });
        stream.pulse.answers().insert(stream.number, Arc::clone(&answer));
        Self { answer, stream }
    }
}

impl http_body::Body for PulseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { answer, stream } = &mut *self;
        if stream.untaken {
            stream.pulse.steps.fetch_add(1, Relaxed);
        }
        let frame = match answer.body().as_mut() {
            Some(body) => body.poll_frame(cx),
            None => {
                Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut)))))
            }
        };
        stream.is_untaken(frame.is_ready());
        answer.untaken.store(frame.is_ready(), Relaxed);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            answer.taken.fetch_add(length, Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.answer.body().as_ref().is_some_and(Pieces::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.body().as_ref().map(Pieces::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_stalled_when_all_it_has_waits_for_the_client() {
        let pulse = Arc::new(Pulse::default());
        let mut last = pulse.beat();
        assert_eq!(pulse.since(&mut last), Beat::Idle);
        let first = pulse.stream();
        assert_eq!(pulse.since(&mut last), Beat::Alive);
        // The server has not answered yet.
        assert_eq!(pulse.since(&mut last), Beat::Alive);
        let second = PulseBody::new(Body::from("x"), pulse.stream());
        assert_eq!(pulse.since(&mut last), Beat::Alive);
        assert_eq!(pulse.since(&mut last), Beat::Alive);
        let mut first = PulseBody::new(Body::from("x"), first);
        assert_eq!(pulse.since(&mut last), Beat::Stalled);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut first).poll_frame(&mut cx).is_ready());
        assert_eq!(pulse.since(&mut last), Beat::Alive);
        assert_eq!(pulse.since(&mut last), Beat::Stalled);
        drop((first, second));
        assert_eq!(pulse.since(&mut last), Beat::Alive);
        assert_eq!(pulse.since(&mut last), Beat::Idle);
    }
    #[test]
    fn a_response_that_is_not_taken_ends_beside_one_that_is() {
        let pulse = Arc::new(Pulse::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut untaken = PulseBody::new(Body::from("x"), pulse.stream());
        let pieces = (0..9).map(|_| Ok::<_, io::Error>(Bytes::from_static(&[0; 2048])));
        let pieces = Body::from_stream(futures_util::stream::iter(pieces));
        let mut taken = PulseBody::new(pieces, pulse.stream());
        for _ in 0..3 {
            assert!(matches!(Pin::new(&mut taken).poll_frame(&mut cx), Poll::Ready(Some(Ok(_)))));
            pulse.end_untaken(Duration::from_secs(1));
        }
        assert!(matches!(Pin::new(&mut taken).poll_frame(&mut cx), Poll::Ready(Some(Ok(_)))));
        assert!(matches!(Pin::new(&mut untaken).poll_frame(&mut cx), Poll::Ready(Some(Err(_)))));
        assert_eq!(pulse.answers().len(), 2);
        drop((taken, untaken));
        assert!(pulse.answers().is_empty());
    }

    #[test]
    fn a_large_piece_is_given_in_small_ones_and_stays_the_same() {
        let body: Bytes = (0..100_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        let mut pieces =
            PulseBody::new(Body::from(body.clone()), Arc::new(Pulse::default()).stream());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut came = Vec::new();
        while !pieces.is_end_stream() {
            assert_eq!(pieces.size_hint().exact(), Some((body.len() - came.len()) as u64));
            match Pin::new(&mut pieces).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let piece = frame.into_data().expect("data");
                    assert!((1..=PIECE).contains(&piece.len()));
                    came.extend_from_slice(&piece);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(came, body);
    }

    #[test]
    fn a_response_that_its_server_has_nothing_of_does_not_end() {
        let pulse = Arc::new(Pulse::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let silent = futures_util::stream::pending::<Result<Bytes, io::Error>>();
        let mut silent = PulseBody::new(Body::from_stream(silent), pulse.stream());
        for _ in 0..5 {
            assert!(Pin::new(&mut silent).poll_frame(&mut cx).is_pending());
            pulse.end_untaken(Duration::from_secs(1));
        }
    }
}
