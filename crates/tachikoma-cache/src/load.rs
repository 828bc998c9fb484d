//! Runs loads: one per key, kind and process, each in a task of its own.
//!
//! A caller that goes away neither stops a load nor leaves others waiting; a loader that panics,
//! hangs or asks for its own key ends as an error for all who wait. Whatever the store does, the
//! loader's value is returned: looking up and storing share one budget, storing never delays the
//! answer. Who leads is decided by the pure [`flight`] table.

mod crew;
pub(crate) mod flight;
pub(crate) mod flights;
pub(crate) mod lookup;
pub(crate) mod lookups;
pub(crate) mod outcome;
mod reentrancy;
#[cfg(test)]
mod tests;
mod wave;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, select};
use tracing::debug;

use crate::clock::{Deadline, Stopwatch};
use crate::codec::TypeOps;
use crate::entry::{Entry, Object};
use crate::error::ErrorKind;
use crate::expiry::Ttl;
use crate::invalidation::{Group, Marks};
use crate::key::{Key, MAX_KEY_BYTES, Namespace};
use crate::runtime::{lock, spawn};
use crate::shared::Shared;
use crate::store::{Begun, Cx, Lease, When, Written};
use crew::{Crew, Joining, Verdict};
use flight::{FlightId, Joined, Kind};
use outcome::{Failure, Loaded, Outcome, SourceError};
use reentrancy::Chain;

/// How much longer than the load itself a caller waits for somebody else's: it covers the lookup
/// before and the wake-up after.
const GRACE: Duration = Duration::from_secs(1);

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
    /// Whether its caller has waited for a load in vain. The next one began after the caller came,
    /// so it is good for the caller whenever it joins.
    pub(crate) again: bool,
}

/// What came of taking part in a load.
pub(crate) enum Ran {
    /// An outcome, and whether this caller waited for another one's loader.
    Done(Outcome, bool),
    /// The load that it waited for was overtaken by an invalidation: ask again, or without a TTL
    /// (the store does not answer) load again.
    Again(Job),
}

/// Loads a value or waits for the load that is under way.
pub(crate) async fn run(shared: &Arc<Shared>, job: Job) -> Ran {
    let Ok(key) = Key::new(&job.namespace, job.name.as_str()) else {
        debug!(bytes = job.name.len(), limit = MAX_KEY_BYTES, "key too long: loaded, not cached");
        return Ran::Done(call(shared, job.loader).await.map(Loaded::by_loader), false);
    };
    let me = Chain::link(shared, &key, job.kind);
    if me.is_running() {
        return Ran::Done(Err(Failure::Reentrant), false);
    }
    let joined = lock(shared.flights.shard(&key)).join(&key, job.kind, &job.tags, Crew::new);
    let limit = shared.load_timeout.saturating_add(shared.store_timeout).saturating_add(GRACE);
    let (crew, follower) = match joined {
        Joined::Follow(crew) => {
            shared.counters.coalesced.add_one();
            (crew, Some(job))
        }
        Joined::Lead(id, crew) => {
            let seat = Seat {
                shared: Arc::clone(shared),
                namespace: job.namespace.clone(),
                name: job.name.clone(),
                id,
                crew: Arc::clone(&crew),
                lease: None,
                left: false,
            };
            // Dropped unpolled where there is no runtime: the seat's drop then ends the flight.
            spawn(Arc::new(me), lead(seat, job));
            (crew, None)
        }
    };
    let joining = match &follower {
        Some(job) if !job.again => crew.joining(),
        _ => Joining::BeforeReading,
    };
    let outcome = pin!(crew.outcome(joining));
    match select(outcome, shared.clock.sleep(limit)).await {
        Either::Left((Verdict::Good(outcome), _)) => Ran::Done(outcome, follower.is_some()),
        Either::Left((verdict, _)) => match follower {
            Some(job) => match verdict {
                Verdict::StoreAway => Ran::Again(Job { ttl: None, again: true, ..job }),
                _ => Ran::Again(Job { again: true, ..job }),
            },
            None => Ran::Done(Err(Failure::Aborted), false),
        },
        Either::Right(_) => Ran::Done(Err(Failure::TimedOut), follower.is_some()),
    }
}

/// The leader's place in the table. However its task ends, the flight ends and all waiters know.
struct Seat {
    shared: Arc<Shared>,
    namespace: Namespace,
    name: String,
    id: FlightId,
    crew: Arc<Crew>,
    lease: Option<Lease>,
    /// Whether it has left the table.
    left: bool,
}

impl Seat {
    /// Leaves the table: who asks from now on loads anew.
    fn leave(&mut self) {
        if !self.left
            && let Ok(key) = Key::new(&self.namespace, self.name.as_str())
        {
            lock(self.shared.flights.shard(&key)).finish(&key, self.id);
            self.left = true;
        }
    }

    /// Leaves before the error is given out, or the next caller would get it too.
    fn fail(&mut self, failure: Failure) {
        self.leave();
        self.crew.publish_to_all(Err(failure));
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
    seat.crew.start_reading();
    // Without a store there is nobody to tell late joiners apart: all share the value.
    let mut right = Right::Nothing;
    if job.ttl.is_some() {
        let (found, begun) = begin(&shared, &keys, ops, &cx).await;
        right = begun;
        if let Right::Lease(lease) = right {
            seat.lease = Some(lease);
        }
        if let Some(loaded) = found {
            // For those who came before it was asked for; the others ask for themselves.
            seat.leave();
            seat.crew.publish(Ok(loaded));
            return seat.crew.judge(Verdict::AskAgain);
        }
    }
    let left = lookup.remaining();
    let object = match call(&shared, loader).await {
        Ok(object) => object,
        Err(failure) => return seat.fail(failure),
    };
    let loaded = Loaded::by_loader(Arc::clone(&object));
    let verdict = match (right, ttl) {
        (Right::Lease(lease), Some(ttl)) => {
            let marks = Marks::new(&tags, lease.groups);
            match shared.entry(ttl, ops, object, marks, shared.clock.now()) {
                Ok(entry) => store(&mut seat, &keys[0], entry, lease, left, &loaded, local).await,
                Err(error) => {
                    shared.note("store", &keys[0], &error);
                    Verdict::Good(Ok(loaded.clone()))
                }
            }
        }
        (Right::Taken, _) => Verdict::AskAgain,
        (Right::Lease(_) | Right::Nothing, _) => Verdict::Good(Ok(loaded.clone())),
    };
    seat.leave();
    seat.crew.publish(Ok(loaded));
    seat.crew.judge(verdict);
}

/// Stores a loaded value and gives it out; what those who joined late get of it.
async fn store(
    seat: &mut Seat,
    key: &Key<'_>,
    entry: Entry,
    lease: Lease,
    left: Duration,
    loaded: &Loaded,
    local: bool,
) -> Verdict {
    let shared = Arc::clone(&seat.shared);
    let tagged = !entry.meta().marks.is_empty();
    if !local {
        // Now, so that the write below is on its way at once. Its error, and the panic of a type's
        // own code, come again there.
        let _ = catch_unwind(AssertUnwindSafe(|| entry.bytes().is_ok()));
    }
    seat.crew.start_storing();
    let cx = Cx { now: shared.clock.now(), deadline: Deadline::after(left) };
    let write = async { shared.store.write(key, entry, When::Leased(&lease), &cx).await };
    let mut write = pin!(AssertUnwindSafe(write).catch_unwind());
    // On its way before the value is given out: whoever asks after that finds it. The answer of the
    // store is not waited for.
    let at_once = write.as_mut().now_or_never();
    seat.crew.publish(Ok(loaded.clone()));
    let written = match at_once {
        Some(written) => written,
        None => write.await,
    };
    match written.unwrap_or_else(|_panic| Err(ErrorKind::Unencodable.into())) {
        Ok(Written::Stored) => {
            seat.lease = None;
            // A lease tells nothing of the tags: whether they were invalidated meanwhile is asked
            // with the next lookup.
            if tagged { Verdict::AskAgain } else { Verdict::Good(Ok(loaded.clone())) }
        }
        Ok(Written::Refused) => {
            shared.counters.refused_fills.add_one();
            Verdict::AskAgain
        }
        Err(error) => {
            shared.note("store", key, &error);
            if error.kind().is_transient() {
                Verdict::StoreAway
            } else {
                // A value that no store can hold is not one that was overtaken.
                Verdict::Good(Ok(loaded.clone()))
            }
        }
    }
}

/// What a load may do with its value.
#[derive(Clone, Copy)]
enum Right {
    /// Store it.
    Lease(Lease),
    /// Only return it: another process is loading the key.
    Taken,
    /// Only return it: the store failed.
    Nothing,
}

/// Asks the store once more, and for a lease. A failure of the store is only counted.
async fn begin(
    shared: &Shared,
    keys: &[Key<'_>; 1],
    ops: TypeOps,
    cx: &Cx,
) -> (Option<Loaded>, Right) {
    let begun = match shared.store.begin(keys, cx).await {
        Ok(mut begun) => begun.pop(),
        Err(error) => {
            shared.note("look up", &keys[0], &error);
            None
        }
    };
    let Some(Begun { found, lease }) = begun else { return (None, Right::Nothing) };
    // What is not a value of this type is replaced.
    let loaded = found.and_then(|(entry, guarantee)| match (ops.decode)(&entry) {
        Ok(object) => Some(Loaded { object, guarantee, by_loader: false }),
        Err(error) => {
            shared.note("decode", &keys[0], &error);
            None
        }
    });
    (loaded, lease.map_or(Right::Taken, Right::Lease))
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
