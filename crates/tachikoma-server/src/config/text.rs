//! How a setting is read from text, and why it is refused.
//!
//! Every value of a file, a flag or a variable comes in as text. This says no more than how; what
//! a value may be is said where its type is.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};

/// Why a value was refused: what is allowed instead. Never contains the value itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub(super) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Reads a value from its text form, and says what is allowed when it is not even text.
pub(super) struct FromText<T>(pub(super) std::marker::PhantomData<T>);

impl<T: FromStr<Err = Refused>> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes")?;
        // No value is the empty text, so this is the value's own account of what it may be.
        match "".parse::<T>() {
            Err(allowed) => write!(f, ": {allowed}"),
            Ok(_) => Ok(()),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Lets a file hold these types, as the text that they parse and print.
macro_rules! as_text {
    ($($name:ident),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str($crate::config::text::FromText(std::marker::PhantomData))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )*};
}

pub(super) use as_text;
