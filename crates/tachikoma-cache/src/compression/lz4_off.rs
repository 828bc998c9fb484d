//! Stands for `lz4.rs` in a build without that feature.

use super::Stuck;

pub(super) const AVAILABLE: bool = false;

pub(super) fn pack(_: &[u8]) -> Option<Vec<u8>> {
    None
}

pub(super) fn unpack(_: &[u8], _: usize) -> Result<Vec<u8>, Stuck> {
    Err(Stuck::NoFeature)
}
