//! Changes good input as faults and attackers do: bits, bytes, lengths, pieces cut out, doubled,
//! inserted or taken from elsewhere. The same seed makes the same changes.

/// A source of changes.
pub(super) struct Mutator {
    state: u64,
}

/// Bytes that mean something in one of the formats.
const MARKS: &[u8] = b"\0\x01\x7f\x80\x81\x90\xc1\xdb\xdd\xdf\xff\r\n$*:-+_,#=~%>!|0129";

/// Lengths that no good input has.
const LENGTHS: [&[u8]; 8] = [
    b"-2",
    b"2147483647",
    b"4294967295",
    b"9223372036854775807",
    b"18446744073709551616",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x10",
];

impl Mutator {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    /// A number below `limit`, which is not zero (xorshift64*, Vigna 2016).
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let mixed = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(mixed).unwrap() % limit
    }

    /// One to four changes.
    pub(super) fn mutate(&mut self, good: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, other);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        if bytes.is_empty() {
            bytes.extend_from_slice(other);
            return;
        }
        let at = self.below(bytes.len());
        let end = (at + 1 + self.below(16)).min(bytes.len());
        match self.below(9) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = MARKS[self.below(MARKS.len())],
            2 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => drop(bytes.splice(at..end, LENGTHS[self.below(LENGTHS.len())].iter().copied())),
            7 => drop(bytes.splice(at..at, [MARKS[self.below(MARKS.len())]])),
            _ => {
                let from = self.below(other.len().max(1)).min(other.len());
                bytes.splice(at..end, other[from..].iter().copied().take(64));
            }
        }
    }
}
