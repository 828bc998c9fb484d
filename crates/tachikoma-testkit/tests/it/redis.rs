//! The Redis server of the tests.

use std::time::Duration;

use tachikoma_testkit::{Connection, RedisServer, Resp, Stopwatch, free_port};

const SHORT: Duration = Duration::from_millis(200);

fn ok() -> Resp {
    Resp::Simple("OK".into())
}

#[test]
fn every_kind_of_reply_is_understood() {
    let server = RedisServer::start();
    assert_eq!(server.command(&["SET", "k", "a\r\nb"]), ok());
    assert_eq!(server.command(&["GET", "k"]), Resp::Bulk(b"a\r\nb".to_vec()));
    assert_eq!(server.command(&["GET", "none"]), Resp::Nil);
    assert_eq!(server.command(&["DEL", "k"]).integer(), 1);
    assert!(matches!(server.command(&["NONSENSE"]), Resp::Error(text) if text.starts_with("ERR")));
    assert_eq!(server.command(&["MGET", "k", "none"]).array(), [Resp::Nil, Resp::Nil]);
    assert!(server.info("total_connections_received") >= 6);
}

#[test]
fn a_killed_server_is_gone_at_once_and_comes_back_empty_on_its_port() {
    let mut server = RedisServer::start();
    assert_eq!(server.command(&["SET", "k", "v"]), ok());
    let port = server.port();
    server.kill();
    assert!(Connection::open(port, SHORT).is_err(), "nobody listens after a kill");
    server.restart();
    assert_eq!(server.port(), port);
    assert_eq!(server.command(&["GET", "k"]), Resp::Nil);
}

#[test]
fn a_stopped_server_answers_nothing_until_it_goes_on() {
    let server = RedisServer::start();
    server.stop();
    let mut connection = Connection::open(server.port(), SHORT).expect("the kernel accepts");
    assert!(connection.command(&["PING"]).is_err(), "a stopped server answered");
    server.cont();
    assert_eq!(server.command(&["PING"]), Resp::Simple("PONG".into()));
}

#[test]
fn dropping_the_handle_ends_even_a_stopped_server() {
    let server = RedisServer::start();
    let (pid, port) = (server.pid().expect("it runs"), server.port());
    server.stop();
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} still exists");
    assert!(Connection::open(port, SHORT).is_err());
}

#[test]
fn a_password_is_part_of_the_url_and_of_every_check() {
    let server = RedisServer::builder().password("wonder").start();
    assert_eq!(server.url(), format!("redis://:wonder@127.0.0.1:{}/0", server.port()));
    assert_eq!(server.command(&["PING"]), Resp::Simple("PONG".into()));
    let mut stranger = Connection::open(server.port(), SHORT).expect("it listens");
    assert!(
        matches!(stranger.command(&["PING"]), Ok(Resp::Error(text)) if text.contains("NOAUTH"))
    );
}

#[test]
fn an_acl_limits_what_the_user_of_the_url_may_do() {
    let server = RedisServer::builder()
        .acl("user default off\nuser app on >pw ~* &* +@all -keys")
        .login("app", "pw")
        .start();
    assert_eq!(
        server.url_with("shop"),
        format!("redis://app:pw@127.0.0.1:{}/0?namespace=shop", server.port())
    );
    assert!(
        matches!(server.command(&["KEYS", "*"]), Resp::Error(text) if text.starts_with("NOPERM"))
    );
}

#[test]
fn settings_reach_the_server() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = free_port();
    let server = RedisServer::builder()
        .max_memory("10mb")
        .data_folder(folder.path())
        .port(port)
        .unix_socket()
        .arguments(["--maxmemory-policy", "allkeys-lru"])
        .start();
    assert_eq!(server.port(), port);
    assert_eq!(server.info("maxmemory"), 10 * 1024 * 1024);
    assert_eq!(
        server.command(&["CONFIG", "GET", "maxmemory-policy"]).array()[1].text(),
        "allkeys-lru"
    );
    assert!(server.unix_socket().expect("it was asked for").exists());
    assert_eq!(server.command(&["SET", "k", "v"]), ok());
    assert_eq!(server.command(&["SAVE"]), ok());
    assert!(folder.path().join("dump.rdb").exists());
}

#[test]
fn many_servers_at_once_have_their_own_ports_and_data() {
    let servers: Vec<_> = (0..5).map(|_| RedisServer::start()).collect();
    for (number, server) in servers.iter().enumerate() {
        server.command(&["SET", "who", &number.to_string()]);
    }
    for (number, server) in servers.iter().enumerate() {
        assert_eq!(server.command(&["GET", "who"]).text(), number.to_string());
    }
}

#[test]
#[should_panic(expected = "redis-server did not start on port")]
fn a_server_that_cannot_start_says_so_soon() {
    let timer = Stopwatch::start();
    let _guard = Late(timer);
    let _server = RedisServer::builder().arguments(["--no-such-setting", "1"]).start();
}

struct Late(Stopwatch);

impl Drop for Late {
    fn drop(&mut self) {
        assert!(self.0.elapsed() < Duration::from_secs(10), "it waited instead of failing");
    }
}
