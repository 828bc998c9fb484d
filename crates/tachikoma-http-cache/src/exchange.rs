//! One exchange that memory alone could not answer: look again, wait or fetch, validate, store.
//!
//! Carries out what [`policy`](crate::policy) decides and never decides itself what may be stored
//! or reused. Nothing of the store's troubles reaches the client: without the store, an exchange
//! is one with the inner service.

mod fetch;

use std::{fmt::Write as _, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{
    answer,
    body::CacheBody,
    cache_status,
    flight::{self, Join, Progress},
    handle::Shared,
    key::{Key, Target},
    policy::{
        decision::{Bypass, Decision, Forward, StaleUse},
        invalidation::{invalidated, is_unsafe},
        request::RequestFacts,
        reuse::{Reuse, reuse},
    },
    storage::{self, Found, Stored},
};
use fetch::Fetch;

/// How often a request waits for others before it asks itself.
const MAX_WAITS: u32 = 3;

/// A request that takes part in caching.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) key: Key,
    pub(crate) facts: RequestFacts,
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
pub(crate) fn verdict(found: Found, facts: &RequestFacts, now: SystemTime) -> Verdict {
    let forward = |why, stored| {
        if facts.directives.only_if_cached {
            Verdict::OnlyIfCached
        } else {
            Verdict::Forward(why, stored)
        }
    };
    let stored = match found {
        Found::Response(stored) => stored,
        Found::Nothing(why, _) => return forward(why, None),
    };
    let Some(response) = stored.response() else {
        return forward(Forward::UriMiss, None);
    };
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

/// An exchange that the cache takes no part in, but for what an unsafe one makes invalid.
pub(crate) async fn pass<S, B, R>(
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
    let mut response = fetch::oneshot(inner, request).await?;
    let base = target.filter(|_| is_unsafe(&method)).and_then(|target| target.uri());
    if let Some(base) = base {
        let uris = invalidated(&method, &base, response.status(), response.headers());
        let targets = uris.iter().filter_map(Target::from_uri);
        let keys: Vec<Key> = targets.map(|target| target.key()).collect();
        if !keys.is_empty() {
            invalidate(shared, keys).await;
        }
    }
    cache_status::add(response.headers_mut(), &decision);
    Ok(response.map(CacheBody::passed))
}

/// Invalidates in a task of its own: the change is made, so a client that goes away now must not
/// leave the old answers behind.
async fn invalidate(shared: Arc<Shared>, keys: Vec<Key>) {
    let invalidation = async move { shared.invalidate(&keys).await };
    match tokio::runtime::Handle::try_current() {
        // It cannot fail but by a panic, which has been reported where it happened.
        Ok(runtime) => drop(runtime.spawn(invalidation).await),
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
    R::Error: Send,
{
    let Asked { key, facts } = &asked;
    let (mut waits, mut waited_for, mut lead) = (0, None, None);
    let (mut brought, mut store_failed) = (None, false);
    loop {
        let found = match brought.take() {
            Some(found) => found,
            // One failure is enough: each would cost its deadline.
            None if store_failed => Found::Nothing(Forward::UriMiss, Vec::new()),
            None => {
                let found = shared.storage.find(key, request.headers(), facts).await;
                store_failed = found.is_err();
                found.unwrap_or(Found::Nothing(Forward::UriMiss, Vec::new()))
            }
        };
        let name = flight_name(&asked, &found, &request);
        let (why, stored) = match verdict(found, facts, shared.now()) {
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
                refresh(&shared, inner, request, asked, stored, &name);
                return Ok(response);
            }
            Verdict::OnlyIfCached => {
                shared.decided(&Decision::OnlyIfCached);
                return Ok(answer::only_if_cached());
            }
            Verdict::Forward(..) if facts.has_range => {
                return pass(shared, inner, request, Bypass::Range, None).await;
            }
            Verdict::Forward(why, stored) => (why, stored),
        };
        if lead.is_none() && waits < MAX_WAITS && may_collapse(facts, why, stored.as_deref()) {
            match shared.flights.join(&name, shared.entries().clock().now()) {
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
                    if matches!(*progress.borrow(), Progress::Fetching) {
                        waited_for = Some(why);
                    }
                    if let Some(Progress::Over(over)) =
                        flight::wait(progress, shared.wait_limit).await
                    {
                        brought = over.and_then(|stored| {
                            storage::brought(key, stored, request.headers(), facts)
                        });
                        continue;
                    }
                }
                Join::Alone => {}
            }
        }
        let fetch = Fetch { shared, inner, request, asked, why, stored, lead, store_failed };
        return fetch.run().await;
    }
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

/// Whether a request may wait for another one's fetch: only if that is likely to be an answer to
/// it. What must be validated each time, what a condition or a credential makes its own, is not.
fn may_collapse(facts: &RequestFacts, why: Forward, stored: Option<&Stored>) -> bool {
    let reusable = stored
        .and_then(Stored::response)
        .is_none_or(|stored| !stored.terms.always_validate && !stored.terms.lifetime.is_zero());
    let shared = stored.and_then(Stored::response).is_some_and(|stored| stored.terms.shared);
    let own = (facts.has_cookie || facts.has_authorization) && !shared;
    let fits = matches!(why, Forward::UriMiss | Forward::VaryMiss | Forward::Stale);
    fits && reusable && !own && !facts.head && !facts.has_condition && facts.denied.is_empty()
}

/// One fetch per key and, as far as it is known what distinguishes them, per variant.
fn flight_name<B>(asked: &Asked, found: &Found, request: &Request<B>) -> String {
    let Asked { key, facts } = asked;
    let selecting = match found {
        Found::Nothing(_, names) => names.clone(),
        Found::Response(stored) => {
            let fields = stored.response().map_or(&[][..], |stored| &stored.selector.fields);
            fields.iter().map(|(name, _)| name.clone()).collect()
        }
    };
    let mut name = key.url().to_owned();
    for selecting in facts.must_select.iter().chain(&selecting) {
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
    name: &str,
) where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
{
    // A HEAD brings no body to store, and a condition may bring none.
    if asked.facts.head {
        return;
    }
    let Join::Lead(lead) = shared.flights.join(name, shared.entries().clock().now()) else {
        return;
    };
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let fetch = Fetch {
        shared: Arc::clone(shared),
        inner,
        request,
        asked,
        why: Forward::Stale,
        stored: Some(stored),
        lead: Some(lead),
        store_failed: false,
    };
    runtime.spawn(fetch.in_background());
}
