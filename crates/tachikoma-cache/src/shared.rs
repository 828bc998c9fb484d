//! What all handles of one cache share: its store, clock, counters, settings, and what is under
//! way.
//!
//! Not generic, and it decides nothing but how errors are counted and when an entry expires.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::clock::{Clock, Deadline, Time};
use crate::codec::TypeOps;
use crate::entry::{Entry, Meta, Object};
use crate::error::Error;
use crate::expiry::{Ttl, expiry};
use crate::invalidation::Marks;
use crate::key::{Key, Shown};
use crate::load::flights::Flights;
use crate::load::lookups::Lookups;
use crate::stats::Counters;
use crate::store::{Cx, Guarantee, Peek, Store};

/// What all namespaces of one cache have in common. Not generic.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counters: Counters,
    pub(crate) flights: Flights,
    pub(crate) lookups: Lookups,
    pub(crate) default_ttl: Ttl,
    pub(crate) load_timeout: Duration,
    pub(crate) store_timeout: Duration,
}

impl Shared {
    /// What an operation that starts now knows.
    pub(crate) fn cx(&self) -> Cx {
        Cx { now: self.clock.now(), deadline: Deadline::after(self.store_timeout) }
    }

    /// Counts the error that a caller is about to get.
    pub(crate) fn counted<R>(&self, result: Result<R, Error>) -> Result<R, Error> {
        result.inspect_err(|error| self.counters.errors.count(error.kind()))
    }

    /// Counts an error that the caller does not get to see, and tells the log.
    pub(crate) fn note(&self, doing: &'static str, key: &Key<'_>, error: &Error) {
        self.counters.errors.count(error.kind());
        debug!(
            namespace = key.namespace().as_str(),
            key = %Shown(key.name()),
            kind = error.kind().label(),
            %error,
            "could not {doing}"
        );
    }

    /// Looks a key up without waiting.
    pub(crate) fn peek(&self, key: &Key<'_>, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        self.store.peek(key, self.clock.now(), see)
    }

    /// The entry of an object that is written at `now`.
    pub(crate) fn entry(
        &self,
        ttl: Ttl,
        ops: TypeOps,
        object: Object,
        marks: Marks,
        now: Time,
    ) -> Result<Entry, Error> {
        let expires = expiry(ttl, self.default_ttl, now)?;
        let meta = Meta {
            created: now,
            soft_expiry: expires,
            hard_expiry: expires,
            type_tag: ops.tag,
            codec: ops.codec,
            marks,
        };
        Ok(Entry::from_object(meta, object, ops.encode, ops.weigh))
    }
}
