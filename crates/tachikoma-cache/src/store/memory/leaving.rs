//! Who hears of an entry that leaves the memory: whoever the application named, and the listeners
//! of the cache. It decides only who is told what, never what leaves.

use std::sync::Arc;

use super::engine::Listener;
use super::{EvictionCause, EvictionListener};
use crate::entry::Entry;
use crate::events::{Bound, EventKind, Listeners};

/// Who is told of each entry that leaves.
pub(super) fn leaving(
    on_evict: Option<EvictionListener>,
    listeners: Option<Arc<Listeners>>,
) -> Option<Listener<Entry>> {
    let listeners = listeners.map(|listeners| -> Listener<Entry> {
        Box::new(move |namespace, name, entry, cause| {
            let bytes = entry.known_bytes();
            let kind = match cause {
                EvictionCause::Size => EventKind::Evicted { bytes, bound: Bound::Bytes },
                EvictionCause::Count => EventKind::Evicted { bytes, bound: Bound::Entries },
                EvictionCause::Expired => EventKind::Expired { bytes },
                // Whoever did it tells of it, once for every store.
                EvictionCause::Replaced | EvictionCause::Removed => return,
            };
            listeners.tell(namespace, Some(name), kind);
        })
    });
    match (on_evict, listeners) {
        (None, listeners) => listeners,
        (Some(told), None) => {
            Some(Box::new(move |namespace, name, _, cause| told(namespace, name, cause)))
        }
        (Some(told), Some(tell)) => Some(Box::new(move |namespace, name, entry, cause| {
            // First those who cannot panic.
            tell(namespace, name, entry, cause);
            told(namespace, name, cause);
        })),
    }
}
