//! Decides how many bytes a value is taken to hold when nobody said so.
//!
//! A [`Serializer`] that writes nothing and counts: text and bytes by their length, numbers by
//! their size, and [`CONTAINER`] for whatever has a header of its own in memory. It never looks
//! deeper than [`MAX_DEPTH`] levels, never refuses a value for its shape (a map may have keys of
//! any type) and lets no panic of the value's `Serialize` through.
//!
//! The figure is an estimate: a `Box` is not seen, spare capacity neither. Who knows better gives
//! the weight.

use std::fmt::{self, Display, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::ser::{self, Serializer};

use crate::error::{Error, ErrorKind};

/// What a text, a list or a map takes by itself: pointer, length and capacity on 64 bits.
pub(crate) const CONTAINER: usize = 24;

/// How deep a value is counted. What lies deeper counts [`CONTAINER`] and is not visited.
pub(crate) const MAX_DEPTH: u32 = 128;

/// The bytes that `value` holds, about.
///
/// # Errors
///
/// [`ErrorKind::Unencodable`] if the value's `Serialize` fails or panics; no codec could express it
/// then either.
pub(crate) fn weigh<T: Serialize + ?Sized>(value: &T) -> Result<usize, Error> {
    let mut scale = Scale { bytes: 0, depth: 0 };
    match catch_unwind(AssertUnwindSafe(|| value.serialize(&mut scale))) {
        Ok(Ok(())) => Ok(scale.bytes),
        Ok(Err(refused)) => {
            Err(Error::new(ErrorKind::Unencodable, "its weight is unknown").with_source(refused))
        }
        Err(_) => Err(Error::new(ErrorKind::Unencodable, "its `Serialize` panicked")),
    }
}

struct Scale {
    bytes: usize,
    depth: u32,
}

impl Scale {
    #[expect(clippy::unnecessary_wraps, reason = "every method of a serializer ends with it")]
    fn add(&mut self, bytes: usize) -> Result<(), Refused> {
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    fn descend<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        if self.depth >= MAX_DEPTH {
            return self.add(CONTAINER);
        }
        self.depth += 1;
        let result = value.serialize(&mut *self);
        self.depth -= 1;
        result
    }

    fn open(&mut self) -> Result<&mut Self, Refused> {
        self.add(CONTAINER)?;
        Ok(self)
    }
}

/// What the value's own `Serialize` said.
#[derive(Debug)]
struct Refused(String);

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

macro_rules! by_size {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, _: $type) -> Result<(), Refused> {
            self.add(size_of::<$type>())
        })*
    };
}

impl<'a> Serializer for &'a mut Scale {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = &'a mut Scale;
    type SerializeTuple = &'a mut Scale;
    type SerializeTupleStruct = &'a mut Scale;
    type SerializeTupleVariant = &'a mut Scale;
    type SerializeMap = &'a mut Scale;
    type SerializeStruct = &'a mut Scale;
    type SerializeStructVariant = &'a mut Scale;

    by_size! {
        serialize_bool: bool, serialize_char: char,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32, serialize_f64: f64,
    }

    fn serialize_str(self, text: &str) -> Result<(), Refused> {
        self.add(CONTAINER.saturating_add(text.len()))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Refused> {
        self.add(CONTAINER.saturating_add(bytes.len()))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Refused> {
        struct Length(usize);

        impl fmt::Write for Length {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0 = self.0.saturating_add(text.len());
                Ok(())
            }
        }

        let mut length = Length(CONTAINER);
        write!(length, "{value}").map_err(|_| Refused("its `Display` failed".to_owned()))?;
        self.add(length.0)
    }

    fn serialize_none(self) -> Result<(), Refused> {
        self.add(1)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.add(1)?;
        self.descend(value)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), Refused> {
        self.add(1)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.descend(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.add(1)?;
        self.descend(value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Refused> {
        self.open()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Refused> {
        self.add(1)?;
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Refused> {
        self.open()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Refused> {
        self.add(1)?;
        Ok(self)
    }

    fn is_human_readable(&self) -> bool {
        // In memory an address or a UUID is its bytes, not its text.
        false
    }
}

/// Compound values: each of their parts is one level deeper.
macro_rules! by_parts {
    ($($compound:ident: $method:ident),* $(,)?) => {
        $(impl ser::$compound for &mut Scale {
            type Ok = ();
            type Error = Refused;

            fn $method<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), Refused> {
                self.descend(part)
            }

            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

by_parts! {
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
}

macro_rules! by_fields {
    ($($compound:ident),* $(,)?) => {
        $(impl ser::$compound for &mut Scale {
            type Ok = ();
            type Error = Refused;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), Refused> {
                self.descend(value)
            }

            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

by_fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for &mut Scale {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.descend(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.descend(value)
    }

    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::error::Error as _;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check<T: Serialize + ?Sized>(value: &T, expected: usize) {
        assert_eq!(weigh(value).unwrap(), expected);
    }

    #[test]
    fn numbers_weigh_their_size_and_text_its_length() {
        check(&7_u8, 1);
        check(&7_u64, 8);
        check(&-7_i128, 16);
        check(&1.5_f32, 4);
        check(&true, 1);
        check("", CONTAINER);
        check("hello", CONTAINER + 5);
        check("é", CONTAINER + 2);
        check(&(), 0);
    }

    #[test]
    fn containers_weigh_their_parts_and_their_header() {
        check(&vec![1_u8; 1000], CONTAINER + 1000);
        check(&[1_u32; 4], 16);
        check(&(1_u8, 2_u16, "abc"), 1 + 2 + CONTAINER + 3);
        check(&Some(5_u32), 1 + 4);
        check(&None::<u32>, 1);
        check(&BTreeMap::from([(1_u32, 2_u64), (3, 4)]), CONTAINER + 24);
    }

    #[derive(Serialize)]
    struct Mission {
        id: u64,
        title: String,
        status: Status,
    }

    #[derive(Serialize)]
    enum Status {
        Open,
        Closed { by: u32 },
        Moved(u16),
        Split(u8, u8),
    }

    #[test]
    fn structs_and_enums_weigh_their_fields_without_names() {
        let mission = |status| Mission { id: 1, title: "abcd".into(), status };
        let plain = 8 + CONTAINER + 4;
        check(&mission(Status::Open), plain + 1);
        check(&mission(Status::Closed { by: 3 }), plain + 1 + 4);
        check(&mission(Status::Moved(3)), plain + 1 + 2);
        check(&mission(Status::Split(1, 2)), plain + 1 + 2);
    }

    #[test]
    fn a_map_may_have_keys_that_json_has_not() {
        let map: HashMap<(u8, Option<u8>), u8> = HashMap::from([((1, Some(2)), 3)]);
        check(&map, CONTAINER + 1 + 2 + 1);
    }

    #[test]
    fn an_address_weighs_its_bytes() {
        check(&Ipv4Addr::LOCALHOST, 4);
    }

    struct Nested(u32);

    impl Serialize for Nested {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_some(&Nested(self.0 + 1))
        }
    }

    #[test]
    fn an_endless_value_is_counted_down_to_the_depth_limit() {
        check(&Nested(0), MAX_DEPTH as usize + 1 + CONTAINER);
    }

    struct Fails;

    impl Serialize for Fails {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(ser::Error::custom("no such thing"))
        }
    }

    struct Panics;

    impl Serialize for Panics {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("a bug in Serialize")
        }
    }

    #[test]
    fn the_error_of_the_value_surfaces_and_a_panic_is_an_error() {
        let error = weigh(&vec![Some(Fails)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unencodable);
        assert_eq!(error.source().unwrap().to_string(), "no such thing");
        assert_eq!(weigh(&Panics).unwrap_err().kind(), ErrorKind::Unencodable);
    }

    proptest! {
        #[test]
        fn more_text_weighs_as_much_more(
            texts in prop::collection::vec(".{0,8}", 0..8), more in "\\PC{0,40}",
        ) {
            let before = weigh(&texts).unwrap();
            let mut grown = texts;
            grown.push(more.clone());
            prop_assert_eq!(weigh(&grown).unwrap(), before + CONTAINER + more.len());
        }
    }
}
