//! A POST whose answer says that it is what a GET of the same URL would bring (RFC 9110 §9.3.3).
//!
//! It invalidates what is stored, as any unsafe request does, and is then stored itself: but only
//! if nobody else invalidated the URL while it was under way. Of other processes that cannot be
//! known, so where they share the store, it is not stored.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    Asked,
    call::oneshot,
    carry::Carried,
    fetch::{Sent, passed},
    invalidate, invalidated_keys,
};
use crate::{
    body::CacheBody,
    feed::BoxError,
    handle::Shared,
    key::Target,
    policy::{
        Options,
        decision::{Bypass, Decision, Forward},
        invalidation::represents_target,
        request::admit_post,
    },
    recorded::{recorder, within},
    storage::{Place, Right},
};

/// Sends a POST on, invalidates what it changes, and stores its answer where that is allowed; also
/// if its client leaves before the answer.
pub(crate) async fn post<S, B, R>(
    shared: Arc<Shared>,
    inner: S,
    request: Request<B>,
    target: Target,
    options: Arc<Options>,
) -> Result<Response<CacheBody<R>>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let clock = Arc::clone(shared.entries().clock());
    Carried::new(&clock, posted(shared, inner, request, target, options)).await
}

async fn posted<S, B, R>(
    shared: Arc<Shared>,
    inner: S,
    request: Request<B>,
    target: Target,
    options: Arc<Options>,
) -> Result<Response<CacheBody<R>>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let key = target.key();
    let watch = shared.flights.watch(key.url());
    let asked_at = shared.entries().clock().wall();
    let read = recorder(&shared);
    let response = within(read.clone(), oneshot(inner, request)).await?;
    let base = target.uri();
    let is_stated = base
        .as_ref()
        .is_some_and(|base| represents_target(base, response.status(), response.headers()));
    let keys = invalidated_keys(&method, base.as_ref(), &response);
    // What was invalidated since it was sent may be newer than this answer.
    let is_newest = watch.detached() == 0;
    // Each is detached before and after.
    let own = 2 * keys.iter().filter(|own| own.url() == key.url()).count() as u64;
    let is_own = !keys.is_empty() && invalidate(Arc::clone(&shared), keys).await;
    let facts = match admit_post(&headers, &options) {
        Ok(facts) if is_stated => facts,
        _ => {
            let (parts, body) = response.into_parts();
            let decision = Decision::bypass(Bypass::Method);
            return Ok(passed(&shared, parts, CacheBody::passed(body), &decision));
        }
    };
    // The right first: it ends with any invalidation from here on.
    let right = shared.storage.begin(&key, Place::default(), key.url()).await;
    let is_alone = is_newest && watch.detached() == own;
    let right = if is_own && is_alone { right } else { Right::Held };
    let asked = Asked { key, facts, options, since: None };
    let why = Forward::Bypass(Bypass::Method);
    let (stored, lead) = (None, None);
    let sent = Sent { shared, asked, why, stored, lead, right, headers, asked_at, read };
    Ok(sent.answered(response.map(CacheBody::passed), None).await)
}
