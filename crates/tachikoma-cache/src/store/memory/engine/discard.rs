//! What happens to entries that have gone: the listener hears of them, then they are dropped.
//!
//! Both run code of the user, which may be slow, use the cache or panic. So it runs after the lock
//! was released, and a panic ends here, reported by the panic hook and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::EvictionCause;
use super::shard::{Stored, Taken};
use crate::key::{Key, Namespace};

/// Hears of every entry that is no longer in memory.
pub(crate) type Listener<V> = Box<dyn Fn(&Namespace, &str, &V, EvictionCause) + Send + Sync>;

/// Entries to be let go when this is dropped. Make it before the lock is taken: locals are dropped
/// in reverse.
pub(super) struct Discarded<'a, V> {
    listener: Option<&'a Listener<V>>,
    gone: Vec<(Stored<V>, EvictionCause)>,
    unheard: Vec<V>,
}

impl<'a, V> Discarded<'a, V> {
    pub(super) fn new(listener: Option<&'a Listener<V>>) -> Self {
        Self { listener, gone: Vec::new(), unheard: Vec::new() }
    }

    pub(super) fn add(&mut self, taken: Taken<V>) {
        self.gone.push((taken.stored, taken.cause));
    }

    /// A value in whose place another was put; its name stays in use.
    pub(super) fn replaced(&mut self, key: &Key<'_>, value: V) {
        if self.listener.is_none() {
            return self.unheard.push(value);
        }
        let (namespace, name) = (key.namespace().clone(), key.name().into());
        self.gone.push((Stored { namespace, name, value }, EvictionCause::Replaced));
    }

    /// A value whose entry stays.
    pub(super) fn silently(&mut self, value: V) {
        self.unheard.push(value);
    }
}

impl<V> Drop for Discarded<'_, V> {
    fn drop(&mut self) {
        for (stored, cause) in self.gone.drain(..) {
            if let Some(listener) = self.listener {
                contain(|| listener(&stored.namespace, &stored.name, &stored.value, cause));
            }
            contain(|| drop(stored));
        }
        for value in self.unheard.drain(..) {
            contain(|| drop(value));
        }
    }
}

/// Runs code of the user.
pub(super) fn contain(act: impl FnOnce()) {
    // The panic hook has reported it; there is nobody here to tell.
    let _ = catch_unwind(AssertUnwindSafe(act));
}
