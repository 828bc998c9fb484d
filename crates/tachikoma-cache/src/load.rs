//! Runs loads: one per key, kind and process, each in a task of its own.
//!
//! A caller that goes away neither stops a load nor leaves others waiting; a loader that panics,
//! hangs or asks for its own key ends as an error for all who wait. Who leads is decided by the
//! pure [`flight`] table, what a value at hand is good for by the pure [`choose`]. What the leader
//! does is in [`lead`], what a caller gets in [`answer`].

pub(crate) mod answer;
pub(crate) mod batch;
pub(crate) mod bulkhead;
mod call;
pub(crate) mod choose;
mod crew;
pub(crate) mod flight;
pub(crate) mod flights;
mod lead;
mod lead_many;
pub(crate) mod lookup;
pub(crate) mod lookups;
pub(crate) mod many;
pub(crate) mod options;
pub(crate) mod outcome;
mod patience;
mod reentrancy;
mod storing;
#[cfg(test)]
mod tests;
pub(crate) mod throttle;
mod wave;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::{Notify, oneshot};
use tracing::debug;

use crate::clock::Time;
use crate::codec::TypeOps;
use crate::invalidation::Group;
use crate::key::{Key, MAX_KEY_BYTES, Namespace};
use crate::runtime::{lock, spawn};
use crate::shared::Shared;
use call::call;
use crew::{Crew, Joining, Verdict};
use flight::{Joined, Kind};
use lead::{Seat, lead};
use options::LoadOptions;
use outcome::{Failure, Given, Held, Loader, Made, Outcome};
use reentrancy::Chain;
use storing::basis;

/// How much longer than the load itself a caller waits for somebody else's: it covers the lookup
/// before and the wake-up after.
const GRACE: Duration = Duration::from_secs(1);

/// One load.
pub(crate) struct Job {
    pub(crate) namespace: Namespace,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) tags: Vec<Group>,
    /// Whether the value is to be stored. It is not if an option or a tag is not allowed, or the
    /// store does not answer.
    pub(crate) store: bool,
    pub(crate) options: LoadOptions,
    pub(crate) ops: TypeOps,
    /// Whether the source may have no value.
    pub(crate) optional: bool,
    pub(crate) loader: Loader,
    /// What was found by whoever wants the load.
    pub(crate) held: Option<Held>,
    /// Whether that is served if this load gives nothing.
    pub(crate) has_fallback: bool,
    /// The load renews a fresh value that was stored then: only a newer one makes it needless.
    pub(crate) renews: Option<Time>,
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
    /// The load that it waited for was overtaken by an invalidation: ask again or, if it is not to
    /// be stored (the store does not answer), load again.
    Again(Box<Job>),
}

/// Loads a value or waits for the load that is under way.
pub(crate) async fn run(shared: &Arc<Shared>, job: Box<Job>) -> Ran {
    let Ok(key) = Key::new(&job.namespace, job.name.as_str()) else {
        debug!(bytes = job.name.len(), limit = MAX_KEY_BYTES, "key too long: loaded, not cached");
        return Ran::Done(apart(shared, job).await, false);
    };
    let me = Chain::link(shared, &key, job.kind);
    if me.is_running() {
        return Ran::Done(Err(Failure::Reentrant), false);
    }
    let joined = {
        let mut table = lock(shared.flights.shard(&key));
        let joined = table.join(&key, job.kind, &job.tags, Crew::new);
        let (Joined::Lead(_, crew) | Joined::Follow(crew)) = &joined;
        if !job.has_fallback {
            crew.need();
        }
        if me.is_nested() {
            crew.hurry();
        }
        joined
    };
    let timeout = job.options.load_timeout;
    let (crew, follower) = match joined {
        Joined::Follow(crew) => {
            shared.counters.coalesced.add_one();
            (crew, Some(job))
        }
        Joined::Lead(id, crew) => {
            let seat = Seat::new(shared, &job, id, Arc::clone(&crew));
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
    let limit = pin!(limit(shared, timeout, std::slice::from_ref(&crew)));
    match select(outcome, limit).await {
        Either::Left((Verdict::Good(outcome), _)) => match follower {
            // A load of several keys may find nothing for one; not every caller takes that.
            Some(job) if !job.optional && outcome.as_ref().is_ok_and(Given::is_nothing) => {
                Ran::Again(Box::new(Job { again: true, ..*job }))
            }
            follower => Ran::Done(outcome, follower.is_some()),
        },
        Either::Left((verdict, _)) => match follower {
            Some(job) => {
                let store = job.store && !matches!(verdict, Verdict::StoreAway);
                Ran::Again(Box::new(Job { store, again: true, ..*job }))
            }
            None => Ran::Done(Err(Failure::Aborted), false),
        },
        Either::Right(_) => Ran::Done(Err(Failure::TimedOut), follower.is_some()),
    }
}

/// Ends when loads that may take so long have taken too long, and later if one of them waited for
/// another process's before.
async fn limit(shared: &Shared, timeout: Duration, crews: &[Arc<Crew>]) {
    let limit = timeout.saturating_add(shared.store_timeout).saturating_add(GRACE);
    shared.clock.sleep(limit).await;
    if crews.iter().any(|crew| crew.has_waited()) {
        shared.clock.sleep(timeout).await;
    }
}

/// Loads what is no key in a task of its own, as [`lead`] does, so that a loader which asks for the
/// name that it is loading is found.
async fn apart(shared: &Arc<Shared>, job: Box<Job>) -> Outcome {
    let me = Chain::link_many(shared, &job.namespace, vec![job.name.clone()], job.kind);
    if me.is_running() {
        return Err(Failure::Reentrant);
    }
    let (is_nested, shared) = (me.is_nested(), Arc::clone(shared));
    let (tell, told) = oneshot::channel();
    spawn(Arc::new(me), async move {
        // An error: its caller has gone.
        let _ = tell.send(load_alone(&shared, job, is_nested).await);
    });
    told.await.unwrap_or(Err(Failure::Aborted))
}

/// Loads without the table and the store: for a caller that waited for loads which gave it nothing.
pub(crate) async fn alone(shared: &Arc<Shared>, job: Box<Job>) -> Outcome {
    load_alone(shared, job, Chain::is_inside(shared)).await
}

/// `is_nested`: another load waits for this one.
async fn load_alone(shared: &Arc<Shared>, job: Box<Job>, is_nested: bool) -> Outcome {
    let (hurried, timeout) = (Notify::new(), job.options.load_timeout);
    if is_nested {
        hurried.notify_one();
    }
    let Job { namespace, name, tags, loader, .. } = *job;
    let called = call(shared, &namespace, Some(&name), loader, None, timeout, &hurried).await;
    called.and_then(|(product, _)| {
        let basis = || basis(tags, product.tags.as_deref(), product.read);
        match product.made {
            Made::Value(object) => Ok(Given::by_loader(Some(object), basis())),
            Made::Nothing => Ok(Given::by_loader(None, basis())),
            Made::NotModified => Err(Failure::NotModified),
        }
    })
}

/// Whether a load may still give a value newer than the one that is stored.
fn renews(crew: &Arc<Crew>) -> bool {
    crew.joining() != Joining::Storing
}

/// Whether a load of the key is under way, so that a refresh would be one too many.
pub(crate) fn is_under_way(shared: &Shared, key: &Key<'_>) -> bool {
    lock(shared.flights.shard(key)).has(key, renews)
}

/// Renews a value in the background, unless a load of its key is under way. Its failure is counted
/// and nobody's. It does not wait.
pub(crate) fn refresh(shared: &Arc<Shared>, job: Box<Job>) {
    let Ok(key) = Key::new(&job.namespace, job.name.as_str()) else { return };
    let joined = {
        let mut table = lock(shared.flights.shard(&key));
        if table.has(&key, renews) {
            return;
        }
        // Those that are left have loaded and are storing.
        table.detach(&key);
        table.join(&key, job.kind, &job.tags, Crew::new)
    };
    if let Joined::Lead(id, crew) = joined {
        let me = Chain::begin(shared, &key, job.kind);
        let seat = Seat::new(shared, &job, id, crew);
        spawn(Arc::new(me), lead(seat, job));
    }
}
