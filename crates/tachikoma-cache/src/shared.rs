//! What all handles of one cache share: its store, clock, counters, settings, and what is under
//! way.
//!
//! Not generic, and it decides nothing but how errors are counted and when an entry expires.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::clock::{Clock, Deadline, Time};
use crate::codec::{Codecs, TypeOps};
use crate::entry::{Entry, Meta, Object};
use crate::error::Error;
use crate::events::{EventKind, Listeners};
use crate::expiry::{Life, Ttl};
use crate::invalidation::Marks;
use crate::key::{Key, Namespace, Shown};
use crate::load::bulkhead::Bulkhead;
use crate::load::flights::Flights;
use crate::load::lookups::Lookups;
use crate::load::options::LoadOptions;
use crate::load::outcome::Held;
use crate::load::throttle::Throttle;
use crate::runtime::Mutex;
use crate::stats::Counters;
use crate::store::observed::Observed;
use crate::store::{Cx, Guarantee, Peek, StaleReason, Store};
use crate::ticket::Tickets;

/// What all namespaces of one cache have in common. Not generic.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) codecs: Codecs,
    pub(crate) counters: Counters,
    /// Who hears of events; mostly nobody.
    pub(crate) listeners: Option<Arc<Listeners>>,
    /// The store, if it is one that tells and counts.
    pub(crate) observed: Option<Arc<Observed>>,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) flights: Flights,
    pub(crate) lookups: Lookups,
    pub(crate) throttle: Throttle,
    pub(crate) tickets: Mutex<Tickets>,
    /// What loads do that do not say otherwise. Its TTL is one.
    pub(crate) options: LoadOptions,
    pub(crate) store_timeout: Duration,
    /// Whether reads are noted where they are recorded.
    pub(crate) dependencies: bool,
}

impl Shared {
    /// What an operation that starts now knows.
    pub(crate) fn cx(&self) -> Cx {
        Cx { now: self.clock.now(), deadline: Deadline::after(self.store_timeout) }
    }

    /// Tells of something that concerns a key. Not to be called under a lock.
    #[inline]
    pub(crate) fn tell(&self, key: &Key<'_>, kind: EventKind<'_>) {
        if let Some(listeners) = &self.listeners {
            listeners.tell(key.namespace(), Some(key.name()), kind);
        }
    }

    /// The same for a name that may be no key, or for several keys together.
    pub(crate) fn tell_of(&self, namespace: &Namespace, name: Option<&str>, kind: EventKind<'_>) {
        if let Some(listeners) = &self.listeners {
            listeners.tell(namespace, name, kind);
        }
    }

    /// Counts a lookup that found a value to serve.
    #[inline]
    pub(crate) fn hit(&self, key: &Key<'_>, bytes: Option<usize>) {
        self.counters.hits.add_one();
        self.tell(key, EventKind::Hit { bytes });
    }

    /// Counts an answer that is stale, beside the lookup.
    pub(crate) fn stale(&self, key: &Key<'_>, reason: StaleReason, age: Duration) {
        self.counters.stale_hits.add_one();
        self.tell(key, EventKind::Stale { reason, age });
    }

    /// Counts a lookup that did not.
    #[inline]
    pub(crate) fn miss(&self, key: &Key<'_>) {
        self.miss_of(key.namespace(), key.name());
    }

    /// The same, also for a name that is no key.
    #[inline]
    pub(crate) fn miss_of(&self, namespace: &Namespace, name: &str) {
        self.counters.misses.add_one();
        if let Some(listeners) = &self.listeners {
            listeners.tell(namespace, Some(name), EventKind::Miss);
        }
    }

    /// Counts the error that a caller is about to get.
    pub(crate) fn counted<R>(&self, result: Result<R, Error>) -> Result<R, Error> {
        result.inspect_err(|error| self.counters.errors.count(error.kind()))
    }

    /// Counts an error that the caller does not get to see, and tells the log.
    pub(crate) fn note(&self, doing: &'static str, key: &Key<'_>, error: &Error) {
        self.note_of(doing, key.namespace(), key.name(), error);
    }

    /// The same for a name that may be no key.
    pub(crate) fn note_of(
        &self,
        doing: &'static str,
        namespace: &Namespace,
        name: &str,
        error: &Error,
    ) {
        self.counters.errors.count(error.kind());
        if let Some(listeners) = &self.listeners {
            listeners.tell(namespace, Some(name), EventKind::Failed { doing, error: error.kind() });
        }
        debug!(
            namespace = namespace.as_str(),
            key = %Shown(name),
            kind = error.kind().label(),
            %error,
            "could not {doing}"
        );
    }

    /// Looks a key up without waiting.
    pub(crate) fn peek(&self, key: &Key<'_>, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        self.store.peek(key, self.clock.now(), see)
    }

    /// What was found, if a load of this type can use it.
    pub(crate) fn hold(
        &self,
        key: &Key<'_>,
        found: (Entry, Guarantee),
        ops: TypeOps,
        optional: bool,
    ) -> Option<Held> {
        let now = self.clock.now();
        Held::of(found, &self.codecs, ops, optional, now).unwrap_or_else(|error| {
            self.note("decode", key, &error);
            None
        })
    }

    /// How long a value lives that is set with this TTL: what the cache's loads do with theirs,
    /// without chance.
    pub(crate) fn life(&self, ttl: Ttl) -> Life {
        let options = &self.options;
        Life { ttl, stale: options.kept_stale(), idle: options.time_to_idle }
    }

    /// The entry of an object that is written at `now`.
    pub(crate) fn entry(
        &self,
        life: impl Into<Life>,
        ops: TypeOps,
        object: Object,
        marks: Marks,
        now: Time,
    ) -> Result<Entry, Error> {
        let life = life.into();
        let (soft_expiry, hard_expiry) = life.expiries(self.options.ttl, now)?;
        let meta = Meta {
            soft_expiry,
            hard_expiry,
            idle: life.idle,
            marks,
            ..Meta::new(now, ops.tag, ops.codec)
        };
        Ok(Entry::of(meta, object, ops.encode, ops.weigh))
    }
}
