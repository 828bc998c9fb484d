//! `/api/v1/sessions` and `/api/v1/session`: login, who am I, logout.
//!
//! A session is begun with an email address and a password and answered with a token, which is
//! shown once and kept nowhere. The token is sent as `Authorization: Bearer …` (RFC 6750). That
//! there is no user with an address and that its password is another are the same answer and take
//! the same time.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use tachikoma_cache::Cache;
use uuid::Uuid;

use super::users;
use crate::api::{
    extract::JsonBody,
    fields::{Fields, Payload, Text},
    invalidate, keys,
    model::{Account, Session},
    password::Password,
    problem::{Kind, Problem},
    reads::{self, Did, KEEP_NOWHERE, NoValue},
    state::ApiState,
    timestamp::Timestamp,
    token::{Token, TokenHash},
    writes,
};

/// The body of `POST /api/v1/sessions`.
pub(crate) struct LoginBody {
    email: String,
    password: Password,
}

impl Payload for LoginBody {
    fn read(fields: &mut Fields) -> Option<Self> {
        let email = fields.text("email", Text::Email);
        let password = fields.text("password", Text::Password);
        Some(Self { email: email?.to_lowercase(), password: Password::new(password?) })
    }
}

/// The answer to a login: the only one that holds the token.
#[derive(Serialize)]
struct Begun<'a> {
    token: &'a str,
    token_type: &'static str,
    user_id: Uuid,
    created_at: Timestamp,
    expires_at: Timestamp,
}

/// Whose session it is.
#[derive(Serialize)]
struct Current<'a> {
    user: &'a Account,
    created_at: Timestamp,
    expires_at: Timestamp,
}

pub(crate) async fn begin(
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<LoginBody>,
) -> Result<Response, Problem> {
    let LoginBody { email, password } = body;
    let now = state.now();
    state.logins(|logins| logins.attempt(&email, now)).map_err(too_many)?;
    let user_id = authenticate(&state, &email, password).await?;
    state.logins(|logins| logins.succeeded(&email));

    let token = Token::random();
    let hash = state.tokens().hash(&token);
    // The time now, not before the password was checked: that took a while.
    let created_at = state.now();
    let expires_at = created_at.plus(state.options().session_life);
    let session = Session { user_id, created_at, expires_at };
    let database = state.database().clone();
    let commit =
        async move { database.begin_session(hash.as_bytes(), &session).await.map(|()| session) };
    let invalidate = move |cache: Cache| async move { invalidate::user(&cache, user_id).await };
    let written = state.write(format!("user {user_id}"), commit, invalidate).await?;
    Ok(written.respond(StatusCode::CREATED, |session| {
        let Session { user_id, created_at, expires_at } = session;
        let token = token.reveal();
        let body = Begun { token, token_type: "Bearer", user_id, created_at, expires_at };
        let mut response = Json(body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, KEEP_NOWHERE);
        headers.insert(header::LOCATION, HeaderValue::from_static("/api/v1/session"));
        response
    }))
}

/// The user with this address and password.
async fn authenticate(state: &ApiState, email: &str, password: Password) -> Result<Uuid, Problem> {
    // Not through the cache: the hash of a password stays in the database.
    let (user_id, hash) = match state.database().credentials(email).await? {
        Some(found) => (Some(found.user_id), Some(found.password_hash)),
        None => (None, None),
    };
    match (state.passwords().check(password, hash).await?, user_id) {
        (true, Some(user_id)) => Ok(user_id),
        _ => Err(Problem::new(Kind::WrongCredentials, "no user has this address and password")
            .with_header(header::WWW_AUTHENTICATE, challenge(false))),
    }
}

pub(crate) async fn get(
    State(state): State<ApiState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let hash = token_hash(&state, &headers)?;
    let load_hash = hash.clone();
    let load = move |state: ApiState| async move {
        state.database().session(load_hash.as_bytes()).await?.ok_or(NoValue::NotFound)
    };
    let session = state.read(&keys::session(&hash), &[], load).await?;
    let live = session.value.filter(|session| session.expires_at > state.now());
    let Some(live) = live else { return Ok(refused(session.did)) };
    let user = users::read(&state, live.user_id).await?;
    let did = session.did.max(user.did);
    let Some(user) = user.value else { return Ok(refused(did)) };
    let Session { created_at, expires_at, .. } = *live;
    let mut response = Json(Current { user: &user, created_at, expires_at }).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, KEEP_NOWHERE);
    Ok(reads::timed(response, did))
}

pub(crate) async fn end(
    State(state): State<ApiState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let hash = token_hash(&state, &headers)?;
    let (database, ended) = (state.database().clone(), hash.clone());
    let commit = async move { database.end_session(ended.as_bytes()).await };
    let invalidate = move |cache: Cache| {
        let hash = hash.clone();
        async move { invalidate::session(&cache, &hash).await }
    };
    match state.write("session".to_owned(), commit, invalidate).await {
        Ok(written) => Ok(written.respond(StatusCode::NO_CONTENT, writes::empty)),
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => Err(no_session(true)),
        Err(problem) => Err(problem),
    }
}

/// The hash of the request's bearer token; 401 when there is none or it cannot be one of ours.
fn token_hash(state: &ApiState, headers: &HeaderMap) -> Result<TokenHash, Problem> {
    let given = headers.get(header::AUTHORIZATION);
    let token = given.and_then(|value| value.to_str().ok()).and_then(Token::from_bearer);
    token.map(|token| state.tokens().hash(&token)).ok_or_else(|| no_session(given.is_some()))
}

/// 401 for a token that names no session, after the cache was asked.
fn refused(did: Did) -> Response {
    reads::timed(no_session(true).into_response(), did)
}

/// 401; `given` says whether there was a token.
fn no_session(given: bool) -> Problem {
    let detail = if given {
        "the token names no session, or its session has ended"
    } else {
        "header.authorization must be 'Bearer ' and the token of POST /api/v1/sessions"
    };
    Problem::new(Kind::Unauthenticated, detail)
        .with_header(header::WWW_AUTHENTICATE, challenge(given))
}

/// The challenge of a 401; an error code only if there was a token (RFC 6750 §3.1).
fn challenge(invalid_token: bool) -> HeaderValue {
    HeaderValue::from_static(if invalid_token {
        "Bearer realm=\"tachikoma\", error=\"invalid_token\""
    } else {
        "Bearer realm=\"tachikoma\""
    })
}

/// 429 with the time to wait in whole seconds.
fn too_many(wait: std::time::Duration) -> Problem {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    let detail = format!("this email address may try again in {seconds} s");
    let problem = Problem::new(Kind::TooManyLogins, detail);
    match HeaderValue::try_from(seconds.to_string()) {
        Ok(seconds) => problem.with_header(header::RETRY_AFTER, seconds),
        Err(_) => problem,
    }
}
