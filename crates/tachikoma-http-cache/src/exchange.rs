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
    body::CacheBody,
    cache_status,
    flight::{self, Join, Progress},
    handle::Shared,
    head,
    key::{Key, Target},
    policy::{
        decision::{Bypass, Decision, Forward, StaleUse},
        invalidation::{invalidated, is_unsafe},
        request::RequestFacts,
        reuse::{Reuse, reuse},
    },
    storage::{Found, Stored},
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
        Found::Nothing(why) => return forward(why, None),
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
        for target in uris.iter().filter_map(Target::from_uri) {
            shared.invalidate(&target.key()).await;
        }
    }
    cache_status::add(response.headers_mut(), &decision);
    Ok(response.map(CacheBody::passed))
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
    loop {
        let found = shared.storage.find(key, request.headers(), facts).await;
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
                refresh(&shared, inner, request, asked, stored);
                return Ok(response);
            }
            Verdict::OnlyIfCached => {
                shared.decided(&Decision::OnlyIfCached);
                return Ok(head::only_if_cached());
            }
            Verdict::Forward(..) if facts.has_range => {
                return pass(shared, inner, request, Bypass::Range, None).await;
            }
            Verdict::Forward(why, stored) => (why, stored),
        };
        // Whoever got the lead looks once more: the one before may just have stored an answer.
        if lead.is_none() && waits < MAX_WAITS && may_collapse(facts, why, stored.as_deref()) {
            let name = flight_name(&shared, &asked, &request);
            match shared.flights.join(&name, shared.entries().clock().now()) {
                Join::Lead(leading) => {
                    lead = Some(leading);
                    continue;
                }
                Join::Wait(progress) => {
                    waits += 1;
                    // Who comes when it is whole already gets a hit, only a moment later.
                    if *progress.borrow() == Progress::Fetching {
                        waited_for = Some(why);
                    }
                    match flight::wait(progress, shared.wait_limit).await {
                        Some(Progress::Declined) | None => {}
                        Some(_) => continue,
                    }
                }
                Join::Alone => {}
            }
        }
        return Fetch { shared, inner, request, asked, why, stored, lead }.run().await;
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
            head::answer(response, request.headers(), facts.head, shared.now(), decision)
        }
        // A verdict never answers with an index.
        None => head::only_if_cached(),
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
fn flight_name<B>(shared: &Shared, asked: &Asked, request: &Request<B>) -> String {
    let Asked { key, facts } = asked;
    let mut name = key.whole.as_deref().unwrap_or(&key.name).to_owned();
    let known = shared.storage.known_names(key);
    for selecting in facts.must_select.iter().chain(&known) {
        for value in request.headers().get_all(selecting) {
            // The length keeps one value from looking like two.
            let value = value.as_bytes();
            let (length, value) = (value.len(), value.escape_ascii());
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
    let name = flight_name(shared, &asked, &request);
    let Join::Lead(lead) = shared.flights.join(&name, shared.entries().clock().now()) else {
        return;
    };
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let (shared, why) = (Arc::clone(shared), Forward::Stale);
    runtime.spawn(
        Fetch { shared, inner, request, asked, why, stored: Some(stored), lead: Some(lead) }
            .in_background(),
    );
}
