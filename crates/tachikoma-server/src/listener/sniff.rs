//! Decides which HTTP a connection without TLS speaks, by its first bytes.
//!
//! A client that knows that this server speaks HTTP/2 begins with a fixed preface (RFC 9113 §3.4);
//! everything else is HTTP/1. What was read to find out is read again by who serves it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::reading::{How, Reading};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The versions that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

/// Reads until it is clear what is spoken; at most a preface.
pub(super) async fn sniff<S>(mut stream: S) -> io::Result<(Speaks, Reading<S, Again>)>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = [0; PREFACE.len()];
    let mut length = 0;
    while length < bytes.len() && bytes[..length] == PREFACE[..length] {
        match stream.read(&mut bytes[length..]).await? {
            // It says no more: HTTP/1 knows how to answer to that.
            0 => break,
            read => length += read,
        }
    }
    let speaks = if bytes == *PREFACE { Speaks::Http2 } else { Speaks::Http1 };
    Ok((speaks, Reading::new(stream, Again { bytes, next: 0, length })))
}

/// What was read already, which comes again before the rest.
pub(super) struct Again {
    bytes: [u8; PREFACE.len()],
    next: usize,
    length: usize,
}

impl How for Again {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        inner: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let again = &self.bytes[self.next..self.length];
        if again.is_empty() {
            return Pin::new(inner).poll_read(cx, buffer);
        }
        let count = again.len().min(buffer.remaining());
        buffer.put_slice(&again[..count]);
        self.next += count;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[track_caller]
    fn check(pieces: &'static [&'static [u8]], expected: Speaks) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(64);
            let writing = tokio::spawn(async move {
                for piece in pieces {
                    client.write_all(piece).await.expect("written");
                    tokio::task::yield_now().await;
                }
            });
            let (speaks, mut stream) = sniff(server).await.expect("sniffed");
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.expect("read");
            writing.await.expect("no panic");
            assert_eq!((speaks, all), (expected, pieces.concat()), "{pieces:?}");
        });
    }

    #[test]
    fn the_preface_is_http_2_and_everything_else_http_1() {
        check(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"rest"], Speaks::Http2);
        check(&[b"P", b"RI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\nrest"], Speaks::Http2);
        check(&[b"GET / HTTP/1.1\r\n\r\n"], Speaks::Http1);
        check(&[b"P", b"OST / HTTP/1.1\r\n\r\n"], Speaks::Http1);
        check(&[b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"], Speaks::Http1);
        check(&[b"PRI *"], Speaks::Http1);
        check(&[], Speaks::Http1);
    }
}
