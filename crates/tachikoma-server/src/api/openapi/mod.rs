//! Decides what the API's OpenAPI 3.1 document says, and answers `GET /api/openapi.json` with it.
//!
//! Built from the constants that the handlers obey, so that bounds are written down once. A test
//! walks the document and asks the router for each path, method and status.

mod paths;
mod responses;
mod schemas;

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use blake2::{Blake2s128, Digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::revision;

/// The document as JSON text, and its strong entity tag.
static DOCUMENT: LazyLock<(Bytes, String)> = LazyLock::new(|| {
    let text = document().to_string();
    let hash: [u8; 16] = Blake2s128::digest(&text).into();
    (Bytes::from(text), format!("\"{:x}\"", u128::from_be_bytes(hash)))
});

/// The whole document.
fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "tachikoma reference API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Missions, their specs, users and sessions behind a data cache.",
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [
            { "name": "missions", "description": "What is to be done." },
            { "name": "specs", "description": "How a mission is to be done." },
            { "name": "users", "description": "Who may have a session." },
            { "name": "sessions", "description": "Login, who am I, logout." },
            { "name": "description", "description": "This document." },
        ],
        "paths": paths::paths(),
        "components": {
            "schemas": schemas::schemas(),
            "parameters": paths::parameters(),
            "headers": responses::headers(),
            "responses": responses::responses(),
            "securitySchemes": {
                "session": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of POST /api/v1/sessions.",
                },
            },
        },
    })
}

const DESCRIPTION: &str = "\
Reads go through a data cache and say in `Server-Timing` what it did: `hit`, `stale`, `load` (the \
database was read) or `miss` (the cache could not be used). A read without such a row is 404 and \
is not kept.

A write is committed and then taken out of the cache. 200, 201 and 204 mean that both are done. \
202 with `Cache-Invalidation: pending` means that the row is \
written and the cache could not be told in time; it is told as soon as possible.

Other nodes of this API may show what was there before for a moment (a second by default). A read \
that brings the `Cache-Ticket` of a write along never does, on any node.

Missions and specs carry a strong `ETag`; `If-None-Match` on a read gives 304, `If-Match` on a \
write 412. A `version` in the body of a write is the version that the caller has seen; if it is \
another one by now, nothing is written and the answer is 409.

Every error is an `application/problem+json` (RFC 9457). HEAD is allowed wherever GET is.";

/// `GET /api/openapi.json`. `no-cache`: a later version of the program has another document.
pub(crate) async fn get(headers: HeaderMap) -> Response {
    let (text, etag) = &*DOCUMENT;
    let mut response = if revision::not_modified(&headers, etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let media_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        ([media_type], text.clone()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Hexadecimal digits in quotes.
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}
