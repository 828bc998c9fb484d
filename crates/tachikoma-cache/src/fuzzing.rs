//! What the fuzzers call: one function for each kind of bytes that come from outside.
//!
//! For this project's own tests. Each function takes any bytes and panics if one of its laws is
//! broken. The targets in `fuzz/` call them with bytes that libFuzzer makes; the tests below call
//! them in every run, with the kept corpora and with mutations of good input, so that no tool is
//! needed for that.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken law is a panic")]

#[cfg(all(test, feature = "redis"))]
mod mutate;
#[cfg(all(test, feature = "redis"))]
mod tests;

use crate::glob::{Glob, escape};
use crate::key::{CacheKeyBuilder, MAX_KEY_BYTES, Namespace};
use crate::pattern::Pattern;

#[cfg(feature = "redis")]
pub use stored::{envelope, packed, reply, value};

/// The bytes up to the first 0xFF, and what follows it.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == 0xFF) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}

/// Parts of a key, by lines: an empty line is an absent part.
fn parts(data: &[u8]) -> Vec<Option<String>> {
    let text = String::from_utf8_lossy(data);
    text.split('\n').map(|line| (!line.is_empty()).then(|| line.to_owned())).collect()
}

fn key_of(parts: &[Option<String>]) -> CacheKeyBuilder {
    parts.iter().fold(CacheKeyBuilder::new("k"), |key, part| key.add_opt(part.as_deref()))
}

/// Keys: other parts give another key, a pattern below a key matches what is below it and nothing
/// else, and every text is a namespace and a key or is refused.
pub fn key(data: &[u8]) {
    let (one, other) = split(data);
    let (one, other) = (parts(one), parts(other));
    let (a, b) = (key_of(&one), key_of(&other));
    assert_eq!(one == other, a.clone().build() == b.clone().build(), "{one:?} {other:?}");
    let below = a.pattern_below();
    if let Ok(glob) = below.glob() {
        let key = b.build();
        let expected = other.len() > one.len() && other.starts_with(&one);
        assert_eq!(glob.matches(key.as_bytes()), expected, "{below:?} {key:?}");
    }
    let text = String::from_utf8_lossy(data);
    let space = Namespace::default();
    assert_eq!(crate::key::Key::new(&space, &*text).is_ok(), text.len() <= MAX_KEY_BYTES);
    if let Ok(space) = Namespace::new(&text) {
        assert!(!space.as_str().contains([':', '{', '}']), "{space:?}");
    }
}

/// Globs: an escaped text matches itself and nothing longer, the literal prefix is one, closing a
/// pattern keeps its meaning, and nothing takes longer than pattern times text.
pub fn glob(data: &[u8]) {
    let (pattern, text) = split(data);
    let pattern = String::from_utf8_lossy(pattern);
    let Ok(glob) = Glob::new(&pattern) else {
        assert!(pattern.len() > crate::glob::MAX_PATTERN_BYTES);
        return;
    };
    let matches = glob.matches(text);
    if matches {
        assert!(text.starts_with(glob.literal_prefix().as_bytes()), "{glob:?} {text:?}");
    }
    if glob.is_match_all() {
        assert!(matches, "{glob:?} {text:?}");
    }
    if let Ok(closed) = String::from_utf8(glob.embeddable())
        && let Ok(embedded) = Glob::new(&format!("{closed}*"))
        && let Ok(open) = Glob::new(&closed)
    {
        assert_eq!(open.matches(text), matches, "{glob:?} closed is {closed:?}");
        assert!(!matches || embedded.matches(&[text, b"tail"].concat()), "{closed:?} {text:?}");
    }
    let literal = String::from_utf8_lossy(text);
    if let Ok(exact) = Glob::new(&escape(&literal)) {
        assert!(exact.matches(literal.as_bytes()), "{literal:?}");
        assert!(!exact.matches(format!("{literal}x").as_bytes()), "{literal:?}");
    }
    if let Ok(typed) = Pattern::new().literal(&literal).any().glob() {
        assert!(typed.matches(format!("{literal}{pattern}").as_bytes()), "{typed:?}");
    }
}

#[cfg(feature = "redis")]
mod stored {
    //! What is read from Redis.

    use bytes::Bytes;
    use serde::{Deserialize, Serialize};

    use crate::codec::Codecs;
    use crate::compression::{Form, MAX_RATIO, Packed};
    use crate::entry::{CodecId, Entry, Meta, TypeTag};
    use crate::envelope::{self, Offset, Seal};
    use crate::error::ErrorKind;
    use crate::key::{Key, Namespace};
    use crate::signature::SignKeys;

    /// So many bytes are inflated at most.
    const LIMIT: usize = 1 << 20;

    /// A value with something of everything.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) enum Node {
        Leaf,
        Text(String),
        Numbers { signed: i64, float: Option<f32> },
        List(Vec<Node>),
        Next(Box<Node>),
    }

    /// Values: bytes of every codec are a value or undecodable.
    pub fn value(data: &[u8]) {
        let Some((codec, bytes)) = data.split_first() else { return };
        let codecs = Codecs::default();
        let codec = CodecId::from_byte(codec % 4).unwrap_or(CodecId::Custom(200));
        check::<Node>(&codecs, codec, bytes);
        check::<serde_json::Value>(&codecs, codec, bytes);
        check::<Vec<(u8, String)>>(&codecs, codec, bytes);
        check::<std::collections::BTreeMap<String, Option<i128>>>(&codecs, codec, bytes);
    }

    fn check<T: crate::Cacheable>(codecs: &Codecs, codec: CodecId, bytes: &[u8]) {
        let meta = Meta::new(crate::Time::EPOCH, TypeTag::of::<T>(), codec);
        let entry = Entry::from_bytes(meta, Bytes::copy_from_slice(bytes));
        if let Err(error) = codecs.object::<T>(&entry) {
            assert_eq!(error.kind(), ErrorKind::Undecodable);
        }
    }

    /// Compressed values: what comes out has the length that was said and is within the limits.
    pub fn packed(data: &[u8]) {
        let Some((head, bytes)) = data.split_first_chunk::<4>() else { return };
        let form = if head[0] % 2 == 0 { Form::Lz4 } else { Form::Zstd };
        let length = u64::from(u32::from_le_bytes([head[1], head[2], head[3], 0]));
        let stored = bytes.len();
        let packed = Packed { form, length, bytes: Bytes::copy_from_slice(bytes) };
        if let Ok(plain) = packed.unpack(LIMIT) {
            assert_eq!(plain.len() as u64, length);
            assert!(plain.len() <= LIMIT && plain.len() <= stored * MAX_RATIO);
        }
    }

    /// Entries: what can be read keeps its meaning when it is written again, and its beginning
    /// alone says the same. The checksum is made good, or nothing would get past it.
    pub fn envelope(data: &[u8]) {
        let (space, keys) = (Namespace::default(), SignKeys::default());
        let place = Key::new(&space, "k").expect("a key");
        let seal = Seal { place: &place, keys: &keys };
        let sealed = Bytes::from(envelope::resealed(data, &place));
        let head = envelope::decode_head(data, Offset(0));
        let Ok(decoded) = envelope::decode(&sealed, Offset(0), seal) else { return };
        let meta = head.expect("the beginning of what can be read can be read");
        assert_eq!(meta, decoded.meta);
        let incarnation = decoded.incarnation;
        let again = envelope::encode(&meta, &decoded.packed, incarnation, Offset(0), seal);
        let again = envelope::decode(&again.into(), Offset(0), seal).expect("it was written now");
        assert_eq!(again, decoded);
        read(decoded);
    }

    fn read(decoded: envelope::Decoded) {
        let Ok(bytes) = decoded.packed.unpack(LIMIT) else { return };
        let tag = TypeTag::of::<Node>();
        let entry = Entry::from_bytes(Meta { type_tag: tag, ..decoded.meta }, bytes);
        let _ = Codecs::default().object::<Node>(&entry);
    }

    /// Answers of a server: whatever they are, they are the value of this key or none.
    pub fn reply(data: &[u8]) {
        let (space, keys) = (Namespace::default(), SignKeys::default());
        let place = Key::new(&space, "k").expect("a key");
        for bytes in crate::store::redis::fuzzing::texts(data) {
            let seal = Seal { place: &place, keys: &keys };
            if let Ok(decoded) = envelope::decode(&bytes.into(), Offset(0), seal) {
                read(decoded);
            }
        }
    }
}
