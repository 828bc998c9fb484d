//! Missions: create, read, list, update, delete.

use http::{Method, header};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Api, json_request, request};

#[tokio::test]
async fn a_mission_lives_from_its_creation_to_its_deletion() {
    let (_file, api, clock) = Api::new().await;
    let body = json!({ "title": "Escort", "description": "To the ridge.", "status": "active" });
    let created = api.post("/api/v1/missions", body).await;
    created.check(201);
    let mission = created.json();
    let path = format!("/api/v1/missions/{}", mission["id"].as_str().unwrap());
    assert_eq!(created.header("location"), path);
    assert_eq!(mission["version"], 1);
    assert_eq!(mission["status"], "active");
    assert_eq!(mission["created_at"], "2001-09-09T01:46:40.000Z");
    assert_eq!(api.get(&path).await.check(200).json(), mission);

    clock.advance(std::time::Duration::from_millis(1_500));
    let updated = api.put(&path, json!({ "status": "completed", "version": 1 })).await;
    let updated = updated.check(200).json();
    assert_eq!(updated["version"], 2);
    assert_eq!(updated["status"], "completed");
    assert_eq!(updated["title"], "Escort");
    assert_eq!(updated["description"], "To the ridge.");
    assert_eq!(updated["created_at"], mission["created_at"]);
    assert_eq!(updated["updated_at"], "2001-09-09T01:46:41.500Z");
    assert_eq!(api.get(&path).await.json(), updated);

    let deleted = api.delete(&path).await;
    deleted.check(204);
    assert!(deleted.body.is_empty());
    api.get(&path).await.problem(404);
    api.put(&path, json!({ "title": "again" })).await.problem(404);
    api.delete(&path).await.problem(404);
}

#[tokio::test]
async fn a_mission_needs_a_title_only() {
    let (_file, api, _clock) = Api::new().await;
    let mission = api.post("/api/v1/missions", json!({ "title": "t" })).await.check(201).json();
    assert_eq!((&mission["description"], &mission["status"]), (&json!(""), &json!("planned")));
}

#[tokio::test]
async fn a_stale_version_is_a_conflict_that_names_the_current_one() {
    let (_file, api, _clock) = Api::new().await;
    let path = api.mission("m").await;
    api.put(&path, json!({ "title": "second", "version": 1 })).await.check(200);
    let problem = api.put(&path, json!({ "title": "late", "version": 1 })).await.problem(409);
    assert_eq!(problem["type"], "urn:tachikoma:problem:stale-version");
    assert_eq!(problem["errors"][0]["field"], "body.version");
    assert_eq!(problem["errors"][0]["value"], "1");
    assert!(problem["errors"][0]["allowed"].as_str().unwrap().starts_with("2,"), "{problem}");
    let mission = api.get(&path).await.json();
    assert_eq!((&mission["title"], &mission["version"]), (&json!("second"), &json!(2)));
}

#[tokio::test]
async fn entity_tags_answer_reads_with_304_and_guard_writes_with_412() {
    let (_file, api, _clock) = Api::new().await;
    let path = api.mission("m").await;
    let first = api.get(&path).await;
    let etag = first.header("etag").to_owned();
    assert!(etag.starts_with('"'), "a strong tag: {etag}");
    assert_eq!(first.header("cache-control"), "no-cache");

    let same = api.get_with(&path, header::IF_NONE_MATCH, &etag).await;
    same.check(304);
    assert!(same.body.is_empty());
    assert_eq!(same.header("etag"), etag);
    assert_eq!(same.timing(), "hit");

    let conditional = |method, body: &serde_json::Value| {
        let mut request = json_request(method, &path, body);
        request.headers_mut().insert(header::IF_MATCH, etag.parse().unwrap());
        request
    };
    api.send(conditional(Method::PUT, &json!({ "title": "n" }))).await.check(200);
    api.send(conditional(Method::PUT, &json!({ "title": "o" }))).await.problem(412);
    api.send(conditional(Method::DELETE, &json!({}))).await.problem(412);
    let changed = api.get_with(&path, header::IF_NONE_MATCH, &etag).await;
    changed.check(200);
    assert_ne!(changed.header("etag"), etag);
    assert_eq!(changed.json()["title"], "n");
}

#[tokio::test]
async fn pages_show_all_missions_newest_first_with_their_total() {
    let (_file, api, _clock) = Api::new().await;
    for n in 0..25 {
        api.mission(&format!("m{n}")).await;
    }
    let first = api.get("/api/v1/missions").await.check(200).json();
    assert_eq!((&first["page"], &first["page_size"]), (&json!(1), &json!(20)));
    assert_eq!((&first["total"], first["items"].as_array().unwrap().len()), (&json!(25), 20));
    assert_eq!(first["items"][0]["title"], "m24");
    let last = api.get("/api/v1/missions?page=3&page_size=10").await.json();
    assert_eq!(last["items"].as_array().unwrap().len(), 5);
    assert_eq!(last["items"][4]["title"], "m0");
    let beyond = api.get("/api/v1/missions?page=1000000&page_size=100").await.check(200).json();
    assert_eq!((&beyond["items"], &beyond["total"]), (&json!([]), &json!(25)));
}

#[tokio::test]
async fn the_tag_of_a_page_changes_when_a_mission_of_it_does() {
    let (_file, api, _clock) = Api::new().await;
    let path = api.mission("m").await;
    let before = api.get("/api/v1/missions").await.header("etag").to_owned();
    let same = api.get_with("/api/v1/missions", header::IF_NONE_MATCH, &before).await;
    same.check(304);
    api.put(&path, json!({ "status": "active" })).await.check(200);
    let after = api.get_with("/api/v1/missions", header::IF_NONE_MATCH, &before).await;
    assert_eq!(after.check(200).json()["items"][0]["status"], "active");
}

#[tokio::test]
async fn head_says_what_get_says_without_the_body() {
    let (_file, api, _clock) = Api::new().await;
    let path = api.mission("m").await;
    let get = api.get(&path).await;
    let head = api.send(request(Method::HEAD, &path)).await;
    head.check(200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("etag"), get.header("etag"));
    api.send(request(Method::HEAD, &format!("/api/v1/missions/{}", Uuid::nil()))).await.check(404);
}

#[tokio::test]
async fn seeding_fills_pages_specs_and_totals() {
    let (_file, api, _clock) = Api::new().await;
    assert_eq!(api.get("/api/v1/missions").await.json()["total"], 0);
    let seeded = tachikoma_server::api::seed(&api.state, 1_203).await.unwrap();
    let page = api.get("/api/v1/missions").await;
    assert_eq!((page.timing(), &page.json()["total"]), ("load", &json!(1_203)));
    let with_specs = seeded.missions[3];
    let specs = api.get(&format!("/api/v1/missions/{with_specs}/specs")).await.check(200).json();
    assert_eq!(specs["total"], 3);
    let spec = format!("/api/v1/missions/{with_specs}/specs/part-1");
    api.get(&spec).await.check(200);
    // What the seed writes keeps the rules that requests keep.
    let mission = api.get(&format!("/api/v1/missions/{with_specs}")).await.json();
    let (title, description) = (&mission["title"], &mission["description"]);
    api.post("/api/v1/missions", json!({ "title": title, "description": description }))
        .await
        .check(201);
}
