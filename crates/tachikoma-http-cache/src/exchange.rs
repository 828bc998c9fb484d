//! One exchange that memory alone could not answer: look again, wait or fetch, validate, store.
//!
//! Carries out what [`policy`](crate::policy) decides and never decides itself what may be stored
//! or reused. Nothing of the store's troubles reaches the client: without the store, an exchange
//! is one with the inner service.

mod call;
mod carry;
mod fetch;
mod post;
mod rest;

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, Uri};
use http_body::Body;
use tachikoma_cache::Time;
use tokio::sync::watch;
use tower_service::Service;

use crate::{
    answer,
    body::CacheBody,
    cache_status,
    feed::BoxError,
    flight::{self, Join, Progress},
    handle::Shared,
    key::{Key, Target},
    live::Serves,
    policy::{
        Options,
        decision::{Bypass, Decision, Forward, StaleUse},
        invalidation::{invalidated, is_unsafe},
        request::RequestFacts,
        reuse::{Failed, Reuse, reuse, stale_if_error},
    },
    stats::add,
    storage::{self, Found, Place, Right, Stored, StoredResponse},
};
use carry::Carried;
use fetch::Fetch;
pub(crate) use fetch::may_be_held;
pub(crate) use post::post;

/// How often a request waits for others before it asks itself.
const MAX_WAITS: u32 = 3;

/// How long a request waits for another process that fetches the same, at most, before it asks
/// itself …
const AWAIT_LIMIT: Duration = Duration::from_secs(2);

/// … and how long until it looks for the first time.
const AWAIT_STEP: Duration = Duration::from_millis(10);

/// A request that takes part in caching.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) key: Key,
    pub(crate) facts: RequestFacts,
    /// What holds for it.
    pub(crate) options: Arc<Options>,
    /// It is not answered by a fetch that did not begin later.
    pub(crate) since: Option<Time>,
}

/// What follows from what is stored.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// This is the answer.
    Answer(Decision, Arc<Stored>),
    /// This is the answer, and it is to be refreshed.
    Refresh(Decision, Arc<Stored>),
    /// There is no answer, and the origin may not be asked.
    OnlyIfCached,
    /// The origin is to be asked, maybe whether this is still current.
    Forward(Forward, Option<Arc<Stored>>),
}

/// Decides what follows from what is stored for a request.
pub(crate) fn verdict(
    found: Found,
    request: &HeaderMap,
    facts: &RequestFacts,
    now: SystemTime,
) -> Verdict {
    let forward = |why, stored| {
        if facts.directives.only_if_cached {
            Verdict::OnlyIfCached
        } else {
            Verdict::Forward(why, stored)
        }
    };
    let stored = match found {
        Found::Response(stored, _) => stored,
        Found::Nothing(why, ..) => return forward(why, None),
    };
    let Some(response) = stored.response() else {
        return forward(Forward::UriMiss, None);
    };
    if !answer::is_held(response, request, facts.head) {
        return forward(Forward::Partial, Some(stored));
    }
    match reuse(&response.terms, facts, now) {
        Reuse::Fresh { ttl } => Verdict::Answer(Decision::Hit { ttl }, stored),
        Reuse::Stale { by, allowed: allowed @ StaleUse::WhileRevalidate } => {
            Verdict::Refresh(Decision::Stale { by, allowed }, stored)
        }
        Reuse::Stale { by, allowed } => Verdict::Answer(Decision::Stale { by, allowed }, stored),
        Reuse::Validate { fresh: true } => forward(Forward::Request, Some(stored)),
        Reuse::Validate { fresh: false } => forward(Forward::Stale, Some(stored)),
        // What is stored is not for this request, so not even its validator is used.
        Reuse::Refused(_) => forward(Forward::Request, None),
    }
}

/// An exchange that the cache takes no part in, but for what an unsafe one makes invalid: that is
/// known only from its answer, so it goes on without its client.
pub(crate) async fn pass<S, B, R>(
    shared: Arc<Shared>,
    inner: S,
    request: Request<B>,
    why: Bypass,
    target: Option<Target>,
) -> Result<Response<CacheBody<R>>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
    R: Send + 'static,
{
    let may_invalidate = target.is_some() && is_unsafe(request.method());
    let clock = Arc::clone(shared.entries().clock());
    let exchange = passed_on(shared, inner, request, why, target);
    if may_invalidate { Carried::new(&clock, exchange).await } else { exchange.await }
}

async fn passed_on<S, B, R>(
    shared: Arc<Shared>,
    inner: S,
    request: Request<B>,
    why: Bypass,
    target: Option<Target>,
) -> Result<Response<CacheBody<R>>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    let method = request.method().clone();
    let decision = Decision::bypass(why);
    shared.decided(&decision);
    let mut response = call::oneshot(inner, request).await?;
    let keys =
        invalidated_keys(&method, target.and_then(|target| target.uri()).as_ref(), &response);
    if !keys.is_empty() {
        invalidate(shared, keys).await;
    }
    cache_status::add(response.headers_mut(), &decision);
    Ok(response.map(CacheBody::passed))
}

/// What the answer to a request makes invalid; nothing, unless its method is unsafe.
fn invalidated_keys<R>(method: &Method, base: Option<&Uri>, response: &Response<R>) -> Vec<Key> {
    let Some(base) = base.filter(|_| is_unsafe(method)) else {
        return Vec::new();
    };
    let uris = invalidated(method, base, response.status(), response.headers());
    uris.iter().filter_map(Target::from_uri).map(|target| target.key()).collect()
}

/// Invalidates in a task of its own: the change is made, so a client that goes away now must not
/// leave the old answers behind. Returns whether it is done, in a store that no other process has.
async fn invalidate(shared: Arc<Shared>, keys: Vec<Key>) -> bool {
    add(&shared.counters.invalidations, keys.len() as u64);
    let invalidation = async move { shared.invalidate(&keys).await };
    match tokio::runtime::Handle::try_current() {
        // It cannot fail but by a panic, which has been reported where it happened.
        Ok(runtime) => runtime.spawn(invalidation).await.unwrap_or(false),
        Err(_) => invalidation.await,
    }
}

/// An exchange that takes part in caching.
pub(crate) async fn run<S, B, R>(
    shared: Arc<Shared>,
    inner: S,
    request: Request<B>,
    asked: Asked,
) -> Result<Response<CacheBody<R>>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let Asked { key, facts, .. } = &asked;
    let (mut waits, mut waited_for, mut lead) = (0, None, None);
    let (mut brought, mut store_failed) = (None, false);
    // How long it has waited for another process.
    let mut awaited = Duration::ZERO;
    // What is known to tell variants apart though nothing is stored yet.
    let mut telling = Vec::new();
    loop {
        let found = match brought.take() {
            Some(found) => found,
            // One failure is enough: each would cost its deadline.
            None if store_failed => Found::nothing(),
            None => {
                let found = shared.storage.find(key, request.headers(), facts).await;
                store_failed = found.is_err();
                found.unwrap_or_else(|_| Found::nothing())
            }
        };
        let name = flight_name(&asked, &found, &telling, &request);
        let place = found.place();
        let (why, stored) = match verdict(found, request.headers(), facts, shared.now()) {
            Verdict::Answer(decision, stored) => {
                let decision = waited_for.map_or(decision, collapsed);
                return Ok(answer(&shared, &stored, &request, facts, &decision));
            }
            // A part does not refresh the whole: the next whole request does.
            Verdict::Refresh(decision, stored) if facts.has_range => {
                return Ok(answer(&shared, &stored, &request, facts, &decision));
            }
            Verdict::Refresh(decision, stored) => {
                let response = answer(&shared, &stored, &request, facts, &decision);
                refresh(&shared, inner, request, asked, stored, place, name);
                return Ok(response);
            }
            Verdict::OnlyIfCached => {
                shared.decided(&Decision::OnlyIfCached);
                return Ok(answer::only_if_cached());
            }
            Verdict::Forward(why, stored) => (why, stored),
        };
        let may_join = lead.is_none() && waits < MAX_WAITS;
        let role = if may_join { role(facts, why, stored.as_deref()) } else { Role::Alone };
        if role != Role::Alone {
            let joined = match role {
                Role::Leads => {
                    shared.flights.join(&name, shared.entries().clock().now(), asked.since)
                }
                _ => shared.flights.follow(&name, asked.since),
            };
            match joined {
                Join::Lead(leading) => {
                    lead = Some(leading);
                    // The one before may just have stored an answer: look once more.
                    if !store_failed {
                        continue;
                    }
                }
                Join::Wait(progress) => {
                    waits += 1;
                    // Who comes when it is whole already gets a hit, only a moment later.
                    if !matches!(*progress.borrow(), Progress::Storing) {
                        waited_for = Some(why);
                    }
                    // Other bytes than those that are asked for cover for nothing.
                    let stored = stored.as_deref().filter(|_| why != Forward::Partial);
                    let headers = request.headers();
                    match wait(&shared, &asked, headers, why, stored, progress).await {
                        Waited::Answer(response) => return Ok(response),
                        Waited::Again(found) => {
                            brought = found;
                            continue;
                        }
                        Waited::Variant(names) => {
                            telling = names;
                            continue;
                        }
                        Waited::Alone => {}
                    }
                }
                Join::Alone => {}
            }
        }
        // The answer to a HEAD only updates what is stored.
        let right = if store_failed || (facts.head && stored.is_none()) {
            Right::Failed
        } else {
            shared.storage.begin(key, place, &name).await
        };
        // Another process is fetching it: what it stores may be the answer. Of another variant,
        // which this process fetches, that is known.
        let may_wait = lead.is_some() && telling.is_empty();
        let limit = shared.wait_limit.min(AWAIT_LIMIT);
        if matches!(right, Right::Held) && may_wait && awaited < limit {
            let step = AWAIT_STEP.max(awaited / 4);
            waited_for = Some(why);
            storage::pause(step).await;
            awaited += step;
            continue;
        }
        let fetch = Fetch { shared, inner, request, asked, why, stored, lead, right };
        return fetch.run().await;
    }
}

/// What became of waiting for another request's fetch.
enum Waited<R> {
    /// The answer.
    Answer(Response<CacheBody<R>>),
    /// It is to be looked for again; or this is what was brought.
    Again(Option<Found>),
    /// It is another variant; these fields tell them apart.
    Variant(Vec<HeaderName>),
    /// It is to be fetched, and not waited for any longer.
    Alone,
}

async fn wait<R>(
    shared: &Arc<Shared>,
    asked: &Asked,
    headers: &HeaderMap,
    why: Forward,
    stored: Option<&Stored>,
    progress: watch::Receiver<Progress>,
) -> Waited<R> {
    let Asked { key, facts, .. } = asked;
    match flight::wait(progress, shared.wait_limit).await {
        // Asked for before something that it shows has changed.
        Some(Progress::Live(live)) if !live.is_current(shared.entries()) => Waited::Alone,
        Some(Progress::Live(live)) => {
            let now = shared.now();
            match live.serves(key, headers, facts, now) {
                Serves::Answer(reader) => {
                    let decision = collapsed(why);
                    shared.decided(&decision);
                    Waited::Answer(live.answer(reader, headers, facts.head, now, &decision))
                }
                Serves::Other(names) => Waited::Variant(names),
                Serves::Nothing => Waited::Alone,
            }
        }
        Some(Progress::Over(over)) => {
            Waited::Again(over.and_then(|stored| storage::brought(key, stored, headers, facts)))
        }
        Some(Progress::Failed(how)) => {
            match stored.and_then(|stored| covered(shared, stored, asked, how)) {
                Some((stored, decision)) => {
                    shared.decided(&decision);
                    let now = shared.now();
                    Waited::Answer(answer::from_stored(stored, headers, facts.head, now, &decision))
                }
                None => Waited::Alone,
            }
        }
        _ => Waited::Alone,
    }
}

/// The decision for who may have a stale response because another request met a failing origin.
fn covered<'a>(
    shared: &Shared,
    stored: &'a Stored,
    asked: &Asked,
    how: Failed,
) -> Option<(&'a StoredResponse, Decision)> {
    let (stored, now) = (stored.response()?, shared.now());
    let (by, allowed) = stale_if_error(&stored.terms, &asked.facts, how, now, &asked.options)?;
    Some((stored, Decision::Stale { by, allowed }))
}

/// The decision for who got what another request fetched.
fn collapsed(why: Forward) -> Decision {
    Decision::Forwarded { why, status: None, collapsed: true, stored: None }
}

fn answer<B, R>(
    shared: &Shared,
    stored: &Stored,
    request: &Request<B>,
    facts: &RequestFacts,
    decision: &Decision,
) -> Response<CacheBody<R>> {
    shared.decided(decision);
    match stored.response() {
        Some(response) => {
            answer::from_stored(response, request.headers(), facts.head, shared.now(), decision)
        }
        // A verdict never answers with an index.
        None => answer::only_if_cached(),
    }
}

/// What a request does where several fetch the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It fetches for the others, or waits for the one that does.
    Leads,
    /// It waits if there is a fetch under way. Its own would bring the others nothing: the answer
    /// to a HEAD has no body, that to a condition of the client's may have none.
    Follows,
    /// It asks for itself.
    Alone,
}

/// Whether a request may wait for another one's fetch: only if that is likely to be an answer to
/// it. What must be validated each time, what a credential makes its own, is not.
fn role(facts: &RequestFacts, why: Forward, stored: Option<&Stored>) -> Role {
    let reusable = stored
        .and_then(Stored::response)
        .is_none_or(|stored| !stored.terms.always_validate && stored.terms.was_fresh());
    let shared = stored.and_then(Stored::response).is_some_and(|stored| stored.terms.shared);
    let own = (facts.has_cookie || facts.has_authorization) && !shared;
    let fits = !matches!(why, Forward::Bypass(_) | Forward::Request);
    if !fits || !reusable || own || facts.has_range || !facts.denied.is_empty() {
        return Role::Alone;
    }
    // Of what is stale, the origin is asked about the stored version, whatever the client has.
    let is_plain = !facts.head && (!facts.has_condition || why == Forward::Stale);
    if is_plain { Role::Leads } else { Role::Follows }
}

/// One fetch per key and, as far as it is known what distinguishes them, per variant.
fn flight_name<B>(
    asked: &Asked,
    found: &Found,
    telling: &[HeaderName],
    request: &Request<B>,
) -> String {
    let Asked { key, facts, .. } = asked;
    let mut selecting: Vec<HeaderName> = match found {
        Found::Nothing(_, names, _) => names.clone(),
        Found::Response(stored, _) => {
            let fields = stored.response().map_or(&[][..], |stored| &stored.selector.fields);
            fields.iter().map(|(name, _)| name.clone()).collect()
        }
    };
    selecting.extend(facts.must_select.iter().chain(telling).cloned());
    selecting.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    selecting.dedup();
    let mut name = key.url().to_owned();
    for selecting in &selecting {
        for value in request.headers().get_all(selecting) {
            // The length keeps one value from looking like two.
            let (length, value) = (value.len(), value.as_bytes().escape_ascii());
            // Writing into a string cannot fail.
            let _ = write!(name, " {selecting}:{length}:{value}");
        }
    }
    name
}

/// Refreshes a stale response in the background, unless somebody does it already.
fn refresh<S, B, R>(
    shared: &Arc<Shared>,
    inner: S,
    request: Request<B>,
    asked: Asked,
    stored: Arc<Stored>,
    place: Place,
    name: String,
) where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    // A HEAD brings no body to store, and a condition may bring none.
    if asked.facts.head {
        return;
    }
    let Join::Lead(lead) = shared.flights.join(&name, shared.entries().clock().now(), None) else {
        return;
    };
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let shared = Arc::clone(shared);
    runtime.spawn(async move {
        let right = shared.storage.begin(&asked.key, place, &name).await;
        if matches!(right, Right::Held) {
            // Another process refreshes it.
            return;
        }
        let (why, stored, lead) = (Forward::Stale, Some(stored), Some(lead));
        let fetch = Fetch { shared, inner, request, asked, why, stored, lead, right };
        fetch.in_background().await;
    });
}
