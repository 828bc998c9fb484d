//! The body of each response: from the store, as it comes, or as it comes and copied on its way.
//!
//! Never ends a body cleanly that did not end cleanly below, and hands a copy on only once its end
//! is proved: the number of bytes that `Content-Length` promised, or the stream's own end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::fill::Fill;

/// Marks, in its extensions, a response whose end cannot be proved.
///
/// A client to an HTTP/1 server sets it where the body has neither a `Content-Length` nor the
/// `chunked` coding: such a body ends when the connection does, whether it is whole or not. It is
/// passed on and never stored.
#[derive(Debug, Clone, Copy)]
pub struct EndUnproved;

pin_project! {
    /// The body of a response that went through the cache.
    #[derive(Debug)]
    pub struct CacheBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    #[derive(Debug)]
    enum Kind<B> {
        Stored { bytes: Option<Bytes> },
        Passed { #[pin] inner: B, tee: Option<Tee> },
    }
}

impl<B> CacheBody<B> {
    /// The bytes of a stored response.
    pub(crate) fn stored(bytes: Bytes) -> Self {
        Self { kind: Kind::Stored { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()) } }
    }

    /// No bytes.
    pub(crate) fn empty() -> Self {
        Self::stored(Bytes::new())
    }

    /// What comes, not stored.
    pub(crate) fn passed(inner: B) -> Self {
        Self { kind: Kind::Passed { inner, tee: None } }
    }

    /// What comes, copied for the store.
    pub(crate) fn teed(inner: B, tee: Tee) -> Self {
        Self { kind: Kind::Passed { inner, tee: Some(tee) } }
    }
}

impl<B: Body<Data = Bytes>> Body for CacheBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let (mut inner, tee) = match self.project().kind.project() {
            KindProj::Stored { bytes } => {
                return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            KindProj::Passed { inner, tee } => (inner, tee),
        };
        let frame = ready!(inner.as_mut().poll_frame(cx));
        if let Some(copying) = tee {
            let step = match &frame {
                Some(Ok(frame)) => match frame.data_ref() {
                    Some(data) => copying.copy(data, inner.is_end_stream()),
                    // Trailers come last, and some servers do not look for what follows them.
                    None if frame.is_trailers() => Step::End,
                    None => Step::More,
                },
                // Dropped unfinished, the fill tells its waiters.
                Some(Err(_)) => Step::Stop,
                None => Step::End,
            };
            match (step, tee.take()) {
                (Step::More, copying) => *tee = copying,
                (Step::End, Some(copying)) => copying.finish(),
                _ => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Stored { bytes } => bytes.is_none(),
            Kind::Passed { inner, .. } => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Stored { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Passed { inner, .. } => inner.size_hint(),
        }
    }
}

enum Step {
    More,
    End,
    Stop,
}

/// Copies a body on its way to the client, up to a cap.
#[derive(Debug)]
pub(crate) struct Tee {
    pieces: Vec<Bytes>,
    length: usize,
    cap: usize,
    /// What `Content-Length` promised.
    promised: Option<u64>,
    fill: Fill,
}

impl Tee {
    pub(crate) fn new(cap: usize, promised: Option<u64>, fill: Fill) -> Self {
        Self { pieces: Vec::new(), length: 0, cap, promised, fill }
    }

    fn copy(&mut self, data: &Bytes, is_end: bool) -> Step {
        self.length = self.length.saturating_add(data.len());
        if self.length > self.cap {
            self.pieces = Vec::new();
            self.fill.too_large();
            return Step::Stop;
        }
        self.pieces.push(data.clone());
        match self.promised {
            // The server above stops reading here, so this is the last chance to store it.
            Some(promised) if self.length as u64 == promised => Step::End,
            _ if is_end => Step::End,
            _ => Step::More,
        }
    }

    /// Hands the copy on, if it is what was promised.
    pub(crate) fn finish(self) {
        if self.promised.is_some_and(|promised| promised != self.length as u64) {
            self.fill.incomplete();
            return;
        }
        // One exact allocation: the pieces may be small parts of large read buffers.
        let mut whole = Vec::with_capacity(self.length);
        for piece in &self.pieces {
            whole.extend_from_slice(piece);
        }
        self.fill.complete(whole.into());
    }
}
