//! Hostile and mistaken requests: each is answered with a problem, none harms.

use axum::body::Body;
use http::{Method, Request, header};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Api, json_request, request};

fn raw(method: Method, path: &str, media_type: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.header(header::CONTENT_TYPE, media_type).body(body.into()).unwrap()
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_problems() {
    let (_file, api, _clock) = Api::new().await;
    for path in
        ["/", "/api", "/api/v1", "/api/v2/missions", "/api/v1/missions/", "/%00", "/api/%ff"]
    {
        let problem = api.get(path).await.problem(404);
        assert_eq!(problem["type"], "urn:tachikoma:problem:no-such-route", "{path}");
    }
    let cases = [
        (Method::PATCH, "/api/v1/missions", "GET,HEAD,POST"),
        (Method::POST, "/api/v1/session", "DELETE,GET,HEAD"),
        (Method::TRACE, "/api/v1/users", "POST"),
        (Method::OPTIONS, "/api/openapi.json", "GET,HEAD"),
    ];
    for (method, path, allowed) in cases {
        let refused = api.send(request(method.clone(), path)).await;
        let problem = refused.problem(405);
        assert!(problem["detail"].as_str().unwrap().contains(method.as_str()), "{problem}");
        let mut allow: Vec<_> = refused.header("allow").split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow.join(","), allowed, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_object_says_so_and_where() {
    let (_file, api, _clock) = Api::new().await;
    let path = "/api/v1/missions";
    let cases: [(&str, u16); 11] = [
        ("", 400),
        ("{", 400),
        ("{\"title\":}", 400),
        ("{\"title\":\"a\"} {}", 400),
        ("{'title':'a'}", 400),
        ("{\"title\":\"\\ud800\"}", 400),
        ("{\"title\":NaN}", 400),
        ("null", 422),
        ("[]", 422),
        ("\"title\"", 422),
        ("7", 422),
    ];
    for (body, expected) in cases {
        let problem = api.send(raw(Method::POST, path, "application/json", body)).await;
        let problem = problem.problem(expected);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("JSON"), "{body}: {detail}");
    }
    let utf8 =
        api.send(raw(Method::POST, path, "application/json", &b"{\"title\":\"\xff\"}"[..])).await;
    utf8.problem(400);
    let deep = format!("{{\"title\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    api.send(raw(Method::POST, path, "application/json", deep)).await.problem(400);
}

#[tokio::test]
async fn only_json_without_a_coding_is_taken() {
    let (_file, api, _clock) = Api::new().await;
    let (path, body) = ("/api/v1/missions", r#"{"title":"t"}"#);
    for taken in ["application/json", "Application/JSON; charset=utf-8", "application/x+json"] {
        api.send(raw(Method::POST, path, taken, body)).await.check(201);
    }
    for refused in ["text/plain", "application/xml", "json", "application/jsonx", ""] {
        let problem = api.send(raw(Method::POST, path, refused, body)).await.problem(415);
        assert_eq!(problem["errors"][0]["field"], "header.content-type");
        assert_eq!(problem["errors"][0]["value"], refused);
    }
    let mut none = request(Method::POST, path);
    *none.body_mut() = Body::from(body);
    api.send(none).await.problem(415);
    let mut coded = json_request(Method::POST, path, &json!({ "title": "t" }));
    coded.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    api.send(coded).await.problem(415);
}

#[tokio::test]
async fn a_body_has_at_most_one_mebibyte_announced_or_not() {
    let (_file, api, _clock) = Api::new().await;
    let path = "/api/v1/missions";
    let padded = |bytes: usize| {
        let start = r#"{"title":"t"}"#;
        format!("{start}{}", " ".repeat(bytes - start.len()))
    };
    let exact = raw(Method::POST, path, "application/json", padded(1 << 20));
    api.send(exact).await.check(201);
    let streamed = raw(Method::POST, path, "application/json", padded((1 << 20) + 1));
    api.send(streamed).await.problem(413);
    let mut announced = json_request(Method::POST, path, &json!({ "title": "t" }));
    announced.headers_mut().insert(header::CONTENT_LENGTH, "99999999999".parse().unwrap());
    api.send(announced).await.problem(413);
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let (_file, api, _clock) = Api::new().await;
    tokio::time::pause();
    let endless = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let body = Body::from_stream(endless);
    let refused = api.send(raw(Method::POST, "/api/v1/missions", "application/json", body)).await;
    refused.problem(408);
}

#[tokio::test]
async fn an_id_is_a_hyphenated_uuid() {
    let (_file, api, _clock) = Api::new().await;
    let nil = Uuid::nil();
    let cases = [
        "1".to_owned(),
        "mission".to_owned(),
        nil.simple().to_string(),
        format!("%7B{nil}%7D"),
        format!("urn:uuid:{nil}"),
        format!("{nil}'%20OR%201=1--"),
        format!("{nil}%00"),
        "%E2%98%83".to_owned(),
        "%C3%A9".repeat(18),
        "a".repeat(5_000),
    ];
    for id in cases {
        for path in
            [format!("missions/{id}"), format!("missions/{id}/specs"), format!("users/{id}")]
        {
            let problem = api.get(&format!("/api/v1/{path}")).await.problem(400);
            assert_eq!(problem["errors"][0]["field"], "path.id", "{path}");
            assert!(problem["detail"].as_str().unwrap().len() < 400, "{problem}");
        }
    }
    api.get("/api/v1/missions/%FF%FE").await.problem(400);
    api.get(&format!("/api/v1/missions/{}", nil.to_string().to_uppercase())).await.problem(404);
}

#[tokio::test]
async fn a_spec_id_is_a_plain_word() {
    let (_file, api, _clock) = Api::new().await;
    let specs = format!("{}/specs", api.mission("m").await);
    for id in ["%20", "a%2Fb", "*", "a:b", "%2e%2e", ".", "-", "%C3%A9", "a%00", &"x".repeat(65)] {
        let problem = api.put(&format!("{specs}/{id}"), json!({ "title": "t" })).await.problem(400);
        assert_eq!(problem["errors"][0]["field"], "path.spec_id", "{id}");
    }
}

#[tokio::test]
async fn a_wrong_page_is_named() {
    let (_file, api, _clock) = Api::new().await;
    for (query, field) in [
        ("page=0", "query.page"),
        ("page=-1", "query.page"),
        ("page=18446744073709551616", "query.page"),
        ("page=1;DROP TABLE missions", "query.page"),
        ("page=%00", "query.page"),
        ("page_size=101", "query.page_size"),
        ("page_size=", "query.page_size"),
        ("page=1&page=2", "query.page"),
        ("limit=5", "query.limit"),
    ] {
        let path = format!("/api/v1/missions?{}", query.replace(' ', "%20"));
        let problem = api.get(&path).await.problem(400);
        assert_eq!(problem["errors"][0]["field"], field, "{query}");
    }
}

#[tokio::test]
async fn texts_that_look_like_sql_are_texts() {
    let (_file, api, _clock) = Api::new().await;
    let nasty = [
        "'; DROP TABLE missions; --",
        "\" OR 1=1 --",
        "Robert'); DELETE FROM users;",
        "%_%' ESCAPE '\\",
        "{{7*7}} ${7*7} <script>",
        "👩‍🚀 mission Ωμέγα \u{202e}rtl\u{202c} Ａ",
        "e\u{301}",
    ];
    for text in nasty {
        let body = json!({ "title": text, "description": text });
        let created = api.post("/api/v1/missions", body).await.check(201).json();
        assert_eq!((&created["title"], &created["description"]), (&json!(text), &json!(text)));
        let path = format!("/api/v1/missions/{}", created["id"].as_str().unwrap());
        assert_eq!(api.get(&path).await.json()["title"], text);
        let spec = format!("{path}/specs/a");
        api.put(&spec, json!({ "title": text, "content": text })).await.check(201);
        assert_eq!(api.get(&spec).await.json()["content"], text);
        let login = json!({ "email": "a@b", "password": text });
        api.post("/api/v1/sessions", login).await.problem(401);
    }
    assert_eq!(api.get("/api/v1/missions").await.json()["total"], nasty.len());
}

#[tokio::test]
async fn every_wrong_field_is_named_and_nul_is_refused() {
    let (_file, api, _clock) = Api::new().await;
    let body = json!({ "title": "a\0b", "description": "\0", "status": "done", "colour": 1 });
    let problem = api.post("/api/v1/missions", body).await.problem(422);
    let errors = problem["errors"].as_array().unwrap();
    let fields: Vec<_> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["body.title", "body.description", "body.status", "body.colour"]);
    assert_eq!(errors[2]["value"], "done");
    assert_eq!(errors[2]["allowed"], "one of planned, active, completed, cancelled");
    let path = api.mission("m").await;
    for empty in [json!({}), json!({ "version": 1 })] {
        api.put(&path, empty).await.problem(422);
    }
    api.put(&path, json!({ "title": "t", "version": 0 })).await.problem(422);
}

/// Any JSON, a little deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(\\PC|[\\x00-\\x1f]){0,12}".prop_map(Value::from),
    ];
    let name = "title|description|status|version|content|\\PC{0,6}";
    leaf.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name, inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..Default::default() })]

    #[test]
    fn whatever_is_sent_the_answer_is_an_expected_status(
        bodies in prop::collection::vec(any_json(), 20),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_file, api, _clock) = Api::new().await;
            let mission = api.mission("m").await;
            for body in bodies {
                let created = api.post("/api/v1/missions", body.clone()).await.status.as_u16();
                assert!(matches!(created, 201 | 422), "POST {body}: {created}");
                let put = api.put(&mission, body.clone()).await.status.as_u16();
                assert!(matches!(put, 200 | 409 | 422), "PUT {body}: {put}");
                let spec = format!("{mission}/specs/a");
                let put = api.put(&spec, body.clone()).await.status.as_u16();
                assert!(matches!(put, 200 | 201 | 409 | 422), "PUT spec {body}: {put}");
            }
        });
    }
}
