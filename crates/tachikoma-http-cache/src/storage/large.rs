//! Keeps the bodies that are too large for a store behind a network in this process's memory.
//!
//! The store has the head then, and the name of the body: a hash of its bytes. So what is there,
//! fresh, selected or purged is decided by the store alone, for all processes at once; here are
//! only bytes, found by what they are. A process that has not got them has a miss, and what it
//! fetches has the same name if it is the same: processes do not take each other's place (decision
//! 0017).
//!
//! Never decides whether a response may be used, and never waits.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tachikoma_cache::{Cache, Clock, Entries, Error, ErrorKind, Pattern, Ttl};
use xxhash_rust::xxh3::xxh3_128;

use super::stored::{BodyName, Stored, StoredResponse};
use crate::key::Key;

/// A larger body is not given to a store behind a network: one value would hold up all others on
/// its connection.
pub(crate) const MAX_SHARED: usize = 8 << 20;

/// What an entry may take beside the response itself: its name, and its place in the store.
const OVERHEAD: u64 = 8 << 10;

/// Bodies in memory.
#[derive(Debug)]
pub(super) struct Large {
    max_bytes: u64,
    clock: Arc<dyn Clock>,
    /// Made for the first of them; `None` if that failed.
    bodies: OnceLock<Option<Entries>>,
}

impl Large {
    pub(super) fn new(max_bytes: u64, clock: Arc<dyn Clock>) -> Self {
        Self { max_bytes, clock, bodies: OnceLock::new() }
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// How many bytes are held now.
    pub(super) fn used(&self) -> u64 {
        self.made().and_then(|bodies| bodies.cache().stats().bytes).unwrap_or_default()
    }

    /// A large response without its body, and what names that.
    ///
    /// # Errors
    ///
    /// It is larger than all that may be held.
    pub(super) fn part(&self, response: &StoredResponse) -> Result<(Stored, BodyName), Error> {
        let length = response.body.len() as u64;
        let head = StoredResponse { body: bytes::Bytes::new(), ..response.clone() };
        let name = BodyName { hash: xxh3_128(&response.body), length };
        let apart = Stored::Apart(head, name);
        let weight = (apart.memory_weight() as u64).saturating_add(length);
        if weight.saturating_add(OVERHEAD) > self.max_bytes {
            let text = format!("a body of {length} bytes; all in memory have {}", self.max_bytes);
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        Ok((apart, name))
    }

    /// Holds the body of a response whose head is stored.
    pub(super) async fn put(&self, key: &Key, name: BodyName, whole: Arc<Stored>, keep: Duration) {
        let Some(bodies) = self.bodies.get_or_init(|| self.make()) else { return };
        let none: [&str; 0] = [];
        if let Err(error) = bodies.put(&key.body(name.hash), whole, Ttl::from(keep), none).await {
            tracing::debug!(%error, "a large body was not kept: a miss");
        }
    }

    /// What is stored, with its body; `None` if that lies elsewhere.
    pub(super) fn join(&self, key: &Key, stored: Arc<Stored>) -> Option<Arc<Stored>> {
        let Stored::Apart(head, name) = &*stored else { return Some(stored) };
        let held = self.made()?.peek::<Stored>(&key.body(name.hash))??;
        // A hash in its name proves nothing.
        let held = held.response().filter(|held| held.whole == head.whole)?;
        let body = held.body.clone();
        let is_named = body.len() as u64 == name.length;
        let whole = is_named.then(|| StoredResponse { body, ..head.clone() })?;
        Some(Arc::new(Stored::Response(whole)))
    }

    /// Lets go of what was held for these keys.
    pub(super) async fn forget(&self, keys: &[Key]) {
        let Some(bodies) = self.made() else { return };
        for key in keys {
            let all = Pattern::new().literal(key.bodies()).any();
            if let Err(error) = bodies.remove_pattern(&all).await {
                tracing::debug!(%error, "a large body that nobody can reach stays until its end");
            }
        }
    }

    fn made(&self) -> Option<&Entries> {
        self.bodies.get()?.as_ref()
    }

    fn make(&self) -> Option<Entries> {
        let memory = Cache::memory().max_bytes(self.max_bytes).clock(Arc::clone(&self.clock));
        let made = memory.build().inspect_err(|error| {
            tracing::warn!(%error, "there is no memory for large bodies: they are not kept");
        });
        made.ok().map(|cache| cache.entries())
    }
}
