//! The reference API: missions, their specs, users and sessions, on SQLite behind the data cache.
//!
//! Decides which path and method leads to which handler; everything else is the modules' business:
//! [`handlers`] what a route does, `fields` and `extract` what a request may say, `database` how
//! rows are kept, [`keys`] and [`invalidate`] what is cached and when it goes, `reads` and
//! `writes` what the answers promise. `GET /api/openapi.json` describes all of it.

mod database;
mod extract;
mod fields;
mod handlers;
pub mod invalidate;
pub mod keys;
mod limits;
mod login_limit;
pub mod model;
mod openapi;
mod password;
mod problem;
pub(crate) mod reads;
mod revision;
mod seed;
mod state;
mod timestamp;
mod token;
mod writes;

use axum::{Router, extract::DefaultBodyLimit, routing};
use http::{Method, Uri};

use self::{
    handlers::{missions, sessions, specs, users},
    problem::{Kind, Problem},
};
pub use self::{
    seed::{SeedError, Seeded, seed},
    state::{ApiOptions, ApiState, OpenError},
    timestamp::Timestamp,
    token::TokenHash,
};

/// The routes of the API, all below `/api`; any other path is answered with a problem and 404.
pub fn router(state: ApiState) -> Router {
    let missions_route = routing::get(missions::list).post(missions::create);
    let mission = routing::get(missions::get).put(missions::update).delete(missions::delete);
    let spec = routing::get(specs::get).put(specs::put);
    let session = routing::get(sessions::get).delete(sessions::end);
    Router::new()
        .route("/api/openapi.json", routing::get(openapi::get))
        .route("/api/v1/missions", missions_route)
        .route("/api/v1/missions/{id}", mission)
        .route("/api/v1/missions/{id}/specs", routing::get(specs::list))
        .route("/api/v1/missions/{id}/specs/{spec_id}", spec)
        .route("/api/v1/users", routing::post(users::create))
        .route("/api/v1/users/{id}", routing::get(users::get))
        .route("/api/v1/sessions", routing::post(sessions::begin))
        .route("/api/v1/session", session)
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        // Bodies have a bound of their own, which answers with a problem.
        .layer(DefaultBodyLimit::disable())
        .with_state(state)
}

async fn no_such_route(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("there is nothing at {path}; see /api/openapi.json");
    Problem::new(Kind::NoSuchRoute, detail)
}

/// The router adds the `Allow` header.
async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("{method} is not allowed at {path}; the Allow header says what is");
    Problem::new(Kind::MethodNotAllowed, detail)
}
