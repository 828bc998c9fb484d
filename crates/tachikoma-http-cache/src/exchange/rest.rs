//! Completes a stored part: asks for what is missing, and sends both as one whole response.
//!
//! RFC 9111 §3.3 and §3.4. Never joins what is not known to be of one representation: that takes
//! the same strong validator, the same whole length, and exactly the bytes that were asked for.

use std::{ops::Range, time::SystemTime};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, IF_RANGE, RANGE, SET_COOKIE},
};
use tower_service::Service;

use super::call::once;
use crate::{
    body::CacheBody,
    head::{content_length, set},
    policy::{
        range::{Held, content_range},
        request::RequestFacts,
        reuse::{Reuse, reuse},
        validation::{self, Validators},
    },
    storage::StoredResponse,
};

/// The missing bytes of a stored part.
#[derive(Debug)]
pub(super) struct Rest {
    gap: Range<u64>,
    total: u64,
    /// Where among the stored bytes the missing ones belong.
    place: usize,
    /// What tells the origin which representation is meant.
    etag: Option<HeaderValue>,
}

/// What an answer is to one who asked for the missing bytes.
enum Joined<R> {
    /// With what is stored, the whole.
    Whole(Response<CacheBody<R>>),
    /// An answer to the request as it is.
    Other(Response<R>),
    /// No answer to it: the whole is to be asked for.
    Useless,
}

impl Rest {
    /// What is missing of a part, for a request for the whole that a joined response of at most
    /// `cap` bytes may answer.
    ///
    /// With a strong `ETag` that is always worth asking for. Without one the two can never be
    /// joined, but while the part is fresh RFC 9111 §3.3 lets a cache try: an origin that has no
    /// ranges sends the whole at once.
    pub(super) fn of(
        stored: &StoredResponse,
        facts: &RequestFacts,
        now: SystemTime,
        cap: usize,
    ) -> Option<Self> {
        if facts.head || facts.has_range || facts.has_condition {
            return None;
        }
        let held = stored.part.as_ref()?;
        let (gap, total) = (held.gap()?, held.total?);
        let is_strong = Validators::read(&stored.headers).etag.is_some_and(|etag| !etag.weak);
        let is_allowed = match reuse(&stored.terms, facts, now) {
            Reuse::Fresh { .. } => true,
            Reuse::Stale { .. } | Reuse::Validate { .. } => is_strong,
            Reuse::Refused(_) => false,
        };
        if !is_allowed || total > cap as u64 {
            return None;
        }
        let before = held.spans.iter().filter(|span| span.end <= gap.start);
        let before: u64 = before.map(|span| span.end - span.start).sum();
        let etag = stored.headers.get(ETAG).filter(|_| is_strong).cloned();
        Some(Self { gap, total, place: usize::try_from(before).ok()?, etag })
    }

    /// Asks for it; where the answer does not belong to what is stored, for the whole, with an
    /// empty body. The answer to the request, and what the origin said, where that differs.
    pub(super) async fn fetch<S, B, R>(
        self,
        stored: &StoredResponse,
        mut inner: S,
        request: Request<B>,
        make: fn() -> B,
    ) -> Result<(Response<CacheBody<R>>, Option<StatusCode>), S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
    {
        let (mut parts, body) = request.into_parts();
        let again = parts.clone();
        self.ask(&mut parts.headers);
        let answer = once(&mut inner, Request::from_parts(parts, body)).await?;
        let answer = match self.join(stored, answer) {
            Joined::Whole(whole) => return Ok((whole, Some(StatusCode::PARTIAL_CONTENT))),
            Joined::Other(answer) => answer,
            Joined::Useless => once(&mut inner, Request::from_parts(again, make())).await?,
        };
        Ok((answer.map(CacheBody::passed), None))
    }

    /// Asks for it, in the headers of a request ([RFC 9110 §13.1.5]).
    ///
    /// [RFC 9110 §13.1.5]: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
    fn ask(&self, request: &mut HeaderMap) {
        let Range { start, end } = self.gap;
        let last = if end == self.total { String::new() } else { (end - 1).to_string() };
        set(request, RANGE, &format!("bytes={start}-{last}"));
        if let Some(etag) = &self.etag {
            request.insert(IF_RANGE, etag.clone());
        }
    }

    /// Puts the answer into its place in what is stored ([RFC 9111 §3.4]).
    ///
    /// [RFC 9111 §3.4]: https://www.rfc-editor.org/rfc/rfc9111#section-3.4
    fn join<R>(&self, stored: &StoredResponse, answer: Response<R>) -> Joined<R> {
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::RANGE_NOT_SATISFIABLE => return Joined::Useless,
            _ => return Joined::Other(answer),
        }
        if self.place > stored.body.len() || !self.is_brought(stored, answer.headers()) {
            return Joined::Useless;
        }
        let (mut parts, body) = answer.into_parts();
        let cookies: Vec<_> = parts.headers.get_all(SET_COOKIE).iter().cloned().collect();
        let newer = std::mem::take(&mut parts.headers);
        let mut headers = stored.headers.clone();
        // Without a `Date` its creation is the time of receipt, not that of the stored head.
        headers.remove(DATE);
        let age = newer.get(AGE).cloned();
        validation::update(&mut headers, newer);
        headers.remove(CONTENT_RANGE);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.total));
        // What is for this client alone is still for it; and keeps the whole out of the store.
        headers.extend(cookies.into_iter().map(|cookie| (SET_COOKIE, cookie)));
        headers.extend(age.map(|age| (AGE, age)));
        (parts.status, parts.headers) = (StatusCode::OK, headers);
        let (before, after) = (stored.body.slice(..self.place), stored.body.slice(self.place..));
        let body = CacheBody::joined(before, body, self.gap.end - self.gap.start, after);
        Joined::Whole(Response::from_parts(parts, body))
    }

    /// Whether a 206 brings exactly the missing bytes of the same representation.
    fn is_brought(&self, stored: &StoredResponse, answer: &HeaderMap) -> bool {
        let length = self.gap.end - self.gap.start;
        let same_length = content_length(answer).is_none_or(|stated| stated == length);
        let same_range = content_range(answer) == Some((self.gap.clone(), Some(self.total)));
        let brought =
            Held { spans: vec![self.gap.clone()], end: Some(self.total), total: Some(self.total) };
        let (own, others) = (Validators::read(&stored.headers), Validators::read(answer));
        same_length && same_range && stored.held().combines(&own, &brought, &others)
    }
}
