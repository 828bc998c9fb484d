//! One request to the inner service, and what becomes of its answer.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderName, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
    response::Parts,
};
use http_body::Body;
use http_body_util::BodyExt as _;
use tachikoma_cache::dependencies::{Dependencies, Recorder, Unknown};
use tower_service::Service;

use super::{Asked, call::once, rest::Rest};
use crate::{
    answer,
    body::{CacheBody, Disconnected, EndUnproved},
    budget::Room,
    cache_status,
    empty_body::EmptyBody,
    feed::{BoxError, Feed, Keep, Opening},
    fill::{Arriving, Fill},
    flight::Lead,
    handle::Shared,
    head,
    judge::{self, Judged, judge},
    live::Live,
    policy::{
        decision::{Decision, Forward, Refusal},
        response::ResponseFacts,
        reuse::{Failed, stale_if_error},
        targeted::governing,
        validation::{self, ETag, Validators},
    },
    recorded::{Recorded, recorder, within},
    storage::{FillLease, Place, Right, Stored, StoredResponse},
};

/// How long a refresh in the background may take.
const REFRESH_LIMIT: Duration = Duration::from_secs(60);

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
    /// Taken before the source is read: an invalidation from then on keeps the answer out.
    pub(super) right: Right,
}

/// What is left once the request is on its way.
pub(super) struct Sent {
    pub(super) shared: Arc<Shared>,
    pub(super) asked: Asked,
    pub(super) why: Forward,
    pub(super) stored: Option<Arc<Stored>>,
    pub(super) lead: Option<Lead>,
    pub(super) right: Right,
    /// The client's own headers: what selects a variant, and its own condition.
    pub(super) headers: HeaderMap,
    pub(super) asked_at: SystemTime,
    /// What the inner service reads while it makes the answer, if responses depend on it.
    pub(super) read: Option<Recorder>,
}

impl<S, B, R> Fetch<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    /// Asks the inner service, and stores its answer where that is allowed.
    pub(super) async fn run(self) -> Result<Response<CacheBody<R>>, S::Error> {
        let Self { shared, mut inner, mut request, asked, why, stored, lead, right } = self;
        let headers = request.headers().clone();
        let known = stored.clone();
        let known = known.as_deref().and_then(Stored::response);
        let rest = known
            // What the missing bytes are made of says nothing of those that are stored.
            .filter(|part| why == Forward::Partial && !part.is_made_of)
            .and_then(|part| Rest::of(part, &asked.facts, shared.now(), shared.max_body_size));
        let make = shared.empty_body.as_ref().and_then(EmptyBody::get::<B>);
        // A HEAD is passed on as it is. Whether a part is current says nothing of the bytes that
        // are asked for now.
        if let Some(known) = known.filter(|_| why != Forward::Partial && !asked.facts.head) {
            let validators = Validators::read(&known.headers);
            validation::ask(request.headers_mut(), &known.headers, &validators);
        }
        // The same without the condition, should the answer to that be of another version.
        let (parts, body) = request.into_parts();
        let is_asked = known.is_some() && why != Forward::Partial && !asked.facts.head;
        let again = make.filter(|_| is_asked).map(|make| {
            let mut parts = parts.clone();
            parts.headers = headers.clone();
            Request::from_parts(parts, make())
        });
        let request = Request::from_parts(parts, body);
        let asked_at = shared.entries().clock().wall();
        // After the right was taken: what is read now is of the same run of the store.
        let read = recorder(&shared);
        let mut sent = Sent { shared, asked, why, stored, lead, right, headers, asked_at, read };
        let read = sent.read.clone();
        let asking = async {
            let answer = match (rest, known, make) {
                (Some(rest), Some(part), Some(make)) => {
                    rest.fetch(part, &mut inner, request, make).await
                }
                _ => once(&mut inner, request)
                    .await
                    .map(|answer| (answer.map(CacheBody::passed), None)),
            };
            match (answer, again) {
                (Ok((answer, _)), Some(again)) if sent.is_of_another_version(&answer) => {
                    drop(answer);
                    sent.forget().await;
                    let answer = once(&mut inner, again).await;
                    answer.map(|answer| (answer.map(CacheBody::passed), None))
                }
                (answer, _) => answer,
            }
        };
        let answer = within(read, asking).await;
        match answer {
            Ok((answer, status)) => Ok(sent.answered(answer, status).await),
            Err(error) => sent.stale_instead(Failed::Disconnected).ok_or(error),
        }
    }

    /// The same without a client: reads the answer to its end, so that it is stored.
    pub(super) async fn in_background(self) {
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
    /// Whether an answer says "not modified", and not of what is stored.
    fn is_of_another_version<R>(&self, answer: &Response<R>) -> bool {
        let stored = self.stored.as_deref().and_then(Stored::response);
        answer.status() == StatusCode::NOT_MODIFIED
            && self.why != Forward::Partial
            && !self.asked.facts.head
            && stored.is_some_and(|stored| {
                let (own, named) = (&stored.headers, answer.headers());
                validation::contradicts(&Validators::read(own), &Validators::read(named))
            })
    }

    /// Forgets what is stored, and takes the right to store what comes instead.
    async fn forget(&mut self) {
        self.stored = None;
        // A lease is given back first, so that the removal need not end it.
        self.right = Right::Failed;
        self.shared.invalidate(std::slice::from_ref(&self.asked.key)).await;
        self.right = self.shared.storage.begin(&self.asked.key, Place::default(), "").await;
    }

    /// What becomes of the answer; `said` is what the inner service said, where that differs.
    pub(super) async fn answered<R>(
        mut self,
        response: Response<CacheBody<R>>,
        said: Option<StatusCode>,
    ) -> Response<CacheBody<R>>
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let status = response.status();
        if status.is_server_error()
            && let Some(stale) = self.stale_instead(how_failed(&response))
        {
            return stale;
        }
        let (parts, body) = response.into_parts();
        if status == StatusCode::NOT_MODIFIED
            && self.why != Forward::Partial
            && !self.asked.facts.head
            && let Some(stored) = self.stored.take()
            && let Some(current) = stored.response()
        {
            return self.validated(current, &stored, parts).await;
        }
        if self.asked.facts.head && status == StatusCode::OK {
            self.update_by_head(&parts.headers).await;
        }
        let targeted = &self.asked.options.targeted;
        let facts = ResponseFacts::read(status, &parts.headers, targeted);
        let allowed = self.judge(&facts, &parts.headers).and_then(|judged| {
            judge::may_take_place(self.why, status, &parts.headers)?;
            self.depends()?;
            let room = self.fits(&body, &parts)?;
            let right = std::mem::replace(&mut self.right, Right::Failed);
            match (right, &self.lead) {
                (Right::Lease(lease), _) => Ok((judged, room, Some(lease))),
                // Not stored, but brought to those who wait: a store that fails makes no rush.
                (Right::Failed, Some(_)) => Ok((judged, room, None)),
                // Another process stores it, and may have been told that this answer is too old.
                (Right::Held | Right::Failed, _) => Err(Refusal::Store),
            }
        });
        let why = self.why;
        let decision = |stored| Decision::Forwarded {
            why,
            status: said,
            collapsed: false,
            stored: Some(stored),
        };
        match allowed {
            Ok((judged, room, lease)) => {
                let decision = decision(lease.as_ref().map(|_| ()).ok_or(Refusal::Store));
                self.fill(parts, body, judged, room, lease, &decision)
            }
            Err(refusal) => {
                let outdates = replaces(status)
                    && !(refusal == Refusal::TooLarge && self.is_same_version(&parts.headers));
                self.refused(&refusal, outdates).await;
                let decision = decision(Err(refusal));
                passed(&self.shared, parts, body, &decision)
            }
        }
    }

    /// Sends the answer on while it is stored, to this client and to those who wait for it.
    fn fill<R>(
        self,
        parts: Parts,
        body: CacheBody<R>,
        judged: Judged,
        room: Room,
        lease: Option<FillLease>,
        decision: &Decision,
    ) -> Response<CacheBody<R>>
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let (status, Judged { storable, tags }) = (parts.status, judged);
        let outdates = replaces(status) && !self.is_same_version(&parts.headers);
        let promised = head::content_length(&parts.headers).or_else(|| body.size_hint().exact());
        let shared = self.shared;
        let now = shared.now();
        let lead = match self.lead {
            // What is not fresh when it comes is an answer to nobody else.
            Some(lead) if !storable.terms.is_fresh_at(now) || storable.terms.always_validate => {
                lead.decline(shared.entries().clock().now());
                None
            }
            lead => lead,
        };
        let announcer = lead.as_ref().map(Lead::announcer);
        let (terms, selector) = (storable.terms.clone(), storable.selector.clone());
        let Asked { key, options, .. } = self.asked;
        let fill = Fill {
            shared: Arc::clone(&shared),
            key: key.clone(),
            lease,
            lead,
            status,
            headers: parts.headers.clone(),
            storable,
            tags,
            replaces: self.stored.is_some() && outdates,
            body: Arriving::of(status, self.stored.filter(|stored| !stored.is_made_of())),
            options: Arc::clone(&options),
            read: self.read.clone(),
        };
        if body.is_end_stream() {
            if promised.is_none_or(|promised| promised == 0) {
                fill.complete(Bytes::new());
            } else {
                fill.incomplete();
            }
            return passed(&shared, parts, body, decision);
        }
        let reader = Feed::open(Opening {
            source: match self.read.clone() {
                Some(read) => Recorded::new(body, read).boxed_unsync(),
                None => body.boxed_unsync(),
            },
            promised,
            keep: Keep { taker: Box::new(fill), room, cap: shared.max_body_size },
            clock: Arc::clone(shared.entries().clock()),
            finish_limit: shared.finish_limit,
        });
        // What is there at once is stored at once, and whoever waits finds it stored.
        if !reader.feed().take_what_is_there()
            && let Some(announcer) = announcer
        {
            let directives = governing(&parts.headers, &options.targeted).directives;
            let received = shared.entries().clock().wall();
            let headers = parts.headers.clone();
            announcer.announce(Arc::new(Live {
                key,
                status,
                headers: head::to_store(headers, &directives, status, promised, received),
                terms,
                selector,
                feed: Arc::clone(reader.feed()),
                read: self.read,
            }));
        }
        passed(&shared, parts, CacheBody::fed(reader), decision)
    }

    /// Whether it is known so far what the answer was made of.
    fn depends(&self) -> Result<Dependencies, Refusal> {
        let read = self.read.as_ref().map(Recorder::dependencies).unwrap_or_default();
        match read.unknown() {
            None => Ok(read),
            Some(why) => Err(Refusal::Dependencies(why)),
        }
    }

    /// Whether and on which terms the answer may be stored.
    fn judge(&self, facts: &ResponseFacts, headers: &HeaderMap) -> Result<Judged, Refusal> {
        // Dates of other machines are compared with the wall clock …
        let answered_at = self.shared.entries().clock().wall();
        let asked = judge::Asked { at: self.asked_at, answered_at };
        let Asked { facts: request, options, .. } = &self.asked;
        let mut judged = judge(request, &self.headers, facts, headers, asked, options)?;
        // … and time spent here is counted by the one that does not step.
        judged.storable.terms.received_at = self.shared.now();
        Ok(judged)
    }

    /// Whether the body may be stored as far as its head tells; with room for what it announces.
    fn fits<R: Body>(&self, body: &R, parts: &Parts) -> Result<Room, Refusal> {
        let least = body.size_hint().lower().max(head::content_length(&parts.headers).unwrap_or(0));
        let head = (&parts.headers, parts.version, &parts.extensions);
        match may_be_held(head, least, self.shared.max_body_size) {
            // It has ended.
            Err(Refusal::EndUnproved) if body.is_end_stream() => {}
            other => other?,
        }
        let mut room = self.shared.fills.open();
        let least = usize::try_from(least).unwrap_or(usize::MAX);
        if room.reach(least) { Ok(room) } else { Err(Refusal::NoRoom) }
    }

    /// Whether what is stored is of the same version as this answer: one that is only too large,
    /// as most of a video is, takes away nothing that is stored of it.
    fn is_same_version(&self, answer: &HeaderMap) -> bool {
        let stored = self.stored.as_deref().and_then(Stored::response);
        let stored = stored.and_then(|stored| ETag::read(&stored.headers));
        stored.zip(ETag::read(answer)).is_some_and(|(stored, new)| stored.strongly_equals(&new))
    }

    /// Tells who waits that there is nothing to wait for, and forgets what this answer outdates.
    async fn refused(&mut self, refusal: &Refusal, outdates: bool) {
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
                | Refusal::Dependencies(_)
        );
        // A newer answer that may not be stored still says that the older one is no longer it.
        if self.stored.is_some() && is_about_the_resource && outdates {
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
        let validators = (Validators::read(&current.headers), Validators::read(&answer.headers));
        let confirmed = validation::confirms(&validators.0, &validators.1);
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
                let current = updated.as_deref().and_then(Stored::response).unwrap_or(current);
                answer::from_stored(current, &headers, false, now, &decision)
            }
            Err(refusal) => {
                self.stored = Some(Arc::clone(stored));
                self.refused(&refusal, true).await;
                if validation::contradicts(&validators.0, &validators.1) {
                    // The old body is no answer. The next request brings the new one.
                    answer::bad_gateway(&decision)
                } else {
                    answer::from_stored(current, &headers, false, now, &decision)
                }
            }
        };
        for (name, value) in own {
            response.headers_mut().append(name, value);
        }
        response
    }

    /// What the 200 to a HEAD says of what is stored (RFC 9111 §4.3.5): its head is updated, or it
    /// is
    /// another version, and is forgotten.
    async fn update_by_head(&mut self, answer: &HeaderMap) {
        let Some(stored) = self.stored.take() else { return };
        let Some(current) = stored.response().filter(|stored| stored.part.is_none()) else {
            return;
        };
        let length = current.body.len() as u64;
        let confirmed = validation::confirms_by_head(&current.headers, length, answer);
        // What is stored is the answer to a GET.
        self.asked.facts.head = false;
        let updated = self.updated(current, answer.clone(), confirmed);
        self.asked.facts.head = true;
        match updated {
            Ok(fill) => drop(fill.complete(current.body.clone())),
            Err(Refusal::Store) => {}
            Err(_) => {
                self.right = Right::Failed;
                self.shared.invalidate(std::slice::from_ref(&self.asked.key)).await;
            }
        }
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
        let mut facts = ResponseFacts::read(current.status, &headers, &self.asked.options.targeted);
        facts.age = age;
        facts.is_part = current.part.is_some();
        let Judged { storable, tags } = self.judge(&facts, &headers)?;
        // It is as current as what it was validated by; nothing was read for it now.
        if self.depends()?.is_empty() && current.is_made_of {
            return Err(Refusal::Dependencies(Unknown::NoCounter));
        }
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
            replaces: false,
            body: Arriving::Stored(current.part.clone()),
            options: Arc::clone(&self.asked.options),
            read: self.read.clone(),
        })
    }

    /// The stale response, where the origin failed and that is allowed.
    fn stale_instead<R>(&mut self, failed: Failed) -> Option<Response<CacheBody<R>>> {
        let (now, options) = (self.shared.now(), &*self.asked.options);
        let stored = self.stored.as_deref().filter(|_| self.why != Forward::Partial);
        let stored = stored.and_then(Stored::response);
        let allowed = stored.and_then(|stored| {
            stale_if_error(&stored.terms, &self.asked.facts, failed, now, options)
        });
        if allowed.is_some() || failed == Failed::Disconnected {
            // Whoever waits has the same stale response, or asks for itself: not one by one.
            if let Some(lead) = self.lead.take() {
                lead.failed(failed);
            }
        }
        let (stored, (by, allowed)) = (stored?, allowed?);
        let decision = Decision::Stale { by, allowed };
        tracing::debug!(?failed, "the origin failed: a stale response instead");
        self.shared.decided(&decision);
        let is_head = self.asked.facts.head;
        Some(answer::from_stored(stored, &self.headers, is_head, now, &decision))
    }
}

/// Whether an answer with this status stands for the resource, so that an older one is no longer
/// current. Others speak of one request: anybody can send one that is refused, and must not drop by
/// it what others get.
fn replaces(status: StatusCode) -> bool {
    let is_gone = [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&status);
    status.is_success() || status.is_redirection() || is_gone
}

fn how_failed<R>(response: &Response<R>) -> Failed {
    match response.extensions().get::<Disconnected>() {
        Some(_) => Failed::Disconnected,
        None => Failed::Answered,
    }
}

pub(super) fn passed<R>(
    shared: &Shared,
    mut parts: Parts,
    body: CacheBody<R>,
    decision: &Decision,
) -> Response<CacheBody<R>> {
    shared.decided(decision);
    cache_status::add(&mut parts.headers, decision);
    Response::from_parts(parts, body)
}

/// Whether a body that is at least this long may be held to be stored, as far as its head tells.
pub(crate) fn may_be_held(
    (headers, version, extensions): (&HeaderMap, Version, &Extensions),
    least: u64,
    max_body_size: usize,
) -> Result<(), Refusal> {
    if least > max_body_size as u64 {
        return Err(Refusal::TooLarge);
    }
    if ends_with_its_connection(headers, version, extensions) {
        return Err(Refusal::EndUnproved);
    }
    Ok(())
}

/// Whether a body ends when its connection does, so that a broken one looks like a whole one
/// (RFC 9112 §6.3): said by the service, or seen in the head of an HTTP/1 response.
fn ends_with_its_connection(
    headers: &HeaderMap,
    version: Version,
    extensions: &Extensions,
) -> bool {
    if extensions.get::<EndUnproved>().is_some() {
        return true;
    }
    let framed = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    let closes = headers
        .get_all(CONNECTION)
        .iter()
        .any(|value| value.as_bytes().to_ascii_lowercase().windows(5).any(|part| part == b"close"));
    !framed && (closes || version < Version::HTTP_11)
}
