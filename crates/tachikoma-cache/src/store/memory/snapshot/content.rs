//! One entry in a snapshot file: what a store knows of it, and its value's bytes.
//!
//! Pure. Decides whether bytes are an entry that this version can use. They have passed a checksum,
//! but whoever can write the file can write that too: it never panics and trusts no length.
//!
//! ```text
//! 1  flags: 1 hard expiry, 2 soft expiry, 4 time to idle, 8 the source had nothing
//! 1  codec
//! 8  type tag
//! 8  created; then 8 for each that the flags name: hard expiry, soft expiry, time to idle
//! 8  load time
//! 2  number of groups; each 2 for its length, then its name
//! …  the value's bytes
//! ```
//!
//! Little-endian. Times are milliseconds since the Unix epoch by the wall clock, spans
//! milliseconds.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Time;
use crate::entry::{CodecId, Meta, TypeTag};
use crate::invalidation::Group;

const HARD: u8 = 1;
const SOFT: u8 = 2;
const IDLE: u8 = 4;
const NOTHING: u8 = 8;

/// What to add to the cache's time to get the wall clock's, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offset(i64);

impl Offset {
    pub(super) fn between(now: Time, wall_millis: u64) -> Self {
        Self(wall_millis.wrapping_sub(now.as_millis()).cast_signed())
    }

    fn to_wall(self, time: Time) -> u64 {
        time.as_millis().saturating_add_signed(self.0)
    }

    fn to_local(self, wall_millis: u64) -> Time {
        Time::from_millis(wall_millis.saturating_sub_signed(self.0))
    }
}

/// The bytes of an entry. `None` if it has more groups, or longer ones, than can be said, or was
/// made of entries of other namespaces: what they have become meanwhile, nobody would know.
pub(super) fn encode(meta: &Meta, value: &[u8], offset: Offset) -> Option<Vec<u8>> {
    if meta.marks.foreign().next().is_some() {
        return None;
    }
    let marks = meta.marks.own();
    let mut out = Vec::with_capacity(64 + value.len());
    let flags = [
        (HARD, meta.hard_expiry.is_some()),
        (SOFT, meta.soft_expiry.is_some()),
        (IDLE, meta.idle.is_some()),
        (NOTHING, meta.negative),
    ];
    out.push(flags.iter().filter(|(_, set)| *set).fold(0, |all, (flag, _)| all | flag));
    out.push(meta.codec.as_byte());
    let times = [Some(meta.created), meta.hard_expiry, meta.soft_expiry];
    let times = times.into_iter().flatten().map(|time| offset.to_wall(time));
    let spans = meta.idle.into_iter().chain([meta.load_time]);
    let spans = spans.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    for number in [meta.type_tag.0].into_iter().chain(times).chain(spans) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&u16::try_from(marks.len()).ok()?.to_le_bytes());
    for mark in marks {
        let name = mark.group.as_str();
        out.extend_from_slice(&u16::try_from(name.len()).ok()?.to_le_bytes());
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(value);
    Some(out)
}

/// An entry as it was written; its marks are still to be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) meta: Meta,
    pub(super) groups: Vec<Group>,
    pub(super) value: Bytes,
}

/// The entry of these bytes, if they are one.
pub(super) fn decode(bytes: &[u8], offset: Offset) -> Option<Decoded> {
    let mut rest = bytes;
    let [flags, codec] = take(&mut rest)?;
    if flags & !(HARD | SOFT | IDLE | NOTHING) != 0 {
        return None;
    }
    let mut meta = {
        let type_tag = TypeTag(u64::from_le_bytes(take(&mut rest)?));
        let created = offset.to_local(u64::from_le_bytes(take(&mut rest)?));
        Meta::new(created, type_tag, CodecId::from_byte(codec)?)
    };
    let mut number = |there: bool| {
        if there {
            take(&mut rest).map(|bytes| Some(u64::from_le_bytes(bytes)))
        } else {
            Some(None)
        }
    };
    meta.hard_expiry = number(flags & HARD != 0)?.map(|wall| offset.to_local(wall));
    meta.soft_expiry = number(flags & SOFT != 0)?.map(|wall| offset.to_local(wall));
    meta.idle = number(flags & IDLE != 0)?.map(Duration::from_millis);
    meta.load_time = Duration::from_millis(number(true)??);
    meta.negative = flags & NOTHING != 0;
    let count = u16::from_le_bytes(take(&mut rest)?);
    let mut groups = Vec::new();
    for _ in 0..count {
        let length = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let (name, after) = rest.split_at_checked(length)?;
        groups.push(Group::from_name(std::str::from_utf8(name).ok()?));
        rest = after;
    }
    (!meta.negative || rest.is_empty()).then(|| Decoded {
        meta,
        groups,
        value: Bytes::copy_from_slice(rest),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dependencies::Dependencies;
    use crate::invalidation::{Marks, Snapshot};
    use crate::key::Namespace;

    fn time() -> impl Strategy<Value = Time> {
        (1_000_000_u64..1 << 50).prop_map(Time::from_millis)
    }

    fn span() -> impl Strategy<Value = Duration> {
        (0_u64..1 << 40).prop_map(Duration::from_millis)
    }

    prop_compose! {
        fn any_entry()(
            created in time(),
            hard_expiry in prop::option::of(time()),
            soft_expiry in prop::option::of(time()),
            idle in prop::option::of(span()),
            load_time in span(),
            negative: bool,
            tag: u64,
            tags in prop::collection::vec("[a-zé:]{1,20}", 0..4),
            value in prop::collection::vec(any::<u8>(), 0..100),
        ) -> (Meta, Vec<Group>, Vec<u8>) {
            let groups = Group::tags(tags).unwrap();
            let marks = Marks::new(&groups, Snapshot { epoch: 1, counter: 2 });
            let codec = CodecId::Own;
            let meta = Meta::new(created, TypeTag(tag), codec);
            let meta = Meta { soft_expiry, hard_expiry, marks, load_time, idle, negative, ..meta };
            (meta, groups, if negative { Vec::new() } else { value })
        }
    }

    proptest! {
        /// Times are as far from now in the process that reads as in the one that wrote.
        #[test]
        fn an_entry_is_the_same_again_whatever_the_clocks_say(
            (meta, groups, value) in any_entry(),
            clock in -900_000_i64..900_000,
        ) {
            let bytes = encode(&meta, &value, Offset(clock)).unwrap();
            let decoded = decode(&bytes, Offset(clock)).unwrap();
            let expected = Meta { marks: Marks::default(), ..meta.clone() };
            prop_assert_eq!(&decoded.meta, &expected);
            prop_assert_eq!(&decoded.groups, &groups);
            prop_assert_eq!(&decoded.value[..], &value[..]);
            let later = decode(&bytes, Offset(clock + 1000)).unwrap().meta.created;
            prop_assert_eq!(later.as_millis() + 1000, meta.created.as_millis());
        }

        #[test]
        fn what_depends_on_another_namespace_is_left_out((meta, _, value) in any_entry()) {
            let (home, other) = (Namespace::default(), Namespace::new("other").unwrap());
            let at = Snapshot { epoch: 1, counter: 2 };
            let made_of = Marks::new(&Group::tags(["t"]).unwrap(), at);
            let marks = meta.marks.clone().and(Dependencies::of(&made_of, &other).parts(), &home);
            prop_assert_eq!(encode(&Meta { marks, ..meta }, &value, Offset(0)), None);
        }

        #[test]
        fn any_bytes_are_an_entry_or_none_and_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            clock: i64,
        ) {
            let _ = decode(&bytes, Offset(clock));
        }

        #[test]
        fn an_entry_that_is_cut_off_before_its_value_is_none(
            (meta, _, _) in any_entry(), at in any::<prop::sample::Index>(),
        ) {
            let bytes = encode(&meta, &[], Offset(0)).unwrap();
            prop_assert_eq!(decode(&bytes[..at.index(bytes.len())], Offset(0)), None);
        }
    }
}
