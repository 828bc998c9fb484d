//! The body of each response: from the store, as it comes, or out of what is arriving for several.
//!
//! Never ends a body cleanly that did not end cleanly below.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::feed::{BoxError, BrokenOff, Reader};

/// Marks, in its extensions, a response whose end cannot be proved.
///
/// A client to an HTTP/1 server sets it where the body has neither a `Content-Length` nor the
/// `chunked` coding: such a body ends when the connection does, whether it is whole or not. It is
/// passed on and never stored.
#[derive(Debug, Clone, Copy)]
pub struct EndUnproved;

/// Marks, in its extensions, a 5xx that the origin did not send: it could not be reached, or gave
/// no
/// answer.
///
/// A client to another server sets it on the 502 or 504 that it makes up itself. Then the cache is
/// disconnected (RFC 9111 §4.2.4), and may send what it has, though it is stale. An inner service
/// that returns an error says the same.
#[derive(Debug, Clone, Copy)]
pub struct Disconnected;

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
        Passed { #[pin] inner: B },
        Fed { reader: Reader },
        Joined { before: Option<Bytes>, #[pin] inner: B, left: u64, after: Option<Bytes> },
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
        Self { kind: Kind::Passed { inner } }
    }

    /// What comes, between bytes that are stored. It must be `length` bytes.
    pub(crate) fn joined(before: Bytes, inner: B, length: u64, after: Bytes) -> Self {
        let some = |bytes: Bytes| Some(bytes).filter(|bytes| !bytes.is_empty());
        let (before, after) = (some(before), some(after));
        Self { kind: Kind::Joined { before, inner, left: length, after } }
    }

    /// What comes to be stored, for this client and for those who wait for the same.
    pub(crate) fn fed(reader: Reader) -> Self {
        Self { kind: Kind::Fed { reader } }
    }
}

impl<B> Body for CacheBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Stored { bytes } => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            KindProj::Passed { inner } => {
                let frame = ready!(inner.poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            KindProj::Fed { reader } => reader.poll_frame(cx),
            KindProj::Joined { before, mut inner, left, after } => {
                if let Some(before) = before.take() {
                    return Poll::Ready(Some(Ok(Frame::data(before))));
                }
                while *left > 0 {
                    let data = match ready!(inner.as_mut().poll_frame(cx)) {
                        Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                        Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                        None => return Poll::Ready(Some(Err(BrokenOff::length().into()))),
                    };
                    let Some(still) = left.checked_sub(data.len() as u64) else {
                        return Poll::Ready(Some(Err(BrokenOff::length().into())));
                    };
                    *left = still;
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Poll::Ready(after.take().map(|after| Ok(Frame::data(after))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Stored { bytes } => bytes.is_none(),
            Kind::Passed { inner } => inner.is_end_stream(),
            Kind::Fed { reader } => reader.is_done(),
            Kind::Joined { before, left, after, .. } => {
                before.is_none() && *left == 0 && after.is_none()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Stored { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Passed { inner } => inner.size_hint(),
            Kind::Fed { reader } => {
                reader.left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Kind::Joined { before, left, after, .. } => {
                let known = [before, after].into_iter().flatten().map(|bytes| bytes.len() as u64);
                SizeHint::with_exact(known.sum::<u64>() + left)
            }
        }
    }
}
