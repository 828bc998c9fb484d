//! Ways to reach a server, and servers that do not want to be reached.

use std::sync::Arc;
use std::time::Duration;

use tachikoma_cache::store::Store;
use tachikoma_cache::store::redis::{Credentials, RedisConfig, RedisStore};
use tachikoma_cache::{ErrorKind, Health, SystemClock};
use tachikoma_testkit::{Fault, FaultProxy, RedisServer, Resp, Stopwatch};

use crate::bench::{Client, config, ms, pause, soon, through, until_down, until_up};

async fn at(url: &str) -> Client {
    let config = RedisConfig::from_url(url).unwrap().0;
    Client::with(config, Arc::new(SystemClock::new())).await
}

async fn check_works(c: &Client) {
    assert_eq!(c.store.health(), Health::Up);
    c.set("k", "v").await;
    assert_eq!(c.get("k").await.unwrap(), "v");
}

#[tokio::test]
async fn a_unix_socket_is_reached() {
    let server = RedisServer::builder().unix_socket().password("p@ss").start();
    let path = server.unix_socket().unwrap();
    check_works(&at(&format!("unix://{}?db=2&pass=p%40ss", path.display())).await).await;
    check_works(&at(&format!("redis+unix://{}?pass=p%40ss", path.display())).await).await;
    let mut redis = server.connection();
    redis.command(&["SELECT", "2"]).unwrap();
    assert_eq!(redis.command(&["DBSIZE"]).unwrap().integer(), 1);
}

#[tokio::test]
async fn a_database_is_selected() {
    let server = RedisServer::start();
    check_works(&at(&format!("redis://127.0.0.1:{}/7", server.port())).await).await;
    let mut redis = server.connection();
    redis.command(&["SELECT", "7"]).unwrap();
    assert_eq!(redis.command(&["EXISTS", "test:{vk}"]).unwrap().integer(), 1);
    let url = format!("redis://127.0.0.1:{}/99", server.port());
    let config = RedisConfig::from_url(&url).unwrap().0;
    let error = RedisStore::connect(config, Arc::new(SystemClock::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
}

#[tokio::test]
async fn a_password_and_a_user_log_in() {
    let server = RedisServer::builder().password("s3cret/").start();
    check_works(&at(&format!("redis://:s3cret%2F@127.0.0.1:{}/0", server.port())).await).await;
    let server = RedisServer::builder().acl("user app on >pw ~* +@all").login("app", "pw").start();
    check_works(&at(&server.url()).await).await;
}

async fn check_refused(server: &RedisServer, login: &str) {
    let url = format!("redis://{login}127.0.0.1:{}/0", server.port());
    let config = RedisConfig::from_url(&url).unwrap().0;
    let error = RedisStore::connect(config, Arc::new(SystemClock::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("s3ntinel"), "{shown}");
}

#[tokio::test]
async fn a_wrong_login_is_an_error_at_once() {
    let server = RedisServer::builder().password("right").start();
    check_refused(&server, ":s3ntinel-pw@").await;
    check_refused(&server, "nobody:s3ntinel-pw@").await;
    check_refused(&server, "").await;
}

#[tokio::test]
async fn a_login_that_ends_is_tried_again_once_a_second_and_then_works() {
    let server = RedisServer::builder().acl("user default on nopass ~* +@all").start();
    server.command(&["ACL", "SETUSER", "app", "on", ">one", "~*", "+@all"]);
    let c = at(&format!("redis://app:one@127.0.0.1:{}/0", server.port())).await;
    check_works(&c).await;
    server.command(&["CONFIG", "RESETSTAT"]);
    server.command(&["ACL", "DELUSER", "app"]);
    until_down(&c).await;
    soon("refused", ms(2000), async || {
        c.try_get("k").await.is_err_and(|error| error.kind() == ErrorKind::Rejected)
    })
    .await;
    let before = server.info("total_connections_received");
    pause(ms(2500)).await;
    let attempts = server.info("total_connections_received") - before;
    // One of them is the connection that asks.
    assert!((2..=4).contains(&attempts), "{attempts} attempts in 2.5 s");
    server.command(&["ACL", "SETUSER", "app", "on", ">one", "~*", "+@all"]);
    until_up(&c).await;
    check_works(&c).await;
}

/// Logs the user `app` out, whose password is another one now.
fn rotate(server: &RedisServer, password: &str) {
    let secret = format!(">{password}");
    server.command(&["ACL", "SETUSER", "app", "reset", "on", &secret, "~*", "+@all"]);
    server.command(&["CLIENT", "KILL", "USER", "app"]);
}

#[tokio::test]
async fn a_password_that_is_changed_in_its_file_is_picked_up() {
    let server = RedisServer::start();
    rotate(&server, "one");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "one\n").unwrap();
    let url = format!("redis://app@127.0.0.1:{}/0?password_file={}", server.port(), file.display());
    let c = at(&url).await;
    check_works(&c).await;
    rotate(&server, "two");
    soon("refused", ms(2000), async || {
        c.try_get("k").await.is_err_and(|error| error.kind() == ErrorKind::Rejected)
    })
    .await;
    std::fs::write(&file, "two\n").unwrap();
    let took = soon("picked up", ms(3000), async || c.try_get("k").await.is_ok()).await;
    assert!(took <= ms(2000), "{took:?}");
    // A file that is being written is no reason to give up.
    std::fs::remove_file(&file).unwrap();
    server.command(&["CLIENT", "KILL", "USER", "app"]);
    let Health::Degraded { reason, .. } = degraded(&c).await else { panic!() };
    assert!(reason.contains("password_file"), "{reason}");
    std::fs::write(&file, "two").unwrap();
    until_up(&c).await;
    let error = RedisConfig::from_url("redis://h/0?password_file=/none/at/all").unwrap_err();
    assert!(error.to_string().contains("/none/at/all: entity not found"), "{error}");
}

async fn degraded(c: &Client) -> Health {
    soon("no password", ms(2000), async || {
        let Health::Degraded { reason, .. } = c.store.health() else { return false };
        reason.contains("credentials")
    })
    .await;
    c.store.health()
}

#[tokio::test]
async fn the_application_is_asked_for_credentials_before_each_login() {
    let server = RedisServer::start();
    rotate(&server, "token 1");
    let asked = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let config =
        RedisConfig::from_url(&format!("redis://127.0.0.1:{}/0", server.port())).unwrap().0;
    let config = config.credentials({
        let asked = Arc::clone(&asked);
        move || {
            let number = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            async move {
                match number {
                    2 => Err("s3ntinel-pw"),
                    _ => Ok(Credentials::user("app", format!("token {number}"))),
                }
            }
        }
    });
    let c = Client::with(config, Arc::new(SystemClock::new())).await;
    check_works(&c).await;
    rotate(&server, "token 3");
    let Health::Degraded { reason, .. } = degraded(&c).await else { panic!() };
    assert!(!reason.contains("s3ntinel"), "{reason}");
    until_up(&c).await;
    check_works(&c).await;
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_server_that_is_away_is_no_error_and_is_found_later() {
    let server = RedisServer::start();
    let proxy = FaultProxy::to(server.port());
    proxy.set(Fault::Refuse);
    let watch = Stopwatch::start();
    let c = Client::with(through(&proxy), Arc::new(SystemClock::new())).await;
    watch.within(ms(1000));
    assert!(matches!(c.store.health(), Health::Degraded { .. }));
    assert_eq!(c.try_get("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
    proxy.set(Fault::Pass);
    until_up(&c).await;
    check_works(&c).await;
}

#[tokio::test]
async fn a_server_that_accepts_and_is_silent_does_not_hold_up_the_start() {
    let server = RedisServer::start();
    let proxy = FaultProxy::to(server.port());
    proxy.set(Fault::Stall);
    let watch = Stopwatch::start();
    let c = Client::with(through(&proxy), Arc::new(SystemClock::new())).await;
    watch.within(ms(1000));
    assert!(matches!(c.store.health(), Health::Degraded { .. }));
}

#[tokio::test]
async fn too_many_clients_is_an_outage_that_ends() {
    let server = RedisServer::builder().arguments(["--maxclients", "2"]).start();
    let (one, two) = (server.connection(), server.connection());
    let c = at(&server.url()).await;
    assert_eq!(c.try_get("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
    drop((one, two));
    until_up(&c).await;
}

#[test]
fn a_store_needs_a_runtime_to_be_made() {
    let config = RedisConfig::from_url("redis://127.0.0.1:1/0").unwrap().0;
    let mut connect = Box::pin(RedisStore::connect(config, Arc::new(SystemClock::new())));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match connect.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::Config),
        other => panic!("{other:?}"),
    }
}

fn check_ended(runtime: tokio::runtime::Runtime) {
    let server = RedisServer::start();
    let c = runtime.block_on(async {
        let c = Client::new(&server).await;
        c.set("k", "v").await;
        c
    });
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async {
        let watch = Stopwatch::start();
        assert_eq!(c.try_get("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(c.try_remove(&["k"]).await.unwrap_err().is_pending());
        watch.within(ms(100));
        assert!(matches!(c.store.health(), Health::Degraded { .. }));
    });
}

#[test]
fn a_store_whose_runtime_has_ended_fails_at_once() {
    check_ended(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    check_ended(tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap());
}

#[test]
fn a_store_whose_runtime_nobody_drives_does_not_hang() {
    let server = RedisServer::start();
    let idle = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut c = idle.block_on(Client::new(&server));
    c.budget = ms(100);
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async {
        for _ in 0..10 {
            let watch = Stopwatch::start();
            assert!(c.try_get("k").await.is_err());
            watch.within(ms(150));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_dropped_store_goes_on() {
    let server = RedisServer::start();
    let c = Client::with(config(&server), Arc::new(SystemClock::new())).await;
    check_works(&c).await;
    let ours = || {
        let list = server.command(&["CLIENT", "LIST"]);
        let Resp::Bulk(list) = list else { panic!("{list:?}") };
        String::from_utf8(list).unwrap().matches("name=tachikoma").count()
    };
    assert_eq!(ours(), 1);
    drop(c);
    soon("closed", ms(2000), async || ours() == 0).await;
    pause(ms(700)).await;
    assert_eq!(ours(), 0, "it does not connect again");
}

#[tokio::test]
async fn a_timeout_of_zero_or_of_more_than_a_day_is_refused() {
    let server = RedisServer::start();
    for bad in [Duration::ZERO, Duration::from_secs(86_401)] {
        for (name, config) in [
            ("connect_timeout is", config(&server).connect_timeout(bad)),
            (": timeout is", config(&server).timeout(bad)),
        ] {
            let connect = RedisStore::connect(config, Arc::new(SystemClock::new()));
            let error = connect.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{name} {bad:?}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
