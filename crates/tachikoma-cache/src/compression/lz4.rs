//! LZ4 blocks, in safe Rust.

use super::Stuck;

pub(super) const AVAILABLE: bool = true;

#[expect(clippy::unnecessary_wraps, reason = "as its counterpart without the feature")]
pub(super) fn pack(plain: &[u8]) -> Option<Vec<u8>> {
    Some(lz4_flex::block::compress(plain))
}

/// At most `length` bytes come out.
pub(super) fn unpack(packed: &[u8], length: usize) -> Result<Vec<u8>, Stuck> {
    let mut plain = vec![0; length];
    let written =
        lz4_flex::block::decompress_into(packed, &mut plain).map_err(|_| Stuck::Corrupt)?;
    plain.truncate(written);
    Ok(plain)
}
