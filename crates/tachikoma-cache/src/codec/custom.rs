//! Calls a codec of the application.
//!
//! Its errors are never shown with the value they are about, and a panic in it is an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::{Cacheable, encoded, undecodable};
use crate::custom_codec::{CustomCodec, Plain, Slot};
use crate::error::{Error, ErrorKind};

pub(super) fn encode<T: Cacheable>(codec: &dyn CustomCodec, value: &T) -> Result<Bytes, Error> {
    match catch_unwind(AssertUnwindSafe(|| codec.encode(Plain(value)))) {
        Ok(bytes) => encoded(bytes),
        Err(_panic) => {
            Err(Error::new(ErrorKind::Unencodable, format!("{} panicked", codec.name())))
        }
    }
}

pub(super) fn decode<T: Cacheable>(codec: &dyn CustomCodec, bytes: &[u8]) -> Result<T, Error> {
    let mut found = None;
    let mut read = |from: &mut dyn erased_serde::Deserializer<'_>| {
        found = Some(erased_serde::deserialize::<T>(from)?);
        Ok(())
    };
    match catch_unwind(AssertUnwindSafe(|| codec.decode(bytes, Slot(&mut read)))) {
        Ok(Ok(())) => found.ok_or_else(|| undecodable("its codec read no value")),
        Ok(Err(_may_quote_the_value)) => Err(undecodable("its codec cannot read it")),
        Err(_panic) => Err(undecodable("its codec panicked")),
    }
}
