//! Decides whether the bytes of a value are stored compressed, and how much comes out of them when
//! they are read.
//!
//! Pure. What is read may come from anywhere: the length that the entry names is checked against
//! the limit and against [`MAX_RATIO`] before anything is allocated, and no more is ever inflated.

#[cfg(feature = "lz4")]
mod lz4;
#[cfg(not(feature = "lz4"))]
#[path = "compression/lz4_off.rs"]
mod lz4;
#[cfg(test)]
mod tests;
#[cfg(feature = "zstd")]
mod zstd;
#[cfg(not(feature = "zstd"))]
#[path = "compression/zstd_off.rs"]
mod zstd;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::error::{Error, ErrorKind};

/// So many times its stored length a value may have, at most. What could be compressed further is
/// stored as it is: no other program could tell it from a bomb.
pub(crate) const MAX_RATIO: usize = 200;

/// The default of [`Packing::above`].
const ABOVE: usize = 1024;

/// How values are compressed on their way to Redis. Default: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: less work than the network for most values. Needs the feature `lz4`.
    Lz4,
    /// Zstandard: smaller than LZ4 for more work. Needs the feature `zstd`.
    Zstd {
        /// From 1 (fast) to 19 (small).
        level: u8,
    },
}

impl Compression {
    /// Zstandard at level 3.
    pub const ZSTD: Self = Self::Zstd { level: 3 };

    /// Says what of it is not allowed, or not in this build.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`].
    pub(crate) fn check(self) -> Result<(), Error> {
        let refused = |detail: String| Err(Error::new(ErrorKind::Config, detail));
        match self {
            Self::Lz4 if !lz4::AVAILABLE => {
                refused("compression: \"lz4\" needs the feature \"lz4\"".into())
            }
            Self::Zstd { .. } if !zstd::AVAILABLE => {
                refused("compression: \"zstd\" needs the feature \"zstd\"".into())
            }
            Self::Zstd { level } if !(1..=19).contains(&level) => {
                refused(format!("compression: the level {level}; allowed is 1 to 19"))
            }
            _ => Ok(()),
        }
    }
}

/// `none`, `lz4`, `zstd`, or `zstd:` and the level.
impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("zstd:").map(str::parse)) {
            ("none", _) => Ok(Self::None),
            ("lz4", _) => Ok(Self::Lz4),
            ("zstd", _) => Ok(Self::ZSTD),
            (_, Some(Ok(level))) => Ok(Self::Zstd { level }),
            _ => Err("allowed are none, lz4, zstd, and zstd:1 to zstd:19".to_owned()),
        }
    }
}

/// What is compressed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    pub(crate) compression: Compression,
    /// Only values of more bytes.
    pub(crate) above: usize,
}

impl Default for Packing {
    fn default() -> Self {
        Self { compression: Compression::None, above: ABOVE }
    }
}

impl Packing {
    /// The bytes of a value as they are to be stored.
    pub(crate) fn pack(self, plain: Bytes) -> Packed {
        if plain.len() <= self.above {
            return Packed::plain(plain);
        }
        let (form, bytes) = match self.compression {
            Compression::None => return Packed::plain(plain),
            Compression::Lz4 => (Form::Lz4, lz4::pack(&plain)),
            Compression::Zstd { level } => (Form::Zstd, zstd::pack(&plain, level)),
        };
        // An eighth less, or it is not worth the work of every reader.
        let worth = |bytes: &Vec<u8>| bytes.len() <= plain.len() - plain.len() / 8;
        let sane = |bytes: &Vec<u8>| plain.len() <= bytes.len().saturating_mul(MAX_RATIO);
        match bytes.filter(worth).filter(sane) {
            Some(bytes) => Packed { form, length: plain.len() as u64, bytes: bytes.into() },
            None => Packed::plain(plain),
        }
    }
}

/// How stored bytes were made. The number is part of the stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Lz4,
    Zstd,
}

impl Form {
    pub(crate) fn as_byte(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Plain),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The bytes of a value as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) form: Form,
    /// The length of the value itself.
    pub(crate) length: u64,
    pub(crate) bytes: Bytes,
}

/// Why stored bytes give no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stuck {
    /// This build has not the feature for it.
    NoFeature,
    /// The value would be larger than the limit.
    TooLarge,
    /// They are not what they say.
    Corrupt,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFeature => "compressed in a way that this build has no feature for",
            Self::TooLarge => "larger than max_value_bytes",
            Self::Corrupt => "compressed bytes that are not what they say",
        })
    }
}

impl Packed {
    pub(crate) fn plain(bytes: Bytes) -> Self {
        Self { form: Form::Plain, length: bytes.len() as u64, bytes }
    }

    /// The bytes of the value, at most `limit` of them if they have to be inflated.
    ///
    /// # Errors
    ///
    /// [`Stuck`].
    pub(crate) fn unpack(self, limit: usize) -> Result<Bytes, Stuck> {
        if self.form == Form::Plain {
            return Ok(self.bytes);
        }
        let length = usize::try_from(self.length).map_err(|_| Stuck::TooLarge)?;
        if length > self.bytes.len().saturating_mul(MAX_RATIO) {
            return Err(Stuck::Corrupt);
        }
        if length > limit {
            return Err(Stuck::TooLarge);
        }
        let plain = match self.form {
            Form::Lz4 if lz4::AVAILABLE => lz4::unpack(&self.bytes, length)?,
            Form::Zstd if zstd::AVAILABLE => zstd::unpack(&self.bytes, length)?,
            _ => return Err(Stuck::NoFeature),
        };
        if plain.len() == length { Ok(plain.into()) } else { Err(Stuck::Corrupt) }
    }
}
