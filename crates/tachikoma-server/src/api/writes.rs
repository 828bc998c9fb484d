//! Decides how a write is answered: the row is committed, then the cache is told, then the client.
//!
//! 200, 201 and 204 mean that the invalidation is in: no read that begins afterwards sees the old
//! row in this process; in another one on the same Redis, no read that brings the `Cache-Ticket` of
//! the answer along, and any other once the memory tier's `freshness` has passed.
//!
//! A store that is there and did not answer in time is told again, within 500 ms: on a busy machine
//! one answer is late now and then, and that is no reason to promise less. If the cache cannot be
//! told within that time, or its store is away, the answer is 202 with
//! `Cache-Invalidation: pending` and the same body: the row is written, the cache keeps trying,
//! and until it gets through a read may show the old row.
//!
//! A write runs in its own task to its end. A client that goes away in the middle must not leave a
//! committed row and a cache that was never told.

use std::future::Future;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use tachikoma_cache::{Cache, Error, ErrorKind, Health, Ticket};
use tachikoma_http_cache::CACHE_TICKET;

use super::{database::WriteError, limits, problem::Problem, state::ApiState};

const CACHE_INVALIDATION: HeaderName = HeaderName::from_static("cache-invalidation");

/// Whether the cache has been told of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has: for reads that must not be behind.
    Yes(Ticket),
    /// Not yet.
    Pending,
}

/// A row that was written.
#[derive(Debug)]
pub(crate) struct Written<T> {
    pub(crate) row: T,
    pub(crate) told: Told,
}

impl ApiState {
    /// Commits with `commit`, then takes what changed out of the cache with `invalidate`. `what`
    /// names the thing.
    ///
    /// # Cancel safety
    ///
    /// A caller that goes away leaves nothing half done: both run to their end.
    pub(crate) async fn write<T, C, I, Telling>(
        &self,
        what: String,
        commit: C,
        invalidate: I,
    ) -> Result<Written<T>, Problem>
    where
        T: Send + 'static,
        C: Future<Output = Result<T, WriteError>> + Send + 'static,
        I: Fn(Cache) -> Telling + Send + Sync + 'static,
        Telling: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let cache = self.cache().clone();
        let task = tokio::spawn(async move {
            let committed = match commit.await {
                Err(error) if error.wrote_nothing() => return Err(error),
                committed => committed,
            };
            // A commit that failed may be in the file all the same: the cache is told of it too.
            let is_told = tell(cache.clone(), invalidate).await;
            let told = if is_told { Told::Yes(cache.ticket()) } else { Told::Pending };
            committed.map(|row| (row, told))
        });
        match task.await {
            Ok(Ok((row, told))) => Ok(Written { row, told }),
            Ok(Err(error)) => Err(Problem::write(&error, &what)),
            Err(error) => {
                tracing::error!(%error, "a write did not end");
                Err(Problem::internal())
            }
        }
    }
}

/// Waits for an invalidation, but no longer than an answer may; whether it is in.
async fn tell<I, Telling>(cache: Cache, invalidate: I) -> bool
where
    I: Fn(Cache) -> Telling + Send + Sync + 'static,
    Telling: Future<Output = Result<(), Error>> + Send + 'static,
{
    // Its own task: past the deadline it goes on, and the cache takes it over or reports it.
    let task = tokio::spawn(async move {
        for _ in 0..limits::INVALIDATION_ATTEMPTS {
            let Err(error) = invalidate(cache.clone()).await else { return true };
            // The answer says so and the statistics count it; a line for each would be a flood.
            tracing::debug!(%error, "an invalidation is not in yet");
            if error.kind() != ErrorKind::Pending || cache.health() != Health::Up {
                break;
            }
        }
        false
    });
    matches!(tokio::time::timeout(limits::INVALIDATION_TIME, task).await, Ok(Ok(true)))
}

impl<T> Written<T> {
    /// The answer: `success`, or 202 when the cache has not been told yet.
    pub(crate) fn respond(self, success: StatusCode, body: impl FnOnce(T) -> Response) -> Response {
        let mut response = body(self.row);
        *response.status_mut() = success;
        match self.told {
            Told::Yes(ticket) => {
                // Digits and a hyphen.
                if let Ok(ticket) = HeaderValue::try_from(ticket.to_string()) {
                    response.headers_mut().insert(CACHE_TICKET, ticket);
                }
            }
            Told::Pending => {
                *response.status_mut() = StatusCode::ACCEPTED;
                let pending = HeaderValue::from_static("pending");
                response.headers_mut().insert(CACHE_INVALIDATION, pending);
            }
        }
        response
    }
}

/// A response without a body.
pub(crate) fn empty<T>(_: T) -> Response {
    StatusCode::NO_CONTENT.into_response()
}
