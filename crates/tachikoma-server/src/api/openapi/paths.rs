//! The operations: which method of which path takes what and answers what.

use serde_json::{Map, Value, json};

use super::{
    responses::{self, body, empty},
    schemas,
};
use crate::api::limits;

/// The problems of every operation that reads the database.
const READS: &[u16] = &[500, 503];
/// The problems of every operation that takes a body, beside those of [`READS`].
const TAKES_BODY: &[u16] = &[400, 408, 413, 415, 422];

/// What the answer to a write carries that the cache was told of.
const TICKET: &[&str] = &["Cache-Ticket"];

/// What one method of a path does.
struct Operation {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    takes: Option<&'static str>,
    needs_session: bool,
    answers: Vec<(u16, Value)>,
    problems: Vec<u16>,
}

impl Operation {
    fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            parameters: &[],
            takes: None,
            needs_session: false,
            answers: Vec::new(),
            problems: READS.to_vec(),
        }
    }

    fn parameters(mut self, names: &'static [&'static str]) -> Self {
        self.parameters = names;
        self
    }

    fn takes(mut self, schema: &'static str) -> Self {
        self.takes = Some(schema);
        self.problems.extend(TAKES_BODY);
        self
    }

    fn needs_session(mut self) -> Self {
        self.needs_session = true;
        self.problems.push(401);
        self
    }

    fn answers(mut self, status: u16, response: Value) -> Self {
        self.answers.push((status, response));
        self
    }

    fn problems(mut self, statuses: &[u16]) -> Self {
        self.problems.extend(statuses);
        self
    }

    /// A read that everybody may make and any cache may keep.
    fn shared(self, description: &str, schema: &str) -> Self {
        let headers = &["ETag", "Cache-Control", "Server-Timing"];
        let not_modified = json!({ "$ref": "#/components/responses/NotModified" });
        self.answers(200, body(description, schema, headers)).answers(304, not_modified)
    }

    fn build(self) -> Value {
        let mut responses: Map<String, Value> =
            self.answers.into_iter().map(|(status, answer)| (status.to_string(), answer)).collect();
        for status in self.problems {
            if let Some(problem) = responses::problem(status) {
                responses.insert(status.to_string(), problem);
            }
        }
        let parameters = self.parameters.iter();
        let parameters =
            parameters.map(|n| json!({ "$ref": format!("#/components/parameters/{n}") }));
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "parameters": parameters.collect::<Vec<_>>(),
            "responses": responses,
        });
        if let Some(schema) = self.takes {
            operation["requestBody"] = json!({
                "required": true,
                "content": { "application/json": { "schema": schemas::reference(schema) } },
            });
        }
        if self.needs_session {
            operation["security"] = json!([{ "session": [] }]);
        }
        operation
    }
}

/// All parameters by name.
pub(super) fn parameters() -> Value {
    let tags = json!({ "type": "string" });
    let header = |name: &str, description: &str| {
        json!({
            "name": name,
            "in": "header",
            "description": description,
            "schema": tags,
        })
    };
    json!({
        "id": {
            "name": "id",
            "in": "path",
            "required": true,
            "schema": { "type": "string", "format": "uuid" },
        },
        "spec_id": {
            "name": "spec_id",
            "in": "path",
            "required": true,
            "schema": {
                "type": "string",
                "maxLength": limits::SPEC_ID_CHARS,
                "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$",
            },
        },
        "page": {
            "name": "page",
            "in": "query",
            "description": "From 1.",
            "schema": {
                "type": "integer", "minimum": 1, "maximum": limits::PAGE_MAX, "default": 1,
            },
        },
        "page_size": {
            "name": "page_size",
            "in": "query",
            "schema": {
                "type": "integer",
                "minimum": 1,
                "maximum": limits::PAGE_SIZE_MAX,
                "default": limits::PAGE_SIZE_DEFAULT,
            },
        },
        "if_match": header("If-Match", "Write only if the entity tag is one of these."),
        "if_none_match": header("If-None-Match", "Entity tags that the client has."),
        "cache_ticket": header("Cache-Ticket", "Of a write: show nothing older than that."),
    })
}

/// All paths.
pub(super) fn paths() -> Value {
    json!({
        "/api/v1/missions": { "get": list_missions(), "post": create_mission() },
        "/api/v1/missions/{id}": {
            "get": get_mission(), "put": update_mission(), "delete": delete_mission(),
        },
        "/api/v1/missions/{id}/specs": { "get": list_specs() },
        "/api/v1/missions/{id}/specs/{spec_id}": { "get": get_spec(), "put": put_spec() },
        "/api/v1/users": { "post": create_user() },
        "/api/v1/users/{id}": { "get": get_user() },
        "/api/v1/sessions": { "post": begin_session() },
        "/api/v1/session": { "get": get_session(), "delete": end_session() },
        "/api/openapi.json": { "get": get_document() },
    })
}

/// The answer when the row is written and the cache could not be told in time.
fn pending(schema: Option<&str>) -> Value {
    let description = "The row is written; the cache has not been told yet.";
    let headers = &["Cache-Invalidation"];
    schema.map_or_else(|| empty(description, headers), |schema| body(description, schema, headers))
}

fn list_missions() -> Value {
    Operation::new("listMissions", "missions", "Read one page of the missions, newest first")
        .parameters(&["page", "page_size", "if_none_match", "cache_ticket"])
        .shared("The page; empty beyond the last.", "MissionPage")
        .problems(&[400])
        .build()
}

fn create_mission() -> Value {
    Operation::new("createMission", "missions", "Create a mission")
        .takes("NewMission")
        .answers(
            201,
            body("The mission is there.", "Mission", &["Location", "ETag", "Cache-Ticket"]),
        )
        .answers(202, pending(Some("Mission")))
        .build()
}

fn get_mission() -> Value {
    Operation::new("getMission", "missions", "Read a mission")
        .parameters(&["id", "if_none_match", "cache_ticket"])
        .shared("The mission.", "Mission")
        .problems(&[400, 404])
        .build()
}

fn update_mission() -> Value {
    Operation::new("updateMission", "missions", "Change a mission")
        .parameters(&["id", "if_match"])
        .takes("MissionChange")
        .answers(200, body("The mission as it is now.", "Mission", TICKET))
        .answers(202, pending(Some("Mission")))
        .problems(&[404, 409, 412])
        .build()
}

fn delete_mission() -> Value {
    Operation::new("deleteMission", "missions", "Delete a mission with its specs")
        .parameters(&["id", "if_match"])
        .answers(204, empty("The mission is gone.", TICKET))
        .answers(202, pending(None))
        .problems(&[400, 404, 412])
        .build()
}

fn list_specs() -> Value {
    Operation::new("listSpecs", "specs", "Read the list of a mission's specs")
        .parameters(&["id", "if_none_match", "cache_ticket"])
        .shared("The specs without their content.", "SpecList")
        .problems(&[400, 404])
        .build()
}

fn get_spec() -> Value {
    Operation::new("getSpec", "specs", "Read a spec")
        .parameters(&["id", "spec_id", "if_none_match", "cache_ticket"])
        .shared("The spec.", "Spec")
        .problems(&[400, 404])
        .build()
}

fn put_spec() -> Value {
    Operation::new("putSpec", "specs", "Create or replace a spec")
        .parameters(&["id", "spec_id", "if_match", "if_none_match"])
        .takes("SpecContent")
        .answers(200, body("The spec as it is now.", "Spec", TICKET))
        .answers(201, body("The spec is there.", "Spec", TICKET))
        .answers(202, pending(Some("Spec")))
        .problems(&[404, 409, 412])
        .build()
}

fn create_user() -> Value {
    Operation::new("createUser", "users", "Create a user")
        .takes("NewUser")
        .answers(
            201,
            body("The user is there.", "User", &["Location", "Cache-Control", "Cache-Ticket"]),
        )
        .problems(&[409])
        .build()
}

fn get_user() -> Value {
    Operation::new("getUser", "users", "Read what everybody may see of a user")
        .parameters(&["id", "cache_ticket"])
        .answers(200, body("The user.", "User", &["Cache-Control", "Server-Timing"]))
        .problems(&[400, 404])
        .build()
}

fn begin_session() -> Value {
    Operation::new("beginSession", "sessions", "Log in")
        .takes("Login")
        .answers(
            201,
            body("The session.", "SessionBegun", &["Location", "Cache-Control", "Cache-Ticket"]),
        )
        .answers(202, pending(Some("SessionBegun")))
        .problems(&[401, 429])
        .build()
}

fn get_session() -> Value {
    Operation::new("getSession", "sessions", "Read whose session it is")
        .parameters(&["cache_ticket"])
        .needs_session()
        .answers(200, body("The session.", "Session", &["Cache-Control", "Server-Timing"]))
        .build()
}

fn end_session() -> Value {
    Operation::new("endSession", "sessions", "Log out")
        .needs_session()
        .answers(204, empty("The session has ended.", TICKET))
        .answers(202, pending(None))
        .build()
}

fn get_document() -> Value {
    let headers = &["ETag", "Cache-Control"];
    let mut document = empty("The document.", headers);
    document["content"] = json!({ "application/json": { "schema": { "type": "object" } } });
    let mut operation = Operation::new("getDocument", "description", "Read this document")
        .parameters(&["if_none_match"])
        .answers(200, document)
        .answers(304, empty("The client has the current document.", headers));
    operation.problems.clear();
    operation.build()
}
