//! The schemas of request and response bodies, JSON Schema 2020-12.

use serde_json::{Map, Value, json};

use crate::api::{limits, model::MissionStatus, problem::Kind};

/// One line: no control characters, white space not at the beginning.
const LINE: &str = r"^[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
/// Lines: no control characters but tab, line feed and carriage return.
const LINES: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$";
/// One @ with something on both sides.
const EMAIL: &str = r"^[^\s@\u0000-\u001f\u007f-\u009f]+@[^\s@\u0000-\u001f\u007f-\u009f]+$";

/// A reference to a schema of this document.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn line() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": limits::TITLE_CHARS, "pattern": LINE })
}

fn lines(most: usize) -> Value {
    json!({ "type": "string", "maxLength": most, "pattern": LINES })
}

fn time(description: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": description })
}

fn id(description: &str) -> Value {
    json!({ "type": "string", "format": "uuid", "description": description })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// A response body: all its fields are always there.
fn answer(description: &str, properties: Value) -> Value {
    let required: Vec<_> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    let mut schema = json!({ "type": "object", "description": description, "required": required });
    schema["properties"] = properties;
    schema
}

/// A request body: no other fields than these.
fn request(description: &str, required: &[&str], properties: Value) -> Value {
    let mut schema = json!({ "type": "object", "description": description, "required": required });
    schema["properties"] = properties;
    schema["additionalProperties"] = Value::Bool(false);
    schema
}

fn expected_version() -> Value {
    json!({
        "type": "integer",
        "minimum": 1,
        "maximum": u32::MAX,
        "description": "The version that the caller has seen. If it is another one by now, or \
            there is no such row, nothing is written and the answer is 409. Left out: any version.",
    })
}

/// All schemas by name.
pub(super) fn schemas() -> Value {
    let mut all = json!({});
    for part in [missions(), specs(), users(), problems()] {
        if let (Some(all), Value::Object(part)) = (all.as_object_mut(), part) {
            all.extend(part);
        }
    }
    all
}

fn missions() -> Value {
    let status: Vec<_> = MissionStatus::ALL.iter().map(|status| status.as_str()).collect();
    let version = json!({ "type": "integer", "minimum": 1 });
    json!({
        "MissionStatus": { "type": "string", "enum": status },
        "Version": version,
        "NewMission": request("A mission to be created.", &["title"], json!({
            "title": line(),
            "description": lines(limits::DESCRIPTION_CHARS),
            "status": reference("MissionStatus"),
        })),
        "MissionChange": {
            "allOf": [request(
                "What changes of a mission: at least one of title, description and status. What is \
                 left out stays as it is.",
                &[],
                json!({
                    "title": line(),
                    "description": lines(limits::DESCRIPTION_CHARS),
                    "status": reference("MissionStatus"),
                    "version": expected_version(),
                }),
            )],
            "anyOf": [
                { "required": ["title"] },
                { "required": ["description"] },
                { "required": ["status"] },
            ],
        },
        "Mission": answer("A mission.", json!({
            "id": id("Chosen by the server."),
            "title": { "type": "string" },
            "description": { "type": "string" },
            "status": reference("MissionStatus"),
            "version": reference("Version"),
            "created_at": time("When it was created."),
            "updated_at": time("When its version last changed."),
        })),
        "MissionPage": answer("One page of the missions, newest first.", json!({
            "items": { "type": "array", "items": reference("Mission") },
            "page": { "type": "integer", "minimum": 1, "maximum": limits::PAGE_MAX },
            "page_size": { "type": "integer", "minimum": 1, "maximum": limits::PAGE_SIZE_MAX },
            "total": count(),
        })),
    })
}

fn specs() -> Value {
    let spec_id = json!({ "type": "string" });
    json!({
        "SpecContent": request("The whole spec.", &["title"], json!({
            "title": line(),
            "content": lines(limits::CONTENT_CHARS),
            "version": expected_version(),
        })),
        "Spec": answer("A spec of a mission.", json!({
            "mission_id": id("The mission that it belongs to."),
            "spec_id": spec_id,
            "title": { "type": "string" },
            "content": { "type": "string" },
            "version": reference("Version"),
            "created_at": time("When it was created."),
            "updated_at": time("When its version last changed."),
        })),
        "SpecSummary": answer("A spec without its content.", json!({
            "spec_id": spec_id,
            "title": { "type": "string" },
            "version": reference("Version"),
            "created_at": time("When it was created."),
            "updated_at": time("When its version last changed."),
        })),
        "SpecList": answer("All specs of a mission, by spec id.", json!({
            "mission_id": id("The mission that they belong to."),
            "items": { "type": "array", "items": reference("SpecSummary") },
            "total": count(),
        })),
    })
}

fn users() -> Value {
    let last_login = json!({
        "type": ["string", "null"],
        "format": "date-time",
        "description": "When a session was last begun; null before the first.",
    });
    let user = json!({
        "id": id("Chosen by the server."),
        "name": { "type": "string" },
        "created_at": time("When the account was made."),
        "last_login_at": last_login,
    });
    let mut account = user.clone();
    account["email"] = json!({ "type": "string", "description": "In lower case." });
    let email = json!({ "type": "string", "maxLength": limits::EMAIL_CHARS, "pattern": EMAIL });
    json!({
        "NewUser": request("A user to be created.", &["name", "email", "password"], json!({
            "name": line(),
            "email": email,
            "password": {
                "type": "string",
                "format": "password",
                "minLength": limits::PASSWORD_MIN_CHARS,
                "maxLength": limits::PASSWORD_MAX_CHARS,
            },
        })),
        "Login": request("Who begins a session.", &["email", "password"], json!({
            "email": email,
            "password": {
                "type": "string",
                "format": "password",
                "maxLength": limits::PASSWORD_MAX_CHARS,
            },
        })),
        "User": answer("A user as everybody may see it.", user),
        "Account": answer("A user as only its owner may see it.", account),
        "SessionBegun": answer("A new session with its token, which is shown only here.", json!({
            "token": { "type": "string", "pattern": "^[0-9a-f]{64}$" },
            "token_type": { "type": "string", "const": "Bearer" },
            "user_id": id("Whose session it is."),
            "created_at": time("When it was begun."),
            "expires_at": time("From this time on the token is refused."),
        })),
        "Session": answer("Whose session it is.", json!({
            "user": reference("Account"),
            "created_at": time("When it was begun."),
            "expires_at": time("From this time on the token is refused."),
        })),
    })
}

fn problems() -> Value {
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.urn()).collect();
    json!({
        "Problem": {
            "type": "object",
            "description": "What went wrong (RFC 9457).",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": { "type": "string", "enum": kinds },
                "title": { "type": "string" },
                "status": { "type": "integer", "minimum": 400, "maximum": 599 },
                "detail": { "type": "string", "description": "About this request." },
                "errors": { "type": "array", "minItems": 1, "items": reference("FieldError") },
            },
        },
        "FieldError": {
            "type": "object",
            "required": ["field", "allowed"],
            "properties": {
                "field": {
                    "type": "string",
                    "description": "Where: body.title, path.id, query.page, header.content-type.",
                },
                "value": {
                    "type": "string",
                    "description": "What was there, shortened; left out when nothing was there or \
                        it is a secret.",
                },
                "allowed": { "type": "string", "description": "What may be there." },
            },
        },
    })
}
