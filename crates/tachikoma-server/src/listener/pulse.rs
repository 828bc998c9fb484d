//! Decides whether an HTTP/2 client is alive: it asks, or it takes what it asked for.
//!
//! On HTTP/1 a client that stops reading stops the connection, which has a deadline. On HTTP/2 it
//! can keep the connection busy and take nothing of a response, so what counts is whether any of
//! its responses moves.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// What is known of one connection.
#[derive(Debug, Default)]
pub(super) struct Pulse {
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
        Stream { pulse: Arc::clone(self), untaken: false }
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
        self.pulse.open.fetch_sub(1, Relaxed);
        self.pulse.steps.fetch_add(1, Relaxed);
    }
}

/// The body of a response, which is asked for its next piece when the client has room for it.
pub(super) struct PulseBody {
    inner: Body,
    stream: Stream,
}

impl PulseBody {
    pub(super) fn new(inner: Body, mut stream: Stream) -> Self {
        stream.is_untaken(true);
        Self { inner, stream }
    }
}

impl http_body::Body for PulseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.stream.untaken {
            self.stream.pulse.steps.fetch_add(1, Relaxed);
        }
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        self.stream.is_untaken(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

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
}
