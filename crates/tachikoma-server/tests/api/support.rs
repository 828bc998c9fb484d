//! An API on a file of its own, and requests without a socket.

use std::sync::Arc;

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use serde_json::Value;
use tachikoma_cache::{Cache, TestClock};
use tachikoma_server::api::{self, ApiState};
use tempfile::TempDir;
use tower::ServiceExt;

/// A database file that goes when it is dropped.
pub(crate) struct File(TempDir);

impl File {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.0.path().join("api.db").display())
    }
}

/// What one process has: a state and its router.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) state: ApiState,
    pub(crate) router: Router,
}

impl Api {
    /// An API on `file` with this data cache.
    pub(crate) async fn open(file: &File, cache: Cache) -> Self {
        let state = ApiState::open(&file.url(), cache).await.unwrap();
        Self { router: api::router(state.clone()), state }
    }

    /// An API on a new file with a data cache in memory and a clock that the test moves.
    pub(crate) async fn new() -> (File, Self, TestClock) {
        let (file, clock) = (File::new(), TestClock::new());
        let api = Self::open(&file, memory(&clock)).await;
        (file, api, clock)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(request(Method::GET, path)).await
    }

    pub(crate) async fn get_with(&self, path: &str, name: HeaderName, value: &str) -> Reply {
        let mut request = request(Method::GET, path);
        request.headers_mut().insert(name, value.parse().unwrap());
        self.send(request).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(json_request(Method::POST, path, &body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(json_request(Method::PUT, path, &body)).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// Creates a mission and returns its path.
    pub(crate) async fn mission(&self, title: &str) -> String {
        let created = self.post("/api/v1/missions", serde_json::json!({ "title": title })).await;
        created.check(StatusCode::CREATED);
        created.header("location").to_owned()
    }
}

/// A data cache in memory on this clock.
pub(crate) fn memory(clock: &TestClock) -> Cache {
    Cache::memory().clock(Arc::new(clock.clone())).build().unwrap()
}

pub(crate) fn request(method: Method, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

pub(crate) fn json_request(method: Method, path: &str, body: &Value) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.header("content-type", "application/json").body(body.to_string().into()).unwrap()
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// Fails the test unless the status is this one.
    #[track_caller]
    pub(crate) fn check(&self, expected: impl TryInto<StatusCode>) -> &Self {
        let expected = expected.try_into().ok().unwrap();
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, expected, "{body}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// What the data cache did.
    pub(crate) fn timing(&self) -> &str {
        self.header("server-timing").strip_prefix("cache;desc=").unwrap_or_default()
    }

    /// Fails the test unless it is a problem of this status; returns it.
    #[track_caller]
    pub(crate) fn problem(&self, expected: u16) -> Value {
        self.check(expected);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("cache-control"), "no-store");
        let problem = self.json();
        assert_eq!(problem["status"], expected);
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem
    }
}
