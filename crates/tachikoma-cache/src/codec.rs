//! How typed values become bytes and back: JSON, MessagePack or a codec of the application, unless
//! a type brings a form of its own ([`Value`]).
//!
//! A cache writes with one codec and reads with all it has: the entry says which made its bytes, so
//! nodes of different settings share a store. Bytes may come from anywhere: no codec here goes
//! deeper than 128 levels or allocates by a length that only stands in the bytes.
//!
//! This and the typed handle are the last generic code: below, an entry carries plain function
//! pointers made here.

mod custom;
mod json;
#[cfg(feature = "msgpack")]
mod msgpack;
#[cfg(not(feature = "msgpack"))]
#[path = "codec/msgpack_off.rs"]
mod msgpack;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::custom_codec::CustomCodec;
use crate::entry::{CodecId, Encode, Entry, Object, TypeTag, Value, WeighFn};
use crate::error::{Error, ErrorKind};
use crate::weight;

/// What a cache can hold: any type with serde's two traits that can be shared between threads.
pub trait Cacheable: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Cacheable for T {}

/// How a cache writes values where they are kept as bytes, as in Redis. It reads those of the other
/// codecs too.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub enum Codec {
    /// JSON (RFC 8259): readable in `redis-cli`, and the default.
    #[default]
    Json,
    /// MessagePack with the names of fields, so that added fields do not break older values:
    /// smaller and faster than JSON, and keeps what JSON has no form for (NaN, maps with any keys).
    /// Needs the feature `msgpack`.
    MessagePack,
    /// A codec of the application.
    Custom(&'static dyn CustomCodec),
}

impl Codec {
    fn id(self) -> CodecId {
        match self {
            Self::Json => CodecId::Json,
            Self::MessagePack => CodecId::MessagePack,
            Self::Custom(codec) => CodecId::Custom(codec.id()),
        }
    }
}

/// The name of a codec as in a configuration file: `json` or `msgpack`.
impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "msgpack" => Ok(Self::MessagePack),
            _ => Err("allowed are json and msgpack".to_owned()),
        }
    }
}

/// What a cache writes with and what it can read beside JSON and MessagePack.
#[derive(Debug, Clone, Default)]
pub(crate) struct Codecs {
    write: Codec,
    custom: Vec<&'static dyn CustomCodec>,
}

impl Codecs {
    /// Writes with this one from now on.
    pub(crate) fn write_with(&mut self, codec: Codec) {
        self.write = codec;
        if let Codec::Custom(codec) = codec {
            self.also_read(codec);
        }
    }

    /// Reads what this one wrote, too.
    pub(crate) fn also_read(&mut self, codec: &'static dyn CustomCodec) {
        self.custom.push(codec);
    }

    /// Says what is wrong with the choice.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refused = |detail: String| Err(Error::new(ErrorKind::Config, detail));
        if matches!(self.write, Codec::MessagePack) && !msgpack::AVAILABLE {
            return refused("codec: \"msgpack\" needs the feature \"msgpack\"".into());
        }
        for (place, codec) in self.custom.iter().enumerate() {
            let (id, name) = (codec.id(), codec.name());
            if id < CodecId::FIRST_CUSTOM {
                return refused(format!(
                    "codec: {name:?} has the number {id}; allowed is {} to 255",
                    CodecId::FIRST_CUSTOM
                ));
            }
            let others = self.custom.iter().take(place);
            if let Some(other) = others.map(|other| other.name()).find(|other| {
                *other != name && self.custom.iter().any(|c| c.name() == *other && c.id() == id)
            }) {
                return refused(format!("codec: {name:?} and {other:?} both have the number {id}"));
            }
        }
        Ok(())
    }

    /// The object of an entry, decoded by the codec that made it.
    pub(crate) fn object<T: Cacheable>(&self, entry: &Entry) -> Result<Arc<T>, Error> {
        entry.object(TypeTag::of::<T>, |bytes| match entry.meta().codec {
            CodecId::Json => json::decode(bytes),
            CodecId::MessagePack => msgpack::decode(bytes),
            CodecId::Own => Err(undecodable("its bytes are a type's own form")),
            CodecId::Custom(id) => match self.custom.iter().find(|codec| codec.id() == id) {
                Some(codec) => custom::decode(*codec, bytes),
                None => Err(undecodable("it was written with a codec that this cache has not")),
            },
        })
    }
}

/// What the code below the typed handle must know of a type.
#[derive(Clone, Copy)]
pub(crate) struct TypeOps {
    pub(crate) tag: TypeTag,
    pub(crate) codec: CodecId,
    pub(crate) encode: Encode,
    pub(crate) weigh: WeighFn,
    pub(crate) decode: fn(&Codecs, &Entry) -> Result<Object, Error>,
}

impl TypeOps {
    /// Of a type that is stored by a codec.
    pub(crate) fn by<T: Cacheable>(codecs: &Codecs) -> Self {
        Self {
            tag: TypeTag::of::<T>(),
            codec: codecs.write.id(),
            encode: match codecs.write {
                Codec::Json => Encode::With(|object| json::encode(downcast::<T>(object)?)),
                Codec::MessagePack => {
                    Encode::With(|object| msgpack::encode(downcast::<T>(object)?))
                }
                Codec::Custom(codec) => {
                    Encode::By(codec, |codec, object| custom::encode(codec, downcast::<T>(object)?))
                }
            },
            weigh: |object| weight::weigh(downcast::<T>(object)?),
            decode: |codecs, entry| Ok(codecs.object::<T>(entry)? as Object),
        }
    }

    /// Of a type with its own form.
    pub(crate) fn own<V: Value>() -> Self {
        Self {
            tag: TypeTag::named(V::TYPE),
            codec: CodecId::Own,
            encode: Encode::With(|object| downcast::<V>(object)?.encode()),
            weigh: |object| Ok(downcast::<V>(object)?.weight()),
            decode: |_, entry| Ok(own_object::<V>(entry)? as Object),
        }
    }
}

/// The object of an entry with its own form.
pub(crate) fn own_object<V: Value>(entry: &Entry) -> Result<Arc<V>, Error> {
    entry.object(|| TypeTag::named(V::TYPE), V::decode)
}

fn downcast<T: 'static>(object: &(dyn Any + Send + Sync)) -> Result<&T, Error> {
    object.downcast_ref().ok_or_else(|| {
        Error::new(ErrorKind::Unencodable, "the entry holds an object of another type")
    })
}

fn undecodable(detail: &'static str) -> Error {
    Error::new(ErrorKind::Undecodable, detail)
}

fn encoded<E>(bytes: Result<Vec<u8>, E>) -> Result<Bytes, Error>
where
    E: Into<crate::error::BoxError>,
{
    let failed = |error: E| Error::from(ErrorKind::Unencodable).with_source(error);
    bytes.map(Bytes::from).map_err(failed)
}
