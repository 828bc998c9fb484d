//! Decides when an HTTP/2 client sends too much that costs it nothing, and ends its connection.
//!
//! The budget is pure: it sees the bytes that come in, as frames (RFC 9113 §4.1), and counts those
//! that make the server work without bringing a request further: resets, settings, pings, empty
//! pieces of data, pieces of a head, tiny window updates. Each costs some of a budget that comes
//! back with time. Clients who use HTTP/2 as it is meant stay far below it; a flood is over in
//! milliseconds. It stands beside the limits of the `h2` crate, which bound what each kind may
//! hold.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tachikoma_cache::{Clock, Time};
use tokio::io::{AsyncRead, ReadBuf};

use super::reading::How;

/// What a client may spend at once.
const BUDGET: u32 = 2_000;

/// What comes back each second.
const PER_SECOND: u32 = 500;

const HEADER: usize = 9;
const PREFACE: usize = 24;

/// The client spent more than it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flood;

/// Counts the frames of one connection.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    at: Option<Time>,
    /// Bytes of the current frame, or of the preface, that are still to come.
    skip: usize,
    /// The beginning of a frame: its header, and four bytes more of a window update.
    head: [u8; HEADER + 4],
    known: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: BUDGET, at: None, skip: PREFACE, head: [0; HEADER + 4], known: 0 }
    }

    /// Takes the bytes that came in at `now`.
    pub(super) fn see(&mut self, mut bytes: &[u8], now: Time) -> Result<(), Flood> {
        self.earn(now);
        while !bytes.is_empty() {
            if self.skip > 0 {
                let count = self.skip.min(bytes.len());
                bytes = &bytes[count..];
                self.skip -= count;
                continue;
            }
            let wanted = self.wanted() - self.known;
            let count = wanted.min(bytes.len());
            self.head[self.known..self.known + count].copy_from_slice(&bytes[..count]);
            self.known += count;
            bytes = &bytes[count..];
            if self.known == self.wanted() {
                let cost = self.cost();
                self.left = self.left.checked_sub(cost).ok_or(Flood)?;
                self.skip = self.length() - (self.known - HEADER);
                self.known = 0;
            }
        }
        Ok(())
    }

    fn earn(&mut self, now: Time) {
        let Some(at) = self.at else {
            self.at = Some(now);
            return;
        };
        let millis = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(u64::from(PER_SECOND)) / 1000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BUDGET);
            self.left = self.left.saturating_add(earned).min(BUDGET);
            self.at = Some(now);
        }
    }

    fn length(&self) -> usize {
        let [a, b, c, ..] = self.head;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    /// How much of the frame must be known to say what it costs.
    fn wanted(&self) -> usize {
        let is_window_update = self.known >= HEADER && self.head[3] == 8 && self.length() == 4;
        if is_window_update { HEADER + 4 } else { HEADER }
    }

    fn cost(&self) -> u32 {
        let (kind, flags) = (self.head[3], self.head[4]);
        match kind {
            // DATA: without content, and not the end either.
            0 if self.length() == 0 && flags & 1 == 0 => 10,
            // RST_STREAM: a request that was work for nothing.
            3 => 5,
            // SETTINGS, each to be acknowledged; CONTINUATION.
            4 | 9 => 10,
            // WINDOW_UPDATE by so little that answers go out in crumbs.
            8 => {
                let [.., a, b, c, d] = self.head;
                if u32::from_be_bytes([a & 0x7f, b, c, d]) < 256 { 5 } else { 0 }
            }
            // DATA, HEADERS, GOAWAY, and PUSH_PROMISE, which is an error from a client.
            0 | 1 | 5 | 7 => 0,
            // PRIORITY, which nobody heeds; PING; what nobody knows.
            _ => 2,
        }
    }
}

/// Reads until the client spends too much.
pub(super) struct Within {
    budget: Budget,
    clock: Arc<dyn Clock>,
}

impl Within {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { budget: Budget::new(), clock }
    }
}

impl How for Within {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        inner: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(inner).poll_read(cx, buffer))?;
        let now = self.clock.now();
        match self.budget.see(&buffer.filled()[before..], now) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Flood) => Poll::Ready(Err(io::Error::other("a flood of HTTP/2 frames"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    /// How many of such frames are taken at once.
    fn taken(frame: &[u8]) -> usize {
        let mut budget = Budget::new();
        budget.see(&[b'x'; PREFACE], Time::from_millis(0)).expect("the preface is free");
        let mut count = 0;
        while count < 20_000 && budget.see(frame, Time::from_millis(0)).is_ok() {
            count += 1;
        }
        count
    }

    #[test]
    fn each_kind_of_flood_ends_and_real_traffic_does_not() {
        for (name, flood) in [
            ("rapid reset", [frame(1, 5, b"head"), frame(3, 0, &[0; 4])].concat()),
            ("continuation", frame(9, 0, b"")),
            ("empty data", frame(0, 0, b"")),
            ("settings", frame(4, 0, b"")),
            ("ping", frame(6, 0, &[0; 8])),
            ("window update by 1", frame(8, 0, &[0, 0, 0, 1])),
            ("priority", frame(2, 0, &[0; 5])),
            ("unknown", frame(77, 0, b"abc")),
        ] {
            assert!((100..=1000).contains(&taken(&flood)), "{name}: {}", taken(&flood));
        }
        for (name, real) in [
            ("requests", frame(1, 5, b"head")),
            ("an upload", frame(0, 0, &[0; 1000])),
            ("the end of an upload", frame(0, 1, b"")),
            ("a download", frame(8, 0, &[0, 0, 0x40, 0])),
        ] {
            assert_eq!(taken(&real), 20_000, "{name}");
        }
    }

    #[test]
    fn frames_are_seen_however_the_bytes_come() {
        let bytes = [frame(6, 0, &[0; 8]), frame(8, 0, &[0, 0, 0, 1]), frame(0, 0, b"data")];
        let bytes = [vec![b'x'; PREFACE], bytes.concat()].concat();
        for size in 1..bytes.len() {
            let mut budget = Budget::new();
            for piece in bytes.chunks(size) {
                budget.see(piece, Time::from_millis(0)).expect("within the budget");
            }
            assert_eq!((budget.left, budget.skip, budget.known), (BUDGET - 7, 0, 0), "{size}");
        }
    }

    #[test]
    fn what_was_spent_comes_back_with_time() {
        let mut budget = Budget::new();
        budget.skip = 0;
        let settings = frame(4, 0, b"");
        for second in 0..100 {
            for _ in 0..50 {
                let now = Time::from_millis(second * 1000);
                assert_eq!(budget.see(&settings, now), Ok(()), "in second {second}");
            }
        }
        for step in 0..10_000 {
            if budget.see(&settings, Time::from_millis(100_000 + step)).is_err() {
                return;
            }
        }
        panic!("a flood went on");
    }
}
