//! One request to the inner service, and what becomes of its answer.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
    response::Parts,
};
use http_body::Body;
use tower_service::Service;

use super::Asked;
use crate::{
    answer,
    body::{CacheBody, EndUnproved, Tee},
    cache_status,
    fill::Fill,
    flight::Lead,
    handle::Shared,
    policy::{
        age::Received,
        decision::{Decision, Forward, Refusal, StaleUse},
        response::ResponseFacts,
        reuse::stale_if_error,
        storable::{Storable, storable},
        validation::{self, Validators},
    },
    storage::{Right, Stored, StoredResponse},
    tags::tags,
};

/// How long a refresh in the background may take.
const REFRESH_LIMIT: Duration = Duration::from_secs(60);

/// Calls a service once, as its contract asks: only when it is ready.
pub(super) async fn oneshot<S, B>(
    mut service: S,
    request: Request<B>,
) -> Result<S::Response, S::Error>
where
    S: Service<Request<B>>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

/// A request that goes on to the inner service.
pub(super) struct Fetch<S, B> {
    pub(super) shared: Arc<Shared>,
    pub(super) inner: S,
    pub(super) request: Request<B>,
    pub(super) asked: Asked,
    pub(super) why: Forward,
    /// What is stored and can be validated.
    pub(super) stored: Option<Arc<Stored>>,
    /// Held by the one who fetches for others too.
    pub(super) lead: Option<Lead>,
    /// The store does not work: it is not asked again.
    pub(super) store_failed: bool,
}

/// What is left once the request is on its way.
struct Sent {
    shared: Arc<Shared>,
    asked: Asked,
    why: Forward,
    stored: Option<Arc<Stored>>,
    lead: Option<Lead>,
    right: Right,
    /// The client's own headers: what selects a variant, and its own condition.
    headers: HeaderMap,
    asked_at: SystemTime,
}

impl<S, B, R> Fetch<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    /// Asks the inner service, and stores its answer where that is allowed.
    pub(super) async fn run(self) -> Result<Response<CacheBody<R>>, S::Error> {
        let Self { shared, inner, mut request, asked, why, stored, lead, store_failed } = self;
        let headers = request.headers().clone();
        let right = if asked.facts.head || store_failed {
            Right::Failed
        } else {
            // Before the source is read: an invalidation from here on keeps the answer out.
            shared.storage.begin(&asked.key).await
        };
        // A HEAD is passed on as it is; its answer cannot refresh what is stored here.
        let stored = stored.filter(|_| !asked.facts.head);
        if let Some(stored) = stored.as_deref().and_then(Stored::response) {
            let validators = Validators::read(&stored.headers);
            validation::ask(request.headers_mut(), &stored.headers, &validators);
        }
        let asked_at = shared.entries().clock().wall();
        let sent = Sent { shared, asked, why, stored, lead, right, headers, asked_at };
        match oneshot(inner, request).await {
            Ok(response) => Ok(sent.answered(response).await),
            Err(error) => sent.stale_instead(None).ok_or(error),
        }
    }

    /// The same without a client: reads the answer to its end, so that it is stored.
    pub(super) async fn in_background(self)
    where
        R::Error: Send,
    {
        let fetched = async {
            if let Ok(response) = self.run().await {
                let mut body = pin!(response.into_body());
                while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
            }
        };
        if tokio::time::timeout(REFRESH_LIMIT, fetched).await.is_err() {
            tracing::debug!("a refresh took too long and was given up");
        }
    }
}

impl Sent {
    async fn answered<R: Body<Data = Bytes>>(
        mut self,
        response: Response<R>,
    ) -> Response<CacheBody<R>> {
        let status = response.status();
        if status.is_server_error()
            && let Some(stale) = self.stale_instead(Some(status))
        {
            return stale;
        }
        let (parts, body) = response.into_parts();
        if status == StatusCode::NOT_MODIFIED
            && let Some(stored) = self.stored.take()
            && let Some(current) = stored.response()
        {
            return self.validated(current, &stored, parts).await;
        }
        let facts = ResponseFacts::read(status, &parts.headers);
        let allowed = self.storable(&facts).and_then(|storable| {
            let tags = tags(&parts.headers)?;
            self.fits(&body, &parts)?;
            let right = std::mem::replace(&mut self.right, Right::Failed);
            match (right, &self.lead) {
                (Right::Lease(lease), _) => Ok((storable, tags, Some(lease))),
                // Not stored, but brought to those who wait: a store that fails makes no rush.
                (Right::Failed, Some(_)) => Ok((storable, tags, None)),
                // Another process stores it, and may have been told that this answer is too old.
                (Right::Held | Right::Failed, _) => Err(Refusal::Store),
            }
        });
        let why = self.why;
        let decision = |stored| Decision::Forwarded {
            why,
            status: None,
            collapsed: false,
            stored: Some(stored),
        };
        let (storable, tags, lease) = match allowed {
            Ok(allowed) => allowed,
            Err(refusal) => {
                self.refused(&refusal, status).await;
                let decision = decision(Err(refusal));
                return passed(&self.shared, parts, CacheBody::passed(body), &decision);
            }
        };
        let decision = decision(lease.as_ref().map(|_| ()).ok_or(Refusal::Store));
        let promised = content_length(&parts.headers);
        let fill = Fill {
            shared: Arc::clone(&self.shared),
            key: self.asked.key,
            lease,
            lead: self.lead,
            status,
            headers: parts.headers.clone(),
            storable,
            tags,
        };
        let tee = Tee::new(self.shared.max_body_size, promised, fill);
        if body.is_end_stream() {
            tee.finish();
            return passed(&self.shared, parts, CacheBody::passed(body), &decision);
        }
        passed(&self.shared, parts, CacheBody::teed(body, tee), &decision)
    }

    /// Whether and on which terms the answer may be stored.
    fn storable(&self, facts: &ResponseFacts) -> Result<Storable, Refusal> {
        let clock = self.shared.entries().clock();
        let received = Received {
            requested_at: self.asked_at,
            // Dates of other machines are compared with the wall clock …
            at: clock.wall(),
            date: facts.date,
            age: facts.age,
        };
        let options = &self.shared.options;
        let mut storable = storable(&self.asked.facts, &self.headers, facts, &received, options)?;
        // … and time spent here is counted by the one that does not step.
        storable.terms.received_at = self.shared.now();
        Ok(storable)
    }

    /// Whether the body may be stored as far as its head tells.
    fn fits<R: Body>(&self, body: &R, parts: &Parts) -> Result<(), Refusal> {
        let cap = self.shared.max_body_size as u64;
        let least = body.size_hint().lower().max(content_length(&parts.headers).unwrap_or(0));
        if least > cap {
            return Err(Refusal::TooLarge);
        }
        if ends_with_its_connection(parts) && !body.is_end_stream() {
            return Err(Refusal::EndUnproved);
        }
        Ok(())
    }

    /// Tells who waits that there is nothing to wait for, and forgets what this answer replaces.
    async fn refused(&mut self, refusal: &Refusal, status: StatusCode) {
        match self.lead.take() {
            // Whoever waits looks again: it may be stored by then.
            Some(lead) if *refusal == Refusal::Store => drop(lead),
            Some(lead) => lead.decline(self.shared.entries().clock().now()),
            None => {}
        }
        // A lease is given back first, so that the removal need not end it.
        self.right = Right::Failed;
        let is_about_the_resource = matches!(
            refusal,
            Refusal::NoStore
                | Refusal::Private
                | Refusal::NotUnderstood
                | Refusal::SetCookie
                | Refusal::VaryStar
                | Refusal::VaryInvalid
                | Refusal::NoFreshness
                | Refusal::NeverUsable
                | Refusal::Tags
                | Refusal::TooLarge
        );
        // A newer answer that may not be stored still says that the older one is no longer it.
        if self.stored.is_some() && is_about_the_resource && !status.is_server_error() {
            self.shared.invalidate(std::slice::from_ref(&self.asked.key)).await;
        }
    }

    /// A 304 about what is stored: updates its head (RFC 9111 §3.2) and answers with it.
    async fn validated<R>(
        mut self,
        current: &StoredResponse,
        stored: &Arc<Stored>,
        answer: Parts,
    ) -> Response<CacheBody<R>> {
        // A cookie is for this client, a timing for this exchange: passed on, never stored.
        let own = [http::header::SET_COOKIE, HeaderName::from_static("server-timing")];
        let own: Vec<_> = own
            .into_iter()
            .flat_map(|name| {
                let values = answer.headers.get_all(&name).iter().cloned();
                values.map(|value| (name.clone(), value)).collect::<Vec<_>>()
            })
            .collect();
        let confirmed = validation::confirms(
            &Validators::read(&current.headers),
            &Validators::read(&answer.headers),
        );
        let outcome = self.updated(current, answer.headers, confirmed);
        let decision = Decision::Forwarded {
            why: self.why,
            status: Some(StatusCode::NOT_MODIFIED),
            collapsed: false,
            stored: Some(outcome.as_ref().map(|_| ()).map_err(Clone::clone)),
        };
        self.shared.decided(&decision);
        let (headers, now) = (std::mem::take(&mut self.headers), self.shared.now());
        let mut response = match outcome {
            Ok(fill) => {
                let updated = fill.complete(current.body.clone());
                let current = updated.response().unwrap_or(current);
                answer::from_stored(current, &headers, false, now, &decision)
            }
            Err(refusal) => {
                self.stored = Some(Arc::clone(stored));
                self.refused(&refusal, StatusCode::NOT_MODIFIED).await;
                answer::from_stored(current, &headers, false, now, &decision)
            }
        };
        for (name, value) in own {
            response.headers_mut().append(name, value);
        }
        response
    }

    /// What is to be stored after a validation.
    fn updated(
        &mut self,
        current: &StoredResponse,
        answer: HeaderMap,
        confirmed: bool,
    ) -> Result<Fill, Refusal> {
        if !confirmed {
            return Err(Refusal::NeverUsable);
        }
        let mut headers = current.headers.clone();
        let age = crate::policy::age::read(&answer);
        // Without a `Date` its creation is the time of receipt, not that of the stored head.
        headers.remove(DATE);
        validation::update(&mut headers, answer);
        let mut facts = ResponseFacts::read(current.status, &headers);
        facts.age = age;
        let storable = self.storable(&facts)?;
        let tags = tags(&headers)?;
        let Right::Lease(lease) = std::mem::replace(&mut self.right, Right::Failed) else {
            return Err(Refusal::Store);
        };
        Ok(Fill {
            shared: Arc::clone(&self.shared),
            key: self.asked.key.clone(),
            lease: Some(lease),
            lead: self.lead.take(),
            status: current.status,
            headers,
            storable,
            tags,
        })
    }

    /// The stale response, where the origin failed and that is allowed (RFC 5861 §4).
    fn stale_instead<R>(&self, status: Option<StatusCode>) -> Option<Response<CacheBody<R>>> {
        let stored = self.stored.as_deref()?.response()?;
        let now = self.shared.now();
        let by = stale_if_error(&stored.terms, &self.asked.facts, now)?;
        let decision = Decision::Stale { by, allowed: StaleUse::IfError };
        tracing::debug!(?status, "the origin failed: a stale response instead");
        self.shared.decided(&decision);
        Some(answer::from_stored(stored, &self.headers, false, now, &decision))
    }
}

fn passed<R>(
    shared: &Shared,
    mut parts: Parts,
    body: CacheBody<R>,
    decision: &Decision,
) -> Response<CacheBody<R>> {
    shared.decided(decision);
    cache_status::add(&mut parts.headers, decision);
    Response::from_parts(parts, body)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Whether a body ends when its connection does, so that a broken one looks like a whole one
/// (RFC 9112 §6.3): said by the service, or seen in the head of an HTTP/1 response.
fn ends_with_its_connection(parts: &Parts) -> bool {
    if parts.extensions.get::<EndUnproved>().is_some() {
        return true;
    }
    let framed =
        parts.headers.contains_key(CONTENT_LENGTH) || parts.headers.contains_key(TRANSFER_ENCODING);
    let closes =
        parts.headers.get_all(CONNECTION).iter().any(|value| {
            value.as_bytes().to_ascii_lowercase().windows(5).any(|part| part == b"close")
        });
    !framed && (closes || parts.version < Version::HTTP_11)
}
