//! What a codec of the application is: a trait that can be used as `dyn`.
//!
//! It decides nothing: [`codec`](crate::codec) calls it, and an entry carries which one made its
//! bytes.

use std::fmt;

use serde::{Deserializer, Serialize, Serializer};

use crate::error::BoxError;

/// A codec of the application: CBOR, Protobuf, whatever serde can drive.
///
/// Its number stands in every entry that it wrote, so it stays the same for as long as such entries
/// are to be read. What is read may come from anywhere: limit the depth, and trust no length.
///
/// ```
/// use serde::Deserializer;
/// use tachikoma_cache::{BoxError, Cache, Codec, CustomCodec, Plain, Slot};
///
/// #[derive(Debug)]
/// struct PrettyJson;
///
/// impl CustomCodec for PrettyJson {
///     fn id(&self) -> u8 {
///         128
///     }
///     fn name(&self) -> &'static str {
///         "pretty-json"
///     }
///     fn encode(&self, value: Plain<'_>) -> Result<Vec<u8>, BoxError> {
///         Ok(serde_json::to_vec_pretty(&value)?)
///     }
///     fn decode(&self, bytes: &[u8], slot: Slot<'_>) -> Result<(), BoxError> {
///         slot.read(&mut serde_json::Deserializer::from_slice(bytes))
///     }
/// }
///
/// # #[cfg(feature = "memory")]
/// # fn main() -> Result<(), tachikoma_cache::Error> {
/// let cache = Cache::memory().codec(Codec::Custom(&PrettyJson)).build()?;
/// # drop(cache);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
pub trait CustomCodec: fmt::Debug + Send + Sync + 'static {
    /// Its number in the stored format, from 128 to 255. Numbers below are this library's.
    fn id(&self) -> u8;

    /// Its name in errors and logs.
    fn name(&self) -> &'static str;

    /// The bytes of a value.
    ///
    /// # Errors
    ///
    /// If it cannot express the value; the caller gets
    /// [`ErrorKind::Unencodable`](crate::ErrorKind::Unencodable) with this as its cause.
    fn encode(&self, value: Plain<'_>) -> Result<Vec<u8>, BoxError>;

    /// Reads a value into the slot, once.
    ///
    /// # Errors
    ///
    /// If the bytes are not such a value: a counted miss. The error itself is dropped, because it
    /// could quote the value.
    fn decode(&self, bytes: &[u8], slot: Slot<'_>) -> Result<(), BoxError>;
}

/// A value to encode, of any type.
#[derive(Clone, Copy)]
pub struct Plain<'a>(pub(crate) &'a dyn erased_serde::Serialize);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        erased_serde::serialize(self.0, serializer)
    }
}

impl fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain(..)")
    }
}

pub(crate) type Read<'a> =
    dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error> + 'a;

/// Where a decoded value goes.
pub struct Slot<'a>(pub(crate) &'a mut Read<'a>);

impl Slot<'_> {
    /// Reads the value from a deserializer.
    ///
    /// # Errors
    ///
    /// What the deserializer says.
    pub fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<(), BoxError> {
        let mut erased = <dyn erased_serde::Deserializer<'_>>::erase(deserializer);
        (self.0)(&mut erased).map_err(BoxError::from)
    }
}

impl fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot(..)")
    }
}
