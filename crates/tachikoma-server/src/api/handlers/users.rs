//! `/api/v1/users` and `/api/v1/users/{id}`.
//!
//! A user is made with a name, an email address and a password. What everybody may read of it
//! holds neither the address nor anything of the password; the owner reads the address in
//! `GET /api/v1/session`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use uuid::Uuid;

use crate::api::{
    database::NewUser,
    extract::{IdPath, JsonBody},
    fields::{Fields, Payload, Text},
    invalidate, keys,
    model::Account,
    password::Password,
    problem::Problem,
    reads::{KEEP_NOWHERE, NoValue, Read},
    state::ApiState,
};

/// The body of `POST /api/v1/users`.
pub(crate) struct NewUserBody {
    name: String,
    email: String,
    password: Password,
}

impl Payload for NewUserBody {
    fn read(fields: &mut Fields) -> Option<Self> {
        let name = fields.text("name", Text::Line);
        let email = fields.text("email", Text::Email);
        let password = fields.text("password", Text::NewPassword);
        Some(Self { name: name?, email: email?.to_lowercase(), password: Password::new(password?) })
    }
}

/// Creates a user. Nothing that is cached changes, so there is nothing to invalidate.
pub(crate) async fn create(
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<NewUserBody>,
) -> Result<Response, Problem> {
    let password_hash = state.passwords().hash(body.password).await?;
    let NewUserBody { name, email, .. } = body;
    let new = NewUser { id: Uuid::new_v4(), name, email, password_hash };
    let (database, now) = (state.database().clone(), state.now());
    let commit = async move { database.create_user(new, now).await };
    let written = state.write("user".to_owned(), commit, |_| async { Ok(()) }).await?;
    Ok(written.respond(StatusCode::CREATED, |user| {
        let mut response = Json(&user).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, KEEP_NOWHERE);
        // A path and a UUID.
        if let Ok(location) = HeaderValue::try_from(format!("/api/v1/users/{}", user.id)) {
            headers.insert(header::LOCATION, location);
        }
        response
    }))
}

pub(crate) async fn get(
    State(state): State<ApiState>,
    IdPath(id): IdPath,
) -> Result<Response, Problem> {
    let read = read(&state, id).await?;
    Ok(read.personal(|account| account.user.clone(), &format!("user {id}")))
}

/// Reads a user through the data cache.
pub(super) async fn read(state: &ApiState, id: Uuid) -> Result<Read<Account>, Problem> {
    let load = move |state: ApiState| async move {
        state.database().account(id).await?.ok_or(NoValue::NotFound)
    };
    state.read(&keys::user(id), &[&invalidate::user_tag(id)], load).await
}
