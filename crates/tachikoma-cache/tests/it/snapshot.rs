//! Restart warmth: what comes back, what must not, and what damage does.
//!
//! A "restart" is a cache that is dropped and another one on the same file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tachikoma_cache::store::memory::SnapshotFile;
use tachikoma_cache::{Cache, CacheConfig, ErrorKind, KeyTtl, MemoryBuilder, TestClock, Ttl};
use tempfile::TempDir;

mod kill;
mod latency;

const MINUTE: Duration = Duration::from_secs(60);

/// A directory with a file in it, and a clock that runs on over restarts.
struct Home {
    directory: TempDir,
    clock: TestClock,
}

impl Home {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: TestClock::new() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("cache.snapshot")
    }

    fn builder(&self) -> MemoryBuilder {
        Cache::memory().clock(Arc::new(self.clock.clone())).snapshot(self.path())
    }

    fn start(&self) -> Cache {
        self.builder().build().unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }
}

async fn set(cache: &Cache, key: &str, value: &str) {
    cache.set(key, value.to_owned(), MINUTE).await.unwrap();
}

async fn get(cache: &Cache, key: &str) -> Option<String> {
    cache.get::<String>(key).await.unwrap().map(tachikoma_cache::Hit::into_inner)
}

#[tokio::test]
async fn values_of_any_type_come_back_with_the_rest_of_their_lives() {
    let home = Home::new();
    let cache = home.start();
    set(&cache, "a", "one").await;
    cache.set("b", vec![1_u32, 2], Ttl::Never).await.unwrap();
    cache.set("short", 1_u32, Duration::from_secs(5)).await.unwrap();
    let tenant = cache.namespace("tenant").unwrap();
    tenant.set("a", "theirs".to_owned(), MINUTE).await.unwrap();
    drop((cache, tenant));
    home.clock.advance(Duration::from_secs(10));

    let cache = home.start();
    let snapshot = cache.stats().snapshot.unwrap();
    assert_eq!((snapshot.restored, snapshot.expired, snapshot.damaged), (3, 1, 0));
    assert_eq!(get(&cache, "a").await.as_deref(), Some("one"));
    assert_eq!(*cache.get::<Vec<u32>>("b").await.unwrap().unwrap(), [1, 2]);
    assert_eq!(cache.ttl("a").await.unwrap(), KeyTtl::Expires(Duration::from_secs(50)));
    assert_eq!(cache.ttl("b").await.unwrap(), KeyTtl::NoExpiry);
    assert!(!cache.exists("short").await.unwrap());
    let tenant = cache.namespace("tenant").unwrap();
    assert_eq!(get(&tenant, "a").await.as_deref(), Some("theirs"));
    assert!(cache.get::<u32>("a").await.unwrap().is_none(), "a value of another type is a miss");
}

#[tokio::test]
async fn a_second_restart_writes_what_nobody_decoded() {
    let home = Home::new();
    let cache = home.start();
    set(&cache, "a", "one").await;
    drop(cache);
    let cache = home.start();
    set(&cache, "b", "two").await;
    drop(cache);
    let cache = home.start();
    assert_eq!(get(&cache, "a").await.as_deref(), Some("one"));
    assert_eq!(get(&cache, "b").await.as_deref(), Some("two"));
}

#[tokio::test]
async fn what_an_invalidated_tag_took_does_not_come_back_and_the_others_still_obey_theirs() {
    let home = Home::new();
    let cache = home.start();
    for key in ["gone", "stays"] {
        cache.set(key, 1_u32, MINUTE).tags([key]).await.unwrap();
    }
    cache.invalidate_tag("gone").await.unwrap();
    drop(cache);
    let cache = home.start();
    assert!(!cache.exists("gone").await.unwrap());
    assert!(cache.exists("stays").await.unwrap());
    cache.invalidate_tag("stays").await.unwrap();
    assert!(!cache.exists("stays").await.unwrap());
}

#[tokio::test]
async fn after_a_change_that_the_file_does_not_know_its_entries_are_stale() {
    for change in ["delete", "set", "invalidate", "touch"] {
        let home = Home::new();
        let cache = home.start();
        cache.set("a", "old".to_owned(), MINUTE).tags(["t"]).await.unwrap();
        assert_eq!(cache.save_snapshot().await.unwrap(), 1);
        let quiet = home.bytes();
        match change {
            "delete" => assert!(cache.delete("a").await.unwrap()),
            "set" => set(&cache, "a", "new").await,
            "invalidate" => cache.invalidate_tag("t").await.unwrap(),
            _ => assert!(cache.touch("a", Duration::from_secs(1)).await.unwrap()),
        }
        let overtaken = home.bytes();
        drop(cache);

        fs::write(home.path(), &overtaken).unwrap();
        let cache = home.start();
        assert_eq!(cache.stats().snapshot.unwrap().restored, 1);
        assert_eq!(get(&cache, "a").await, None, "after {change}: it is not fresh");
        assert!(!cache.exists("a").await.unwrap());
        drop(cache);

        fs::write(home.path(), &quiet).unwrap();
        let cache = home.start();
        assert_eq!(get(&cache, "a").await.as_deref(), Some("old"), "nothing had changed yet");
        drop(cache);

        fs::write(home.path(), &overtaken).unwrap();
        let file = SnapshotFile::at(home.path()).trusted_when_overtaken(true);
        let cache = home.builder().snapshot(file).build().unwrap();
        assert_eq!(get(&cache, "a").await.as_deref(), Some("old"), "as asked for");
    }
}

#[tokio::test]
async fn a_file_that_was_read_is_overtaken_by_the_first_change_of_its_reader() {
    let home = Home::new();
    let cache = home.start();
    set(&cache, "a", "one").await;
    drop(cache);
    let cache = home.start();
    let before = home.bytes();
    assert!(cache.exists("a").await.unwrap());
    assert_eq!(home.bytes(), before, "reading changes nothing");
    cache.delete("a").await.unwrap();
    let after = home.bytes();
    let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(changed, [9]);
}

#[tokio::test]
async fn a_wall_clock_that_was_set_back_revives_nothing() {
    let home = Home::new();
    let cache = home.start();
    set(&cache, "a", "one").await;
    drop(cache);
    home.clock.step_wall(-3_600_000);
    let cache = home.start();
    assert_eq!(get(&cache, "a").await, None);
    assert_eq!(cache.stats().snapshot.unwrap().restored, 0);
    drop(cache);

    home.clock.step_wall(3_600_000);
    let cache = home.start();
    set(&cache, "a", "one").await;
    drop(cache);
    home.clock.step_wall(59_999);
    let cache = home.start();
    assert_eq!(cache.ttl("a").await.unwrap(), KeyTtl::Expires(Duration::from_millis(1)));
    drop(cache);
    home.clock.step_wall(1);
    assert!(!home.start().exists("a").await.unwrap());
}

#[tokio::test]
async fn the_file_is_its_owners_and_what_others_may_write_is_not_read() {
    let home = Home::new();
    let cache = home.start();
    set(&cache, "a", "one").await;
    drop(cache);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.path()), 0o600);
    assert_eq!(fs::read_dir(home.directory.path()).unwrap().count(), 1, "nothing else is left");
    for writable in [0o620, 0o602, 0o666] {
        fs::set_permissions(home.path(), fs::Permissions::from_mode(writable)).unwrap();
        let cache = Cache::memory().snapshot(home.path()).build().unwrap();
        assert_eq!(cache.stats().snapshot.unwrap().restored, 0, "{writable:o}");
        // It must not write in the test's file.
        std::mem::forget(cache);
    }
}

#[tokio::test]
async fn a_file_that_is_too_long_is_not_read_and_one_that_would_be_is_not_written() {
    let home = Home::new();
    let cache = home.start();
    for n in 0..100 {
        set(&cache, &format!("k{n}"), &"x".repeat(1000)).await;
    }
    drop(cache);
    let limited = || home.builder().snapshot(SnapshotFile::at(home.path()).max_bytes(50_000));
    let cache = limited().build().unwrap();
    let snapshot = cache.stats().snapshot.unwrap();
    assert_eq!((snapshot.restored, snapshot.damaged), (0, 1));
    for n in 0..100 {
        set(&cache, &format!("k{n}"), &"x".repeat(1000)).await;
    }
    let entries = cache.save_snapshot().await.unwrap();
    assert!((40..50).contains(&entries), "{entries}");
    assert_eq!(cache.stats().snapshot.unwrap().left_out, 100 - entries);
    assert!(fs::metadata(home.path()).unwrap().len() <= 50_000);
    drop(cache);
    assert_eq!(limited().build().unwrap().stats().snapshot.unwrap().restored, entries);
}

#[tokio::test]
async fn a_file_of_another_kind_is_left_alone_until_it_is_replaced() {
    let home = Home::new();
    for bytes in [&b""[..], b"SQLite format 3\0", b"TKSNAP\r\n\x02C and whatever comes then"] {
        fs::write(home.path(), bytes).unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o600)).unwrap();
        let cache = home.start();
        assert_eq!(home.bytes(), bytes);
        let snapshot = cache.stats().snapshot.unwrap();
        assert_eq!((snapshot.restored, snapshot.damaged), (0, 1));
        set(&cache, "a", "one").await;
        drop(cache);
        assert_eq!(get(&home.start(), "a").await.as_deref(), Some("one"));
        fs::remove_file(home.path()).unwrap();
    }
    // A pipe is not waited for, and a directory is no file.
    let name = |name: &str| home.directory.path().join(name);
    let status = std::process::Command::new("mkfifo").arg(name("pipe")).status().unwrap();
    assert!(status.success());
    for path in [name("pipe"), home.directory.path().to_owned()] {
        let cache = Cache::memory().snapshot(&path).build().unwrap();
        assert_eq!(cache.stats().snapshot.unwrap().damaged, 1, "{}", path.display());
        std::mem::forget(cache);
    }
}

/// FM-59: a directory that is gone or full costs the snapshot, never the cache.
#[tokio::test]
async fn a_file_that_cannot_be_written_is_an_error_of_saving_only() {
    let home = Home::new();
    let path = home.directory.path().join("no/such/directory/file");
    let cache = Cache::memory().snapshot(&path).build().unwrap();
    set(&cache, "a", "one").await;
    let error = cache.save_snapshot().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error} {error:?}").contains("one"));
    assert_eq!(cache.stats().snapshot.unwrap().failures, 1);
    assert_eq!(get(&cache, "a").await.as_deref(), Some("one"));
    drop(cache);

    // A device that is always full.
    std::os::unix::fs::symlink("/dev/full", home.directory.path().join("x.unfinished")).unwrap();
    let cache = Cache::memory().snapshot(home.directory.path().join("x")).build().unwrap();
    set(&cache, "a", "one").await;
    assert_eq!(cache.save_snapshot().await.unwrap(), 1, "no link is followed");
    assert!(fs::symlink_metadata(home.directory.path().join("x")).unwrap().is_file());

    let cache = Cache::memory().build().unwrap();
    assert_eq!(cache.save_snapshot().await.unwrap_err().kind(), ErrorKind::Unsupported);
}

/// A type whose own code fails in each way that it can.
struct Awkward(&'static str);

impl Serialize for Awkward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The weigher serializes too: it must get through, or there is nothing to save.
        let json = std::any::type_name::<S>().contains("serde_json");
        match self.0 {
            "panics" if json => panic!("a bug in a type"),
            "fails" if json => Err(serde::ser::Error::custom("cannot")),
            text => text.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Awkward {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("cannot"))
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_encoded_is_left_out_and_one_that_cannot_be_decoded_is_a_miss() {
    let home = Home::new();
    let cache = home.start();
    for text in ["panics", "fails", "works"] {
        cache.set(text, Awkward(text), MINUTE).await.unwrap();
    }
    assert_eq!(cache.save_snapshot().await.unwrap(), 1);
    assert_eq!(cache.stats().snapshot.unwrap().left_out, 2);
    drop(cache);
    let cache = home.start();
    assert!(cache.get::<Awkward>("works").await.unwrap().is_none());
    assert_eq!(cache.stats().errors.of(ErrorKind::Undecodable), 1);
    let loaded = cache.get_or_load("works", || async { Ok::<_, ()>(Awkward("anew")) }).await;
    assert_eq!(loaded.unwrap().0, "anew");
}

/// Persistent state that anything may have happened to: the program starts. The full number of
/// files is 10,000, by `TACHIKOMA_MUTATIONS`; the format alone is tested with as many each time.
#[tokio::test]
async fn mutated_files_never_break_a_start_nor_give_a_wrong_value() {
    let home = Home::new();
    let cache = home.start();
    for n in 0..8 {
        cache.set(&format!("k{n}"), format!("value {n}"), MINUTE).tags(["t"]).await.unwrap();
    }
    drop(cache);
    let original = home.bytes();
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut draw = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    let mutations = std::env::var("TACHIKOMA_MUTATIONS").map_or(500, |n| n.parse().unwrap());
    let mut restored = 0;
    for _ in 0..mutations {
        let mut bytes = original.clone();
        match draw(4) {
            0 => bytes.truncate(draw(bytes.len())),
            1 => {
                let (from, to) = (draw(bytes.len()), draw(bytes.len()));
                bytes.copy_within(from.min(to)..from.max(to), 0);
            }
            _ => {
                for _ in 0..=draw(4) {
                    let at = draw(bytes.len());
                    bytes[at] = u8::try_from(draw(256)).unwrap();
                }
            }
        }
        fs::write(home.path(), &bytes).unwrap();
        let cache = home.builder().max_entries(100).build().unwrap();
        restored += cache.stats().snapshot.unwrap().restored;
        for n in 0..8 {
            let expected = format!("value {n}");
            let found = get(&cache, &format!("k{n}")).await;
            assert!(found.is_none_or(|value| value == expected), "k{n}");
        }
    }
    assert!(restored > mutations, "{restored}: good parts are kept");
}

#[tokio::test]
async fn settings_name_what_is_wrong_with_them() {
    for (url, word) in [
        ("memory:?snapshot=", "names no file"),
        ("memory:?snapshot=x&snapshot_interval=5", "snapshot_interval"),
        ("memory:?snapshot=x&snapshot_interval=10ms", "less than a second"),
        ("memory:?snapshot_interval=5s", "there is no snapshot"),
        ("redis://127.0.0.1:1/0?snapshot=x", "its own"),
    ] {
        let error = Cache::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(word), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_cache_with_an_interval_saves_by_itself_and_ends_its_thread() {
    let home = Home::new();
    let config = CacheConfig {
        snapshot: Some(home.path().to_str().unwrap().to_owned()),
        snapshot_interval: Some("1s".to_owned()),
        ..CacheConfig::default()
    };
    let cache = Cache::from_config(&config).await.unwrap();
    cache.set("a", 1_u32, MINUTE).await.unwrap();
    let saved = || cache.stats().snapshot.unwrap().saves;
    assert!(tachikoma_testkit::wait_until(Duration::from_secs(10), || saved() == 1));
    drop(cache);
    let cache = Cache::from_config(&config).await.unwrap();
    assert_eq!(*cache.get::<u32>("a").await.unwrap().unwrap(), 1);
}
