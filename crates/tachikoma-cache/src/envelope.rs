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
//!      5     1  compression: 0 none, 1 LZ4, 2 Zstandard
//!      6     1  flags: 1 hard expiry, 2 soft expiry, 4 soft expiry equal to the hard one,
//!               8 time to idle, 16 load time, 32 the source had nothing: no payload, 64 signed,
//!               128 marks of other namespaces
//!      7     8  type tag
//!     15     8  incarnation of the server that it was written to
//!     23     …  created; hard expiry if flag 1; soft expiry if flag 2; time to idle if flag 8;
//!               load time if flag 16
//!            …  number of marks, then each: 2 × length of the group's name, plus 1 if the counters
//!               are those of the mark before; the name; else epoch (8) and counter
//!            …  if flag 128: number of other namespaces, then each: length of its name; the name;
//!               its marks, as above
//!            …  length of the value before it was compressed, if it was
//!            …  payload
//!    -40    32  signature of its place and everything before, if flag 64
//!     -8     8  XXH3-64 of everything before; its seed is that of the name, whose seed is that of
//!               the namespace: an answer that belongs to another key is no entry
//! ```
//!
//! Numbers without a size are LEB128 varints, the others little-endian. Times are milliseconds
//! since the Unix epoch, spans are milliseconds. Bytes 0 to 3 keep their meaning in every version.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::clock::Time;
use crate::compression::{Form, Packed};
use crate::entry::{CodecId, Meta, TypeTag};
use crate::invalidation::{Group, Mark, Marks, Snapshot};
use crate::key::{Key, Namespace};
use crate::signature::SignKeys;

const MAGIC: [u8; 3] = [0xF5, b'T', b'K'];
const VERSION: u8 = 1;
const FLAGS_AT: usize = 6;
const HEAD_BYTES: usize = 23;
const SIGNATURE_BYTES: usize = 32;

/// The bytes at the end that are different after every change.
pub(crate) const CHECKSUM_BYTES: usize = 8;

const HARD: u8 = 1;
const SOFT: u8 = 2;
const SOFT_IS_HARD: u8 = 4;
const IDLE: u8 = 8;
const LOAD_TIME: u8 = 16;
const NOTHING: u8 = 32;
const SIGNED: u8 = 64;
const MADE_OF: u8 = 128;

/// An entry as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) meta: Meta,
    pub(crate) incarnation: u64,
    pub(crate) packed: Packed,
}

/// Where an entry stands, and who may write there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seal<'a> {
    pub(crate) place: &'a Key<'a>,
    pub(crate) keys: &'a SignKeys,
}

/// Why bytes are not an entry that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Unreadable {
    /// They do not begin as an entry does.
    NotOurs,
    /// A later version of this library wrote them.
    NewerVersion,
    /// They are incomplete, were changed, or stood at another key.
    Corrupt,
    /// The codec is one that this version does not have.
    UnknownCodec,
    /// The compression is one that this version does not have.
    UnknownCompression,
    /// It needs a signature and has none.
    NotSigned,
    /// Nobody with a key wrote it, or not for this place.
    WrongSignature,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOurs => "not an entry of this library",
            Self::NewerVersion => "written by a later version",
            Self::Corrupt => "incomplete, changed or of another key",
            Self::UnknownCodec => "written with an unknown codec",
            Self::UnknownCompression => "written with an unknown compression",
            Self::NotSigned => "not signed",
            Self::WrongSignature => "signed by somebody else or for another key",
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
pub(crate) fn encode(
    meta: &Meta,
    packed: &Packed,
    incarnation: u64,
    offset: Offset,
    seal: Seal<'_>,
) -> Vec<u8> {
    let around = HEAD_BYTES + 64 + SIGNATURE_BYTES + CHECKSUM_BYTES;
    let mut out = Vec::with_capacity(around + packed.bytes.len());
    out.extend_from_slice(&MAGIC);
    let same = meta.soft_expiry.is_some() && meta.soft_expiry == meta.hard_expiry;
    let soft = meta.soft_expiry.filter(|_| !same);
    let load_time = Some(millis(meta.load_time)).filter(|millis| *millis > 0);
    let idle = meta.idle.map(millis);
    let has_foreign = meta.marks.foreign().next().is_some();
    let flags = [
        (HARD, meta.hard_expiry.is_some()),
        (SOFT, soft.is_some()),
        (SOFT_IS_HARD, same),
        (IDLE, idle.is_some()),
        (LOAD_TIME, load_time.is_some()),
        (NOTHING, meta.negative),
        (SIGNED, seal.keys.are_needed()),
        (MADE_OF, has_foreign),
    ];
    let flags = flags.iter().filter(|(_, set)| *set).fold(0, |all, (flag, _)| all | flag);
    out.extend([VERSION, meta.codec.as_byte(), packed.form.as_byte(), flags]);
    out.extend_from_slice(&meta.type_tag.0.to_le_bytes());
    out.extend_from_slice(&incarnation.to_le_bytes());
    for time in [Some(meta.created), meta.hard_expiry, soft].into_iter().flatten() {
        put_varint(&mut out, offset.to_stored(time));
    }
    for span in [idle, load_time].into_iter().flatten() {
        put_varint(&mut out, span);
    }
    put_marks(&mut out, meta.marks.own());
    if has_foreign {
        put_foreign(&mut out, &meta.marks);
    }
    if packed.form != Form::Plain {
        put_varint(&mut out, packed.length);
    }
    out.extend_from_slice(&packed.bytes);
    if let Some(signature) = seal.keys.sign(seal.place, &out) {
        out.extend_from_slice(&signature);
    }
    let checksum = checksum(seal.place, &out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// Of an entry's bytes at its place.
fn checksum(place: &Key<'_>, bytes: &[u8]) -> u64 {
    let namespace = xxh3_64(place.namespace().as_str().as_bytes());
    xxh3_64_with_seed(bytes, xxh3_64_with_seed(place.name().as_bytes(), namespace))
}

/// Bytes with the checksum that they need at this place, as only who wants to be read writes it.
#[cfg(any(test, feature = "__fuzz"))]
pub(crate) fn resealed(content: &[u8], place: &Key<'_>) -> Vec<u8> {
    [content, &checksum(place, content).to_le_bytes()].concat()
}

/// A span as it is stored: what is shorter than a millisecond is one, since zero is no time.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
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

fn put_foreign(out: &mut Vec<u8>, marks: &Marks) {
    put_varint(out, marks.foreign().count() as u64);
    for (space, marks) in marks.foreign() {
        let name = space.as_str().as_bytes();
        put_varint(out, name.len() as u64);
        out.extend_from_slice(name);
        put_marks(out, marks);
    }
}

/// The entry of these bytes; its payload shares them.
///
/// # Errors
///
/// Why they are none: see [`Unreadable`].
pub(crate) fn decode(bytes: &Bytes, offset: Offset, seal: Seal<'_>) -> Result<Decoded, Unreadable> {
    check_version(bytes)?;
    let (content, checksum) =
        bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Unreadable::Corrupt)?;
    if self::checksum(seal.place, content) != u64::from_le_bytes(*checksum) {
        return Err(Unreadable::Corrupt);
    }
    let content = signed_content(content, seal)?;
    let mut reader = Reader { rest: content };
    let (meta, incarnation, form) = reader.head(offset)?;
    let length = reader.varint_if(form != Form::Plain)?;
    let payload = bytes.slice(content.len() - reader.rest.len()..content.len());
    if meta.negative && !(payload.is_empty() && form == Form::Plain) {
        return Err(Unreadable::Corrupt);
    }
    let packed = Packed { form, length: length.unwrap_or(payload.len() as u64), bytes: payload };
    Ok(Decoded { meta, incarnation, packed })
}

/// What stands before the signature, if the signature is as it has to be. Who has no key takes
/// entries with and without one.
fn signed_content<'a>(content: &'a [u8], seal: Seal<'_>) -> Result<&'a [u8], Unreadable> {
    let needed = seal.keys.are_needed();
    if content.get(FLAGS_AT).is_none_or(|flags| flags & SIGNED == 0) {
        return if needed { Err(Unreadable::NotSigned) } else { Ok(content) };
    }
    let (content, signature) =
        content.split_last_chunk::<SIGNATURE_BYTES>().ok_or(Unreadable::Corrupt)?;
    if needed && !seal.keys.accept_signature(seal.place, content, signature) {
        return Err(Unreadable::WrongSignature);
    }
    Ok(content)
}

/// What the beginning of an entry's bytes says of it, without a look at the payload or the
/// checksum: enough to count what is live, not to use it.
///
/// # Errors
///
/// As [`decode`]; [`Unreadable::Corrupt`] also if more bytes would be needed.
pub(crate) fn decode_head(bytes: &[u8], offset: Offset) -> Result<Meta, Unreadable> {
    check_version(bytes)?;
    let (meta, ..) = Reader { rest: bytes }.head(offset)?;
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
    fn head(&mut self, offset: Offset) -> Result<(Meta, u64, Form), Unreadable> {
        let [_, _, _, _, codec, compression, flags] = *self.array()?;
        let codec = CodecId::from_byte(codec).ok_or(Unreadable::UnknownCodec)?;
        let form = Form::from_byte(compression).ok_or(Unreadable::UnknownCompression)?;
        let type_tag = TypeTag(u64::from_le_bytes(*self.array()?));
        let incarnation = u64::from_le_bytes(*self.array()?);
        let created = offset.to_local(self.varint()?);
        let has = |flag: u8| flags & flag != 0;
        let known = HARD | SOFT | SOFT_IS_HARD | IDLE | LOAD_TIME | NOTHING | SIGNED | MADE_OF;
        if flags & !known != 0 || has(SOFT_IS_HARD) && (has(SOFT) || !has(HARD)) {
            return Err(Unreadable::Corrupt);
        }
        let hard_expiry = self.varint_if(has(HARD))?.map(|at| offset.to_local(at));
        let own_soft = self.varint_if(has(SOFT))?.map(|at| offset.to_local(at));
        let soft_expiry = if has(SOFT_IS_HARD) { hard_expiry } else { own_soft };
        let idle = self.varint_if(has(IDLE))?.map(Duration::from_millis);
        let load_time = Duration::from_millis(self.varint_if(has(LOAD_TIME))?.unwrap_or_default());
        let own = self.marks()?;
        let foreign = if has(MADE_OF) { self.foreign()? } else { Vec::new() };
        let marks = Marks::stored(own, foreign);
        let negative = has(NOTHING);
        let meta = Meta {
            created,
            soft_expiry,
            hard_expiry,
            type_tag,
            codec,
            marks,
            load_time,
            idle,
            negative,
            seen: None,
        };
        Ok((meta, incarnation, form))
    }

    fn marks(&mut self) -> Result<Vec<Mark>, Unreadable> {
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
        Ok(marks)
    }

    fn foreign(&mut self) -> Result<Vec<(Namespace, Vec<Mark>)>, Unreadable> {
        let count = self.varint()?;
        let mut parts: Vec<(Namespace, Vec<Mark>)> = Vec::new();
        // As above.
        for _ in 0..count {
            let length = usize::try_from(self.varint()?).map_err(|_| Unreadable::Corrupt)?;
            let name = std::str::from_utf8(self.bytes(length)?).map_err(|_| Unreadable::Corrupt)?;
            let space = Namespace::new(name).map_err(|_| Unreadable::Corrupt)?;
            let marks = self.marks()?;
            // One way to write each: ascending, and none without marks.
            if marks.is_empty() || parts.last().is_some_and(|(last, _)| *last >= space) {
                return Err(Unreadable::Corrupt);
            }
            parts.push((space, marks));
        }
        if parts.is_empty() { Err(Unreadable::Corrupt) } else { Ok(parts) }
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

    fn varint_if(&mut self, there: bool) -> Result<Option<u64>, Unreadable> {
        if there { self.varint().map(Some) } else { Ok(None) }
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
