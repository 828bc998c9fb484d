//! The specs of a mission.

use http::{Method, header};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Api, json_request};

#[tokio::test]
async fn a_spec_is_created_by_its_first_put_and_replaced_by_the_next() {
    let (_file, api, _clock) = Api::new().await;
    let mission = api.mission("m").await;
    let path = format!("{mission}/specs/338");
    api.get(&path).await.problem(404);
    let body = json!({ "title": "Caching", "content": "Cache.\n" });
    let created = api.put(&path, body).await.check(201).json();
    assert_eq!((&created["spec_id"], &created["version"]), (&json!("338"), &json!(1)));
    assert!(mission.ends_with(created["mission_id"].as_str().unwrap()));
    assert_eq!(api.get(&path).await.check(200).json(), created);

    let replaced = api.put(&path, json!({ "title": "Less", "version": 1 })).await.check(200).json();
    assert_eq!((&replaced["content"], &replaced["version"]), (&json!(""), &json!(2)));
    assert_eq!(api.get(&path).await.json(), replaced);
    api.put(&path, json!({ "title": "Late", "version": 1 })).await.problem(409);
    api.put(&format!("{mission}/specs/new"), json!({ "title": "t", "version": 1 }))
        .await
        .problem(409);
}

#[tokio::test]
async fn the_list_of_specs_is_sorted_and_has_no_content() {
    let (_file, api, _clock) = Api::new().await;
    let mission = api.mission("m").await;
    let list = format!("{mission}/specs");
    assert_eq!(api.get(&list).await.check(200).json()["items"], json!([]));
    for id in ["b", "a", "C"] {
        api.put(&format!("{list}/{id}"), json!({ "title": id, "content": "x" })).await.check(201);
    }
    let specs = api.get(&list).await.json();
    let ids: Vec<_> = specs["items"].as_array().unwrap().iter().map(|s| &s["spec_id"]).collect();
    assert_eq!(ids, ["C", "a", "b"]);
    assert_eq!((&specs["total"], specs["items"][0].get("content")), (&json!(3), None));
}

#[tokio::test]
async fn specs_need_their_mission_and_go_with_it() {
    let (_file, api, _clock) = Api::new().await;
    let nowhere = format!("/api/v1/missions/{}/specs", Uuid::nil());
    api.get(&nowhere).await.problem(404);
    api.get(&format!("{nowhere}/a")).await.problem(404);
    api.put(&format!("{nowhere}/a"), json!({ "title": "t" })).await.problem(404);

    let mission = api.mission("m").await;
    let (list, spec) = (format!("{mission}/specs"), format!("{mission}/specs/a"));
    api.put(&spec, json!({ "title": "t" })).await.check(201);
    api.get(&spec).await.check(200);
    api.get(&list).await.check(200);
    api.delete(&mission).await.check(204);
    api.get(&spec).await.problem(404);
    api.get(&list).await.problem(404);
}

#[tokio::test]
async fn if_none_match_any_lets_a_put_create_only() {
    let (_file, api, _clock) = Api::new().await;
    let path = format!("{}/specs/a", api.mission("m").await);
    let create_only = || {
        let mut request = json_request(Method::PUT, &path, &json!({ "title": "t" }));
        request.headers_mut().insert(header::IF_NONE_MATCH, "*".parse().unwrap());
        request
    };
    api.send(create_only()).await.check(201);
    api.send(create_only()).await.problem(412);
}

#[tokio::test]
async fn a_mission_has_at_most_a_thousand_specs() {
    let (_file, api, _clock) = Api::new().await;
    let mission = api.mission("m").await;
    for n in 0..1_000 {
        api.put(&format!("{mission}/specs/{n}"), json!({ "title": "t" })).await.check(201);
    }
    let full = api.put(&format!("{mission}/specs/more"), json!({ "title": "t" })).await;
    assert_eq!(full.problem(409)["type"], "urn:tachikoma:problem:too-many-specs");
    api.put(&format!("{mission}/specs/7"), json!({ "title": "u" })).await.check(200);
}
