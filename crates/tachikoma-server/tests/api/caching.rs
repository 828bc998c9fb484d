//! What the data cache does for reads, and that a write takes out exactly what it changed.

use std::time::Duration;

use http::{Method, StatusCode, header};
use proptest::{collection::vec, prelude::*};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Api, Reply, memory, request};

const PASSWORD: &str = "correct horse battery";

/// Everything that can be read of two missions with two specs each, and of two lists.
struct World {
    missions: [String; 2],
}

impl World {
    async fn new(api: &Api) -> Self {
        let missions = [api.mission("first").await, api.mission("second").await];
        for mission in &missions {
            for spec in ["a", "b"] {
                let path = format!("{mission}/specs/{spec}");
                api.put(&path, json!({ "title": spec })).await.check(201);
            }
        }
        Self { missions }
    }

    /// The paths of all reads, each with its name.
    fn reads(&self) -> Vec<(String, String)> {
        let lists = ["/api/v1/missions", "/api/v1/missions?page=2&page_size=1"];
        let mut all: Vec<_> = lists
            .iter()
            .zip(["list", "page"])
            .map(|(p, n)| (n.to_owned(), (*p).to_owned()))
            .collect();
        for (number, mission) in self.missions.iter().enumerate() {
            for (name, end) in
                [("", ""), (".specs", "/specs"), (".a", "/specs/a"), (".b", "/specs/b")]
            {
                all.push((format!("m{number}{name}"), format!("{mission}{end}")));
            }
        }
        all
    }

    /// Reads everything; the names of what did not come from the cache.
    async fn loaded(&self, api: &Api) -> Vec<String> {
        let mut loaded = Vec::new();
        for (name, path) in self.reads() {
            match api.get(&path).await.timing() {
                "hit" => {}
                "load" => loaded.push(name),
                other => panic!("{name}: {other:?}"),
            }
        }
        loaded
    }
}

#[tokio::test]
async fn a_read_is_loaded_once_and_then_a_hit_until_its_ttl() {
    let (_file, api, clock) = Api::new().await;
    let world = World::new(&api).await;
    assert_eq!(world.loaded(&api).await.len(), world.reads().len());
    assert_eq!(world.loaded(&api).await, [""; 0]);
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(world.loaded(&api).await, [""; 0]);
    clock.advance(Duration::from_millis(1));
    assert_eq!(world.loaded(&api).await.len(), world.reads().len());
}

#[track_caller]
fn check(write: &str, loaded: &[String], expected: &[&str]) {
    assert_eq!(loaded, expected, "after: {write}");
}

#[tokio::test]
async fn a_write_takes_out_exactly_what_it_changed() {
    let (_file, api, _clock) = Api::new().await;
    let world = World::new(&api).await;
    let [first, second] = &world.missions;
    world.loaded(&api).await;

    api.put(first, json!({ "title": "new" })).await.check(200);
    let of_first = ["list", "page", "m0", "m0.specs", "m0.a", "m0.b"];
    check("mission updated", &world.loaded(&api).await, &of_first);

    api.put(&format!("{second}/specs/a"), json!({ "title": "new" })).await.check(200);
    check("spec replaced", &world.loaded(&api).await, &["m1.specs", "m1.a"]);

    api.put(&format!("{second}/specs/c"), json!({ "title": "new" })).await.check(201);
    check("spec created", &world.loaded(&api).await, &["m1.specs"]);

    let third = api.mission("third").await;
    check("mission created", &world.loaded(&api).await, &["list", "page"]);

    api.delete(&third).await.check(204);
    check("mission deleted", &world.loaded(&api).await, &["list", "page"]);

    let body = json!({ "name": "n", "email": "a@b", "password": PASSWORD });
    api.post("/api/v1/users", body).await.check(201);
    api.post("/api/v1/sessions", json!({ "email": "a@b", "password": PASSWORD })).await.check(201);
    check("user created, logged in", &world.loaded(&api).await, &[]);
}

#[tokio::test]
async fn a_write_that_was_refused_takes_nothing_out() {
    let (_file, api, _clock) = Api::new().await;
    let world = World::new(&api).await;
    world.loaded(&api).await;
    let first = &world.missions[0];
    api.put(first, json!({ "title": "late", "version": 9 })).await.problem(409);
    api.put(first, json!({ "title": "" })).await.problem(422);
    api.put(&format!("{first}/specs/a"), json!({ "title": "t", "version": 9 })).await.problem(409);
    api.post("/api/v1/missions", json!({})).await.problem(422);
    let mut conditional = request(Method::DELETE, first);
    conditional.headers_mut().insert(header::IF_MATCH, "\"other\"".parse().unwrap());
    api.send(conditional).await.problem(412);
    check("refused writes", &world.loaded(&api).await, &[]);
}

async fn session(api: &Api, method: Method, token: &str) -> Reply {
    let mut request = request(method, "/api/v1/session");
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    api.send(request).await
}

#[tokio::test]
async fn a_login_takes_its_user_out_and_a_logout_its_session_only() {
    let (_file, api, _clock) = Api::new().await;
    let mut users = Vec::new();
    for email in ["a@b", "c@d"] {
        let body = json!({ "name": "n", "email": email, "password": PASSWORD });
        let created = api.post("/api/v1/users", body).await;
        users.push(created.check(201).header("location").to_owned());
    }
    for user in &users {
        assert_eq!(api.get(user).await.timing(), "load");
        assert_eq!(api.get(user).await.timing(), "hit");
    }
    let login = json!({ "email": "a@b", "password": PASSWORD });
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let begun = api.post("/api/v1/sessions", login.clone()).await.check(201).json();
        tokens.push(begun["token"].as_str().unwrap().to_owned());
    }
    assert_eq!(api.get(&users[0]).await.timing(), "load", "its last login changed");
    assert_eq!(api.get(&users[1]).await.timing(), "hit");

    for token in &tokens {
        assert_eq!(session(&api, Method::GET, token).await.timing(), "load");
        assert_eq!(session(&api, Method::GET, token).await.timing(), "hit");
    }
    session(&api, Method::DELETE, &tokens[0]).await.check(204);
    session(&api, Method::GET, &tokens[0]).await.problem(401);
    assert_eq!(session(&api, Method::GET, &tokens[1]).await.timing(), "hit");
    assert_eq!(api.get(&users[0]).await.timing(), "hit");
}

#[tokio::test]
async fn what_is_not_there_is_never_kept() {
    let (_file, api, _clock) = Api::new().await;
    let mission = api.mission("m").await;
    let spec = format!("{mission}/specs/later");
    for _ in 0..2 {
        let absent = api.get(&spec).await;
        absent.problem(404);
        assert_eq!(absent.timing(), "load");
    }
    api.put(&spec, json!({ "title": "now" })).await.check(201);
    api.get(&spec).await.check(200);
}

#[tokio::test]
async fn processes_with_memory_caches_of_their_own_agree_on_rows_at_once_and_on_reads_in_a_ttl() {
    let (file, one, clock) = Api::new().await;
    let other = Api::open(&file, memory(&clock)).await;
    let path = one.mission("shared").await;
    assert_eq!(other.get(&path).await.check(200).json()["version"], 1);
    one.put(&path, json!({ "title": "new", "version": 1 })).await.check(200);
    other.put(&path, json!({ "title": "late", "version": 1 })).await.problem(409);
    // The limit that `ApiOptions::read_ttl` states: no process tells the other's memory.
    assert_eq!(other.get(&path).await.timing(), "hit");
    clock.advance(Duration::from_secs(60));
    assert_eq!(other.get(&path).await.json()["title"], "new");
}

/// A write of the law below.
#[derive(Debug, Clone, Copy)]
enum Write {
    Create,
    Update(usize),
    Delete(usize),
    PutSpec(usize, usize),
}

fn writes() -> impl Strategy<Value = Write> {
    prop_oneof![
        1 => Just(Write::Create),
        3 => (0..4_usize).prop_map(Write::Update),
        1 => (0..4_usize).prop_map(Write::Delete),
        3 => (0..4_usize, 0..3_usize).prop_map(|(mission, spec)| Write::PutSpec(mission, spec)),
    ]
}

/// Runs the writes; after each, every read through the cache is what a cold cache says.
async fn cached_reads_equal_cold_ones(writes: Vec<Write>) {
    let (file, api, clock) = Api::new().await;
    let mut missions = Vec::new();
    for write in writes {
        let pick = |n: usize| missions.get(n).cloned().unwrap_or_else(nowhere);
        match write {
            Write::Create => missions.push(api.mission("new").await),
            Write::Update(n) => drop(api.put(&pick(n), json!({ "title": "changed" })).await),
            Write::Delete(n) => drop(api.delete(&pick(n)).await),
            Write::PutSpec(n, s) => {
                let body = json!({ "title": format!("{write:?}") });
                drop(api.put(&format!("{}/specs/{s}", pick(n)), body).await);
            }
        }
        let cold = Api::open(&file, memory(&clock)).await;
        let lists =
            ["/api/v1/missions".to_owned(), "/api/v1/missions?page=2&page_size=2".to_owned()];
        let mut paths = lists.to_vec();
        for mission in &missions {
            paths.extend([mission.clone(), format!("{mission}/specs")]);
            paths.extend((0..3).map(|s| format!("{mission}/specs/{s}")));
        }
        for path in paths {
            let (warm, cold) = (api.get(&path).await, cold.get(&path).await);
            assert_eq!((warm.status, &warm.body), (cold.status, &cold.body), "{path} {write:?}");
            assert_eq!(warm.header("etag"), cold.header("etag"), "{path}");
        }
    }
}

fn nowhere() -> String {
    format!("/api/v1/missions/{}", Uuid::nil())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..Default::default() })]

    #[test]
    fn after_any_writes_the_cache_says_what_the_database_says(writes in vec(writes(), 1..10)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(cached_reads_equal_cold_ones(writes));
    }
}

#[tokio::test]
async fn a_failed_database_fails_reads_that_are_not_cached_and_no_others() {
    let (file, api, _clock) = Api::new().await;
    let (warm, cold) = (api.mission("warm").await, api.mission("cold").await);
    api.get(&warm).await.check(200);
    api.state.close().await;
    assert_eq!(api.get(&warm).await.check(200).timing(), "hit");
    let failed = api.get(&cold).await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    let problem = failed.problem(500);
    assert!(!problem.to_string().contains(file.url().trim_start_matches("sqlite://")), "{problem}");
    api.put(&warm, json!({ "title": "t" })).await.problem(500);
}
