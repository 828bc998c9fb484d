//! What a store holds: bytes, an object, or both, each made from the other when first needed.
//!
//! An [`Entry`] is opaque to a store, but for its [`Meta`]. It decides nothing about time; it only
//! carries when it expires.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::clock::Time;
use crate::custom_codec::CustomCodec;
#[cfg(feature = "memory")]
use crate::edition::Stamp;
use crate::error::{Error, ErrorKind};
use crate::invalidation::{Marks, Snapshot};

/// An object of any type that a store can hold.
pub type Object = Arc<dyn Any + Send + Sync>;

/// Makes the bytes of an object. It is only ever called with the type that it was made for.
pub type EncodeFn = fn(&(dyn Any + Send + Sync)) -> Result<Bytes, Error>;

/// What makes the bytes of an object.
#[derive(Clone, Copy)]
pub(crate) enum Encode {
    /// One function.
    With(EncodeFn),
    /// A codec of the application, for one type.
    By(&'static dyn CustomCodec, EncodeByFn),
}

/// Makes the bytes of an object with a codec of the application.
pub(crate) type EncodeByFn =
    fn(&'static dyn CustomCodec, &(dyn Any + Send + Sync)) -> Result<Bytes, Error>;

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
    /// MessagePack, structs as maps.
    MessagePack,
    /// A codec of the application with this number.
    Custom(u8),
}

impl CodecId {
    /// From here on numbers are the application's.
    pub const FIRST_CUSTOM: u8 = 128;

    /// The number that stands in the stored format.
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Json => 1,
            Self::Own => 2,
            Self::MessagePack => 3,
            Self::Custom(number) => number,
        }
    }

    /// The codec with this number, if this version knows it.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Json),
            2 => Some(Self::Own),
            3 => Some(Self::MessagePack),
            Self::FIRST_CUSTOM.. => Some(Self::Custom(byte)),
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
    /// How long its load took, in milliseconds; zero if that is not known.
    pub load_time: Duration,
    /// It is gone when nobody has read it for so long, in milliseconds. `None`: only by its expiry.
    pub idle: Option<Duration>,
    /// The source said that there is nothing: there is no value and there are no bytes.
    pub negative: bool,
    /// Of a copy in a memory tier: where the counters of its namespace stood before it was read
    /// from the server, for [`dependencies`](crate::dependencies). Not stored.
    pub seen: Option<Snapshot>,
}

impl Meta {
    /// Of a value that never expires and has no groups; how it was loaded is not known.
    pub fn new(created: Time, type_tag: TypeTag, codec: CodecId) -> Self {
        Self {
            created,
            soft_expiry: None,
            hard_expiry: None,
            type_tag,
            codec,
            marks: Marks::default(),
            load_time: Duration::ZERO,
            idle: None,
            negative: false,
            seen: None,
        }
    }

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
    form: Option<(Encode, WeighFn)>,
    #[cfg(feature = "memory")]
    stamp: Stamp,
}

impl Entry {
    /// What an entry itself takes in memory beside the value, in bytes: its fields, and the two
    /// counters of the shared pointer and of the object's.
    #[cfg(feature = "memory")]
    pub(crate) const FOOTPRINT: usize = size_of::<Inner>() + 4 * size_of::<usize>();

    /// An entry of an object; `encode` makes its bytes if a store needs them, `weigh` says what it
    /// holds in memory if a store must know.
    pub fn from_object(meta: Meta, object: Object, encode: EncodeFn, weigh: WeighFn) -> Self {
        Self::of(meta, object, Encode::With(encode), weigh)
    }

    /// The same with a codec of the application, maybe.
    pub(crate) fn of(meta: Meta, object: Object, encode: Encode, weigh: WeighFn) -> Self {
        Self(Arc::new(Inner {
            meta,
            bytes: OnceLock::new(),
            object: OnceLock::from(object),
            weight: OnceLock::new(),
            form: Some((encode, weigh)),
            #[cfg(feature = "memory")]
            stamp: Stamp::default(),
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
            #[cfg(feature = "memory")]
            stamp: Stamp::default(),
        }))
    }

    /// An entry of bytes that stay in memory beside the object that is made of them, and weigh as
    /// much as both.
    #[cfg(feature = "memory")]
    pub(crate) fn restored(meta: Meta, bytes: Bytes) -> Self {
        Self(Arc::new(Inner {
            meta,
            weight: OnceLock::from(bytes.len().saturating_mul(2)),
            bytes: OnceLock::from(bytes),
            object: OnceLock::new(),
            form: None,
            #[cfg(feature = "memory")]
            stamp: Stamp::default(),
        }))
    }

    /// An entry that says that the source has nothing.
    pub fn nothing(meta: Meta) -> Self {
        Self::from_bytes(Meta { negative: true, ..meta }, Bytes::new())
    }

    /// What a store may know of it.
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// For whoever judges it to remember its verdict.
    #[cfg(feature = "memory")]
    pub(crate) fn stamp(&self) -> &Stamp {
        &self.0.stamp
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

    /// What the value takes, in bytes, if somebody had to know already.
    pub(crate) fn known_bytes(&self) -> Option<usize> {
        let encoded = || self.0.bytes.get().map(Bytes::len);
        self.0.weight.get().copied().or_else(encoded)
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
            #[cfg(feature = "memory")]
            stamp: Stamp::default(),
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
        let bytes = self.encoded()?;
        Ok(self.0.bytes.get_or_init(|| bytes).clone())
    }

    /// Its bytes, which it does not keep if it has none yet.
    pub(crate) fn encoded(&self) -> Result<Bytes, Error> {
        if let Some(bytes) = self.0.bytes.get() {
            return Ok(bytes.clone());
        }
        let (object, (encode, _)) = self.object_and_form()?;
        // The type's own code runs here, for a caller who did nothing wrong.
        let encoded = catch_unwind(AssertUnwindSafe(|| match encode {
            Encode::With(encode) => encode(object.as_ref()),
            Encode::By(codec, encode) => encode(codec, object.as_ref()),
        }));
        encoded.unwrap_or_else(|_panic| {
            Err(Error::new(ErrorKind::Unencodable, "its `Serialize` panicked"))
        })
    }

    /// Its object, if it can be had without running the type's own code.
    #[inline]
    pub(crate) fn decoded<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(self.0.object.get()?).downcast().ok()
    }

    /// Whether its object can be had without running the type's own code.
    pub(crate) fn is_decoded(&self) -> bool {
        self.0.object.get().is_some()
    }

    fn object_and_form(&self) -> Result<(&Object, (Encode, WeighFn)), Error> {
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
        if self.0.meta.negative {
            return Err(Error::new(ErrorKind::Undecodable, "the source had nothing"));
        }
        if self.0.meta.type_tag != tag() {
            return Err(Error::new(ErrorKind::Undecodable, "it is a value of another type"));
        }
        let bytes = self.bytes()?;
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(&bytes)));
        let object = Arc::new(decoded.unwrap_or_else(|_panic| {
            Err(Error::new(ErrorKind::Undecodable, "its `Deserialize` panicked"))
        })?);
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
        Meta::new(Time::EPOCH, tag, CodecId::Json)
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
    fn nothing_has_no_bytes_and_is_no_value() {
        let tag = TypeTag::of::<u32>();
        let entry = Entry::nothing(meta(tag));
        assert!(entry.meta().negative);
        assert!(entry.bytes().unwrap().is_empty());
        assert_eq!(entry.weight().unwrap(), 0);
        let error = entry.object(|| tag, |_| Ok(7_u32)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
    }

    #[test]
    fn debug_does_not_show_the_value() {
        let entry = Entry::from_bytes(meta(TypeTag(1)), Bytes::from_static(b"s3ntinel"));
        assert!(!format!("{entry:?}").contains("s3ntinel"));
    }
}
