//! What a cache tells of what it does, while it does it: lookups, loads, writes, removals and what
//! leaves by itself.
//!
//! Decides who hears of an [`Event`] and that nothing comes of it: a listener that panics is
//! contained and counted, and none is called under a lock. It never holds a value, and decides
//! nothing about the cache. A cache without a listener pays one comparison for each event.
//!
//! Every store:
//!
//! - [`Hit`](EventKind::Hit), [`Miss`](EventKind::Miss): a lookup of a typed handle is decided.
//! - [`Stale`](EventKind::Stale): a caller is given a stale value.
//! - [`Loaded`](EventKind::Loaded), [`LoadFailed`](EventKind::LoadFailed): a loader has ended; its
//!   value is not stored yet.
//! - [`Stored`](EventKind::Stored), [`NotStored`](EventKind::NotStored),
//!   [`Deleted`](EventKind::Deleted), [`Invalidated`](EventKind::Invalidated): the store has
//!   answered; the caller has not been told yet.
//! - [`Failed`](EventKind::Failed): an error is counted that the caller does not see.
//!
//! The store in memory: [`Evicted`](EventKind::Evicted), [`Expired`](EventKind::Expired): the entry
//! is out of the memory; its value is not dropped yet.
//!
//! Redis tells nobody what it evicts and what expires there; `stats()` has no such figures either.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::invalidation::{Group, How};
use crate::key::{Namespace, Shown};
use crate::stats::Counter;
use crate::store::StaleReason;

/// Something that a cache did. It never holds a value.
///
/// `Debug` shows at most 64 bytes of the key, and its control characters escaped.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Event<'a> {
    /// Where it happened.
    pub namespace: &'a Namespace,
    /// The key's name in the namespace; `None` if it concerns tags.
    pub key: Option<&'a str>,
    /// What happened.
    pub kind: EventKind<'a>,
}

/// What happened. Sizes are in bytes, as the entry is weighed: without its key and bookkeeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// A lookup found a fresh value, or a stale one that is served at once.
    #[non_exhaustive]
    Hit {
        /// Its size, where it is known.
        bytes: Option<usize>,
    },
    /// A lookup found no value of the type that was asked for, or none that the caller accepts, or
    /// the store failed.
    Miss,
    /// A caller is given a stale value: at once (beside its `Hit`), or in place of what it would
    /// have loaded (after its `Miss`).
    #[non_exhaustive]
    Stale {
        /// Why.
        reason: StaleReason,
        /// How long its time to live has been over.
        age: Duration,
    },
    /// A loader gave a value.
    #[non_exhaustive]
    Loaded {
        /// How long it took.
        took: Duration,
    },
    /// A loader gave none.
    #[non_exhaustive]
    LoadFailed {
        /// How long it took.
        took: Duration,
        /// Why.
        why: LoadFailure,
    },
    /// A value was stored, by a load or by a direct write.
    #[non_exhaustive]
    Stored {
        /// Its size, where it is known.
        bytes: Option<usize>,
    },
    /// A value was not stored.
    #[non_exhaustive]
    NotStored {
        /// The error; `None` if there was none: the key had a value already, or an invalidation
        /// came between reading the source and storing.
        error: Option<ErrorKind>,
    },
    /// A caller removed this key: by its name, a pattern or clearing. Told also of a key that had
    /// no value.
    #[non_exhaustive]
    Deleted {
        /// The error; [`ErrorKind::Pending`] if the removal is kept and retried.
        error: Option<ErrorKind>,
    },
    /// A caller invalidated tags.
    #[non_exhaustive]
    Invalidated {
        /// Their groups.
        groups: &'a [Group],
        /// Whether the entries are gone or stale.
        how: How,
        /// The error; [`ErrorKind::Pending`] if the invalidation is kept and retried.
        error: Option<ErrorKind>,
    },
    /// An entry made room for others.
    #[non_exhaustive]
    Evicted {
        /// Its size.
        bytes: Option<usize>,
        /// Which bound was reached.
        bound: Bound,
    },
    /// An entry's time was over, and its memory is free.
    #[non_exhaustive]
    Expired {
        /// Its size.
        bytes: Option<usize>,
    },
    /// Something went wrong that the caller of a load does not see.
    #[non_exhaustive]
    Failed {
        /// What the cache was doing: `look up`, `decode`, `store`, `begin`.
        doing: &'static str,
        /// What went wrong.
        error: ErrorKind,
    },
}

impl EventKind<'_> {
    /// The kind as a label for logs and metrics, in `snake_case`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::Miss => "miss",
            Self::Stale { .. } => "stale",
            Self::Loaded { .. } => "loaded",
            Self::LoadFailed { .. } => "load_failed",
            Self::Stored { .. } => "stored",
            Self::NotStored { .. } => "not_stored",
            Self::Deleted { .. } => "deleted",
            Self::Invalidated { .. } => "invalidated",
            Self::Evicted { .. } => "evicted",
            Self::Expired { .. } => "expired",
            Self::Failed { .. } => "failed",
        }
    }
}

/// Why a loader gave no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadFailure {
    /// It returned an error.
    Error,
    /// It panicked.
    Panic,
    /// It did not end within the load timeout, or its turn did not come by then.
    Timeout,
    /// It was not called: too many loads were waiting already.
    Overloaded,
}

/// A bound of a store in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bound {
    /// In bytes.
    Bytes,
    /// In entries.
    Entries,
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("namespace", &self.namespace)
            .field("key", &self.key.map(|key| Shown(key).to_string()))
            .field("kind", &self.kind)
            .finish()
    }
}

/// Code of the user that hears of events.
pub(crate) type OnEvent = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Who hears of the events of one cache.
pub(crate) struct Listeners {
    each: Vec<OnEvent>,
    panics: Counter,
}

thread_local! {
    /// Whether this thread is in a listener: what that does with a cache is not told, or it would
    /// hear of itself without end.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

impl Listeners {
    /// `None` if there is nobody to tell.
    pub(crate) fn of(each: Vec<OnEvent>) -> Option<Arc<Self>> {
        (!each.is_empty()).then(|| Arc::new(Self { each, panics: Counter::default() }))
    }

    /// Tells each of them. Not to be called under a lock.
    #[cold]
    pub(crate) fn tell(&self, namespace: &Namespace, key: Option<&str>, kind: EventKind<'_>) {
        if TELLING.try_with(|telling| telling.replace(true)).unwrap_or(true) {
            return;
        }
        let event = Event { namespace, key, kind };
        for listener in &self.each {
            // The panic hook has reported it; there is nobody here to tell.
            if catch_unwind(AssertUnwindSafe(|| listener(&event))).is_err() {
                self.panics.add_one();
            }
        }
        let _ = TELLING.try_with(|telling| telling.set(false));
    }

    /// How often a listener panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.get()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_listener_that_panics_is_counted_and_the_others_are_told() {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let ears = Arc::clone(&heard);
        let bad: OnEvent = Arc::new(|_| panic!("a bug in a listener"));
        let good: OnEvent = Arc::new(move |event| {
            ears.lock().unwrap().push(event.kind.label().to_owned());
        });
        let listeners = Listeners::of(vec![bad, good]).unwrap();
        listeners.tell(&Namespace::default(), Some("k"), EventKind::Miss);
        listeners.tell(&Namespace::default(), None, EventKind::Hit { bytes: None });
        assert_eq!(*heard.lock().unwrap(), ["miss", "hit"]);
        assert_eq!(listeners.panics(), 2);
        assert!(Listeners::of(Vec::new()).is_none());
    }

    #[test]
    fn debug_shows_a_short_key_without_control_characters() {
        let (namespace, key) = (Namespace::default(), format!("\x1b[31m{}", "k".repeat(100)));
        let event = Event { namespace: &namespace, key: Some(&key), kind: EventKind::Miss };
        let shown = format!("{event:?}");
        assert!(!shown.contains('\x1b') && shown.len() < 200, "{shown}");
    }
}
