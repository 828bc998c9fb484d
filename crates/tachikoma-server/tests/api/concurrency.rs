//! Many clients at once: one winner for each version, and no old row after an answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use tachikoma_cache::Cache;
use tower::ServiceExt;

use crate::support::{Api, File, json_request};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_version_has_exactly_one_winner_in_two_processes() {
    let file = File::new();
    let one = Api::open(&file, Cache::memory().build().unwrap()).await;
    let other = Api::open(&file, Cache::memory().build().unwrap()).await;
    let path = one.mission("race").await;
    for version in 1..=15 {
        let attempts = (0..12).map(|n| {
            let api = if n % 2 == 0 { one.clone() } else { other.clone() };
            let path = path.clone();
            tokio::spawn(async move {
                let body = json!({ "title": format!("by {n}"), "version": version });
                api.put(&path, body).await.status.as_u16()
            })
        });
        let statuses: Vec<_> = join_all(attempts).await.into_iter().map(Result::unwrap).collect();
        let won = statuses.iter().filter(|status| **status == 200).count();
        let lost = statuses.iter().filter(|status| **status == 409).count();
        assert_eq!((won, lost), (1, 11), "version {version}: {statuses:?}");
    }
}

/// One writer, eight readers: a read that begins after an answer shows at least that version.
pub(crate) async fn no_reader_sees_an_old_version(writer: Api, readers: Vec<Api>, updates: u64) {
    let path = writer.mission("watched").await;
    let (answered, done) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
    let tasks: Vec<_> = readers
        .into_iter()
        .map(|api| {
            let (answered, done, path) = (answered.clone(), done.clone(), path.clone());
            tokio::spawn(async move {
                let mut hits = 0_u64;
                while !done.load(Ordering::SeqCst) {
                    let floor = answered.load(Ordering::SeqCst);
                    let read = api.get(&path).await;
                    let version = read.check(200).json()["version"].as_u64().unwrap();
                    assert!(version >= floor, "read {version} after {floor} ({})", read.timing());
                    hits += u64::from(read.timing() == "hit");
                    tokio::task::yield_now().await;
                }
                hits
            })
        })
        .collect();
    for version in 1..=updates {
        let updated = writer.put(&path, json!({ "title": "t", "version": version })).await;
        updated.check(200);
        answered.store(version + 1, Ordering::SeqCst);
        // Lets readers run between two writes, so that there is something to go stale.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Ordering::SeqCst);
    let hits: u64 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    assert!(hits > 0, "a cache that never hits is never stale: the test saw nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_the_answer_to_a_write_no_read_shows_the_old_row() {
    let file = File::new();
    let api = Api::open(&file, Cache::memory().build().unwrap()).await;
    no_reader_sees_an_old_version(api.clone(), vec![api; 8], 150).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_goes_away_leaves_no_row_that_the_cache_was_not_told_of() {
    let file = File::new();
    let api = Api::open(&file, Cache::memory().build().unwrap()).await;
    let path = api.mission("left").await;
    let mut committed = 0;
    for round in 0..150_u32 {
        let before = api.get(&path).await.check(200).json();
        let body = json!({ "title": format!("round {round}") });
        let put = json_request(Method::PUT, &path, &body);
        let call = tokio::spawn(api.router.clone().oneshot(put));
        // Leaves at another moment each time: while it waits, writes, commits or tells the cache.
        for _ in 0..round * 20 {
            tokio::task::yield_now().await;
        }
        call.abort();
        let _ = call.await;
        // Another mission's write queues behind the one that was left, and tells the cache
        // nothing about this one. A cold cache then says what is in the database.
        api.mission("barrier").await;
        let cold = Api::open(&file, Cache::memory().build().unwrap()).await;
        let row = cold.get(&path).await.json();
        committed += u32::from(row != before);
        let mut cached = api.get(&path).await.json();
        for _ in 0..10_000 {
            if cached == row {
                break;
            }
            tokio::task::yield_now().await;
            cached = api.get(&path).await.json();
        }
        assert_eq!(cached, row, "round {round}: the cache was never told");
        cold.state.close().await;
    }
    assert!(committed > 0, "no write got as far as its commit: the test saw nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_clients_write_and_read_different_missions_at_once() {
    let file = File::new();
    let api = Api::open(&file, Cache::memory().build().unwrap()).await;
    let clients = (0..32).map(|n| {
        let api = api.clone();
        tokio::spawn(async move {
            let path = api.mission(&format!("of {n}")).await;
            for version in 1..=5 {
                api.put(&path, json!({ "title": "t", "version": version })).await.check(200);
                let read = api.get(&path).await.json();
                assert_eq!(read["version"], version + 1);
            }
        })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
    assert_eq!(api.get("/api/v1/missions").await.json()["total"], 32);
}
