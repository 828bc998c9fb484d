//! Two processes' views of one database file and one real Redis: what one writes the other sees,
//! and Redis killed or stopped harms nobody.

use std::time::Duration;

use http::header;
use serde_json::{Value, json};
use tachikoma_cache::Cache;
use tachikoma_testkit::{Fault, FaultProxy, RedisServer, Resp, Stopwatch, allowed};

use crate::{
    concurrency::no_reader_sees_an_old_version,
    support::{Api, File, Reply},
};

/// What a read may take while Redis is away: the loader's time and 300 ms (the bound).
const READ: Duration = Duration::from_millis(300);
/// What a write may take while Redis is away: its own time and 600 ms (the bound).
const WRITE: Duration = Duration::from_millis(600);
/// What SQLite takes for one row on a busy machine.
const OWN: Duration = Duration::from_millis(250);
/// How soon after its return Redis must be in use again.
const RECOVERY: Duration = Duration::from_secs(2);

/// What the store does by itself is waited for so long; how soon it must, other bars say.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process: its own connection to the shared Redis, with the settings that are shipped.
async fn process(file: &File, redis: &RedisServer) -> Api {
    at(file, &redis.url_with("api")).await
}

/// A process that waits for Redis on a busy machine too: Redis never is away. Without copies in
/// memory what another process changes is seen at once.
async fn patient(file: &File, redis: &RedisServer) -> Api {
    at(file, &format!("{}&store_timeout=10s&memory=off", redis.url_with("api"))).await
}

async fn at(file: &File, url: &str) -> Api {
    Api::open(file, Cache::connect(url).await.unwrap()).await
}

/// Reads until Redis has the value: storing it never delays the answer that loaded it.
async fn hit(api: &Api, path: &str) -> Reply {
    let watch = Stopwatch::start();
    loop {
        let read = api.get(path).await;
        if read.check(200).timing() == "hit" {
            return read;
        }
        assert!(watch.elapsed() < PATIENCE, "{path}: no hit after {:?}", watch.elapsed());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_process_writes_the_other_sees_at_once() {
    let (file, redis) = (File::new(), RedisServer::start());
    let (one, other) = (patient(&file, &redis).await, patient(&file, &redis).await);
    let path = one.mission("shared").await;
    let (spec, specs) = (format!("{path}/specs/a"), format!("{path}/specs"));
    one.put(&spec, json!({ "title": "first" })).await.check(201);
    for read in [&path, &spec, &specs] {
        hit(&other, read).await;
        assert_eq!(one.get(read).await.timing(), "hit", "{read}: loaded by the other process");
    }
    for version in 1..=30 {
        one.put(&path, json!({ "title": format!("v{version}"), "version": version }))
            .await
            .check(200);
        let seen = other.get(&path).await;
        assert_eq!(seen.json()["version"], version + 1, "{}", seen.timing());
        let list = other.get("/api/v1/missions").await.json();
        assert_eq!(list["items"][0]["version"], version + 1);
        assert_eq!(hit(&other, &path).await.json()["version"], version + 1);
    }
    other.put(&spec, json!({ "title": "second" })).await.check(200);
    assert_eq!(one.get(&spec).await.json()["title"], "second");
    assert_eq!(one.get(&specs).await.json()["items"][0]["version"], 2);
    other.delete(&path).await.check(204);
    for read in [&path, &spec, &specs] {
        one.get(read).await.problem(404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_process_writes_the_memory_of_the_other_follows_within_its_freshness() {
    const FRESHNESS: Duration = Duration::from_secs(1);
    let (file, redis) = (File::new(), RedisServer::start());
    let (one, other) = (process(&file, &redis).await, process(&file, &redis).await);
    let path = one.mission("shared").await;
    for version in 1..=10 {
        hit(&other, &path).await;
        one.put(&path, json!({ "title": format!("v{version}"), "version": version }))
            .await
            .check(200);
        let watch = Stopwatch::start();
        let is_new = |reply: &Reply| reply.json()["version"] == version + 1;
        assert!(is_new(&one.get(&path).await), "its own change it sees at once");
        while !is_new(&other.get(&path).await) {
            assert!(watch.elapsed() < PATIENCE, "the other process never heard of the write");
            tokio::task::yield_now().await;
        }
        watch.within(FRESHNESS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_in_any_process_sees_an_old_version() {
    let (file, redis) = (File::new(), RedisServer::start());
    let (one, other) = (patient(&file, &redis).await, patient(&file, &redis).await);
    let readers = (0..8).map(|n| if n % 2 == 0 { one.clone() } else { other.clone() });
    no_reader_sees_an_old_version(one.clone(), readers.collect(), 100).await;
}

/// Its first answer comes after the store's own deadline: the write is told again within its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_is_told_again_where_redis_was_only_late() {
    let (file, redis) = (File::new(), RedisServer::start());
    let proxy = FaultProxy::to(redis.port());
    let url = format!("redis://127.0.0.1:{}/0?store_timeout=100ms", proxy.port());
    let api = at(&file, &url).await;
    let path = api.mission("late").await;
    let mut answers = Vec::new();
    for version in 1..=5 {
        proxy.set(Fault::Stall);
        let writer = api.clone();
        let body = json!({ "title": format!("v{version}"), "version": version });
        let (at, watch) = (path.clone(), Stopwatch::start());
        let write = tokio::spawn(async move { writer.put(&at, body).await });
        let late = std::future::pending::<()>();
        let _ = tokio::time::timeout(Duration::from_millis(150), late).await;
        proxy.set(Fault::Pass);
        let answer = write.await.unwrap();
        answers.push((answer.status, watch.elapsed()));
        hit(&api, &path).await;
    }
    // On a machine that is too busy it is late itself.
    assert!(answers.iter().any(|(status, _)| *status == 200), "{answers:?}");
}

/// Everything that Redis holds, keys and values.
fn contents(redis: &RedisServer) -> String {
    let Resp::Array(keys) = redis.command(&["KEYS", "*"]) else { panic!("no keys") };
    let mut all = String::new();
    for key in keys {
        let Resp::Bulk(key) = key else { panic!("a key is a bulk string") };
        all.push_str(&String::from_utf8_lossy(&key));
        if let Resp::Bulk(value) = redis.command(&[b"GET".as_slice(), &key]) {
            all.push_str(&String::from_utf8_lossy(&value));
        }
    }
    all
}

#[tokio::test]
async fn redis_holds_neither_tokens_nor_passwords_nor_their_hashes() {
    let (file, redis) = (File::new(), RedisServer::start());
    let api = patient(&file, &redis).await;
    let password = "correct horse battery";
    let new = json!({ "name": "Anna", "email": "a@b", "password": password });
    api.post("/api/v1/users", new).await.check(201);
    let login = json!({ "email": "a@b", "password": password });
    let begun = api.post("/api/v1/sessions", login).await.check(201).json();
    let token = begun["token"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    let watch = Stopwatch::start();
    while api.get_with("/api/v1/session", header::AUTHORIZATION, &bearer).await.timing() != "hit" {
        assert!(watch.elapsed() < PATIENCE, "the session is not cached");
        tokio::task::yield_now().await;
    }
    let held = contents(&redis);
    assert!(held.contains("session:") && held.contains("a@b"), "the session is cached: {held}");
    assert!(
        !held.contains(token) && !held.contains(password) && !held.contains("argon2"),
        "{held}"
    );
}

/// A call and how long it took.
async fn timed(call: impl Future<Output = Reply>) -> (Reply, Duration) {
    let watch = Stopwatch::start();
    let reply = call.await;
    (reply, watch.elapsed())
}

/// Reads and writes while Redis is away: right answers, in time, and 202 for every write.
async fn serves_without_redis(api: &Api, path: &str, version: &mut u64) {
    for _ in 0..4 {
        let (read, took) = timed(api.get(path)).await;
        assert_eq!(read.check(200).json()["version"], *version, "{}", read.timing());
        assert_eq!(read.timing(), "load");
        assert!(took <= allowed(OWN + READ, took), "a read took {took:?}");

        let body = json!({ "title": "while away", "version": version });
        let (write, took) = timed(api.put(path, body)).await;
        assert_eq!(write.check(202).header("cache-invalidation"), "pending");
        *version += 1;
        assert_eq!(write.json()["version"], *version, "the body is that of a success");
        assert!(took <= allowed(OWN + WRITE, took), "a write took {took:?}");
    }
    let created = api.post("/api/v1/missions", json!({ "title": "t" })).await;
    assert_eq!(created.check(202).header("cache-invalidation"), "pending");
    let new = created.header("location").to_owned();
    api.put(&format!("{new}/specs/a"), json!({ "title": "t" })).await.check(202);
    let deleted = api.delete(&new).await;
    assert!(deleted.check(202).body.is_empty());
    api.get(&new).await.problem(404);
    // A stale version is a stale version, with or without Redis.
    api.put(path, json!({ "title": "late", "version": 1 })).await.problem(409);
}

/// Waits until a write is 200 again and a read is a hit.
async fn recovers(api: &Api, path: &str) {
    let watch = Stopwatch::start();
    loop {
        let write = api.put(path, json!({ "title": "again" })).await;
        if write.status == 200 {
            watch.within(RECOVERY);
            hit(api, path).await;
            break;
        }
        assert!(watch.elapsed() < PATIENCE, "not in use after {:?}", watch.elapsed());
        tokio::task::yield_now().await;
    }
}

/// Takes Redis away, uses the API of two processes, gives it back.
async fn survives(away: impl FnOnce(&mut RedisServer), back: impl FnOnce(&mut RedisServer)) {
    let (file, mut redis) = (File::new(), RedisServer::start());
    let (one, other) = (process(&file, &redis).await, process(&file, &redis).await);
    let path = one.mission("through it all").await;
    for api in [&one, &other, &one, &other] {
        api.get(&path).await.check(200);
    }
    let mut version = 1;
    away(&mut redis);
    serves_without_redis(&one, &path, &mut version).await;
    serves_without_redis(&other, &path, &mut version).await;
    back(&mut redis);
    recovers(&one, &path).await;
    recovers(&other, &path).await;
    let latest: Value = one.get(&path).await.json();
    assert_eq!(other.get(&path).await.json(), latest);
    assert!(latest["version"].as_u64().unwrap() > version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_killed_and_started_again_harms_nobody() {
    survives(RedisServer::kill, RedisServer::restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_stopped_and_continued_harms_nobody() {
    survives(|redis| redis.stop(), |redis| redis.cont()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_invalidation_that_was_pending_reaches_the_other_process() {
    let (file, redis) = (File::new(), RedisServer::start());
    let (one, other) = (process(&file, &redis).await, process(&file, &redis).await);
    let path = one.mission("kept").await;
    // In Redis, and it stays there: a stopped server forgets nothing.
    hit(&other, &path).await;
    redis.stop();
    one.put(&path, json!({ "title": "pending" })).await.check(202);
    redis.cont();
    let watch = Stopwatch::start();
    // No further write: only the kept invalidation can take the old row out.
    while other.get(&path).await.json()["title"] != "pending" {
        assert!(watch.elapsed() < PATIENCE, "the other process never heard of the write");
        tokio::task::yield_now().await;
    }
    watch.within(RECOVERY);
    assert_eq!(hit(&other, &path).await.json()["title"], "pending");
}
