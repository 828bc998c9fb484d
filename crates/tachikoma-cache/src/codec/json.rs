//! Values as JSON (RFC 8259). Its reader goes at most 128 levels deep.

use bytes::Bytes;

use super::{Cacheable, encoded};
use crate::error::{Error, ErrorKind};

pub(super) fn encode<T: Cacheable>(value: &T) -> Result<Bytes, Error> {
    encoded(serde_json::to_vec(value))
}

pub(super) fn decode<T: Cacheable>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        // serde_json's message quotes the input, which may be a secret: only the place is kept.
        let place = format!("JSON, line {} column {}", error.line(), error.column());
        Error::new(ErrorKind::Undecodable, place)
    })
}
