//! Zstandard frames (RFC 8878).

use super::Stuck;

pub(super) const AVAILABLE: bool = true;

/// `None` if there is no memory for it: the value is stored as it is then.
pub(super) fn pack(plain: &[u8], level: u8) -> Option<Vec<u8>> {
    zstd::bulk::compress(plain, level.into()).ok()
}

/// At most `length` bytes come out: the whole frame is decoded into one buffer, without a window
/// of the frame's own choice.
pub(super) fn unpack(packed: &[u8], length: usize) -> Result<Vec<u8>, Stuck> {
    let mut plain = Vec::with_capacity(length);
    let mut decoder = zstd::bulk::Decompressor::new().map_err(|_| Stuck::Corrupt)?;
    decoder.decompress_to_buffer(packed, &mut plain).map_err(|_| Stuck::Corrupt)?;
    Ok(plain)
}
