//! `/api/v1/missions/{id}/specs` and `/api/v1/missions/{id}/specs/{spec_id}`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use tachikoma_cache::Cache;
use uuid::Uuid;

use crate::api::{
    database::SpecChange,
    extract::{IdPath, JsonBody, SpecPath},
    fields::{Fields, Payload, Text},
    invalidate, keys, limits,
    model::{Spec, SpecList},
    problem::Problem,
    reads::NoValue,
    revision::{self, Preconditions, Revision},
    state::ApiState,
};

/// The body of `PUT /api/v1/missions/{id}/specs/{spec_id}`: the whole spec.
pub(crate) struct SpecBody {
    change: SpecChange,
    version: Option<u32>,
}

impl Payload for SpecBody {
    fn read(fields: &mut Fields) -> Option<Self> {
        let title = fields.text("title", Text::Line);
        let content = Text::Lines { most: limits::CONTENT_CHARS };
        let content = fields.text_or_none("content", content).unwrap_or_default();
        let version = fields.version_or_none("version");
        Some(Self { change: SpecChange { title: title?, content }, version })
    }
}

pub(crate) async fn list(
    State(state): State<ApiState>,
    IdPath(id): IdPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let load = move |state: ApiState| async move {
        state.database().specs(id).await?.ok_or(NoValue::NotFound)
    };
    let (mission, list) = (invalidate::mission_tag(id), invalidate::spec_list_tag(id));
    let read = state.read(&keys::spec_list(id), &[&mission, &list], load).await?;
    Ok(read.shared(&headers, list_etag, &format!("mission {id}")))
}

pub(crate) async fn get(
    State(state): State<ApiState>,
    SpecPath { mission_id, spec_id }: SpecPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = spec_id.clone();
    let load = move |state: ApiState| async move {
        state.database().spec(mission_id, &name).await?.ok_or(NoValue::NotFound)
    };
    let mission = invalidate::mission_tag(mission_id);
    let spec = invalidate::spec_tag(mission_id, &spec_id);
    let read = state.read(&keys::spec(mission_id, &spec_id), &[&mission, &spec], load).await?;
    Ok(read.shared(&headers, etag, &what(mission_id, &spec_id)))
}

/// Creates or replaces a spec. Answers without an `ETag`, as
/// [`missions::update`](super::missions::update).
pub(crate) async fn put(
    State(state): State<ApiState>,
    SpecPath { mission_id, spec_id }: SpecPath,
    headers: HeaderMap,
    JsonBody(body): JsonBody<SpecBody>,
) -> Result<Response, Problem> {
    let expected = Preconditions::new(&headers, body.version);
    let what = what(mission_id, &spec_id);
    let (database, now) = (state.database().clone(), state.now());
    let name = spec_id.clone();
    let commit =
        async move { database.put_spec(mission_id, &name, body.change, &expected, now).await };
    let invalidate = move |cache: Cache| {
        let spec_id = spec_id.clone();
        async move { invalidate::spec(&cache, mission_id, &spec_id).await }
    };
    let written = state.write(what, commit, invalidate).await?;
    let success = if written.row.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(written.respond(success, |written| Json(written.spec).into_response()))
}

fn what(mission_id: Uuid, spec_id: &str) -> String {
    format!("spec {spec_id} of mission {mission_id}")
}

fn etag(spec: &Spec) -> String {
    Revision { version: spec.version, updated_at: spec.updated_at }.etag()
}

fn list_etag(list: &SpecList) -> String {
    let rows = list.items.iter().map(|spec| {
        let revision = Revision { version: spec.version, updated_at: spec.updated_at };
        (spec.spec_id.clone(), revision)
    });
    revision::list_etag(list.total, rows)
}
