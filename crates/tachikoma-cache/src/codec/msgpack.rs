//! Values as MessagePack: structs as maps with the names of their fields, so that a field may be
//! added without breaking what is stored.
//!
//! Before a value is read its bytes are walked through once, without recursion: `rmp-serde` does
//! not count the levels of enums within enums and would run out of stack on such a value.

use bytes::Bytes;

use super::{Cacheable, encoded, undecodable};
use crate::error::Error;

/// Whether values can be written as MessagePack.
pub(super) const AVAILABLE: bool = true;

/// How deep lists, maps and enums may lie in each other: as deep as `serde_json` goes.
const MAX_DEPTH: usize = 128;

pub(super) fn encode<T: Cacheable>(value: &T) -> Result<Bytes, Error> {
    encoded(rmp_serde::to_vec_named(value))
}

pub(super) fn decode<T: Cacheable>(bytes: &[u8]) -> Result<T, Error> {
    if !is_one_value(bytes) {
        return Err(undecodable("it is no MessagePack, or too deep"));
    }
    // Its error may quote the value, which may be a secret.
    rmp_serde::from_slice(bytes).map_err(|_| undecodable("MessagePack of something else"))
}

/// Whether these are the bytes of one value and no more, at most [`MAX_DEPTH`] levels deep, with no
/// length beyond their end. It allocates nothing.
fn is_one_value(bytes: &[u8]) -> bool {
    // How many values are still to come on each level that is open.
    let mut open = [0_u64; MAX_DEPTH + 1];
    let mut level = 0;
    open[0] = 1;
    let mut rest = bytes;
    loop {
        while open[level] == 0 {
            if level == 0 {
                return rest.is_empty();
            }
            level -= 1;
        }
        open[level] -= 1;
        let Some((parts, after)) = next(rest) else { return false };
        rest = after;
        if parts > 0 {
            level += 1;
            match open.get_mut(level) {
                Some(count) => *count = parts,
                None => return false,
            }
        }
    }
}

/// How many values the next one contains, and what follows its own bytes; `None` if it is cut off
/// or not allowed.
fn next(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&marker, rest) = bytes.split_first()?;
    let low = |mask: u8| u64::from(marker & mask);
    // Of which length the length is, what one counts for, and what else stands before the content.
    match marker {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Some((0, rest)),
        0x80..=0x8f => Some((low(0x0f) * 2, rest)),
        0x90..=0x9f => Some((low(0x0f), rest)),
        0xa0..=0xbf => skip(rest, low(0x1f)),
        0xc1 => None,
        0xc4 | 0xd9 => sized(rest, 1, 0),
        0xc5 | 0xda => sized(rest, 2, 0),
        0xc6 | 0xdb => sized(rest, 4, 0),
        0xc7 => sized(rest, 1, 1),
        0xc8 => sized(rest, 2, 1),
        0xc9 => sized(rest, 4, 1),
        0xcc | 0xd0 => skip(rest, 1),
        0xcd | 0xd1 => skip(rest, 2),
        0xca | 0xce | 0xd2 => skip(rest, 4),
        0xcb | 0xcf | 0xd3 => skip(rest, 8),
        0xd4..=0xd8 => skip(rest, (1 << (marker - 0xd4)) + 1),
        0xdc => number(rest, 2),
        0xdd => number(rest, 4),
        0xde => number(rest, 2).map(|(pairs, rest)| (pairs * 2, rest)),
        0xdf => number(rest, 4).map(|(pairs, rest)| (pairs * 2, rest)),
    }
}

/// A text or bytes: a length of `width` bytes, `more` bytes, and the content.
fn sized(bytes: &[u8], width: usize, more: u64) -> Option<(u64, &[u8])> {
    let (length, rest) = number(bytes, width)?;
    skip(rest, length + more)
}

fn skip(bytes: &[u8], length: u64) -> Option<(u64, &[u8])> {
    Some((0, bytes.get(usize::try_from(length).ok()?..)?))
}

/// A big-endian number of `width` bytes.
fn number(bytes: &[u8], width: usize) -> Option<(u64, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(width)?;
    Some((digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: bool) {
        assert_eq!(is_one_value(bytes), expected, "{bytes:02x?}");
    }

    #[test]
    fn every_marker_is_as_long_as_the_specification_says() {
        let content = |marker: u8| -> usize {
            match marker {
                0xa0..=0xbf => usize::from(marker & 0x1f),
                0xcc | 0xd0 => 1,
                0xcd | 0xd1 => 2,
                0xca | 0xce | 0xd2 => 4,
                0xcb | 0xcf | 0xd3 => 8,
                0xd4..=0xd8 => (1 << (marker - 0xd4)) + 1,
                _ => 0,
            }
        };
        for marker in
            (0..=0xff).filter(|m| !matches!(m, 0x80..=0x9f | 0xc1 | 0xc4..=0xc9 | 0xd9..=0xdf))
        {
            let whole = [vec![marker], vec![0; content(marker)]].concat();
            check(&whole, true);
            check(&whole[..whole.len() - 1], false);
            check(&[whole, vec![0xc0]].concat(), false);
        }
        check(&[0xc1], false);
    }

    #[test]
    fn lengths_and_counts_are_followed() {
        for (bytes, expected) in [
            (&b"\x80"[..], true),
            (b"\x81\x01", false),
            (b"\x81\x01\x02", true),
            (b"\x92\x90\x91\xc0", true),
            (b"\xc4\x02ab", true),
            (b"\xc4\x03ab", false),
            (b"\xc5\0\x02ab", true),
            (b"\xc6\0\0\0\x02ab", true),
            (b"\xc7\x02\x05ab", true),
            (b"\xc7\x02\x05a", false),
            (b"\xc8\0\x02\x05ab", true),
            (b"\xc9\0\0\0\x02\x05ab", true),
            (b"\xd9\x02ab", true),
            (b"\xda\0\x02ab", true),
            (b"\xdb\0\0\0\x02ab", true),
            (b"\xdc\0\x02\x01\x02", true),
            (b"\xdd\0\0\0\x02\x01\x02", true),
            (b"\xde\0\x01\x01\x02", true),
            (b"\xdf\0\0\0\x01\x01\x02", true),
            (b"\xdf\0\0\0\x01\x01", false),
            (b"\xdd\xff\xff\xff\xff\x01", false),
            (b"", false),
        ] {
            check(bytes, expected);
        }
    }

    #[test]
    fn the_limit_of_the_depth_is_exact() {
        let lists = |depth| [vec![0x91; depth], vec![0xc0]].concat();
        check(&lists(MAX_DEPTH), true);
        check(&lists(MAX_DEPTH + 1), false);
    }
}
