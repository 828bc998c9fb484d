//! What happens to entries that have gone: the listener hears of them, then they are dropped.
//!
//! Both run code of the user, which may be slow, use the cache or panic. So it runs after the lock
//! was released, and a panic ends here: counted, and reported by the panic hook.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::EvictionCause;
use super::shard::{Stored, Taken};
use crate::key::{Key, Namespace};

/// Hears of every entry that is no longer in memory.
pub(crate) type Listener<V> = Box<dyn Fn(&Namespace, &str, &V, EvictionCause) + Send + Sync>;

/// The listener, and how often code of the user panicked.
pub(super) struct Hook<V> {
    pub(super) listener: Option<Listener<V>>,
    pub(super) panics: AtomicU64,
}

impl<V> Hook<V> {
    /// Runs code of the user.
    pub(super) fn contain(&self, act: impl FnOnce()) {
        // The panic hook has reported it; there is nobody here to tell.
        if catch_unwind(AssertUnwindSafe(act)).is_err() {
            self.panics.fetch_add(1, Relaxed);
        }
    }
}

/// Entries to be let go when this is dropped. Make it before the lock is taken: locals are dropped
/// in reverse.
pub(super) struct Discarded<'a, V> {
    hook: &'a Hook<V>,
    gone: Vec<(Stored<V>, EvictionCause)>,
    unheard: Vec<V>,
}

impl<'a, V> Discarded<'a, V> {
    pub(super) fn new(hook: &'a Hook<V>) -> Self {
        Self { hook, gone: Vec::new(), unheard: Vec::new() }
    }

    pub(super) fn add(&mut self, taken: Taken<V>) {
        self.gone.push((taken.stored, taken.cause));
    }

    /// A value in whose place another was put; its name stays in use.
    pub(super) fn replaced(&mut self, key: &Key<'_>, value: V) {
        if self.hook.listener.is_none() {
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
            if let Some(listener) = &self.hook.listener {
                let (namespace, name) = (&stored.namespace, &stored.name);
                self.hook.contain(|| listener(namespace, name, &stored.value, cause));
            }
            self.hook.contain(|| drop(stored));
        }
        for value in self.unheard.drain(..) {
            self.hook.contain(|| drop(value));
        }
    }
}
