//! Entries as Redis keeps them: limited, compressed and signed by the settings of the store.
//!
//! Decides what an entry that cannot be read is: always a counted miss, and removed only if nobody
//! could read it.

use std::fmt;

use bytes::Bytes;

use super::Shared;
use super::courier::Errand;
use super::layout;
use super::link::Connection;
use crate::clock::Time;
use crate::compression::{Packed, Stuck};
use crate::entry::{Entry, Meta};
use crate::envelope::{self, Decoded, Seal, Unreadable};
use crate::error::{Error, ErrorKind};
use crate::key::{Key, Shown};

impl Shared {
    /// The bytes of an entry's value, if it is not too large.
    pub(super) fn packed(&self, entry: &Entry) -> Result<Packed, Error> {
        let payload = entry.bytes()?;
        let limit = self.link.config.get_max_value_bytes();
        if payload.len() > limit {
            let text = format!("{} bytes; max_value_bytes allows {limit}", payload.len());
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        Ok(self.link.config.packing().pack(payload))
    }

    /// All bytes of an entry.
    pub(super) fn bytes(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        meta: &Meta,
        packed: &Packed,
        incarnation: u64,
    ) -> Vec<u8> {
        envelope::encode(meta, packed, incarnation, connection.offset(), self.seal(key))
    }

    /// The entry of these bytes, if it can be read and is not past its time.
    pub(super) fn decode(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        bytes: &Bytes,
        now: Time,
    ) -> Option<Decoded> {
        match envelope::decode(bytes, connection.offset(), self.seal(key)) {
            Ok(decoded) => (!decoded.meta.is_expired(now)).then_some(decoded),
            Err(reason) => {
                self.unreadable(key, &reason, reason == Unreadable::Corrupt);
                None
            }
        }
    }

    /// The entry with the bytes of its value.
    pub(super) fn unpacked(&self, key: &Key<'_>, decoded: Decoded) -> Option<Entry> {
        match decoded.packed.unpack(self.link.config.get_max_value_bytes()) {
            Ok(payload) => Some(Entry::from_bytes(decoded.meta, payload)),
            Err(stuck) => {
                self.unreadable(key, &stuck, stuck == Stuck::Corrupt);
                None
            }
        }
    }

    /// A counted miss. A later version, or a node with other settings, can read its own; only what
    /// nobody can read goes.
    fn unreadable(&self, key: &Key<'_>, reason: &dyn fmt::Display, for_all: bool) {
        self.link.errors.count(ErrorKind::Undecodable);
        tracing::debug!(key = %Shown(key.name()), %reason, "an entry cannot be read");
        if for_all {
            self.errands.add(Errand::Discard { entry: layout::entry(key) });
        }
    }

    fn seal<'a>(&'a self, key: &'a Key<'a>) -> Seal<'a> {
        Seal { place: key, keys: self.link.config.sign_keys() }
    }
}
