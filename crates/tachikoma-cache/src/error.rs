//! What can go wrong in a cache operation, and what the caller can do about it.
//!
//! [`Error`] is for direct operations (`get`, `set`, `delete`, …). A load never fails because of
//! the cache: its error is [`LoadError`], which carries the loader's own error.

mod batch;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of a cache operation.
pub type CacheResult<T> = Result<T, Error>;

/// The name that the specification gives to [`Error`].
pub type CacheError = Error;

pub use batch::BatchError;

/// An error of any type, as the cause of an [`Error`].
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A cache operation failed.
///
/// Match on [`kind`](Self::kind). `Display` prints this level only; the cause is the
/// [`source`](StdError::source). Neither ever holds a value, a password or a token.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    detail: Cow<'static, str>,
    source: Option<BoxError>,
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be reached now. Retrying later may help; it reconnects by itself.
    Unavailable,
    /// The store did not answer within the deadline. Whether it took the command is unknown.
    TimedOut,
    /// The invalidation has not reached the store yet. It is kept and retried by this process;
    /// until it is in, this process does not serve what it concerns, other processes may.
    Pending,
    /// The stored bytes are not a value of this type. Reloading the key helps.
    Undecodable,
    /// The value could not be encoded. Retrying does not help.
    Unencodable,
    /// The key is too long. See the message for the limit.
    InvalidKey,
    /// The namespace has characters or a length that are not allowed.
    InvalidNamespace,
    /// The time to live is zero or too long.
    InvalidTtl,
    /// A tag is empty or too long, or there are too many.
    InvalidTag,
    /// The pattern is too long, or would match everything: that is what `clear` is for.
    InvalidPattern,
    /// The limit of a page or the place where it begins is not one that a listing can have.
    InvalidPage,
    /// The value is larger than the whole cache or than its limit for one value.
    TooLarge,
    /// The configuration is wrong. The message names the setting.
    Config,
    /// The store refused the command: rights, memory, a read-only replica, a wrong password.
    Rejected,
    /// This store cannot do that.
    Unsupported,
}

impl ErrorKind {
    /// Every kind, in the order of its index.
    pub const ALL: [Self; 15] = [
        Self::Unavailable,
        Self::TimedOut,
        Self::Pending,
        Self::Undecodable,
        Self::Unencodable,
        Self::InvalidKey,
        Self::InvalidNamespace,
        Self::InvalidTtl,
        Self::InvalidTag,
        Self::InvalidPattern,
        Self::InvalidPage,
        Self::TooLarge,
        Self::Config,
        Self::Rejected,
        Self::Unsupported,
    ];

    /// The kind as a label for logs and metrics, in `snake_case`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
            Self::Pending => "pending",
            Self::Undecodable => "undecodable",
            Self::Unencodable => "unencodable",
            Self::InvalidKey => "invalid_key",
            Self::InvalidNamespace => "invalid_namespace",
            Self::InvalidTtl => "invalid_ttl",
            Self::InvalidTag => "invalid_tag",
            Self::InvalidPattern => "invalid_pattern",
            Self::InvalidPage => "invalid_page",
            Self::TooLarge => "too_large",
            Self::Config => "config",
            Self::Rejected => "rejected",
            Self::Unsupported => "unsupported",
        }
    }

    /// Whether the same call may succeed later without a change by the caller.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::TimedOut | Self::Pending)
    }

    fn message(self) -> &'static str {
        match self {
            Self::Unavailable => "the store is unavailable",
            Self::TimedOut => "the store did not answer in time",
            Self::Pending => "the invalidation has not reached the store yet and is being retried",
            Self::Undecodable => "the stored value cannot be decoded",
            Self::Unencodable => "the value cannot be encoded",
            Self::InvalidKey => "the key is not valid",
            Self::InvalidNamespace => "the namespace is not valid",
            Self::InvalidTtl => "the time to live is not valid",
            Self::InvalidTag => "the tag is not valid",
            Self::InvalidPattern => "the pattern is not valid",
            Self::InvalidPage => "the page is not valid",
            Self::TooLarge => "the value is too large",
            Self::Config => "the configuration is not valid",
            Self::Rejected => "the store refused the command",
            Self::Unsupported => "the store does not support this",
        }
    }
}

impl Error {
    /// An error of this kind, with what was wrong and what is allowed.
    pub fn new(kind: ErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, of one item of several.
    pub(crate) fn at(self, index: usize, total: usize) -> Self {
        let detail = match &*self.detail {
            "" => format!("at index {index} of {total}"),
            detail => format!("at index {index} of {total}: {detail}"),
        };
        Self { detail: detail.into(), ..self }
    }

    /// The same failure once more, for another item; without the cause.
    pub(crate) fn again(&self) -> Self {
        Self { kind: self.kind, detail: self.detail.clone(), source: None }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether an invalidation is kept and retried ([`ErrorKind::Pending`]).
    pub fn is_pending(&self) -> bool {
        self.kind == ErrorKind::Pending
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind, "")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.message())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Why a load gave no value. One load may have many waiters, so it is cheap to clone.
#[non_exhaustive]
pub enum LoadError<E> {
    /// The caller's loader failed; this is its error, shared by all who waited.
    Source(Arc<E>),
    /// The loader panicked. The process lives on and the key can be loaded again.
    Panicked,
    /// The loader did not end within the load timeout.
    TimedOut,
    /// The loader asked for the very key that it is loading, directly or through other loads.
    Reentrant,
    /// The loader returned [`Loaded::not_modified`](crate::Loaded::not_modified), and there was no
    /// value at hand.
    NotModified,
    /// As many loads as [`max_concurrent_loads`](crate::CacheBuilder::max_concurrent_loads) allows
    /// are running, and as many as may wait are waiting. The loader was not called.
    Overloaded,
    /// The call was not made within a Tokio runtime whose time is enabled, and a load needs one: a
    /// task of its own and a timer. The loader was not called. Hits need no runtime.
    NoRuntime,
    /// The runtime shut down before the load ended.
    Aborted,
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Source(error) => Self::Source(Arc::clone(error)),
            Self::Panicked => Self::Panicked,
            Self::TimedOut => Self::TimedOut,
            Self::Reentrant => Self::Reentrant,
            Self::NotModified => Self::NotModified,
            Self::Overloaded => Self::Overloaded,
            Self::NoRuntime => Self::NoRuntime,
            Self::Aborted => Self::Aborted,
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => f.debug_tuple("Source").field(error).finish(),
            Self::Panicked => f.write_str("Panicked"),
            Self::TimedOut => f.write_str("TimedOut"),
            Self::Reentrant => f.write_str("Reentrant"),
            Self::NotModified => f.write_str("NotModified"),
            Self::Overloaded => f.write_str("Overloaded"),
            Self::NoRuntime => f.write_str("NoRuntime"),
            Self::Aborted => f.write_str("Aborted"),
        }
    }
}

impl<E> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source(_) => "the loader failed; nothing was stored, the next call loads again",
            Self::Panicked => {
                "the loader panicked; the panic is in the log of the program, the next call loads \
                 again"
            }
            Self::TimedOut => {
                "the loader did not end within load_timeout; make it faster or raise load_timeout"
            }
            Self::Reentrant => {
                "the loader asked for the key that it is loading and would wait for itself; load \
                 what it needs under another key"
            }
            Self::NotModified => {
                "the loader said not modified without a value at hand; do so only if cx.stale() is \
                 there"
            }
            Self::Overloaded => {
                "too many loads are waiting; try again later, or raise max_queued_loads or \
                 max_concurrent_loads"
            }
            Self::NoRuntime => {
                "a load needs a Tokio runtime with its time enabled; call it within one, as by \
                 Runtime::block_on"
            }
            Self::Aborted => {
                "the load was ended with its runtime; call it within one that is not shutting down"
            }
        })
    }
}

impl<E: StdError + 'static> StdError for LoadError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Source(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_the_kind_then_the_detail() {
        let error = Error::new(ErrorKind::InvalidTtl, "0 s; allowed is 1 ms to 10 years");
        assert_eq!(
            error.to_string(),
            "the time to live is not valid: 0 s; allowed is 1 ms to 10 years"
        );
        assert_eq!(Error::from(ErrorKind::Pending).to_string(), ErrorKind::Pending.message());
    }

    #[test]
    fn every_kind_has_its_own_label_and_its_index() {
        let mut labels: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), ErrorKind::ALL.len());
        for (index, kind) in ErrorKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
    }
}
