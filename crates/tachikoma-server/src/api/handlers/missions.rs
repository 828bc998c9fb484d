//! `/api/v1/missions` and `/api/v1/missions/{id}`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tachikoma_cache::Cache;
use uuid::Uuid;

use crate::api::{
    database::{MissionChange, NewMission},
    extract::{IdPath, JsonBody, Paging},
    fields::{Fields, Payload, Text},
    invalidate, keys, limits,
    model::{Mission, MissionPage, MissionStatus},
    problem::Problem,
    reads::NoValue,
    revision::{self, Preconditions, Revision},
    state::ApiState,
    writes,
};

const DESCRIPTION: Text = Text::Lines { most: limits::DESCRIPTION_CHARS };

/// The body of `POST /api/v1/missions`.
pub(crate) struct NewMissionBody {
    title: String,
    description: String,
    status: MissionStatus,
}

impl Payload for NewMissionBody {
    fn read(fields: &mut Fields) -> Option<Self> {
        let title = fields.text("title", Text::Line);
        let description = fields.text_or_none("description", DESCRIPTION).unwrap_or_default();
        let status = status(fields).unwrap_or_default();
        Some(Self { title: title?, description, status })
    }
}

/// The body of `PUT /api/v1/missions/{id}`: what is left out stays as it is.
pub(crate) struct MissionChangeBody {
    change: MissionChange,
    version: Option<u32>,
}

impl Payload for MissionChangeBody {
    fn read(fields: &mut Fields) -> Option<Self> {
        let title = fields.text_or_none("title", Text::Line);
        let description = fields.text_or_none("description", DESCRIPTION);
        let status = status(fields);
        let version = fields.version_or_none("version");
        if fields.are_valid() && title.is_none() && description.is_none() && status.is_none() {
            fields.refuse("an object with at least one of title, description, status");
        }
        Some(Self { change: MissionChange { title, description, status }, version })
    }
}

fn status(fields: &mut Fields) -> Option<MissionStatus> {
    fields.word_or_none("status", &MissionStatus::ALL, MissionStatus::as_str)
}

pub(crate) async fn create(
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<NewMissionBody>,
) -> Result<Response, Problem> {
    let NewMissionBody { title, description, status } = body;
    let new = NewMission { id: Uuid::new_v4(), title, description, status };
    let (database, now) = (state.database().clone(), state.now());
    let commit = async move { database.create_mission(new, now).await };
    let invalidate = |cache: Cache| async move { invalidate::all_missions(&cache).await };
    let written = state.write("mission".to_owned(), commit, invalidate).await?;
    Ok(written.respond(StatusCode::CREATED, |mission| {
        let mut response = Json(&mission).into_response();
        let headers = response.headers_mut();
        // Both are made of digits, letters and a few ASCII marks.
        if let Ok(location) = HeaderValue::try_from(format!("/api/v1/missions/{}", mission.id)) {
            headers.insert(header::LOCATION, location);
        }
        if let Ok(etag) = HeaderValue::try_from(etag(&mission)) {
            headers.insert(header::ETAG, etag);
        }
        response
    }))
}

pub(crate) async fn list(
    State(state): State<ApiState>,
    paging: Paging,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Paging { page, page_size } = paging;
    let load = move |state: ApiState| async move {
        Ok::<_, NoValue>(state.database().missions(page, page_size).await?)
    };
    let key = keys::mission_list(page, page_size);
    let read = state.read(&key, &[invalidate::MISSION_LISTS], load).await?;
    Ok(read.shared(&headers, list_etag, "list of missions"))
}

pub(crate) async fn get(
    State(state): State<ApiState>,
    IdPath(id): IdPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let load = move |state: ApiState| async move {
        state.database().mission(id).await?.ok_or(NoValue::NotFound)
    };
    let tag = invalidate::mission_tag(id);
    let read = state.read(&keys::mission(id), &[&tag], load).await?;
    Ok(read.shared(&headers, etag, &what(id)))
}

/// Answers without an `ETag`: the server adds fields to what was sent, and RFC 9110 §9.3.4 lets an
/// answer to `PUT` carry a validator only if nothing was changed.
pub(crate) async fn update(
    State(state): State<ApiState>,
    IdPath(id): IdPath,
    headers: HeaderMap,
    JsonBody(body): JsonBody<MissionChangeBody>,
) -> Result<Response, Problem> {
    let expected = Preconditions::new(&headers, body.version);
    let (database, now) = (state.database().clone(), state.now());
    let commit = async move { database.update_mission(id, body.change, &expected, now).await };
    let invalidate = move |cache: Cache| async move { invalidate::mission(&cache, id).await };
    let written = state.write(what(id), commit, invalidate).await?;
    Ok(written.respond(StatusCode::OK, |mission| Json(mission).into_response()))
}

pub(crate) async fn delete(
    State(state): State<ApiState>,
    IdPath(id): IdPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let expected = Preconditions::new(&headers, None);
    let database = state.database().clone();
    let commit = async move { database.delete_mission(id, &expected).await };
    let invalidate = move |cache: Cache| async move { invalidate::mission(&cache, id).await };
    let written = state.write(what(id), commit, invalidate).await?;
    Ok(written.respond(StatusCode::NO_CONTENT, writes::empty))
}

fn what(id: Uuid) -> String {
    format!("mission {id}")
}

fn etag(mission: &Mission) -> String {
    Revision { version: mission.version, updated_at: mission.updated_at }.etag()
}

fn list_etag(page: &MissionPage) -> String {
    let rows = page.items.iter().map(|mission| {
        let revision = Revision { version: mission.version, updated_at: mission.updated_at };
        (mission.id.to_string(), revision)
    });
    revision::list_etag(page.total, rows)
}
