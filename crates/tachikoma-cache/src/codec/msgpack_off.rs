//! Without the feature `msgpack`: what others wrote so is a counted miss.

use bytes::Bytes;

use super::{Cacheable, undecodable};
use crate::error::{Error, ErrorKind};

/// Whether values can be written as MessagePack.
pub(super) const AVAILABLE: bool = false;

pub(super) fn encode<T: Cacheable>(_: &T) -> Result<Bytes, Error> {
    Err(Error::new(ErrorKind::Unencodable, "MessagePack needs the feature \"msgpack\""))
}

pub(super) fn decode<T: Cacheable>(_: &[u8]) -> Result<T, Error> {
    Err(undecodable("MessagePack needs the feature \"msgpack\""))
}
