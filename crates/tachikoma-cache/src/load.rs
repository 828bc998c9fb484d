//! Runs loads: one per key, kind and process, each in a task of its own.
//!
//! A caller that goes away neither stops a load nor leaves others waiting; a loader that panics,
//! hangs or asks for its own key ends as an error for all who wait. Whatever the store does, the
//! loader's value is returned: looking up and storing share one budget, storing never delays the
//! answer. Who leads is decided by the pure [`flight`] table.

pub(crate) mod flight;
pub(crate) mod lookup;
mod reentrancy;
#[cfg(test)]
mod tests;
mod wave;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, select};
use tracing::debug;

use crate::cache::Shared;
use crate::clock::{Deadline, Stopwatch};
use crate::codec::TypeOps;
use crate::entry::{Entry, Meta, Object};
use crate::error::Error;
use crate::expiry::{Ttl, expiry};
use crate::glob::Glob;
use crate::invalidation::{Group, Marks};
use crate::key::{Key, MAX_KEY_BYTES, Namespace, Shown};
use crate::runtime::{Mutex, lock, spawn};
use crate::store::{Begun, Cx, Guarantee, Lease, Peek, When, Written};
use flight::{FlightId, FlightTable, Joined, Kind};
use reentrancy::Chain;
use wave::Wave;

const SHARDS: usize = 16;

/// How much longer than the load itself a caller waits for somebody else's: it covers the lookup
/// before and the wake-up after.
const GRACE: Duration = Duration::from_secs(1);

/// An error of the caller's loader, shared by all who waited.
pub(crate) type SourceError = Arc<dyn Any + Send + Sync>;

/// Why a load gave no value.
#[derive(Clone)]
pub(crate) enum Failure {
    Source(SourceError),
    Panicked,
    TimedOut,
    Reentrant,
    Aborted,
}

/// A value with how it was come by.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) object: Object,
    pub(crate) guarantee: Guarantee,
    /// Whether the loader ran, or somebody had stored the value meanwhile.
    pub(crate) by_loader: bool,
}

pub(crate) type Outcome = Result<Loaded, Failure>;

/// The caller's loader, its types erased.
pub(crate) type Loader =
    Box<dyn FnOnce() -> BoxFuture<'static, Result<Object, SourceError>> + Send>;

/// One load.
pub(crate) struct Job {
    pub(crate) namespace: Namespace,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) tags: Vec<Group>,
    /// `None`: the value is not to be stored, because its tags are not allowed or the store does
    /// not answer.
    pub(crate) ttl: Option<Ttl>,
    pub(crate) ops: TypeOps,
    pub(crate) loader: Loader,
    /// How much longer the store may take, for looking up once more and for storing together.
    pub(crate) budget: Duration,
    /// Whether the store answers without waiting, so that storing first delays nobody.
    pub(crate) local: bool,
}

/// The loads of one cache that are under way.
pub(crate) struct Flights([Mutex<FlightTable<Arc<Wave<Outcome>>>>; SHARDS]);

impl Flights {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(FlightTable::new())))
    }

    fn shard(&self, key: &Key<'_>) -> &Mutex<FlightTable<Arc<Wave<Outcome>>>> {
        // The table uses the low bits.
        &self.0[(key.hash() >> 56) as usize % SHARDS]
    }

    /// Who asks for the key from now on loads it anew.
    pub(crate) fn detach(&self, key: &Key<'_>) {
        lock(self.shard(key)).detach(key);
    }

    /// The same for each of these keys.
    pub(crate) fn detach_all(&self, keys: &[Key<'_>]) {
        for key in keys {
            self.detach(key);
        }
    }

    /// The same for each key that matches; the names of those that were under way.
    pub(crate) fn detach_matching(&self, namespace: &Namespace, glob: &Glob) -> Vec<String> {
        self.detach_where(namespace, |name, _| glob.matches(name.as_bytes()))
    }

    /// The same for each load that was started with one of these tags.
    pub(crate) fn detach_tagged(&self, namespace: &Namespace, groups: &[Group]) {
        self.detach_where(namespace, |_, tags| tags.iter().any(|tag| groups.contains(tag)));
    }

    fn detach_where(
        &self,
        namespace: &Namespace,
        select: impl Fn(&str, &[Group]) -> bool,
    ) -> Vec<String> {
        self.0.iter().flat_map(|shard| lock(shard).detach_where(namespace, &select)).collect()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|shard| lock(shard).len()).sum()
    }
}

/// Loads a value or waits for the load that is under way. The flag says whether this caller waited.
pub(crate) async fn run(shared: Arc<Shared>, job: Job) -> (Outcome, bool) {
    let Ok(key) = Key::new(&job.namespace, job.name.as_str()) else {
        // Nothing can be stored under it, but the caller still gets its value.
        return (unshared(&shared, job).await, false);
    };
    let me = Chain::link(&shared, &key, job.kind);
    if me.is_running() {
        return (Err(Failure::Reentrant), false);
    }
    let joined = lock(shared.flights.shard(&key)).join(&key, job.kind, &job.tags, Wave::new);
    let limit = shared.load_timeout.saturating_add(shared.store_timeout).saturating_add(GRACE);
    let (wave, follows) = match joined {
        Joined::Follow(wave) => {
            shared.counters.coalesced.add_one();
            (wave, true)
        }
        Joined::Lead(id, wave) => {
            let seat = Seat {
                shared: Arc::clone(&shared),
                namespace: job.namespace.clone(),
                name: job.name.clone(),
                id,
                wave: Arc::clone(&wave),
                lease: None,
            };
            // Dropped unpolled where there is no runtime: the seat's drop then ends the flight.
            spawn(Arc::new(me), lead(seat, job));
            (wave, false)
        }
    };
    match select(wave.outcome(), shared.clock.sleep(limit)).await {
        Either::Left((outcome, _)) => (outcome, follows),
        Either::Right(_) => (Err(Failure::TimedOut), follows),
    }
}

/// Runs the loader without sharing or storing: its key is not one that a store can hold.
async fn unshared(shared: &Shared, job: Job) -> Outcome {
    debug!(bytes = job.name.len(), limit = MAX_KEY_BYTES, "key too long: loaded, not cached");
    call(shared, job.loader).await.map(Loaded::by_loader)
}

impl Loaded {
    fn by_loader(object: Object) -> Self {
        Self { object, guarantee: Guarantee::Fresh, by_loader: true }
    }
}

/// The leader's place in the table. However its task ends, the flight ends and all waiters know.
struct Seat {
    shared: Arc<Shared>,
    namespace: Namespace,
    name: String,
    id: FlightId,
    wave: Arc<Wave<Outcome>>,
    lease: Option<Lease>,
}

impl Seat {
    /// Leaves the table first: who asks after an error was given out must load anew.
    fn fail(&self, failure: Failure) {
        if let Ok(key) = Key::new(&self.namespace, self.name.as_str()) {
            lock(self.shared.flights.shard(&key)).finish(&key, self.id);
        }
        self.wave.publish(Err(failure));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take()
            && let Ok(key) = Key::new(&self.namespace, self.name.as_str())
        {
            self.shared.store.abandon(&key, lease);
        }
        self.fail(Failure::Aborted);
    }
}

async fn lead(mut seat: Seat, job: Job) {
    let Job { tags, ttl, ops, loader, budget, local, .. } = job;
    let shared = Arc::clone(&seat.shared);
    let (namespace, name) = (seat.namespace.clone(), seat.name.clone());
    let Ok(key) = Key::new(&namespace, name.as_str()) else {
        return;
    };
    let keys = [key];
    let lookup = Deadline::after(budget);
    let cx = Cx { now: shared.clock.now(), deadline: lookup };
    if job.ttl.is_some() {
        let (found, lease) = begin(&shared, &keys, ops, &cx).await;
        seat.lease = lease;
        if let Some(loaded) = found {
            return seat.wave.publish(Ok(loaded));
        }
    }
    let left = lookup.remaining();
    let object = match call(&shared, loader).await {
        Ok(object) => object,
        Err(failure) => return seat.fail(failure),
    };
    let loaded = Loaded::by_loader(Arc::clone(&object));
    if !local {
        seat.wave.publish(Ok(loaded.clone()));
    }
    let now = shared.clock.now();
    if let Some((lease, ttl)) = seat.lease.zip(ttl) {
        let marks = Marks::new(&tags, lease.groups);
        match entry(&shared, ttl, ops, object, marks, now) {
            Ok(entry) => {
                let cx = Cx { now, deadline: Deadline::after(left) };
                match shared.store.write(&keys[0], entry, When::Leased(&lease), &cx).await {
                    Ok(Written::Stored) => seat.lease = None,
                    Ok(Written::Refused) => shared.counters.refused_fills.add_one(),
                    Err(error) => shared.note("store", &keys[0], &error),
                }
            }
            Err(error) => shared.note("store", &keys[0], &error),
        }
    }
    seat.wave.publish(Ok(loaded));
}

/// Asks the store once more, and for a lease. A failure of the store is only counted.
async fn begin(
    shared: &Shared,
    keys: &[Key<'_>; 1],
    ops: TypeOps,
    cx: &Cx,
) -> (Option<Loaded>, Option<Lease>) {
    let begun = match shared.store.begin(keys, cx).await {
        Ok(mut begun) => begun.pop(),
        Err(error) => {
            shared.note("look up", &keys[0], &error);
            None
        }
    };
    let Some(Begun { found, lease }) = begun else { return (None, None) };
    // What is not a value of this type is replaced.
    let loaded = found.and_then(|(entry, guarantee)| match (ops.decode)(&entry) {
        Ok(object) => Some(Loaded { object, guarantee, by_loader: false }),
        Err(error) => {
            shared.note("decode", &keys[0], &error);
            None
        }
    });
    (loaded, lease)
}

/// Runs the loader within the load timeout and counts it.
async fn call(shared: &Shared, loader: Loader) -> Result<Object, Failure> {
    shared.counters.loads.add_one();
    let took = Stopwatch::start();
    // The call itself may panic as well as the future that it makes.
    let load = AssertUnwindSafe(async move { loader().await }).catch_unwind();
    let result = match select(Box::pin(load), shared.clock.sleep(shared.load_timeout)).await {
        Either::Left((Ok(Ok(object)), _)) => Ok(object),
        Either::Left((Ok(Err(error)), _)) => Err(Failure::Source(error)),
        Either::Left((Err(_panic), _)) => Err(Failure::Panicked),
        Either::Right(_) => Err(Failure::TimedOut),
    };
    let nanos = u64::try_from(took.elapsed().as_nanos()).unwrap_or(u64::MAX);
    shared.counters.load_nanos.add(nanos);
    if result.is_err() {
        shared.counters.load_failures.add_one();
    }
    result
}

/// The entry of an object that is written at `now`.
pub(crate) fn entry(
    shared: &Shared,
    ttl: Ttl,
    ops: TypeOps,
    object: Object,
    marks: Marks,
    now: crate::clock::Time,
) -> Result<Entry, Error> {
    let expires = expiry(ttl, shared.default_ttl, now)?;
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

impl Shared {
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
}
