//! What a store holds: bytes, an object, or both, each made from the other when first needed.
//!
//! An [`Entry`] is opaque to a store, but for its [`Meta`]. It decides nothing about time; it only
//! carries when it expires.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::clock::Time;
use crate::error::{Error, ErrorKind};
use crate::invalidation::Marks;

/// An object of any type that a store can hold.
pub type Object = Arc<dyn Any + Send + Sync>;

/// Makes the bytes of an object. It is only ever called with the type that it was made for.
pub type EncodeFn = fn(&(dyn Any + Send + Sync)) -> Result<Bytes, Error>;

/// Counts what an object holds in memory, in bytes. Called only with the type it was made for.
pub type WeighFn = fn(&(dyn Any + Send + Sync)) -> Result<usize, Error>;

/// Which type the bytes are a value of: the hash of the type's name. Bytes with another tag are a
/// miss, so a type that changes its name on a deploy is loaded anew and never misread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeTag(pub u64);

impl TypeTag {
    /// The tag of a type by its path and name.
    pub fn of<T: ?Sized>() -> Self {
        Self::named(std::any::type_name::<T>())
    }

    /// The tag of a type by a name that stays the same wherever the type moves.
    pub fn named(name: &str) -> Self {
        Self(xxh3_64(name.as_bytes()))
    }
}

/// How the bytes were made. The number is part of the stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CodecId {
    /// JSON (RFC 8259).
    Json,
    /// The type's own binary form: see [`Value`].
    Own,
}

impl CodecId {
    /// The number that stands in the stored format.
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Json => 1,
            Self::Own => 2,
        }
    }

    /// The codec with this number, if this version knows it.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Json),
            2 => Some(Self::Own),
            _ => None,
        }
    }
}

/// What a store may know of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// When its source was read or it was set.
    pub created: Time,
    /// From here on it is stale: shown only to those who accept a stale value. `None`: never.
    pub soft_expiry: Option<Time>,
    /// From here on it is gone. `None`: never. Not before `soft_expiry`.
    pub hard_expiry: Option<Time>,
    /// Which type it is a value of.
    pub type_tag: TypeTag,
    /// How its bytes are made.
    pub codec: CodecId,
    /// The groups that it belongs to, each with the counter read before its source was.
    pub marks: Marks,
}

impl Meta {
    /// Whether it is gone at `now`.
    pub fn is_expired(&self, now: Time) -> bool {
        self.hard_expiry.is_some_and(|at| now >= at)
    }

    /// Whether only those who accept a stale value may see it at `now`.
    pub fn is_stale(&self, now: Time) -> bool {
        self.soft_expiry.is_some_and(|at| now >= at)
    }
}

/// A stored value. Clones are cheap and share it.
#[derive(Clone)]
pub struct Entry(Arc<Inner>);

struct Inner {
    meta: Meta,
    bytes: OnceLock<Bytes>,
    object: OnceLock<Object>,
    weight: OnceLock<usize>,
    form: Option<(EncodeFn, WeighFn)>,
}

impl Entry {
    /// What an entry itself takes in memory beside the value, in bytes: its fields, and the two
    /// counters of the shared pointer and of the object's.
    #[cfg(feature = "memory")]
    pub(crate) const FOOTPRINT: usize = size_of::<Inner>() + 4 * size_of::<usize>();

    /// An entry of an object; `encode` makes its bytes if a store needs them, `weigh` says what it
    /// holds in memory if a store must know.
    pub fn from_object(meta: Meta, object: Object, encode: EncodeFn, weigh: WeighFn) -> Self {
        Self(Arc::new(Inner {
            meta,
            bytes: OnceLock::new(),
            object: OnceLock::from(object),
            weight: OnceLock::new(),
            form: Some((encode, weigh)),
        }))
    }

    /// An entry of bytes that a store read.
    pub fn from_bytes(meta: Meta, bytes: Bytes) -> Self {
        Self(Arc::new(Inner {
            meta,
            weight: OnceLock::from(bytes.len()),
            bytes: OnceLock::from(bytes),
            object: OnceLock::new(),
            form: None,
        }))
    }

    /// What a store may know of it.
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// What the value holds in memory, in bytes, without key and bookkeeping. Counted once; not
    /// to be called under a lock, because it runs the type's own code.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unencodable`] if the type cannot be walked through.
    pub fn weight(&self) -> Result<usize, Error> {
        if let Some(weight) = self.0.weight.get() {
            return Ok(*weight);
        }
        let (object, (_, weigh)) = self.object_and_form()?;
        let weight = weigh(object.as_ref())?;
        Ok(*self.0.weight.get_or_init(|| weight))
    }

    /// The same value with other expiries.
    #[must_use]
    pub fn with_expiry(&self, soft: Option<Time>, hard: Option<Time>) -> Self {
        let inner = &self.0;
        let meta = Meta { soft_expiry: soft, hard_expiry: hard, ..inner.meta.clone() };
        Self(Arc::new(Inner {
            meta,
            bytes: inner.bytes.clone(),
            object: inner.object.clone(),
            weight: inner.weight.clone(),
            form: inner.form,
        }))
    }

    /// Its bytes, encoded now if it has none yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unencodable`] if its codec cannot express the value.
    pub fn bytes(&self) -> Result<Bytes, Error> {
        if let Some(bytes) = self.0.bytes.get() {
            return Ok(bytes.clone());
        }
        let (object, (encode, _)) = self.object_and_form()?;
        let bytes = encode(object.as_ref())?;
        Ok(self.0.bytes.get_or_init(|| bytes).clone())
    }

    fn object_and_form(&self) -> Result<(&Object, (EncodeFn, WeighFn)), Error> {
        let value = self.0.object.get().zip(self.0.form);
        value.ok_or_else(|| Error::new(ErrorKind::Unencodable, "the entry has no object"))
    }

    /// Its object, decoded now if it has none yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Undecodable`] if it is of another type or its bytes are not a value of `T`.
    pub fn object<T: Send + Sync + 'static>(
        &self,
        tag: impl FnOnce() -> TypeTag,
        decode: impl FnOnce(&Bytes) -> Result<T, Error>,
    ) -> Result<Arc<T>, Error> {
        if let Some(object) = self.0.object.get()
            && let Ok(object) = Arc::clone(object).downcast::<T>()
        {
            return Ok(object);
        }
        if self.0.meta.type_tag != tag() {
            return Err(Error::new(ErrorKind::Undecodable, "it is a value of another type"));
        }
        let object = Arc::new(decode(&self.bytes()?)?);
        // Whoever comes second keeps its own copy: both are the same value.
        let _ = self.0.object.set(Arc::clone(&object) as Object);
        Ok(object)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the value: entries appear in logs.
        f.debug_struct("Entry").field("meta", &self.0.meta).finish_non_exhaustive()
    }
}

/// An object with a binary form of its own, for layers that keep prepared objects (a response with
/// its head ready to send).
pub trait Value: Send + Sync + Sized + 'static {
    /// A name for this form. Change it when the form changes: older bytes are then a miss.
    const TYPE: &'static str;

    /// Its bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unencodable`].
    fn encode(&self) -> Result<Bytes, Error>;

    /// The object of these bytes. They may come from anywhere: it must neither panic nor trust a
    /// length in them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Undecodable`].
    fn decode(bytes: &Bytes) -> Result<Self, Error>;

    /// What it holds in memory, in bytes.
    fn weight(&self) -> usize;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(tag: TypeTag) -> Meta {
        Meta {
            created: Time::EPOCH,
            soft_expiry: None,
            hard_expiry: None,
            type_tag: tag,
            codec: CodecId::Json,
            marks: Marks::default(),
        }
    }

    fn decode_number(bytes: &Bytes) -> Result<u32, Error> {
        serde_json::from_slice(bytes).map_err(|_| ErrorKind::Undecodable.into())
    }

    #[allow(clippy::unnecessary_wraps)] // It is an EncodeFn.
    fn encode_number(object: &(dyn Any + Send + Sync)) -> Result<Bytes, Error> {
        let number = object.downcast_ref::<u32>().unwrap();
        Ok(Bytes::from(number.to_string()))
    }

    #[test]
    fn bytes_and_object_are_made_from_each_other() {
        let tag = TypeTag::of::<u32>();
        let written = Entry::from_object(meta(tag), Arc::new(42_u32), encode_number, |_| Ok(4));
        let read = Entry::from_bytes(meta(tag), written.bytes().unwrap());
        assert_eq!(*read.object(|| tag, decode_number).unwrap(), 42);
    }

    #[test]
    fn an_object_is_decoded_once() {
        let tag = TypeTag::of::<u32>();
        let entry = Entry::from_bytes(meta(tag), Bytes::from_static(b"7"));
        let first = entry.object(|| tag, decode_number).unwrap();
        let second = entry.object(|| tag, decode_number).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn a_value_of_another_type_is_an_error_and_not_misread() {
        let entry = Entry::from_bytes(meta(TypeTag::of::<u64>()), Bytes::from_static(b"7"));
        let error = entry.object(TypeTag::of::<u32>, decode_number).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
    }

    #[test]
    fn debug_does_not_show_the_value() {
        let entry = Entry::from_bytes(meta(TypeTag(1)), Bytes::from_static(b"s3ntinel"));
        assert!(!format!("{entry:?}").contains("s3ntinel"));
    }
}
