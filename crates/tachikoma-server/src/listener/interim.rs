//! Writes interim responses (1xx) to a client between two of the server's own.
//!
//! hyper's HTTP/1 server has no way to send one, so they go out underneath it, where its bytes
//! pass by: only when nothing of it is half written, and only while their request has no final
//! answer. What cannot be written in time is dropped: nobody needs an interim response.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of interim responses that may wait to be written.
const MOST_WAITING: usize = 64 << 10;

/// What waits to be written on one connection.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    some: AtomicBool,
    queue: Mutex<Queue>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// The exchange that is open: each has the next number.
    open: u64,
}

/// The right to send interim responses to one request, until its final answer begins.
#[derive(Debug, Clone)]
pub(crate) struct Interim {
    waiting: Arc<Waiting>,
    exchange: u64,
}

impl Interim {
    /// Sends the head of an interim response, if its request is still open.
    pub(crate) fn send(&self, head: &[u8]) {
        let mut queue = self.waiting.lock();
        if queue.open == self.exchange && queue.bytes.len() + head.len() <= MOST_WAITING {
            queue.bytes.extend_from_slice(head);
            self.waiting.some.store(true, Ordering::Release);
            drop(queue);
            self.waiting.reader.wake();
        }
    }
}

impl Waiting {
    /// Opens the next exchange.
    pub(super) fn begin(self: &Arc<Self>) -> Interim {
        let mut queue = self.lock();
        queue.open += 1;
        Interim { waiting: Arc::clone(self), exchange: queue.open }
    }

    /// Its final answer is there: nothing may come before it any more but what waits already.
    pub(super) fn end(&self) {
        self.lock().open += 1;
    }

    fn take(&self) -> Vec<u8> {
        let mut queue = self.lock();
        self.some.store(false, Ordering::Release);
        std::mem::take(&mut queue.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here is left half done by a panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on which interim responses go out between what the server writes.
pub(super) struct InterimIo<S> {
    inner: S,
    waiting: Arc<Waiting>,
    /// What was taken and is not all written.
    taken: Vec<u8>,
    /// Whether bytes of the server may be half written.
    busy: bool,
}

impl<S: AsyncWrite + Unpin> InterimIo<S> {
    pub(super) fn new(inner: S, waiting: Arc<Waiting>) -> Self {
        Self { inner, waiting, taken: Vec::new(), busy: false }
    }

    /// Writes what waits. Must not be asked while the server's bytes are half written.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.taken.is_empty() && self.waiting.some.load(Ordering::Acquire) {
            self.taken = self.waiting.take();
        }
        while !self.taken.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.taken))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken.drain(..written);
            if self.taken.is_empty() {
                // It goes out with the next flush at the latest; what fails then is said then.
                let _ = Pin::new(&mut self.inner).poll_flush(cx)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What comes before the server's next bytes; what waits while some are half written is late.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.busy {
            ready!(self.poll_interim(cx))?;
        } else if self.waiting.some.load(Ordering::Acquire) {
            drop(self.waiting.take());
        }
        self.busy = true;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for InterimIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.busy {
            self.waiting.reader.register(cx.waker());
            if let Poll::Ready(Err(error)) = self.poll_interim(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for InterimIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before(cx))?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before(cx))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.busy = false;
        ready!(self.poll_interim(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn seen(of: &mut tokio::io::DuplexStream, length: usize) -> String {
        let mut bytes = vec![0; length];
        of.read_exact(&mut bytes).await.expect("bytes");
        String::from_utf8(bytes).expect("text")
    }

    #[tokio::test]
    async fn an_interim_response_goes_out_before_the_final_one_and_never_after_it() {
        let (server, mut client) = tokio::io::duplex(1 << 10);
        let waiting = Arc::new(Waiting::default());
        let mut io = InterimIo::new(server, Arc::clone(&waiting));
        let first = waiting.begin();
        first.send(b"early");
        waiting.end();
        first.send(b"late");
        io.write_all(b"final").await.expect("written");
        io.flush().await.expect("flushed");
        assert_eq!(seen(&mut client, 10).await, "earlyfinal");

        let second = waiting.begin();
        first.send(b"late");
        // A part of an answer is not torn apart.
        io.write_all(b"half").await.expect("written");
        second.send(b"lost");
        io.write_all(b"half").await.expect("written");
        io.flush().await.expect("flushed");
        second.send(b"1xx");
        io.flush().await.expect("flushed");
        assert_eq!(seen(&mut client, 11).await, "halfhalf1xx");
    }

    #[tokio::test]
    async fn who_waits_for_the_client_is_woken_to_write_one() {
        let (server, mut client) = tokio::io::duplex(1 << 10);
        let waiting = Arc::new(Waiting::default());
        let mut io = InterimIo::new(server, Arc::clone(&waiting));
        let reading = tokio::spawn(async move { io.read_u8().await });
        tokio::task::yield_now().await;
        waiting.begin().send(b"103");
        assert_eq!(seen(&mut client, 3).await, "103");
        client.write_all(b"x").await.expect("written");
        assert_eq!(reading.await.expect("no panic").expect("a byte"), b'x');
    }

    #[test]
    fn what_waits_is_bounded() {
        let waiting = Arc::new(Waiting::default());
        let open = waiting.begin();
        for _ in 0..1000 {
            open.send(&[0; 1000]);
        }
        assert!(waiting.take().len() <= MOST_WAITING);
    }
}
