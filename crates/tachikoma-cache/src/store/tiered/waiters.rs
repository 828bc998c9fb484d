//! Who waits until a key changes: loads that wait for another process's.
//!
//! Decides who is woken: whoever was there when the change was told, and for no reason now and then
//! somebody else. Whoever enters before asking the server misses no change after the answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::key::Key;

/// By the hash of a key: two that share one wake each other, which does no harm.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<u64, Vec<Arc<Notify>>>>);

impl Waiters {
    /// Waits for a change of one of these keys, from now on.
    pub(super) fn enter(&self, keys: &[Key<'_>]) -> Waiting<'_> {
        let (waked, hashes) = (Arc::new(Notify::new()), keys.iter().map(Key::hash).collect());
        let waiting = Waiting { waiters: self, waked, hashes };
        let mut table = self.lock();
        for hash in &waiting.hashes {
            table.entry(*hash).or_default().push(Arc::clone(&waiting.waked));
        }
        drop(table);
        waiting
    }

    /// This key may have changed.
    pub(super) fn wake(&self, key: &Key<'_>) {
        self.lock().get(&key.hash()).into_iter().flatten().for_each(|waked| waked.notify_one());
    }

    /// Every key may have changed.
    pub(super) fn wake_all(&self) {
        self.lock().values().flatten().for_each(|waked| waked.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Vec<Arc<Notify>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits, until it is dropped.
pub(super) struct Waiting<'a> {
    waiters: &'a Waiters,
    /// It keeps what was told before anybody listened.
    waked: Arc<Notify>,
    hashes: Vec<u64>,
}

impl Waiting<'_> {
    /// Ends when one of the keys may have changed since this was made.
    pub(super) async fn changed(self) {
        self.waked.notified().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut table = self.waiters.lock();
        for hash in &self.hashes {
            if let Some(waiting) = table.get_mut(hash) {
                waiting.retain(|waked| !Arc::ptr_eq(waked, &self.waked));
                if waiting.is_empty() {
                    table.remove(hash);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::key::Namespace;

    #[test]
    fn whoever_waits_for_a_key_is_woken_by_its_change_also_if_that_came_first() {
        let (waiters, space) = (Waiters::default(), Namespace::default());
        let key = |name: &'static str| Key::new(&space, name).unwrap();
        let is_woken = |waiting: Waiting<'_>| waiting.changed().now_or_never().is_some();
        let enter = |names: &[&'static str]| {
            waiters.enter(&names.iter().map(|name| key(name)).collect::<Vec<_>>())
        };
        let (both, one, other) = (enter(&["a", "b"]), enter(&["a"]), enter(&["c"]));
        waiters.wake(&key("b"));
        assert!(is_woken(both));
        waiters.wake(&key("b"));
        assert!(!is_woken(one));
        let again = enter(&["b", "b"]);
        waiters.wake_all();
        assert!(is_woken(other) && is_woken(again));
        assert!(!is_woken(enter(&["b"])), "what was told before it came is not for it");
        assert!(waiters.lock().is_empty(), "nobody is left");
    }
}
