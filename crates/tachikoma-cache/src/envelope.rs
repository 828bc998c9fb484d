//! The bytes of an entry outside this process: version 1 of the stored format.
//!
//! Pure: it encodes and decodes, and decides only whether bytes are an entry that this version can
//! read. It reads no clock: stored times are the server's, and the caller passes the difference.
//! What it decodes may come from anywhere; it never panics and allocates nothing by a number that
//! stands in the bytes.
//!
//! ```text
//! offset  size  field
//!      0     3  magic F5 54 4B; no UTF-8 text begins so
//!      3     1  version
//!      4     1  codec
//!      5     1  compression: 0, none
//!      6     1  flags: 1 hard expiry, 2 soft expiry, 4 soft expiry equal to the hard one
//!      7     8  type tag
//!     15     8  incarnation of the server that it was written to
//!     23     …  created; hard expiry if flag 1; soft expiry if flag 2
//!            …  number of marks, then each: 2 × length of the group's name, plus 1 if the counters
//!               are those of the mark before; the name; else epoch (8) and counter
//!            …  payload
//!     -8     8  XXH3-64 of everything before
//! ```
//!
//! Numbers without a size are LEB128 varints, the others little-endian. Times are milliseconds
//! since the Unix epoch. Bytes 0 to 3 keep their meaning in every version.

use std::fmt;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::clock::Time;
use crate::entry::{CodecId, Meta, TypeTag};
use crate::invalidation::{Group, Mark, Marks, Snapshot};

const MAGIC: [u8; 3] = [0xF5, b'T', b'K'];
const VERSION: u8 = 1;
const NO_COMPRESSION: u8 = 0;
const HEAD_BYTES: usize = 23;

/// The bytes at the end that are different after every change.
pub(crate) const CHECKSUM_BYTES: usize = 8;

const HARD: u8 = 1;
const SOFT: u8 = 2;
const SOFT_IS_HARD: u8 = 4;

/// An entry as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) meta: Meta,
    pub(crate) incarnation: u64,
    pub(crate) payload: Bytes,
}

/// Why bytes are not an entry that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Unreadable {
    /// They do not begin as an entry does.
    NotOurs,
    /// A later version of this library wrote them.
    NewerVersion,
    /// They are incomplete or were changed.
    Corrupt,
    /// The codec is one that this version does not have.
    UnknownCodec,
    /// The compression is one that this version does not have.
    UnknownCompression,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOurs => "not an entry of this library",
            Self::NewerVersion => "written by a later version",
            Self::Corrupt => "incomplete or changed",
            Self::UnknownCodec => "written with an unknown codec",
            Self::UnknownCompression => "written with an unknown compression",
        })
    }
}

/// The difference between the server's time and the cache's, in milliseconds: what to add to a
/// local [`Time`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Offset(pub(crate) i64);

impl Offset {
    fn to_stored(self, local: Time) -> u64 {
        local.as_millis().saturating_add_signed(self.0)
    }

    fn to_local(self, stored: u64) -> Time {
        Time::from_millis(stored.saturating_sub_signed(self.0))
    }
}

/// The bytes of an entry.
pub(crate) fn encode(meta: &Meta, payload: &[u8], incarnation: u64, offset: Offset) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + 32 + payload.len() + CHECKSUM_BYTES);
    out.extend_from_slice(&MAGIC);
    let same = meta.soft_expiry.is_some() && meta.soft_expiry == meta.hard_expiry;
    let flags = match (meta.hard_expiry, meta.soft_expiry) {
        (Some(_), Some(_)) if same => HARD | SOFT_IS_HARD,
        (hard, soft) => u8::from(hard.is_some()) * HARD + u8::from(soft.is_some()) * SOFT,
    };
    out.extend([VERSION, meta.codec.as_byte(), NO_COMPRESSION, flags]);
    out.extend_from_slice(&meta.type_tag.0.to_le_bytes());
    out.extend_from_slice(&incarnation.to_le_bytes());
    let soft = meta.soft_expiry.filter(|_| !same);
    for time in [Some(meta.created), meta.hard_expiry, soft].into_iter().flatten() {
        put_varint(&mut out, offset.to_stored(time));
    }
    put_marks(&mut out, meta.marks.as_slice());
    out.extend_from_slice(payload);
    let checksum = xxh3_64(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

fn put_marks(out: &mut Vec<u8>, marks: &[Mark]) {
    put_varint(out, marks.len() as u64);
    let mut before: Option<Snapshot> = None;
    for mark in marks {
        let same = before == Some(mark.at);
        let name = mark.group.as_str().as_bytes();
        put_varint(out, name.len() as u64 * 2 + u64::from(same));
        out.extend_from_slice(name);
        if !same {
            out.extend_from_slice(&mark.at.epoch.to_le_bytes());
            put_varint(out, mark.at.counter);
        }
        before = Some(mark.at);
    }
}

/// The entry of these bytes; its payload shares them.
///
/// # Errors
///
/// Why they are none: see [`Unreadable`].
pub(crate) fn decode(bytes: &Bytes, offset: Offset) -> Result<Decoded, Unreadable> {
    check_version(bytes)?;
    let (content, checksum) =
        bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Unreadable::Corrupt)?;
    if xxh3_64(content) != u64::from_le_bytes(*checksum) {
        return Err(Unreadable::Corrupt);
    }
    let mut reader = Reader { rest: content };
    let (meta, incarnation) = reader.head(offset)?;
    let start = content.len() - reader.rest.len();
    Ok(Decoded { meta, incarnation, payload: bytes.slice(start..content.len()) })
}

/// What the beginning of an entry's bytes says of it, without a look at the payload or the
/// checksum: enough to count what is live, not to use it.
///
/// # Errors
///
/// As [`decode`]; [`Unreadable::Corrupt`] also if more bytes would be needed.
pub(crate) fn decode_head(bytes: &[u8], offset: Offset) -> Result<Meta, Unreadable> {
    check_version(bytes)?;
    let (meta, _) = Reader { rest: bytes }.head(offset)?;
    Ok(meta)
}

fn check_version(bytes: &[u8]) -> Result<(), Unreadable> {
    match bytes {
        [a, b, c, version, ..] if [*a, *b, *c] == MAGIC => match version {
            0 => Err(Unreadable::NotOurs),
            1..=VERSION => Ok(()),
            _ => Err(Unreadable::NewerVersion),
        },
        // A beginning that was cut off within the magic is an entry that lost its rest.
        [..] if !bytes.is_empty() && MAGIC.starts_with(bytes) => Err(Unreadable::Corrupt),
        _ => Err(Unreadable::NotOurs),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads up to where the payload begins.
    fn head(&mut self, offset: Offset) -> Result<(Meta, u64), Unreadable> {
        let [_, _, _, _, codec, compression, flags] = *self.array()?;
        let codec = CodecId::from_byte(codec).ok_or(Unreadable::UnknownCodec)?;
        if compression != NO_COMPRESSION {
            return Err(Unreadable::UnknownCompression);
        }
        let type_tag = TypeTag(u64::from_le_bytes(*self.array()?));
        let incarnation = u64::from_le_bytes(*self.array()?);
        let created = offset.to_local(self.varint()?);
        let (has_hard, has_soft, same) = match flags {
            0 => (false, false, false),
            HARD => (true, false, false),
            SOFT => (false, true, false),
            3 => (true, true, false),
            5 => (true, false, true),
            _ => return Err(Unreadable::Corrupt),
        };
        let mut expiry = |there: bool| {
            if there { self.varint().map(|at| Some(offset.to_local(at))) } else { Ok(None) }
        };
        let hard_expiry = expiry(has_hard)?;
        let own_soft = expiry(has_soft)?;
        let soft_expiry = if same { hard_expiry } else { own_soft };
        let marks = self.marks()?;
        Ok((Meta { created, soft_expiry, hard_expiry, type_tag, codec, marks }, incarnation))
    }

    fn marks(&mut self) -> Result<Marks, Unreadable> {
        let count = self.varint()?;
        let mut marks: Vec<Mark> = Vec::new();
        // Each mark takes at least one byte, so the bytes bound the list whatever the count says.
        for _ in 0..count {
            let head = self.varint()?;
            let length = usize::try_from(head / 2).map_err(|_| Unreadable::Corrupt)?;
            let name = std::str::from_utf8(self.bytes(length)?).map_err(|_| Unreadable::Corrupt)?;
            let at = if head % 2 == 1 {
                marks.last().ok_or(Unreadable::Corrupt)?.at
            } else {
                let epoch = u64::from_le_bytes(*self.array()?);
                Snapshot { epoch, counter: self.varint()? }
            };
            marks.push(Mark { group: Group::from_name(name), at });
        }
        Ok(marks.into_iter().collect())
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Unreadable::Corrupt)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Unreadable> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Unreadable::Corrupt)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Unreadable> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.array()?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable::Corrupt)
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // Masked to seven bits: the cast drops nothing.
        #[allow(clippy::cast_possible_truncation)]
        out.push((value as u8 & 0x7F) | 0x80);
        value >>= 7;
    }
    #[allow(clippy::cast_possible_truncation)]
    out.push(value as u8);
}

#[cfg(test)]
mod tests;
