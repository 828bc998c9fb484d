//! The answers that several operations share: headers, and a problem for each status.

use serde_json::{Map, Value, json};

use super::schemas;
use crate::api::problem;

/// The problems by status: name, what it means, headers beside it.
const PROBLEMS: [(u16, &str, &str, &[&str]); 12] = [
    (400, "InvalidRequest", "The path, the query or the JSON syntax is not valid.", &[]),
    (
        401,
        "Unauthenticated",
        "There is no session, or the credentials are wrong.",
        &["WWW-Authenticate"],
    ),
    (404, "NotFound", "There is no such thing.", &[]),
    (408, "RequestTimeout", "The body took too long to arrive.", &[]),
    (409, "Conflict", "The version is stale, or the value is taken. Nothing was written.", &[]),
    (412, "PreconditionFailed", "If-Match or If-None-Match does not hold.", &[]),
    (413, "BodyTooLarge", "The body is larger than 1 MiB.", &[]),
    (415, "UnsupportedMediaType", "The body is not application/json, or is encoded.", &[]),
    (422, "InvalidFields", "A field of the body is not valid.", &[]),
    (429, "TooManyLogins", "Too many attempts to log in with this address.", &["Retry-After"]),
    (500, "Internal", "The server failed; its log says why.", &[]),
    (503, "Busy", "The database, or the check of passwords, is busy.", &["Retry-After"]),
];

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn with_headers(names: &[&str]) -> Value {
    let headers = names.iter().map(|name| ((*name).to_owned(), reference("headers", name)));
    Value::Object(headers.collect())
}

/// A response with a body of this schema and these headers.
pub(super) fn body(description: &str, schema: &str, headers: &[&str]) -> Value {
    json!({
        "description": description,
        "headers": with_headers(headers),
        "content": { "application/json": { "schema": schemas::reference(schema) } },
    })
}

/// A response without a body.
pub(super) fn empty(description: &str, headers: &[&str]) -> Value {
    json!({ "description": description, "headers": with_headers(headers) })
}

/// The problem of this status, if there is one.
pub(super) fn problem(status: u16) -> Option<Value> {
    let (_, name, ..) = PROBLEMS.iter().find(|(known, ..)| *known == status)?;
    Some(reference("responses", name))
}

/// All shared responses by name.
pub(super) fn responses() -> Value {
    let mut all = Map::new();
    for (_, name, description, headers) in PROBLEMS {
        let response = json!({
            "description": description,
            "headers": with_headers(headers),
            "content": { (problem::MEDIA_TYPE): { "schema": schemas::reference("Problem") } },
        });
        all.insert(name.to_owned(), response);
    }
    let not_modified = empty(
        "The client has the current representation.",
        &["ETag", "Cache-Control", "Server-Timing"],
    );
    all.insert("NotModified".to_owned(), not_modified);
    Value::Object(all)
}

/// All headers by name.
pub(super) fn headers() -> Value {
    let header =
        |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "Cache-Control": header("no-cache: ask each time. no-store: keep nowhere."),
        "Cache-Invalidation": {
            "description": "The row is written; the cache has not been told yet.",
            "schema": { "type": "string", "const": "pending" },
        },
        "Cache-Ticket": {
            "description": "Brought along by a read, it shows nothing older than this write.",
            "schema": { "type": "string", "maxLength": 64 },
        },
        "ETag": header("The strong entity tag of the representation."),
        "Location": header("The path of what was created."),
        "Retry-After": {
            "description": "Seconds after which to try again.",
            "schema": { "type": "integer", "minimum": 1 },
        },
        "Server-Timing": {
            "description": "What the data cache did.",
            "schema": { "type": "string", "pattern": "^cache;desc=(hit|stale|load|miss)$" },
        },
        "WWW-Authenticate": header("The challenge (RFC 6750)."),
    })
}
