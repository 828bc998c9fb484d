//! The names of what a store keeps in Redis.
//!
//! Pure. `NS` is a namespace, which has neither braces nor colons:
//!
//! | name | what |
//! |---|---|
//! | `NS:{vNAME}` | the entry of the key `NAME`: one string, see [`envelope`](crate::envelope) |
//! | `NS:{vNAME}:l` | the lease of its load: a token |
//! | `NS:{vNAME}:w` | the write guards of the key: a sorted set |
//! | `NS:g` | the numbers of the namespace's groups: a sorted set |
//!
//! No two of them are equal: the namespace ends at the first colon; after it comes `g` alone or
//! `{v`; an entry ends with `}`, a lease with `l`, guards with `w`. All three are in one slot of a
//! cluster: the hash tag ends at the first `}`, at the same place in each, and the `v` keeps it
//! from being empty. The counters have no hash tag, so that namespaces spread over the slots; what
//! is later to live beside them can be called `{NS:g}…`.

use crate::glob::{Glob, escape};
use crate::invalidation::{Group, How};
use crate::key::{Key, Namespace};

/// What a name in Redis belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Entry(&'a str),
    Lease(&'a str),
}

impl<'a> Part<'a> {
    /// The key in the namespace.
    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Entry(name) | Self::Lease(name) => name,
        }
    }
}

pub(super) fn entry(key: &Key<'_>) -> String {
    entry_of(key.namespace(), key.name())
}

pub(super) fn lease(key: &Key<'_>) -> String {
    lease_of(key.namespace(), key.name())
}

pub(super) fn entry_of(namespace: &Namespace, name: &str) -> String {
    format!("{}:{{v{name}}}", namespace.as_str())
}

pub(super) fn lease_of(namespace: &Namespace, name: &str) -> String {
    format!("{}:{{v{name}}}:l", namespace.as_str())
}

pub(super) fn guards(key: &Key<'_>) -> String {
    format!("{}:{{v{}}}:w", key.namespace().as_str(), key.name())
}

/// The member of the groups' numbers whose number is the floor.
pub(super) const FLOOR: &str = "@f";

/// The member of the groups' numbers whose number is that of the last invalidation of a group.
pub(super) fn field(group: &Group, how: How) -> String {
    let kind = match how {
        How::Hard => 'h',
        How::Soft => 's',
    };
    format!("{kind}:{}", group.as_str())
}

pub(super) fn groups(namespace: &Namespace) -> String {
    format!("{}:g", namespace.as_str())
}

/// The namespace whose groups stand at this name.
pub(super) fn parse_groups(name: &[u8]) -> Option<Namespace> {
    let space = std::str::from_utf8(name.strip_suffix(b":g")?).ok()?;
    Namespace::new(space).ok()
}

/// A pattern for `SCAN` that finds the entry and the lease of every key that matches. It may find
/// more: `NAME` may contain `}`, so the caller must match the name again.
pub(super) fn pattern(namespace: &Namespace, glob: &Glob) -> Vec<u8> {
    let mut pattern = format!("{}:{{v", escape(namespace.as_str())).into_bytes();
    pattern.extend(glob.embeddable());
    pattern.extend_from_slice(b"}*");
    pattern
}

/// What a name that a scan found belongs to; `None` if it is not of this namespace.
pub(super) fn parse<'a>(namespace: &Namespace, name: &'a [u8]) -> Option<Part<'a>> {
    let rest = name.strip_prefix(namespace.as_str().as_bytes())?.strip_prefix(b":{v")?;
    let rest = std::str::from_utf8(rest).ok()?;
    if let Some(name) = rest.strip_suffix("}:l") {
        return Some(Part::Lease(name));
    }
    rest.strip_suffix('}').map(Part::Entry)
}

/// The same for a name of any namespace.
pub(super) fn parse_any(name: &[u8]) -> Option<(Namespace, Part<'_>)> {
    let colon = name.iter().position(|byte| *byte == b':')?;
    let space = std::str::from_utf8(name.get(..colon)?).ok()?;
    let space = Namespace::new(space).ok()?;
    let part = parse(&space, name)?;
    Some((space, part))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const AWKWARD: [&str; 14] = [
        "", "x", "}", "}x}", "{}x}", "{", "}:l", "x}:l", "x}:l}:l", "{v}", ":l", "g", "v", "é\n\0",
    ];

    fn space(name: &str) -> Namespace {
        Namespace::new(name).unwrap()
    }

    /// The part of a name that chooses the slot, by the rule of the cluster specification.
    fn tag(name: &str) -> &str {
        let Some(open) = name.find('{') else {
            return name;
        };
        match name[open + 1..].find('}') {
            Some(length) if length > 0 => &name[open + 1..=open + length],
            _ => name,
        }
    }

    #[test]
    fn no_two_things_have_one_name() {
        let mut seen = HashSet::new();
        for space in ["a", "ab", "a/b", "g", "v", "a-b"].map(space) {
            assert!(seen.insert(groups(&space)));
            assert_eq!(parse_groups(groups(&space).as_bytes()), Some(space.clone()));
            for name in AWKWARD {
                assert!(seen.insert(entry_of(&space, name)), "{space:?} {name:?}");
                assert!(seen.insert(lease_of(&space, name)), "{space:?} {name:?}");
            }
        }
    }

    #[test]
    fn an_entry_and_its_lease_are_in_one_slot() {
        for name in AWKWARD {
            let (entry, lease) = (entry_of(&space("n"), name), lease_of(&space("n"), name));
            assert_eq!(tag(&entry), tag(&lease), "{name:?}");
            assert_ne!(tag(&entry), entry, "{name:?} has no hash tag");
        }
        assert_eq!(tag("n:{}x}"), "n:{}x}", "the rule itself: an empty tag is none");
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for name in ["a", "a:g", "a:{v", "a:{x}", "ab:{vx}", "a:{vx}:m", "b:{vx}"] {
            assert_eq!(parse(&space("a"), name.as_bytes()), None, "{name:?}");
        }
        assert_eq!(parse(&space("a"), b"a:{v\xff}"), None);
        for name in ["a:{vg}", "a:{v:g}", "a:{v}:g", "a:{v}:l", "a:l", "g", ":g", "a:b:g"] {
            assert_eq!(parse_groups(name.as_bytes()), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_read_back(name: String) {
            let space = space("shop/7");
            let entry = entry_of(&space, &name);
            let lease = lease_of(&space, &name);
            prop_assert_eq!(parse(&space, lease.as_bytes()), Some(Part::Lease(&name)));
            // An entry whose key ends with "}:l" without its brace would be a lease.
            prop_assert_eq!(parse(&space, entry.as_bytes()), Some(Part::Entry(&name)));
            prop_assert_ne!(&entry, &lease);
            let any = parse_any(entry.as_bytes());
            prop_assert_eq!(any, Some((space, Part::Entry(name.as_str()))));
        }

        #[test]
        fn the_pattern_finds_what_the_glob_matches(
            name in "[ab}:l{*]{0,6}",
            glob in "[ab}:l{*?]{0,6}|\\[[ab^-]{0,3}|[ab*]{0,3}\\\\",
        ) {
            let space = space("shop.7");
            let glob = Glob::new(&glob).unwrap();
            let pattern = String::from_utf8(pattern(&space, &glob)).unwrap();
            let pattern = Glob::new(&pattern).unwrap();
            if glob.matches(name.as_bytes()) {
                prop_assert!(pattern.matches(entry_of(&space, &name).as_bytes()));
                prop_assert!(pattern.matches(lease_of(&space, &name).as_bytes()));
            }
        }
    }
}
