//! What one caller of a load gets: what was found, what is loaded, or a stale value instead.
//!
//! It carries out what [`choose`](super::choose) decides and counts the lookup. Each lookup is a
//! hit or a miss; an answer that is stale is counted as such besides.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::choose::{Choice, Found, choose, is_within};
use super::flight::Kind;
use super::options::LoadOptions;
use super::outcome::{Basis, By, Failure, Given, Held, Loader};
use super::{Job, Ran, alone, is_under_way, lookup, lookups, refresh, run};
use crate::codec::TypeOps;
use crate::entry::Object;
use crate::error::Error;
use crate::invalidation::Group;
use crate::key::{Key, Namespace};
use crate::reading::Reading;
use crate::runtime::can_load;
use crate::shared::Shared;
use crate::store::{Guarantee, StaleReason};

/// What a caller wants.
pub(crate) struct Request {
    pub(crate) namespace: Namespace,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) tags: Result<Vec<Group>, Error>,
    pub(crate) options: LoadOptions,
    pub(crate) ops: TypeOps,
    /// Whether the source may have no value.
    pub(crate) optional: bool,
    pub(crate) loader: Loader,
}

/// What is known when the memory did not answer.
pub(crate) enum Known {
    /// The store must be asked; what memory has, stale, if that fails.
    Ask(Option<Held>),
    /// A load is needed; `true`: what was found is served if it gives nothing.
    Load(Option<Held>, bool),
}

/// How the value was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Found,
    Loaded,
    /// By somebody else's load.
    Joined,
}

/// What a caller gets.
pub(crate) struct Answer {
    /// `None`: the source has no value.
    pub(crate) object: Option<Object>,
    pub(crate) guarantee: Guarantee,
    pub(crate) way: Way,
    /// What it was made of.
    pub(crate) basis: Basis,
}

impl Answer {
    pub(super) fn found(held: &Held, guarantee: Guarantee) -> Self {
        let basis = Basis::Stored(held.entry.clone());
        Self { object: held.object.clone(), guarantee, way: Way::Found, basis }
    }

    pub(super) fn of(given: Given, followed: bool) -> Self {
        let way = match (given.by, followed) {
            (By::Store, _) => Way::Found,
            (By::Loader, false) => Way::Loaded,
            (By::Loader, true) | (By::Elsewhere, _) => Way::Joined,
        };
        let Given { object, guarantee, basis, .. } = given;
        Self { object, guarantee, way, basis }
    }
}

/// What to do for a caller who was found this.
pub(crate) enum Decision {
    Serve(Answer),
    /// Serve, and [`renew`] it.
    Renew(Answer, Held),
    Load(Option<Held>, bool),
}

impl Shared {
    /// Decides by what was found, and counts the lookup.
    pub(crate) fn decide(
        &self,
        key: &Key<'_>,
        held: Option<Held>,
        options: &LoadOptions,
    ) -> Decision {
        let now = self.clock.now();
        let bytes = held.as_ref().and_then(|held| held.entry.known_bytes());
        let found = held.as_ref().map(|held| Found::of(held.entry.meta(), held.guarantee, now));
        let choice = choose(
            found,
            options,
            || self.is_throttled(key, options),
            || 1.0 - rand::random::<f64>(),
        );
        let decision = match (held, choice) {
            (Some(held), Choice::Serve(guarantee)) => {
                Decision::Serve(Answer::found(&held, guarantee))
            }
            (Some(held), Choice::ServeAndRefresh(guarantee)) => {
                Decision::Renew(Answer::found(&held, guarantee), held)
            }
            (held, choice) => Decision::Load(held, choice == Choice::LoadWithFallback),
        };
        match &decision {
            Decision::Serve(answer) | Decision::Renew(answer, _) => {
                self.hit(key, bytes);
                if let Guarantee::Stale { reason, age } = answer.guarantee {
                    self.stale(key, reason, age);
                }
            }
            Decision::Load(..) => self.miss(key),
        }
        decision
    }

    /// What is served of something stale without asking anybody, if the store is away; counted.
    pub(crate) fn spared(
        &self,
        key: &Key<'_>,
        held: &Held,
        options: &LoadOptions,
    ) -> Option<Answer> {
        let found = Found::of(held.entry.meta(), held.guarantee, held.at);
        let throttled = || self.is_throttled(key, options);
        let Choice::Serve(guarantee) = choose(Some(found), options, throttled, || 1.0) else {
            return None;
        };
        self.hit(key, held.entry.known_bytes());
        if let Guarantee::Stale { reason, age } = guarantee {
            self.stale(key, reason, age);
        }
        Some(Answer::found(held, guarantee))
    }

    pub(crate) fn is_throttled(&self, key: &Key<'_>, options: &LoadOptions) -> bool {
        !options.retry_after.is_zero() && self.throttle.is_closed(key, self.clock.now())
    }
}

/// Renews what was found, in the background; `request` is made only if nobody does so already.
pub(crate) fn renew(
    shared: &Arc<Shared>,
    key: &Key<'_>,
    held: Held,
    local: bool,
    request: impl FnOnce() -> Request,
) {
    if !can_load() || is_under_way(shared, key) {
        return;
    }
    let renews = held.guarantee.is_fresh().then(|| held.entry.meta().created);
    let budget = shared.store_timeout;
    let mut job = request().into_job(shared, Some(held), true, local, budget);
    job.renews = renews;
    if job.store {
        refresh(shared, job);
    }
}

/// Looks the key up if that is still to be done, and loads if need be; notes what it was for a
/// caller who is recorded.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    known: Known,
    request: Request,
    mut reading: Option<Reading>,
) -> Result<Answer, Failure> {
    if reading.is_none() {
        return look_or_load(shared, known, request).await;
    }
    let (space, name) = (request.namespace.clone(), request.name.clone());
    shared.settle(&mut reading, &space).await;
    let answer = Box::pin(look_or_load(shared, known, request)).await;
    if let Some(reading) = reading {
        match &answer {
            Ok(answer) => reading.value(&space, &name, &answer.basis, answer.guarantee),
            Err(_) => reading.key(&space, &name),
        }
    }
    answer
}

async fn look_or_load(
    shared: Arc<Shared>,
    known: Known,
    request: Request,
) -> Result<Answer, Failure> {
    let job = match known {
        Known::Load(held, has_fallback) => {
            let budget = shared.store_timeout;
            request.into_job(&shared, held, has_fallback, true, budget)
        }
        Known::Ask(spare) => {
            let (namespace, name) = (request.namespace.clone(), request.name.clone());
            let Ok(key) = Key::new(&namespace, name) else {
                return Err(Failure::Aborted); // It was a key before.
            };
            let answer = match look_up(&shared, &key, spare.as_ref(), &request.options).await {
                Looked::Answer(answer) => answer,
                Looked::TooLate(answer) => return Ok(answer),
            };
            let error = answer.error();
            let held = match answer.found {
                Ok(found) => {
                    found.and_then(|found| shared.hold(&key, found, request.ops, request.optional))
                }
                Err(_) => spare,
            };
            let (held, has_fallback) = match shared.decide(&key, held, &request.options) {
                Decision::Serve(answer) => return Ok(answer),
                Decision::Renew(answer, held) => {
                    renew(&shared, &key, held, false, || request);
                    return Ok(answer);
                }
                Decision::Load(held, has_fallback) => (held, has_fallback),
            };
            // One budget for all of it; a fifth remains even after a slow answer, since without the
            // right to store this load helps nobody else.
            let left = shared.store_timeout.saturating_sub(answer.took);
            let budget = left.max(shared.store_timeout / 5);
            let mut job = request.into_job(&shared, held, has_fallback, false, budget);
            if let Some(error) = error {
                shared.note("look up", &key, &error);
                // A store that does not answer is not asked for the right to store either.
                job.store = false;
            }
            job
        }
    };
    load(&shared, job).await
}

/// What came of a lookup.
enum Looked {
    Answer(lookups::Answer),
    /// It takes too long for this caller, who has something stale.
    TooLate(Answer),
}

/// Looks a key up; who has something stale to fall back on waits no longer than it wants to.
async fn look_up(
    shared: &Arc<Shared>,
    key: &Key<'_>,
    spare: Option<&Held>,
    options: &LoadOptions,
) -> Looked {
    let lookup = pin!(lookup::look_up(shared, key));
    let (Some(held), Some(patience)) = (spare, options.soft_timeout) else {
        return Looked::Answer(lookup.await);
    };
    match select(lookup, shared.clock.sleep(patience)).await {
        Either::Left((answer, _)) => Looked::Answer(answer),
        Either::Right(((), lookup)) => {
            let (name, window) = ((key.namespace(), key.name()), options.kept_stale());
            match shared.instead(name, held, window, StaleReason::SoftTimeout) {
                Some(answer) => {
                    shared.hit(key, held.entry.known_bytes());
                    Looked::TooLate(answer)
                }
                None => Looked::Answer(lookup.await),
            }
        }
    }
}

impl Request {
    fn into_job(
        self,
        shared: &Shared,
        held: Option<Held>,
        has_fallback: bool,
        local: bool,
        budget: Duration,
    ) -> Box<Job> {
        let Self { namespace, name, kind, tags, options, ops, optional, loader } = self;
        let mut store = true;
        // Stored without its tags a value could outlive an invalidation, so it is not stored then.
        let mut refuse = |error: Error| {
            shared.note_of("store", &namespace, &name, &error);
            store = false;
        };
        let options = options.check().map_or_else(
            |error| {
                refuse(error);
                shared.options
            },
            |()| options,
        );
        let tags = tags.unwrap_or_else(|error| {
            refuse(error);
            Vec::new()
        });
        // It passes through several futures, each of which would have room for it: many may wait.
        Box::new(Job {
            namespace,
            name,
            kind,
            tags,
            store,
            options,
            ops,
            optional,
            loader,
            held,
            has_fallback,
            renews: None,
            budget,
            local,
            again: false,
        })
    }
}

/// Loads; gives a stale value if the load fails or takes too long, and the caller accepts that.
async fn load(shared: &Arc<Shared>, job: Box<Job>) -> Result<Answer, Failure> {
    let options = job.options;
    let fallback = job.held.clone().filter(|_| job.has_fallback);
    let (namespace, name) = (job.namespace.clone(), job.name.clone());
    let key = (&namespace, name.as_str());
    let load = pin!(load_until_good(shared, job));
    let result = match (&fallback, options.soft_timeout) {
        _ if !can_load() => Err(Failure::NoRuntime),
        (Some(held), Some(patience)) => match select(load, shared.clock.sleep(patience)).await {
            Either::Left((result, _)) => result,
            Either::Right(((), load)) => {
                match shared.instead(key, held, options.kept_stale(), StaleReason::SoftTimeout) {
                    Some(answer) => return Ok(answer),
                    None => load.await,
                }
            }
        },
        _ => load.await,
    };
    result.or_else(|failure| {
        let stale = fallback.and_then(|held| shared.instead_of(&failure, key, &held, &options));
        stale.ok_or(failure)
    })
}

impl Shared {
    /// What was found before and is accepted in place of this failure.
    pub(super) fn instead_of(
        &self,
        failure: &Failure,
        key: (&Namespace, &str),
        held: &Held,
        options: &LoadOptions,
    ) -> Option<Answer> {
        let (window, reason) = match failure {
            // Nothing was loaded because it was accepted; its window may have closed since.
            Failure::Elsewhere => (Duration::MAX, StaleReason::LoadedElsewhere),
            _ => (options.stale_if_error, StaleReason::LoadFailed),
        };
        self.instead(key, held, window, reason)
    }

    /// What was found before, if it is still within the window.
    pub(super) fn instead(
        &self,
        (namespace, name): (&Namespace, &str),
        held: &Held,
        window: Duration,
        reason: StaleReason,
    ) -> Option<Answer> {
        let age = held.age(self.clock.now());
        is_within(age, window).then(|| {
            if let Ok(key) = Key::new(namespace, name) {
                self.stale(&key, reason, age);
            }
            Answer::found(held, Guarantee::Stale { reason, age })
        })
    }
}

/// Loads, a second time if the first was overtaken by an invalidation.
async fn load_until_good(shared: &Arc<Shared>, job: Box<Job>) -> Result<Answer, Failure> {
    let job = match run(shared, job).await {
        Ran::Done(outcome, followed) => return outcome.map(|given| Answer::of(given, followed)),
        Ran::Again(job) => job,
    };
    if job.store {
        // Not counted again: the lookup was a miss.
        let Ok(key) = Key::new(&job.namespace, job.name.as_str()) else {
            return Err(Failure::Aborted); // It was a key before.
        };
        let (ops, optional) = (job.ops, job.optional);
        if let Some(answer) = found_meanwhile(shared, &key, ops, optional).await {
            return Ok(answer);
        }
    }
    match run(shared, job).await {
        Ran::Done(outcome, followed) => outcome.map(|given| Answer::of(given, followed)),
        // Only a first wait is in vain, but for loads that had nothing for this caller.
        Ran::Again(job) => {
            let loaded = Box::pin(alone(shared, job)).await;
            loaded.map(|given| Answer::of(given, false))
        }
    }
}

/// The value, if it was stored while this caller waited in vain.
async fn found_meanwhile(
    shared: &Arc<Shared>,
    key: &Key<'_>,
    ops: TypeOps,
    optional: bool,
) -> Option<Answer> {
    let found = lookup::look_up(shared, key).await.found.ok()??;
    let held = Held::of(found, &shared.codecs, ops, optional, shared.clock.now()).ok()??;
    held.guarantee.is_fresh().then(|| Answer::found(&held, held.guarantee))
}
