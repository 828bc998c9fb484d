//! Saving is hardly noticed by those who read.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tachikoma_cache::{Cache, Ttl};
use tachikoma_testkit::{Stopwatch, allowed};

/// 100,000 entries, in debug builds too: a slice under one lock is small.
#[test]
fn while_100_000_entries_are_saved_reads_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::memory()
        .max_entries(200_000)
        .max_bytes(256 << 20)
        .snapshot(directory.path().join("cache.snapshot"))
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let keys: Vec<_> = (0..100_000).map(|n| format!("user:{n}")).collect();
    runtime.block_on(async {
        for key in &keys {
            cache.set(key, "x".repeat(100), Ttl::Never).await.unwrap();
        }
    });
    let saving = AtomicBool::new(true);
    let (mut reads, took) = std::thread::scope(|scope| {
        let saver = scope.spawn(|| {
            let clock = Stopwatch::start();
            assert_eq!(runtime.block_on(cache.save_snapshot()).unwrap(), 100_000);
            saving.store(false, Relaxed);
            clock.elapsed()
        });
        let mut reads = Vec::new();
        for key in keys.iter().cycle() {
            if !saving.load(Relaxed) {
                break;
            }
            let clock = Stopwatch::start();
            assert!(cache.try_get::<String>(key).is_some());
            reads.push(clock.elapsed());
        }
        (reads, saver.join().unwrap())
    });
    reads.sort_unstable();
    let p99 = reads[reads.len() * 99 / 100];
    println!("saved in {took:?}; {} reads meanwhile, p99 {p99:?}", reads.len());
    assert!(reads.len() > 1_000, "{}", reads.len());
    assert!(p99 <= allowed(Duration::from_millis(1), p99), "{p99:?}");
}
