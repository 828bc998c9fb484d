//! What is sent, and what is shown to others.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tachikoma_cache::invalidation::How;
use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_cache::store::{Store, Want, When, Written};
use tachikoma_cache::{ErrorKind, Guarantee, SystemClock};
use tachikoma_testkit::{Fault, FaultProxy, RedisServer, Resp};
use tracing::field::{Field, Visit};

use crate::bench::{Client, MINUTE, config, ms, soon, until_down, until_up};

/// Everything that a store does, once.
async fn use_all(c: &Client) {
    c.set("a", "v").await;
    assert_eq!(c.get("a").await.unwrap(), "v");
    c.read(&["a", "b"]).await.unwrap();
    let entry = c.tagged("v", &["t"], None).await;
    c.write("b", entry, When::Always).await.unwrap();
    assert_eq!(c.guarantee("b").await, Some(Guarantee::Fresh));
    let lease = Client::lead(c.begin("k").await.unwrap());
    assert_eq!(c.fill("k", "v", &lease).await, Written::Stored);
    let lease = Client::lead(c.begin("l").await.unwrap());
    c.store.abandon(&c.key("l"), lease);
    c.write("c", c.entry("v", None), When::Absent).await.unwrap();
    assert!(c.touch("a", Some(c.clock.now().saturating_add(MINUTE))).await);
    c.invalidate(&["t"], How::Soft).await.unwrap();
    c.invalidate(&["t"], How::Hard).await.unwrap();
    assert_eq!(c.scan("*", Want::Entries).await.len(), 3);
    assert_eq!(c.remove(&["a", "b", "c"]).await, 2);
    soon("abandoned", ms(5000), async || c.names("*").await == ["k"]).await;
}

/// The rights that the store needs; from Redis 7.2 on also `+client|setinfo`.
const RIGHTS: &str = "-@all +get +mget +getrange +set +del +unlink +exists +scan +pttl +pexpire \
                      +zadd +zcard +zcount +zrange +zrem +zremrangebyrank +zremrangebyscore \
                      +zrevrangebyscore +zscore +eval +evalsha +multi +exec \
                      +hello +select +client|setname +client|id +client|kill \
                      +client|tracking +client|getredir +info +time";

#[tokio::test]
async fn a_user_with_few_rights_can_do_everything() {
    let server = RedisServer::builder()
        .acl(&format!("user default on nopass ~* +@all\nuser app on >pw ~test:* {RIGHTS}"))
        .start();
    let url = format!("redis://app:pw@127.0.0.1:{}/0", server.port());
    let config = RedisConfig::from_url(&url).unwrap().0.timeout(ms(5000));
    let c = Client::with(config, Arc::new(SystemClock::new())).await;
    use_all(&c).await;
    assert_eq!(server.command(&["ACL", "LOG"]), Resp::Array(Vec::new()));
    let other = Client { space: tachikoma_cache::Namespace::new("no").unwrap(), ..c };
    let error = other.try_get("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
}

#[tokio::test]
async fn no_command_stops_the_server_for_others() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    use_all(&c).await;
    let stats = server.command(&["INFO", "commandstats"]).text().to_lowercase();
    assert!(stats.contains("cmdstat_scan:"), "{stats}");
    for command in ["keys", "flushall", "flushdb", "debug", "config", "randomkey", "sort"] {
        assert!(!stats.contains(&format!("cmdstat_{command}:")), "{command} was sent");
    }
}

#[tokio::test]
async fn protocol_text_in_keys_and_values_stays_text() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let text = "\r\n*1\r\n$8\r\nFLUSHALL\r\n'\"\0 return 1 --";
    c.set("kept", "v").await;
    c.set(text, text).await;
    let lease = Client::lead(c.begin(&format!("{text}2")).await.unwrap());
    c.fill(&format!("{text}2"), text, &lease).await;
    let entry = c.tagged(text, &[text], None).await;
    c.write("tagged", entry, When::Always).await.unwrap();
    assert_eq!(c.get(text).await.unwrap(), text);
    assert_eq!(c.get(&format!("{text}2")).await.unwrap(), text);
    c.invalidate(&[text], How::Hard).await.unwrap();
    assert_eq!(c.get("tagged").await, None);
    assert_eq!(c.remove(&[text]).await, 1);
    assert_eq!(c.get("kept").await.unwrap(), "v");
    assert_eq!(c.scan("*", Want::Entries).await.len(), 2);
    let big = text.repeat(30_000);
    c.set("big", &big).await;
    assert_eq!(c.get("big").await.unwrap(), big);
}

#[tokio::test]
async fn scripts_are_sent_again_to_a_server_that_forgot_them() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    for _ in 0..2 {
        use_all(&c).await;
        c.remove(&["k"]).await;
        server.command(&["SCRIPT", "FLUSH"]);
    }
    let lease = Client::lead(c.begin("x").await.unwrap());
    assert_eq!(c.fill("x", "v", &lease).await, Written::Stored);
    let text = server.command(&["INFO", "commandstats"]).text();
    assert!(text.contains("cmdstat_evalsha:") && text.contains("cmdstat_eval:"), "{text}");
}

/// 10,000 calls dropped at any point, while others read values that say which key they are of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_dropped_never_mix_answers_up() {
    let server = RedisServer::start();
    let c = Arc::new(Client::new(&server).await);
    for key in 0..64 {
        c.set(&format!("k{key}"), &format!("value of k{key}")).await;
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..64)
        .map(|reader| {
            let (c, stop) = (Arc::clone(&c), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut reads = 0_u64;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let (one, two) = (format!("k{reader}"), format!("k{}", (reader + 7) % 64));
                    assert_eq!(c.get(&one).await, Some(format!("value of {one}")));
                    let both = c.read(&[&two, &one]).await.unwrap();
                    for (name, found) in [two, one].iter().zip(both) {
                        let (entry, _) = found.unwrap();
                        assert_eq!(crate::bench::text(&entry), format!("value of {name}"));
                    }
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for call in 0..10_000_usize {
        let name = format!("k{}", call % 64);
        let polls = call % 4;
        let dropped = async {
            match call % 3 {
                0 => drop(c.try_get(&name).await),
                1 => drop(c.read(&[&name, "none"]).await),
                _ => drop(c.begin("none").await),
            }
        };
        let mut dropped = Box::pin(dropped);
        for _ in 0..polls {
            let poll = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(dropped.as_mut().poll(cx).is_ready())
            });
            if poll.await {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}

/// Keeps the text of everything that is logged, down to the finest level.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<String>>);

impl Log {
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    /// How many lines have this text.
    pub(crate) fn lines(&self, text: &str) -> u64 {
        self.0.lock().unwrap().lines().filter(|line| line.contains(text)).count() as u64
    }
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        attributes.record(&mut self.clone());
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn no_log_error_or_debug_shows_the_password() {
    let log = Log::default();
    let _log = tracing::subscriber::set_default(log.clone());
    let password = "s3ntinel-pw";
    let mut server = RedisServer::builder().password(password).start();
    let mut shown = String::new();
    let c = Client::with(config(&server), Arc::new(SystemClock::new())).await;
    use_all(&c).await;
    server.kill();
    until_down(&c).await;
    let error = c.try_get("k").await.unwrap_err();
    write!(shown, "{error} {error:?} {:?} {:?}", c.store, c.store.health()).unwrap();
    server.restart();
    until_up(&c).await;
    let mut redis = server.connection();
    redis.command(&["CONFIG", "SET", "requirepass", "another"]).unwrap();
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    until_down(&c).await;
    crate::bench::pause(ms(100)).await;
    let error = c.try_get("k").await.unwrap_err();
    write!(shown, "{error} {error:?} {:?} {:?}", c.store, c.store.health()).unwrap();
    let again = RedisStore::connect(config(&server), Arc::new(SystemClock::new())).await;
    write!(shown, "{again:?}").unwrap();
    let logged = log.0.lock().unwrap().clone();
    assert!(logged.contains("Redis cannot be used"), "{logged}");
    assert!(!logged.contains("s3ntinel"), "{logged}");
    assert!(shown.contains("***") && !shown.contains("s3ntinel"), "{shown}");
}

#[tokio::test]
async fn an_outage_logs_at_most_a_line_a_second() {
    let log = Log::default();
    let _log = tracing::subscriber::set_default(log.clone());
    let server = RedisServer::start();
    let proxy = FaultProxy::to(server.port());
    let c = Client::with(crate::bench::through(&proxy), Arc::new(SystemClock::new())).await;
    proxy.set(Fault::Refuse);
    until_down(&c).await;
    for _ in 0..1000 {
        c.try_get("k").await.unwrap_err();
    }
    crate::bench::pause(ms(2000)).await;
    let logged = log.0.lock().unwrap().clone();
    let lines = logged.matches("message=").count();
    assert!((1..=4).contains(&lines), "{lines}: {logged}");
}

#[tokio::test]
async fn statistics_are_read_within_a_microsecond() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let watch = tachikoma_testkit::Stopwatch::start();
    for _ in 0..10_000 {
        std::hint::black_box(c.store.stats());
    }
    let each = watch.elapsed() / 10_000;
    // Without optimisation and with other tests beside it.
    assert!(each < std::time::Duration::from_micros(10), "{each:?}");
}
