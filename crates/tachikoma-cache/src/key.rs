//! What an entry is found by: a namespace and a name in it.
//!
//! Decides which names and namespaces are allowed and how they hash. The two parts are never joined
//! here, so no name can reach into another namespace; a store that needs one string (Redis) joins
//! them in a way of its own that it proves injective.

mod builder;
#[cfg(feature = "sign")]
mod hashed;

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;

use crate::error::{Error, ErrorKind};

pub use builder::CacheKeyBuilder;
#[cfg(feature = "macros")]
pub(crate) use builder::push_escaped;
#[cfg(feature = "sign")]
pub use hashed::KeyHasher;

/// The longest key name, in bytes.
pub const MAX_KEY_BYTES: usize = 4096;

/// The longest namespace with all its levels, in bytes.
pub const MAX_NAMESPACE_BYTES: usize = 128;

// Seeded anew in each process, so that nobody outside can make keys collide.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// A part of a store whose keys are disjoint from every other namespace's.
///
/// Letters, digits, `-`, `_` and `.`; levels made by [`child`](Self::child) are joined with `/`.
/// No namespace contains another: clearing `shop` leaves `shop/tenant-7` alone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// A namespace of one level, or of several joined with `/`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidNamespace`] if it is empty, longer than [`MAX_NAMESPACE_BYTES`] or has
    /// other characters.
    pub fn new(name: &str) -> Result<Self, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let levels_fit =
            name.split('/').all(|level| !level.is_empty() && level.chars().all(allowed));
        if levels_fit && name.len() <= MAX_NAMESPACE_BYTES {
            return Ok(Self(name.into()));
        }
        let shown: String = name.chars().take(64).collect();
        Err(Error::new(
            ErrorKind::InvalidNamespace,
            format!(
                "{shown:?}; allowed are 1 to {MAX_NAMESPACE_BYTES} letters, digits, '-', '_', '.', \
                 in levels separated by '/'"
            ),
        ))
    }

    /// The namespace `name` below this one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); also if `name` has more than one level.
    pub fn child(&self, name: &str) -> Result<Self, Error> {
        if name.contains('/') {
            return Err(Error::new(
                ErrorKind::InvalidNamespace,
                format!("{name:?}; one level at a time, without '/'"),
            ));
        }
        Self::new(&format!("{}/{name}", self.0))
    }

    /// Its full name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    /// `tachikoma`.
    fn default() -> Self {
        Self("tachikoma".into())
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A name in a namespace, with the hash of both.
#[derive(Clone)]
pub struct Key<'a> {
    namespace: &'a Namespace,
    name: Cow<'a, str>,
    hash: u64,
}

impl<'a> Key<'a> {
    /// The key `name` of `namespace`. Any text is allowed, also the empty one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] if it is longer than [`MAX_KEY_BYTES`].
    pub fn new(namespace: &'a Namespace, name: impl Into<Cow<'a, str>>) -> Result<Self, Error> {
        let name = name.into();
        if name.len() > MAX_KEY_BYTES {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                format!("{} bytes; at most {MAX_KEY_BYTES} are allowed", name.len()),
            ));
        }
        Ok(Self::found(namespace, name))
    }

    /// A key that a store has under this name, to remove it: it may be longer than a key can be,
    /// because others may have written it.
    pub(crate) fn found(namespace: &'a Namespace, name: impl Into<Cow<'a, str>>) -> Self {
        let name = name.into();
        let mut hasher = HASHER.build_hasher();
        hasher.write(namespace.0.as_bytes());
        // A byte that no namespace has ends it, so that the two parts cannot shift.
        hasher.write_u8(0);
        hasher.write(name.as_bytes());
        Self { namespace, hash: hasher.finish(), name }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &'a Namespace {
        self.namespace
    }

    /// Its name in the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A keyed hash of namespace and name, the same for the life of the process only. It may choose
    /// a bucket; equality is decided by the parts.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.namespace == other.namespace && self.name == other.name
    }
}

impl Eq for Key<'_> {}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.namespace, Shown(&self.name))
    }
}

/// A key as a log may show it: at most 64 bytes, control characters escaped.
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.floor_char_boundary(64);
        write!(f, "{}", self.0[..end].escape_debug())?;
        if end < self.0.len() { f.write_str("…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_that_could_reach_into_others_are_refused() {
        for bad in ["", "a:b", "{a}", "app\0", "a/", "/a", "a//b", "a b", "é", "app*", "a\nb"] {
            let error = Namespace::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidNamespace, "{bad:?}");
        }
        assert!(Namespace::new(&"n".repeat(MAX_NAMESPACE_BYTES)).is_ok());
        assert!(Namespace::new(&"n".repeat(MAX_NAMESPACE_BYTES + 1)).is_err());
        assert!(Namespace::default().child("a/b").is_err());
        assert_eq!(Namespace::default().child("t-7").unwrap().as_str(), "tachikoma/t-7");
        assert_eq!(Namespace::new(Namespace::default().as_str()).unwrap(), Namespace::default());
    }

    #[test]
    fn a_key_has_at_most_4096_bytes() {
        let ns = Namespace::default();
        assert!(Key::new(&ns, "").is_ok());
        assert!(Key::new(&ns, "k".repeat(MAX_KEY_BYTES)).is_ok());
        let error = Key::new(&ns, "k".repeat(MAX_KEY_BYTES + 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert!(error.to_string().contains("4097"), "{error}");
    }

    #[test]
    fn the_same_name_in_two_namespaces_is_two_keys() {
        let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
        assert_ne!(Key::new(&a, "k").unwrap(), Key::new(&b, "k").unwrap());
        assert_ne!(Key::new(&a, "k").unwrap().hash(), Key::new(&b, "k").unwrap().hash());
    }

    #[test]
    fn a_shown_key_is_short_and_has_no_control_characters() {
        assert_eq!(Shown("a\x1b[31m\r\n").to_string(), "a\\u{1b}[31m\\r\\n");
        let long = "é".repeat(100);
        assert_eq!(Shown(&long).to_string(), format!("{}…", "é".repeat(32)));
    }
}
