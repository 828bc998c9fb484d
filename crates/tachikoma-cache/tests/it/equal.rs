//! Random sequences of operations: every store gives the answers of a plain map with a virtual
//! clock.
//!
//! `TACHIKOMA_SEQUENCES=4096` makes as many sequences of each store as the catalogue asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::Union;
use tachikoma_cache::{Cache, Clock, KeyTtl, Pattern, TestClock, Ttl};

#[derive(Debug, Clone)]
enum Operation {
    Get(u8),
    Set { key: u8, value: u32, ttl: Option<u16>, tags: Vec<u8> },
    SetIfAbsent { key: u8, value: u32, ttl: u16 },
    Touch { key: u8, ttl: u16 },
    ExpireAt { key: u8, millis: i16 },
    GetMany(Vec<u8>),
    SetMany { keys: Vec<u8>, value: u32, ttl: u16, tags: Vec<u8> },
    DeleteMany(Vec<u8>),
    LoadMany { keys: Vec<u8>, value: Result<u32, ()>, ttl: u16 },
    Delete(u8),
    DeletePattern(&'static str),
    InvalidateTag(u8),
    ExpireTag(u8),
    Clear,
    Load { key: u8, value: Result<u32, ()>, ttl: u16, tags: Vec<u8> },
    Exists(u8),
    Ttl(u8),
    Advance(u16),
}

const PATTERNS: [&str; 5] = ["k:[0-2]", "k:?", "*3", "x*", "k:[^5]"];

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let key = || 0_u8..6;
    let keys = || prop::collection::vec(0_u8..6, 0..5);
    let ttl = || 1_u16..2000;
    let tags = || prop::collection::vec(0_u8..4, 0..3);
    let operation = Union::new_weighted(vec![
        (4, key().prop_map(Operation::Get).boxed()),
        (
            4,
            (key(), any::<u32>(), prop::option::of(ttl()), tags())
                .prop_map(|(key, value, ttl, tags)| Operation::Set { key, value, ttl, tags })
                .boxed(),
        ),
        (
            1,
            (key(), any::<u32>(), ttl())
                .prop_map(|(key, value, ttl)| Operation::SetIfAbsent { key, value, ttl })
                .boxed(),
        ),
        (1, (key(), ttl()).prop_map(|(key, ttl)| Operation::Touch { key, ttl }).boxed()),
        (
            1,
            (key(), -100_i16..2000)
                .prop_map(|(key, millis)| Operation::ExpireAt { key, millis })
                .boxed(),
        ),
        (2, keys().prop_map(Operation::GetMany).boxed()),
        (
            1,
            (keys(), any::<u32>(), ttl(), tags())
                .prop_map(|(keys, value, ttl, tags)| Operation::SetMany { keys, value, ttl, tags })
                .boxed(),
        ),
        (1, keys().prop_map(Operation::DeleteMany).boxed()),
        (
            2,
            (keys(), prop::result::maybe_ok(any::<u32>(), Just(())), ttl())
                .prop_map(|(keys, value, ttl)| Operation::LoadMany { keys, value, ttl })
                .boxed(),
        ),
        (1, key().prop_map(Operation::Delete).boxed()),
        (1, prop::sample::select(&PATTERNS[..]).prop_map(Operation::DeletePattern).boxed()),
        (1, (0_u8..4).prop_map(Operation::InvalidateTag).boxed()),
        (1, (0_u8..4).prop_map(Operation::ExpireTag).boxed()),
        (1, Just(Operation::Clear).boxed()),
        (
            3,
            (key(), prop::result::maybe_ok(any::<u32>(), Just(())), ttl(), tags())
                .prop_map(|(key, value, ttl, tags)| Operation::Load { key, value, ttl, tags })
                .boxed(),
        ),
        (1, key().prop_map(Operation::Exists).boxed()),
        (2, key().prop_map(Operation::Ttl).boxed()),
        (3, (0_u16..1500).prop_map(Operation::Advance).boxed()),
    ]);
    prop::collection::vec(operation, 1..100)
}

fn name(key: u8) -> String {
    format!("k:{key}")
}

fn names(keys: &[u8]) -> Vec<String> {
    keys.iter().copied().map(name).collect()
}

fn tag_names(tags: &[u8]) -> Vec<String> {
    tags.iter().map(|tag| format!("t{tag}")).collect()
}

/// What a map with a virtual clock answers.
#[derive(Default)]
struct Model {
    now: u64,
    entries: BTreeMap<u8, Entry>,
}

#[derive(Clone)]
struct Entry {
    value: u32,
    expires: Option<u64>,
    tags: Vec<u8>,
    stale: bool,
}

impl Model {
    fn fresh(&self, key: u8) -> Option<&Entry> {
        self.present(key).filter(|entry| !entry.stale)
    }

    fn present(&self, key: u8) -> Option<&Entry> {
        self.entries.get(&key).filter(|entry| entry.expires.is_none_or(|at| self.now < at))
    }

    fn put(&mut self, key: u8, value: u32, ttl: Option<u16>, tags: &[u8]) {
        let expires = ttl.map(|ttl| self.now + u64::from(ttl));
        self.entries.insert(key, Entry { value, expires, tags: tags.to_vec(), stale: false });
    }

    #[expect(clippy::too_many_lines, reason = "it is a table of operations")]
    fn answer(&mut self, operation: &Operation) -> String {
        match operation {
            Operation::Get(key) => format!("{:?}", self.fresh(*key).map(|entry| entry.value)),
            Operation::Set { key, value, ttl, tags } => {
                self.put(*key, *value, *ttl, tags);
                "set".to_owned()
            }
            Operation::SetIfAbsent { key, value, ttl } => {
                let absent = self.fresh(*key).is_none();
                if absent {
                    self.put(*key, *value, Some(*ttl), &[]);
                }
                absent.to_string()
            }
            Operation::Touch { key, ttl } => {
                let expires = self.now + u64::from(*ttl);
                let there = self.fresh(*key).is_some();
                if there && let Some(entry) = self.entries.get_mut(key) {
                    entry.expires = Some(expires);
                }
                there.to_string()
            }
            Operation::ExpireAt { key, millis } if *millis <= 0 => {
                self.answer(&Operation::Delete(*key))
            }
            Operation::ExpireAt { key, millis } => {
                self.answer(&Operation::Touch { key: *key, ttl: millis.unsigned_abs() })
            }
            Operation::GetMany(keys) => {
                let values = keys.iter().map(|key| self.fresh(*key).map(|entry| entry.value));
                format!("{:?}", values.collect::<Vec<_>>())
            }
            Operation::SetMany { keys, value, ttl, tags } => {
                for (key, value) in keys.iter().zip(*value..) {
                    self.put(*key, value, Some(*ttl), tags);
                }
                "set".to_owned()
            }
            Operation::DeleteMany(keys) => {
                let there = keys.iter().filter(|key| {
                    let there = self.present(**key).is_some();
                    self.entries.remove(key);
                    there
                });
                there.count().to_string()
            }
            Operation::LoadMany { keys, value, ttl } => {
                let missing: Vec<u8> =
                    keys.iter().copied().filter(|key| self.fresh(*key).is_none()).collect();
                match value {
                    Err(()) if !missing.is_empty() => return format!("{:?}", Err::<(), _>(())),
                    Ok(value) => {
                        for key in missing {
                            self.put(key, *value, Some(*ttl), &[]);
                        }
                    }
                    Err(()) => {}
                }
                let answers = keys.iter().map(|key| self.fresh(*key).map(|entry| entry.value));
                format!("{:?}", Ok::<_, ()>(answers.collect::<Vec<_>>()))
            }
            // What is counted is what is there, also what is stale.
            Operation::Delete(key) => {
                let there = self.present(*key).is_some();
                self.entries.remove(key);
                there.to_string()
            }
            Operation::DeletePattern(pattern) => {
                let glob = tachikoma_cache::glob::Glob::new(pattern).unwrap();
                self.entries.retain(|key, _| !glob.matches(name(*key).as_bytes()));
                "deleted".to_owned()
            }
            Operation::InvalidateTag(tag) => {
                self.entries.retain(|_, entry| !entry.tags.contains(tag));
                "invalidated".to_owned()
            }
            Operation::ExpireTag(tag) => {
                for entry in self.entries.values_mut().filter(|entry| entry.tags.contains(tag)) {
                    entry.stale = true;
                }
                "expired".to_owned()
            }
            Operation::Clear => {
                self.entries.clear();
                "cleared".to_owned()
            }
            Operation::Load { key, value, ttl, tags } => {
                let answer = self.fresh(*key).map(|entry| entry.value).ok_or(()).or(*value);
                if self.fresh(*key).is_none()
                    && let Ok(value) = value
                {
                    self.put(*key, *value, Some(*ttl), tags);
                }
                format!("{answer:?}")
            }
            Operation::Exists(key) => self.fresh(*key).is_some().to_string(),
            Operation::Ttl(key) => match self.fresh(*key) {
                None => format!("{:?}", KeyTtl::NoKey),
                Some(Entry { expires: None, .. }) => format!("{:?}", KeyTtl::NoExpiry),
                Some(Entry { expires: Some(at), .. }) => {
                    format!("{:?}", KeyTtl::Expires(Duration::from_millis(at - self.now)))
                }
            },
            Operation::Advance(millis) => {
                self.now += u64::from(*millis);
                "later".to_owned()
            }
        }
    }
}

/// What the cache answers.
async fn answer(cache: &Cache, clock: &TestClock, operation: &Operation) -> String {
    match operation {
        Operation::Get(key) => {
            format!("{:?}", cache.get::<u32>(&name(*key)).await.unwrap().map(|hit| *hit))
        }
        Operation::Set { key, value, ttl, tags } => {
            let ttl = ttl.map_or(Ttl::Never, |ttl| Duration::from_millis(ttl.into()).into());
            cache.set(&name(*key), *value, ttl).tags(tag_names(tags)).await.unwrap();
            "set".to_owned()
        }
        Operation::SetIfAbsent { key, value, ttl } => {
            let ttl = Duration::from_millis((*ttl).into());
            cache.set_if_absent(&name(*key), *value, ttl).await.unwrap().to_string()
        }
        Operation::Touch { key, ttl } => {
            let ttl = Duration::from_millis((*ttl).into());
            cache.touch(&name(*key), ttl).await.unwrap().to_string()
        }
        Operation::ExpireAt { key, millis } => {
            let (now, by) = (clock.wall(), Duration::from_millis(millis.unsigned_abs().into()));
            let at = if *millis < 0 { now - by } else { now + by };
            cache.expire_at(&name(*key), at).await.unwrap().to_string()
        }
        Operation::GetMany(keys) => {
            let hits = cache.get_many::<u32>(&names(keys)).await.unwrap();
            format!("{:?}", hits.iter().map(|hit| hit.as_deref().copied()).collect::<Vec<_>>())
        }
        Operation::SetMany { keys, value, ttl, tags } => {
            let items = names(keys).into_iter().zip(*value..);
            let ttl = Duration::from_millis((*ttl).into());
            cache.set_many(items, ttl).tags(tag_names(tags)).await.unwrap();
            "set".to_owned()
        }
        Operation::DeleteMany(keys) => cache.delete_many(&names(keys)).await.unwrap().to_string(),
        Operation::LoadMany { keys, value, ttl } => {
            let loaded = *value;
            let load = cache.get_or_load_many(names(keys), move |missing| async move {
                loaded.map(|value| missing.into_iter().map(move |key| (key, value)))
            });
            let hits = load.ttl(Duration::from_millis((*ttl).into())).await;
            for key in keys.iter().filter(|_| hits.is_ok()) {
                until_stored(cache, clock, &name(*key)).await;
            }
            let values = hits.map(|hits| {
                hits.iter().map(|hit| hit.as_deref().copied()).collect::<Vec<Option<u32>>>()
            });
            format!("{:?}", values.map_err(|_| ()))
        }
        Operation::Delete(key) => cache.delete(&name(*key)).await.unwrap().to_string(),
        Operation::DeletePattern(pattern) => {
            cache.delete_pattern(&Pattern::raw(pattern).unwrap()).await.unwrap();
            "deleted".to_owned()
        }
        Operation::InvalidateTag(tag) => {
            cache.invalidate_tags(tag_names(&[*tag])).await.unwrap();
            "invalidated".to_owned()
        }
        Operation::ExpireTag(tag) => {
            cache.expire_tag(&tag_names(&[*tag])[0]).await.unwrap();
            "expired".to_owned()
        }
        Operation::Clear => {
            cache.clear().await.unwrap();
            "cleared".to_owned()
        }
        Operation::Load { key, value, ttl, tags } => {
            let (loaded, name) = (*value, name(*key));
            let ttl = Duration::from_millis((*ttl).into());
            let load = cache.get_or_load(&name, move || async move { loaded });
            let hit = load.ttl(ttl).tags(tag_names(tags)).await;
            if hit.is_ok() {
                until_stored(cache, clock, &name).await;
            }
            format!("{:?}", hit.map(|hit| *hit).map_err(|_| ()))
        }
        Operation::Exists(key) => cache.exists(&name(*key)).await.unwrap().to_string(),
        Operation::Ttl(key) => format!("{:?}", cache.ttl(&name(*key)).await.unwrap()),
        Operation::Advance(millis) => {
            clock.advance(Duration::from_millis((*millis).into()));
            "later".to_owned()
        }
    }
}

/// A value is answered before it is stored; the next operation wants it there.
async fn until_stored(cache: &Cache, clock: &TestClock, name: &str) {
    for _ in 0..2000 {
        if cache.exists(name).await.unwrap() {
            break;
        }
        clock.sleep(Duration::ZERO).await;
        tokio::task::yield_now().await;
    }
}

async fn check(cache: &Cache, clock: &TestClock, operations: &[Operation]) {
    let mut model = Model::default();
    for (step, operation) in operations.iter().enumerate() {
        let expected = model.answer(operation);
        let actual = answer(cache, clock, operation).await;
        assert_eq!(actual, expected, "step {step}, {operation:?}, of {operations:#?}");
    }
}

fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("TACHIKOMA_SEQUENCES").map_or(cases, |n| n.parse().unwrap());
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

mod memory {
    use super::*;

    #[test]
    fn every_answer_is_that_of_a_map() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        proptest!(config(1024), |(operations in operations())| {
            let bench = crate::bench::Bench::memory();
            runtime.block_on(check(&bench.cache, &bench.clock, &operations));
        });
    }
}

mod redis {
    use super::*;

    #[test]
    fn every_answer_is_that_of_a_map() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = tachikoma_testkit::RedisServer::start();
        let (cache, clock) = runtime.block_on(crate::bench::Bench::on(&server));
        proptest!(config(128), |(operations in operations())| {
            runtime.block_on(async {
                cache.clear().await.unwrap();
                check(&cache, &clock, &operations).await;
            });
        });
    }
}

mod tiered {
    use super::*;

    #[test]
    fn every_answer_is_that_of_a_map() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let bench = runtime.block_on(crate::bench::Bench::tiered());
        proptest!(config(128), |(operations in operations())| {
            runtime.block_on(async {
                bench.cache.clear().await.unwrap();
                check(&bench.cache, &bench.clock, &operations).await;
            });
        });
    }
}
