//! Keeps the bytes of a body that is arriving, by their place in it.
//!
//! Decides nothing but how they lie in memory: large pieces as they came, small ones copied
//! together, so that a body of single bytes costs no more than its size.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Smaller pieces are copied together …
const SMALL: usize = 2 << 10;

/// … into blocks of about this size.
const BLOCK: usize = 16 << 10;

/// A run of bytes out of a body, from [`start`](Self::start) to [`end`](Self::end).
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Each with the place where it begins.
    ready: VecDeque<(u64, Bytes)>,
    /// What follows them.
    tail: BytesMut,
    start: u64,
    end: u64,
}

impl Pieces {
    /// A body that is whole.
    pub(super) fn whole(bytes: Bytes) -> Self {
        let end = bytes.len() as u64;
        Self { ready: VecDeque::from([(0, bytes)]), tail: BytesMut::new(), start: 0, end }
    }

    /// Where the bytes that are held end: how many have come.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes are held.
    pub(super) fn held(&self) -> u64 {
        self.end - self.start
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let length = data.len();
        if length < SMALL {
            self.tail.extend_from_slice(&data);
            self.end += length as u64;
            if self.tail.len() >= BLOCK {
                self.close_tail();
            }
            return;
        }
        self.close_tail();
        self.ready.push_back((self.end, data));
        self.end += length as u64;
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let begins = self.end - self.tail.len() as u64;
            // Split off whole: the next block begins a new allocation.
            self.ready.push_back((begins, std::mem::take(&mut self.tail).freeze()));
        }
    }

    /// What follows `at`, as much as lies together; `None` if nothing is held there.
    pub(super) fn read(&self, at: u64) -> Option<Bytes> {
        if at < self.start || at >= self.end {
            return None;
        }
        let tail_begins = self.end - self.tail.len() as u64;
        if at >= tail_begins {
            let skip = usize::try_from(at - tail_begins).ok()?;
            return Some(Bytes::copy_from_slice(self.tail.get(skip..)?));
        }
        let after = self.ready.partition_point(|(begins, _)| *begins <= at);
        let (begins, piece) = self.ready.get(after.checked_sub(1)?)?;
        let skip = usize::try_from(at - begins).ok()?;
        (skip <= piece.len()).then(|| piece.slice(skip..))
    }

    /// Forgets what lies before `at`, as far as whole pieces do.
    pub(super) fn forget_before(&mut self, at: u64) {
        while let Some((begins, piece)) = self.ready.front() {
            let ends = begins + piece.len() as u64;
            if ends > at {
                return;
            }
            self.start = ends;
            self.ready.pop_front();
        }
        if self.end <= at {
            self.start = self.end;
            self.tail.clear();
        }
    }

    /// All of it in one exact allocation: pieces may be small parts of large read buffers.
    pub(super) fn join(&self) -> Bytes {
        let mut whole = Vec::with_capacity(usize::try_from(self.held()).unwrap_or_default());
        for (_, piece) in &self.ready {
            whole.extend_from_slice(piece);
        }
        whole.extend_from_slice(&self.tail);
        whole.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(pieces: &Pieces, from: u64) -> Vec<u8> {
        let (mut at, mut all) = (from, Vec::new());
        while let Some(data) = pieces.read(at) {
            assert!(!data.is_empty());
            at += data.len() as u64;
            all.extend_from_slice(&data);
        }
        all
    }

    proptest! {
        #[test]
        fn whatever_the_pieces_the_bytes_are_the_same_from_everywhere(
            sizes in prop::collection::vec(prop_oneof![0usize..40, 1_000usize..6_000], 0..60),
            part in 0u64..1_000,
        ) {
            let (mut pieces, mut whole) = (Pieces::default(), Vec::new());
            for (i, size) in sizes.iter().enumerate() {
                let byte = |j: usize| u8::try_from((i * 31 + j) % 251).unwrap();
                let data: Vec<u8> = (0..*size).map(byte).collect();
                whole.extend_from_slice(&data);
                pieces.push(data.into());
            }
            prop_assert_eq!(pieces.end(), whole.len() as u64);
            prop_assert_eq!(&pieces.join()[..], &whole[..]);
            let from = (whole.len() as u64 * part) / 1_000;
            let rest = usize::try_from(from).unwrap();
            prop_assert_eq!(read_all(&pieces, from), &whole[rest..]);
            pieces.forget_before(from);
            prop_assert_eq!(read_all(&pieces, from), &whole[rest..]);
            prop_assert!(pieces.held() >= whole.len() as u64 - from);
            pieces.forget_before(pieces.end());
            prop_assert_eq!(pieces.held(), 0);
        }
    }

    #[test]
    fn single_bytes_lie_together() {
        let mut pieces = Pieces::default();
        for _ in 0..100_000 {
            pieces.push(Bytes::from_static(b"x"));
        }
        assert!(pieces.ready.len() <= 100_000 / BLOCK + 1, "{} pieces", pieces.ready.len());
    }
}
