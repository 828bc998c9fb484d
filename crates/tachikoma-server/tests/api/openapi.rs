//! The document and the router say the same.

use std::collections::BTreeSet;

use http::{Method, header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Api, Reply, json_request, request};

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "patch", "options", "trace", "head"];

async fn document(api: &Api) -> Value {
    api.get("/api/openapi.json").await.check(200).json()
}

/// Follows a reference within the document.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').unwrap();
            let found = document.pointer(pointer);
            resolve(document, found.unwrap_or_else(|| panic!("{reference} leads nowhere")))
        }
        None => value,
    }
}

/// All references in a value.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_component_is_used() {
    let (_file, api, _clock) = Api::new().await;
    let document = document(&api).await;
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    for reference in &used {
        resolve(&document, &json!({ "$ref": reference }));
    }
    for kind in ["schemas", "parameters", "headers", "responses"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(used.contains(reference.as_str()), "{reference} is not used");
        }
    }
}

/// What the document says of a method of a path, by the path with its ids filled in.
struct Documented<'a> {
    document: &'a Value,
    template: &'a str,
    method: &'a str,
}

impl Documented<'_> {
    fn operation(&self) -> &Value {
        &self.document["paths"][self.template][self.method]
    }

    /// Fails unless the answer has a documented status, media type, headers and body.
    #[track_caller]
    fn check(&self, reply: &Reply) {
        let at = format!("{} {} -> {}", self.method, self.template, reply.status);
        let response = &self.operation()["responses"][reply.status.as_str()];
        assert!(response.is_object(), "{at} is not documented");
        let response = resolve(self.document, response);
        for name in response["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
            assert!(reply.headers.contains_key(name.as_str()), "{at}: {name} is missing");
        }
        let Some(content) = response["content"].as_object() else {
            assert!(reply.body.is_empty(), "{at} has a body");
            return;
        };
        let (media_type, content) = content.iter().next().unwrap();
        assert_eq!(reply.header("content-type"), media_type, "{at}");
        let wrong = mismatch(self.document, &content["schema"], &reply.json());
        assert_eq!(wrong, None, "{at}: {}", reply.json());
    }
}

/// Where a value is not as its schema says: types, required and unknown fields, words, bounds.
fn mismatch(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let schema = resolve(document, schema);
    let types: Vec<_> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let actual = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.is_empty() && !types.contains(&actual) {
        return Some(format!("{value} is not {types:?}"));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Some(format!("{value} is not in {}", schema["enum"]));
    }
    if schema.get("const").is_some_and(|word| word != value) {
        return Some(format!("{value} is not {}", schema["const"]));
    }
    if let (Some(number), Some(least)) = (value.as_u64(), schema["minimum"].as_u64())
        && number < least
    {
        return Some(format!("{number} is less than {least}"));
    }
    if schema["format"] == "uuid"
        && value.as_str().is_none_or(|text| Uuid::try_parse(text).is_err())
    {
        return Some(format!("{value} is no UUID"));
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        return values.iter().find_map(|value| mismatch(document, items, value));
    }
    let (Some(properties), Some(members)) = (schema["properties"].as_object(), value.as_object())
    else {
        return None;
    };
    let required = schema["required"].as_array().into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if !members.contains_key(name) {
            return Some(format!("{name} is missing"));
        }
    }
    members.iter().find_map(|(name, value)| match properties.get(name) {
        Some(schema) => mismatch(document, schema, value),
        None => Some(format!("{name} is not documented")),
    })
}

/// Calls each operation so that it answers with as many of its statuses as a client can cause.
struct Tour<'a> {
    api: &'a Api,
    document: &'a Value,
    seen: BTreeSet<String>,
}

impl Tour<'_> {
    async fn call(
        &mut self,
        method: &str,
        template: &str,
        path: &str,
        body: Option<Value>,
    ) -> Reply {
        self.call_with(method, template, path, body, &[]).await
    }

    async fn call_with(
        &mut self,
        method: &str,
        template: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(header::HeaderName, &str)],
    ) -> Reply {
        let verb = method.to_uppercase().parse::<Method>().unwrap();
        let mut sent = match &body {
            Some(body) => json_request(verb, path, body),
            None => request(verb, path),
        };
        for (name, value) in headers {
            sent.headers_mut().insert(name, value.parse().unwrap());
        }
        let reply = self.api.send(sent).await;
        Documented { document: self.document, template, method }.check(&reply);
        self.seen.insert(format!("{method} {template} {}", reply.status.as_u16()));
        reply
    }

    /// The statuses that every operation with a body shares.
    async fn wrong_bodies(&mut self, method: &str, template: &str, path: &str) {
        self.call(method, template, path, Some(json!({ "nonsense": 1 }))).await.problem(422);
        self.call(method, template, path, None).await.problem(415);
        let huge = [(header::CONTENT_LENGTH, "1048577")];
        self.call_with(method, template, path, Some(json!({})), &huge).await.problem(413);
        let verb = method.to_uppercase().parse::<Method>().unwrap();
        let mut broken = json_request(verb, path, &json!(0));
        *broken.body_mut() = "{".into();
        let reply = self.api.send(broken).await;
        reply.problem(400);
        Documented { document: self.document, template, method }.check(&reply);
        self.seen.insert(format!("{method} {template} 400"));
    }
}

const MISSIONS: &str = "/api/v1/missions";
const MISSION: &str = "/api/v1/missions/{id}";
const SPECS: &str = "/api/v1/missions/{id}/specs";
const SPEC: &str = "/api/v1/missions/{id}/specs/{spec_id}";

impl Tour<'_> {
    async fn missions(&mut self) {
        let created = self.call("post", MISSIONS, MISSIONS, Some(json!({ "title": "t" }))).await;
        let path = created.header("location").to_owned();
        self.wrong_bodies("post", MISSIONS, MISSIONS).await;
        self.wrong_bodies("put", MISSION, &path).await;
        let nowhere = format!("{MISSIONS}/{}", Uuid::nil());
        let any = [(header::IF_NONE_MATCH, "*")];
        let none = [(header::IF_MATCH, "\"none\"")];

        self.call("get", MISSIONS, MISSIONS, None).await.check(200);
        self.call_with("get", MISSIONS, MISSIONS, None, &any).await.check(304);
        self.call("get", MISSIONS, "/api/v1/missions?page=x", None).await.problem(400);

        self.call("get", MISSION, &path, None).await.check(200);
        self.call_with("get", MISSION, &path, None, &any).await.check(304);
        self.call("get", MISSION, &nowhere, None).await.problem(404);
        self.call("get", MISSION, "/api/v1/missions/x", None).await.problem(400);

        let change = |version: u32| Some(json!({ "title": "u", "version": version }));
        self.call("put", MISSION, &path, change(1)).await.check(200);
        self.call("put", MISSION, &path, change(1)).await.problem(409);
        self.call("put", MISSION, &nowhere, change(1)).await.problem(404);
        self.call_with("put", MISSION, &path, change(2), &none).await.problem(412);
        self.specs(&path, &nowhere).await;

        self.call_with("delete", MISSION, &path, None, &none).await.problem(412);
        self.call("delete", MISSION, &path, None).await.check(204);
        self.call("delete", MISSION, &path, None).await.problem(404);
        self.call("delete", MISSION, "/api/v1/missions/x", None).await.problem(400);
    }

    async fn specs(&mut self, mission: &str, nowhere: &str) {
        let (list, path) = (format!("{mission}/specs"), format!("{mission}/specs/338"));
        let any = [(header::IF_NONE_MATCH, "*")];
        let body = || Some(json!({ "title": "t", "content": "c" }));
        self.call("put", SPEC, &path, body()).await.check(201);
        self.call("put", SPEC, &path, body()).await.check(200);
        self.call("put", SPEC, &path, Some(json!({ "title": "t", "version": 9 })))
            .await
            .problem(409);
        self.call_with("put", SPEC, &path, body(), &any).await.problem(412);
        self.call("put", SPEC, &format!("{nowhere}/specs/a"), body()).await.problem(404);
        self.wrong_bodies("put", SPEC, &path).await;

        self.call("get", SPEC, &path, None).await.check(200);
        self.call_with("get", SPEC, &path, None, &any).await.check(304);
        self.call("get", SPEC, &format!("{list}/other"), None).await.problem(404);
        self.call("get", SPEC, &format!("{list}/*"), None).await.problem(400);

        self.call("get", SPECS, &list, None).await.check(200);
        self.call_with("get", SPECS, &list, None, &any).await.check(304);
        self.call("get", SPECS, &format!("{nowhere}/specs"), None).await.problem(404);
        self.call("get", SPECS, "/api/v1/missions/x/specs", None).await.problem(400);
    }

    async fn users(&mut self) {
        let (users, user) = ("/api/v1/users", "/api/v1/users/{id}");
        let (sessions, session) = ("/api/v1/sessions", "/api/v1/session");
        let new = json!({ "name": "n", "email": "a@b", "password": "12345678" });
        let created = self.call("post", users, users, Some(new.clone())).await;
        let path = created.check(201).header("location").to_owned();
        self.call("post", users, users, Some(new)).await.problem(409);
        self.wrong_bodies("post", users, users).await;
        self.call("get", user, &path, None).await.check(200);
        self.call("get", user, &format!("{users}/{}", Uuid::nil()), None).await.problem(404);
        self.call("get", user, "/api/v1/users/x", None).await.problem(400);

        let login = |password: &str| Some(json!({ "email": "a@b", "password": password }));
        let begun =
            self.call("post", sessions, sessions, login("12345678")).await.check(201).json();
        for _ in 0..10 {
            self.call("post", sessions, sessions, login("wrong")).await.problem(401);
        }
        self.call("post", sessions, sessions, login("wrong")).await.problem(429);
        self.wrong_bodies("post", sessions, sessions).await;

        let bearer = format!("Bearer {}", begun["token"].as_str().unwrap());
        let bearer = [(header::AUTHORIZATION, bearer.as_str())];
        self.call_with("get", session, session, None, &bearer).await.check(200);
        self.call("get", session, session, None).await.problem(401);
        self.call_with("delete", session, session, None, &bearer).await.check(204);
        self.call("delete", session, session, None).await.problem(401);
    }
}

/// What a client cannot cause at will: a slow body, a cache or a database that is away.
const OUT_OF_REACH: [&str; 4] = ["202", "408", "500", "503"];

#[tokio::test]
async fn each_operation_answers_with_its_documented_statuses_and_no_other() {
    let (_file, api, _clock) = Api::new().await;
    let document = document(&api).await;
    let mut tour = Tour { api: &api, document: &document, seen: BTreeSet::new() };
    tour.missions().await;
    tour.users().await;
    let at = "/api/openapi.json";
    tour.call("get", at, at, None).await.check(200);
    tour.call_with("get", at, at, None, &[(header::IF_NONE_MATCH, "*")]).await.check(304);

    let mut documented = BTreeSet::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let statuses = operation["responses"].as_object().unwrap().keys();
            let reachable = statuses.filter(|status| !OUT_OF_REACH.contains(&status.as_str()));
            documented.extend(reachable.map(|status| format!("{method} {template} {status}")));
        }
    }
    assert_eq!(tour.seen, documented);
}

#[tokio::test]
async fn a_method_that_is_not_documented_is_not_allowed() {
    let (_file, api, _clock) = Api::new().await;
    let document = document(&api).await;
    for (template, item) in document["paths"].as_object().unwrap() {
        let path = template.replace("{id}", &Uuid::nil().to_string()).replace("{spec_id}", "a");
        for method in METHODS {
            let documented = item.get(method).is_some();
            let also_head = method == "head" && item.get("get").is_some();
            let verb = method.to_uppercase().parse::<Method>().unwrap();
            let status = api.send(request(verb, &path)).await.status.as_u16();
            assert_eq!(status == 405, !documented && !also_head, "{method} {template}: {status}");
        }
    }
}
