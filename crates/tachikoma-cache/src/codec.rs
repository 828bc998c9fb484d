//! How typed values become bytes and back: JSON, unless a type brings a form of its own
//! ([`Value`]).
//!
//! This and the typed handle are the last generic code: below, an entry carries plain function
//! pointers made here.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::entry::{CodecId, EncodeFn, Entry, Object, TypeTag, Value, WeighFn};
use crate::error::{Error, ErrorKind};
use crate::weight;

/// What a cache can hold: any type with serde's two traits that can be shared between threads.
pub trait Cacheable: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Cacheable for T {}

/// What the code below the typed handle must know of a type.
#[derive(Clone, Copy)]
pub(crate) struct TypeOps {
    pub(crate) tag: TypeTag,
    pub(crate) codec: CodecId,
    pub(crate) encode: EncodeFn,
    pub(crate) weigh: WeighFn,
    pub(crate) decode: fn(&Entry) -> Result<Object, Error>,
}

impl TypeOps {
    /// Of a type stored as JSON.
    pub(crate) fn json<T: Cacheable>() -> Self {
        Self {
            tag: TypeTag::of::<T>(),
            codec: CodecId::Json,
            encode: encode_json::<T>,
            weigh: weigh_json::<T>,
            decode: |entry| Ok(json_object::<T>(entry)? as Object),
        }
    }

    /// Of a type with its own form.
    pub(crate) fn own<V: Value>() -> Self {
        Self {
            tag: TypeTag::named(V::TYPE),
            codec: CodecId::Own,
            encode: encode_own::<V>,
            weigh: weigh_own::<V>,
            decode: |entry| Ok(own_object::<V>(entry)? as Object),
        }
    }
}

/// The object of an entry that is stored as JSON.
pub(crate) fn json_object<T: Cacheable>(entry: &Entry) -> Result<Arc<T>, Error> {
    entry.object(TypeTag::of::<T>, |bytes| {
        serde_json::from_slice(bytes).map_err(|error| {
            // serde_json's message quotes the input, which may be a secret: only the place is kept.
            let place = format!("JSON, line {} column {}", error.line(), error.column());
            Error::new(ErrorKind::Undecodable, place)
        })
    })
}

/// The object of an entry with its own form.
pub(crate) fn own_object<V: Value>(entry: &Entry) -> Result<Arc<V>, Error> {
    entry.object(|| TypeTag::named(V::TYPE), V::decode)
}

fn encode_json<T: Cacheable>(object: &(dyn Any + Send + Sync)) -> Result<Bytes, Error> {
    let value: &T = downcast(object)?;
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::from(ErrorKind::Unencodable).with_source(error))?;
    Ok(Bytes::from(bytes))
}

fn encode_own<V: Value>(object: &(dyn Any + Send + Sync)) -> Result<Bytes, Error> {
    downcast::<V>(object)?.encode()
}

fn weigh_json<T: Cacheable>(object: &(dyn Any + Send + Sync)) -> Result<usize, Error> {
    weight::weigh(downcast::<T>(object)?)
}

fn weigh_own<V: Value>(object: &(dyn Any + Send + Sync)) -> Result<usize, Error> {
    Ok(downcast::<V>(object)?.weight())
}

fn downcast<T: 'static>(object: &(dyn Any + Send + Sync)) -> Result<&T, Error> {
    object.downcast_ref().ok_or_else(|| {
        Error::new(ErrorKind::Unencodable, "the entry holds an object of another type")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::entry::Meta;
    use crate::invalidation::Marks;

    #[test]
    fn json_that_does_not_fit_is_undecodable_and_its_text_not_shown() {
        let meta = Meta {
            created: Time::EPOCH,
            soft_expiry: None,
            hard_expiry: None,
            type_tag: TypeTag::of::<u32>(),
            codec: CodecId::Json,
            marks: Marks::default(),
        };
        let entry = Entry::from_bytes(meta, Bytes::from_static(b"\"s3ntinel\""));
        let error = json_object::<u32>(&entry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        assert!(!format!("{error} {error:?}").contains("s3ntinel"));
    }
}
