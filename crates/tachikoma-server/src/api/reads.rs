//! Decides how a read is answered: through the data cache, saying what it did, and with headers
//! that let nobody serve it stale.
//!
//! `Server-Timing: cache;desc=…` (W3C Server Timing) says what the data cache did:
//!
//! * `hit`: the value came from the cache;
//! * `stale`: it came from the cache, past its TTL;
//! * `load`: the database was read for it, by this request or by one that it joined;
//! * `miss`: the cache could not be used, so the database was read and nothing kept.
//!
//! A failure of the cache never fails a read. That there is no such row is an answer and not a
//! value: it is never kept.
//!
//! **`Cache-Control`.** Missions and specs are the same for everybody, so any cache may keep them,
//! but a cache in front of this API does not hear of writes. `no-cache` (RFC 9111 §5.2.2.4) makes
//! it ask each time, and the strong entity tag lets the answer be a 304 without a body. A short
//! `s-maxage` would save that question and serve old rows meanwhile; here it costs a look into the
//! data cache, microseconds. What belongs to a user is `no-store`.
//!
//! With a data cache that has dependencies the response cache of this server may keep missions,
//! specs and their lists, and [`TO_THIS_SERVER`] says so: what is read here is noted there, and
//! what is kept goes when that goes. No handler names what it is kept under. Of what was read
//! beside the cache nothing is noted, so it is not kept.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use tachikoma_cache::{Hit, LoadError, Source};

use super::{database::DatabaseError, problem::Problem, revision, state::ApiState};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// For what is the same for everybody: kept, but never served without asking.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// Speaks to the response cache of this server alone (RFC 9213), and is taken off behind it: no
/// other cache hears of writes.
pub(crate) const TO_THIS_SERVER: HeaderName = HeaderName::from_static("tachikoma-cache-control");

/// For what belongs to a user, and for tokens: kept nowhere.
pub(crate) const KEEP_NOWHERE: HeaderValue = HeaderValue::from_static("no-store");

/// What the data cache did for a request, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Did {
    Hit,
    Stale,
    Load,
    Miss,
}

impl Did {
    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Hit => "cache;desc=hit",
            Self::Stale => "cache;desc=stale",
            Self::Load => "cache;desc=load",
            Self::Miss => "cache;desc=miss",
        })
    }
}

/// Why a loader has no value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoValue {
    /// There is no such row.
    #[error("there is no such row")]
    NotFound,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// What a read came to, and what the data cache did for it.
#[derive(Debug)]
pub(crate) struct Read<T> {
    /// The value; `None` when there is no such row.
    pub(crate) value: Option<Arc<T>>,
    pub(crate) did: Did,
    /// How long the response cache may keep what shows it, if it hears when that changes.
    keep: Option<Duration>,
}

impl ApiState {
    /// Reads `key` through the data cache, from `load` when it is not there. What is loaded goes
    /// when one of `tags` is invalidated.
    ///
    /// # Errors
    ///
    /// The database failed, or did not answer within the cache's load timeout.
    pub(crate) async fn read<T, F, Fut>(
        &self,
        key: &str,
        tags: &[&str],
        load: F,
    ) -> Result<Read<T>, Problem>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: FnOnce(ApiState) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, NoValue>> + Send + 'static,
    {
        let (state, first) = (self.clone(), load.clone());
        let cached = self.cache().get_or_load(key, move || first(state));
        let ttl = self.options().read_ttl;
        match cached.ttl(ttl).tags(tags.iter().copied()).await {
            Ok(hit) => {
                let did = did(&hit);
                let is_noted = matches!(did, Did::Hit | Did::Load);
                let keep = (is_noted && self.cache().has_dependencies()).then_some(ttl);
                Ok(Read { did, value: Some(hit.into_arc()), keep })
            }
            Err(LoadError::Source(error)) => absent_or_failed(&error, Did::Load),
            Err(LoadError::TimedOut) => Err(Problem::busy("the database did not answer in time")),
            Err(LoadError::Panicked) => Err(Problem::internal()),
            // The cache could not run the load: that is no reason to fail the request.
            Err(error) => {
                tracing::warn!(%error, "the data cache was passed by");
                match load(self.clone()).await {
                    Ok(value) => {
                        Ok(Read { value: Some(Arc::new(value)), did: Did::Miss, keep: None })
                    }
                    Err(error) => absent_or_failed(&error, Did::Miss),
                }
            }
        }
    }
}

fn did<T>(hit: &Hit<T>) -> Did {
    match hit.source() {
        Source::Hit => Did::Hit,
        Source::Stale => Did::Stale,
        Source::Loaded | Source::Coalesced => Did::Load,
        _ => Did::Miss,
    }
}

fn absent_or_failed<T>(error: &NoValue, did: Did) -> Result<Read<T>, Problem> {
    match error {
        NoValue::NotFound => Ok(Read { value: None, did, keep: None }),
        NoValue::Database(error) => Err(error.into()),
    }
}

impl<T: Serialize> Read<T> {
    /// The answer for everybody: 200 with a strong entity tag, 304 for a client that has it, or
    /// 404. `what` names the thing.
    pub(crate) fn shared(
        &self,
        headers: &HeaderMap,
        etag: impl FnOnce(&T) -> String,
        what: &str,
    ) -> Response {
        let Some(value) = &self.value else { return self.not_found(what) };
        let etag = etag(value);
        let mut response = if revision::not_modified(headers, &etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            Json(value.as_ref()).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(SERVER_TIMING, self.did.header());
        headers.insert(header::CACHE_CONTROL, REVALIDATE);
        if let Some(keep) = self.keep {
            // Digits.
            if let Ok(value) = HeaderValue::try_from(format!("max-age={}", keep.as_secs())) {
                headers.insert(TO_THIS_SERVER, value);
            }
        }
        // Digits, letters, hyphens and quotes.
        if let Ok(etag) = HeaderValue::try_from(etag) {
            headers.insert(header::ETAG, etag);
        }
        response
    }

    /// The answer about a user: 200 that nobody keeps, or 404.
    pub(crate) fn personal<B: Serialize>(
        &self,
        body: impl FnOnce(&T) -> B,
        what: &str,
    ) -> Response {
        let Some(value) = &self.value else { return self.not_found(what) };
        let mut response = Json(body(value)).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, KEEP_NOWHERE);
        timed(response, self.did)
    }

    fn not_found(&self, what: &str) -> Response {
        timed(Problem::not_found(what).into_response(), self.did)
    }
}

/// Says in a response what the data cache did.
pub(crate) fn timed(mut response: Response, did: Did) -> Response {
    response.headers_mut().insert(SERVER_TIMING, did.header());
    response
}
