//! Processes that are killed while they save (FM-50): the file is always a whole one.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tachikoma_cache::{Cache, Ttl};
use tachikoma_testkit::Stopwatch;

/// The file of the process that saves until it is killed; without it this is the test.
const CHILD: &str = "TACHIKOMA_SNAPSHOT_CHILD";
const NAME: &str = "snapshot::kill::a_process_that_is_killed_while_it_saves_leaves_a_whole_file";
const ENTRIES: u64 = 2_000;

/// Every value of one save has the same number, so that a mixture would show.
fn save_for_ever(path: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let cache = Cache::memory().snapshot(path).build().unwrap();
    for round in 1_u64.. {
        runtime.block_on(async {
            for n in 0..ENTRIES {
                cache.set(&n.to_string(), round, Ttl::Never).await.unwrap();
            }
            println!("saving {round}");
            assert_eq!(cache.save_snapshot().await.unwrap(), ENTRIES);
        });
    }
}

#[test]
fn a_process_that_is_killed_while_it_saves_leaves_a_whole_file() {
    if let Some(path) = std::env::var_os(CHILD) {
        return save_for_ever(Path::new(&path));
    }
    let kills = std::env::var("TACHIKOMA_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.snapshot");
    let mut unfinished = 0;
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let second = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("saving 2")));
        assert!(second.is_some(), "the child has saved once");
        // At another moment of its second save each time.
        let clock = Stopwatch::start();
        while clock.elapsed() < Duration::from_micros(kill * 2_777 % 50_000) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        unfinished += u64::from(directory.path().join("cache.snapshot.unfinished").exists());
        check(&path, kill);
    }
    println!("{kills} kills, {unfinished} of them while the file was being written");
    assert!(unfinished > 0, "no kill came while the file was being written");
    assert!(fs::read_dir(directory.path()).unwrap().count() <= 2, "nothing piles up");
}

fn check(path: &Path, kill: u64) {
    let clock = Stopwatch::start();
    let copy = path.with_extension("copy");
    fs::copy(path, &copy).unwrap();
    let file = tachikoma_cache::store::memory::SnapshotFile::at(&copy);
    let cache = Cache::memory().snapshot(file.trusted_when_overtaken(true)).build().unwrap();
    let snapshot = cache.stats().snapshot.unwrap();
    assert_eq!((snapshot.restored, snapshot.damaged), (ENTRIES, 0), "kill {kill}");
    let value = |n: u64| cache.try_get::<u64>(&n.to_string()).map(|hit| *hit);
    let first = value(0);
    assert!(first.is_some());
    for n in 0..ENTRIES {
        assert_eq!(value(n), first, "kill {kill}, entry {n}: of two saves");
    }
    clock.within(Duration::from_secs(10));
    drop(cache);
    fs::remove_file(copy).unwrap();
}
