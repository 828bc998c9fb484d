//! Users, login, who am I, logout.

use std::time::Duration;

use http::{Method, header};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Api, Reply, request};

const PASSWORD: &str = "correct horse battery";

async fn user(api: &Api, email: &str) -> String {
    let body = json!({ "name": "Anna", "email": email, "password": PASSWORD });
    let created = api.post("/api/v1/users", body).await;
    created.check(201);
    assert_eq!(created.header("cache-control"), "no-store");
    created.header("location").to_owned()
}

async fn login(api: &Api, email: &str, password: &str) -> Reply {
    api.post("/api/v1/sessions", json!({ "email": email, "password": password })).await
}

async fn session(api: &Api, method: Method, token: &str) -> Reply {
    let mut request = request(method, "/api/v1/session");
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    api.send(request).await
}

#[tokio::test]
async fn a_user_logs_in_is_known_by_the_token_and_logs_out() {
    let (_file, api, _clock) = Api::new().await;
    let path = user(&api, "Anna@Example.org").await;
    let public = api.get(&path).await;
    assert_eq!(public.check(200).header("cache-control"), "no-store");
    assert_eq!(public.json()["last_login_at"], json!(null));
    assert_eq!(public.json().get("email"), None, "the address is the owner's business");

    let begun = login(&api, "anna@example.ORG", PASSWORD).await;
    assert_eq!(begun.check(201).header("cache-control"), "no-store");
    let begun = begun.json();
    let token = begun["token"].as_str().unwrap();
    assert_eq!(begun["expires_at"], "2001-09-10T01:46:40.000Z");

    let known = session(&api, Method::GET, token).await;
    assert_eq!(known.check(200).header("cache-control"), "no-store");
    let known = known.json();
    assert_eq!(known["user"]["email"], "anna@example.org");
    assert_eq!(known["user"]["id"], begun["user_id"]);
    assert_eq!(known["user"]["last_login_at"], begun["created_at"]);
    assert_eq!(known.get("token"), None);

    session(&api, Method::DELETE, token).await.check(204);
    let gone = session(&api, Method::GET, token).await;
    gone.problem(401);
    assert_eq!(
        gone.header("www-authenticate"),
        r#"Bearer realm="tachikoma", error="invalid_token""#
    );
    session(&api, Method::DELETE, token).await.problem(401);
}

#[tokio::test]
async fn without_a_token_the_answer_is_a_challenge() {
    let (_file, api, _clock) = Api::new().await;
    let none = api.get("/api/v1/session").await;
    none.problem(401);
    assert_eq!(none.header("www-authenticate"), r#"Bearer realm="tachikoma""#);
    for token in ["", "x", &"0".repeat(64), "\u{e9}"] {
        session(&api, Method::GET, token).await.problem(401);
    }
    api.get_with("/api/v1/session", header::AUTHORIZATION, "Basic YTpi").await.problem(401);
}

#[tokio::test]
async fn a_session_ends_in_time_although_it_is_cached() {
    let (_file, api, clock) = Api::new().await;
    user(&api, "a@b").await;
    let token = login(&api, "a@b", PASSWORD).await.json()["token"].as_str().unwrap().to_owned();
    clock.advance(Duration::from_secs(24 * 60 * 60 - 10));
    assert_eq!(session(&api, Method::GET, &token).await.check(200).timing(), "load");
    clock.advance(Duration::from_secs(9));
    assert_eq!(session(&api, Method::GET, &token).await.check(200).timing(), "hit");
    clock.advance(Duration::from_secs(1));
    session(&api, Method::GET, &token).await.problem(401);
}

#[tokio::test]
async fn wrong_address_and_wrong_password_are_one_answer() {
    let (_file, api, _clock) = Api::new().await;
    user(&api, "a@b").await;
    let password = login(&api, "a@b", "wrong password").await;
    let address = login(&api, "nobody@b", PASSWORD).await;
    assert_eq!(password.problem(401), address.problem(401));
    assert_eq!(address.header("www-authenticate"), r#"Bearer realm="tachikoma""#);
}

#[tokio::test]
async fn an_address_has_one_user_in_any_case_of_letters() {
    let (_file, api, _clock) = Api::new().await;
    user(&api, "a@b.org").await;
    let body = json!({ "name": "B", "email": "A@B.org", "password": PASSWORD });
    let taken = api.post("/api/v1/users", body).await.problem(409);
    assert_eq!(taken["type"], "urn:tachikoma:problem:email-taken");
}

#[tokio::test]
async fn guessing_is_slowed_down_for_one_address_only() {
    let (_file, api, clock) = Api::new().await;
    user(&api, "victim@b").await;
    for _ in 0..10 {
        login(&api, "victim@b", "a wrong guess").await.problem(401);
    }
    let slowed = login(&api, "victim@b", PASSWORD).await;
    slowed.problem(429);
    assert_eq!(slowed.header("retry-after"), "6");
    login(&api, "other@b", "a wrong guess").await.problem(401);
    clock.advance(Duration::from_secs(6));
    login(&api, "victim@b", PASSWORD).await.check(201);
    login(&api, "victim@b", "a wrong guess").await.problem(401);
}

#[tokio::test]
async fn no_answer_and_no_key_holds_a_password_or_its_hash() {
    let (file, api, _clock) = Api::new().await;
    let path = user(&api, "a@b").await;
    let token = login(&api, "a@b", PASSWORD).await.json()["token"].as_str().unwrap().to_owned();
    let mut seen = session(&api, Method::GET, &token).await.body.to_vec();
    seen.extend(api.get(&path).await.body);
    let bad = json!({ "name": "n", "email": "x@y", "password": PASSWORD, "pasword": PASSWORD });
    seen.extend(api.post("/api/v1/users", bad).await.body);
    let bad = json!({ "name": "n", "email": "x@y", "password": [PASSWORD] });
    seen.extend(api.post("/api/v1/users", bad).await.body);
    let seen = String::from_utf8(seen).unwrap();
    assert!(
        !seen.contains(PASSWORD) && !seen.contains("argon2") && !seen.contains(&token),
        "{seen}"
    );

    // The file holds hashes only.
    api.state.close().await;
    let path = file.url().trim_start_matches("sqlite://").to_owned();
    let bytes = std::fs::read(path).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("$argon2id$") && !holds(PASSWORD) && !holds(&token));
}

#[tokio::test]
async fn an_unknown_user_is_not_found() {
    let (_file, api, _clock) = Api::new().await;
    api.get(&format!("/api/v1/users/{}", Uuid::nil())).await.problem(404);
}
