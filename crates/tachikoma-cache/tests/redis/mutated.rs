//! A server whose answers to reads were changed on the way: the real connection, its parser and its
//! recovery. `src/fuzzing/tests.rs` changes many more of them without a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tachikoma_cache::SystemClock;
use tachikoma_cache::store::redis::RedisConfig;
use tachikoma_testkit::{RedisServer, Resp};

use self::mutate::Mutator;
use crate::bench::{Client, ms};
use crate::stub;

#[path = "../../src/fuzzing/mutate.rs"]
mod mutate;

/// `TACHIKOMA_MUTATED_ANSWERS` sets another number.
const ANSWERS: u64 = 200;

/// Gives each `GET` the next change of the good answer; each tenth is good, so that the connection
/// is seen to recover.
fn start(good: Vec<u8>, seed: u64) -> (u16, Arc<AtomicU64>) {
    let given = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&given);
    let port = stub::start(move |command| {
        if command != "GET" {
            return b"+OK\r\n".to_vec();
        }
        let number = given.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(10) {
            good.clone()
        } else {
            Mutator::new(seed ^ number).mutate(&good, b"*2\r\n$-1\r\n+OK\r\n")
        }
    });
    (port, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_answers_are_never_a_wrong_value_and_the_connection_recovers() {
    let wanted = std::env::var("TACHIKOMA_MUTATED_ANSWERS").ok();
    let wanted = wanted.map_or(ANSWERS, |text| text.parse().expect("a number"));
    let server = RedisServer::start();
    let writer = Client::new(&server).await;
    writer
        .write("k", writer.entry("value of k", None), tachikoma_cache::store::When::Always)
        .await
        .unwrap();
    let Resp::Bulk(entry) = server.command(&["GET", "test:{vk}"]) else { panic!("no entry") };
    let good = [format!("${}\r\n", entry.len()).as_bytes(), &entry, b"\r\n"].concat();
    let (port, given) = start(good, 1);
    let url = format!("redis://127.0.0.1:{port}/0");
    let config = RedisConfig::from_url(&url).unwrap().0.timeout(ms(25));
    let connect = || Client::with(config.clone(), Arc::new(SystemClock::new()));
    let mut c = connect().await;
    let (mut right, mut none, mut failed) = (0_u64, 0_u64, 0_u64);
    while given.load(Ordering::Relaxed) < wanted {
        match c.try_get("k").await {
            Ok(Some(value)) => {
                assert_eq!(value, "value of k");
                right += 1;
            }
            Ok(None) => none += 1,
            Err(_) => {
                failed += 1;
                // A new store connects at once; this one would wait longer after each failure.
                c = connect().await;
            }
        }
    }
    println!(
        "{wanted} changed answers, seed 1: {right} right, {none} none, {failed} errors, 0 wrong"
    );
    assert!(right >= wanted / 100, "{right} right, {none} none, {failed} errors");
}
