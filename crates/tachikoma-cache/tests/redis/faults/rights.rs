//! What is sent, by whom, and with which rights.

use tachikoma_cache::ErrorKind;
use tachikoma_cache::store::redis::RedisConfig;
use tachikoma_testkit::{Connection, Fault, FaultRow, Resp};

use super::*;

/// Everything that a cache does, once.
async fn use_all(cache: &Cache) {
    cache.set("a", 1_u64, MINUTE).await.unwrap();
    cache.set("b", 1_u64, MINUTE).tags(["t", "u"]).await.unwrap();
    cache.get::<u64>("a").await.unwrap().unwrap();
    cache.get::<u64>("b").await.unwrap().unwrap();
    cache.set_if_absent("a", 2_u64, MINUTE).await.unwrap();
    cache.set_if_absent("c", 2_u64, MINUTE).await.unwrap();
    cache.get_many::<u64>(&["a", "b", "none"]).await.unwrap();
    cache.set_many([("m1", 1_u64), ("m2", 2)], MINUTE).await.unwrap();
    cache.delete_many(&["m1", "none"]).await.unwrap();
    cache.exists("a").await.unwrap();
    cache.ttl("a").await.unwrap();
    assert!(load(cache, "l").await.0);
    assert!(load(cache, "l").await.0);
    cache.delete("a").await.unwrap();
    let mut guard = cache.write_guard(["a"]).await.unwrap();
    guard.publish("a", 3_u64, MINUTE).unwrap();
    assert!(guard.is_held());
    assert_eq!(guard.commit().await.unwrap(), 1);
    let first = cache.write_guard(["a"]).await.unwrap();
    drop(cache.write_guard(["a"]).await.unwrap());
    first.commit().await.unwrap();
    cache.expire_tag("u").await.unwrap();
    cache.invalidate_tag("t").await.unwrap();
    cache.delete_pattern(&Pattern::new().literal("m").any()).await.unwrap();
    cache.set("z", 1_u64, MINUTE).await.unwrap();
    cache.clear().await.unwrap();
    assert!(!cache.exists("z").await.unwrap());
}

/// Sees every command that a server runs.
struct Monitor {
    watch: Connection,
    server: Connection,
}

impl Monitor {
    fn of(server: &RedisServer) -> Self {
        let mut watch = server.connection();
        watch.command(&["MONITOR"]).unwrap();
        Self { watch, server: server.connection() }
    }

    /// The commands until now, each as its words, but for those of this test.
    fn commands(&mut self) -> Vec<Vec<String>> {
        self.server.command(&["ECHO", "the end of the watch"]).unwrap();
        let mut commands = Vec::new();
        loop {
            let Resp::Simple(line) = self.watch.receive().unwrap() else { continue };
            if line.contains("the end of the watch") {
                return commands;
            }
            let words = line.split_once("] ").map_or("", |(_, words)| words);
            commands
                .push(words.split("\" \"").map(|word| word.trim_matches('"').to_owned()).collect());
        }
    }
}

#[tokio::test]
async fn ds_09_10_11_what_the_server_is_sent() {
    let rig = Rig::start().await;
    let mut monitor = Monitor::of(&rig.server);
    use_all(&rig.cache).await;
    // The same after an outage, when what is pending is sent.
    rig.proxy.set(Fault::Refuse);
    until_degraded(&rig.cache).await;
    assert!(rig.cache.delete("a").await.unwrap_err().is_pending());
    assert!(rig.cache.invalidate_tag("t").await.unwrap_err().is_pending());
    assert!(rig.cache.clear().await.unwrap_err().is_pending());
    rig.proxy.set(Fault::Pass);
    recovery(&rig.cache).await;
    let commands = monitor.commands();
    let named = |name: &str| {
        commands.iter().filter(|words| words[0].eq_ignore_ascii_case(name)).count() as u64
    };
    let mut row = FaultRow::new("DS-09", "MONITOR while everything is used, an outage included");
    let forbidden = ["KEYS", "FLUSHALL", "FLUSHDB", "CONFIG", "DEBUG", "SORT", "RANDOMKEY"];
    for name in forbidden {
        row.count(&format!("{name} sent"), 0, named(name));
    }
    row.holds("commands seen", "≥ 50", commands.len(), commands.len() >= 50);
    row.report();

    let mut row = FaultRow::new("DS-10", "a command of the protocol in key, tag and value");
    let text = "\r\n*1\r\n$4\r\nPING\r\n'\"\0 return 1 -- s3ntinel";
    rig.cache.set(text, text.to_owned(), MINUTE).tags([text]).await.unwrap();
    let found = rig.cache.get::<String>(text).await.unwrap();
    let same = found.is_some_and(|found| *found == text);
    row.holds("get", "the same text", same, same);
    let big = "\0'\"".repeat(350_000);
    let own = big.clone();
    let loader = move || async move { Ok::<_, Infallible>(own) };
    let loaded = rig.cache.get_or_load(&format!("{text}2"), loader).tags([text]).await.unwrap();
    row.holds("get_or_load, 1 MiB of quotes", "the same text", *loaded == big, *loaded == big);
    // They may have to wait until the big value is through.
    let told = [told(&rig.cache.invalidate_tag(text).await), told(&rig.cache.delete(text).await)];
    assert!(told.iter().all(|told| matches!(*told, "ok" | "pending")), "{told:?}");
    soon("delivered", ms(10_000), async || rig.cache.stats().pending_invalidations == 0).await;
    let sent = monitor.commands();
    let pings = sent.iter().filter(|words| words[0].eq_ignore_ascii_case("PING")).count();
    row.count("PING run", 0, pings as u64);
    row.report();

    let mut row = FaultRow::new("DS-11", "scripts with texts of callers");
    let scripts = sent.iter().chain(&commands).filter(|words| words[0].starts_with("EVAL"));
    let mut texts: Vec<&str> = scripts.map(|words| words[1].as_str()).collect();
    texts.sort_unstable();
    texts.dedup();
    let own = texts.iter().filter(|script| script.contains("s3ntinel")).count();
    row.count("script texts that hold a caller's", 0, own as u64);
    row.count("different script texts and hashes", 12, texts.len() as u64);
    row.holds("script texts and hashes", "≥ 2", texts.len(), texts.len() >= 2);
    row.report();
}

#[tokio::test]
async fn ds_34_a_login_that_is_refused_and_changed() {
    measured(async || {
        let server = RedisServer::builder().password("one").start();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let mut row = FaultRow::new("DS-34", "a wrong password, and one that is changed");
        let url = format!(
            "redis://127.0.0.1:{}/0?namespace=test&memory=off&password_file={}",
            server.port(),
            file.display()
        );
        std::fs::write(&file, "wrong").unwrap();
        let watch = Stopwatch::start();
        let refused = Cache::connect(&url).await.map(drop);
        row.holds("connect", "rejected", told(&refused), told(&refused) == "rejected");
        row.at_most("connect", ms(500), watch.elapsed());
        std::fs::write(&file, "one").unwrap();
        let cache = Cache::connect(&url).await.unwrap();
        cache.set("k", 1_u64, MINUTE).await.unwrap();
        let mut redis = server.connection();
        redis.command(&["CONFIG", "SET", "requirepass", "two"]).unwrap();
        redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
        soon("refused", ms(3000), async || told(&cache.get::<u64>("k").await) == "rejected").await;
        let seen = |redis: &mut Connection| {
            let text = redis.command(&["INFO", "stats"]).unwrap().text();
            let line =
                text.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
            line.unwrap().trim().parse::<u64>().unwrap()
        };
        let before = seen(&mut redis);
        let (_, failed) = loads(&cache, "a", 100).await;
        pause(ms(2000)).await;
        row.count("attempts to log in, in 2 s and a bit", 3, seen(&mut redis) - before);
        row.count("get_or_load, callers that saw an error", 0, failed);
        std::fs::write(&file, "two").unwrap();
        row.at_most("the new password is used", ms(2000), recovery(&cache).await);

        redis.command(&["ACL", "SETUSER", "default", "-set"]).unwrap();
        let before = seen(&mut redis);
        let set = async { cache.set("s", 1_u64, MINUTE).await }.await;
        row.holds("set without its right", "rejected", told(&set), told(&set) == "rejected");
        let get = cache.get::<u64>("probe").await;
        row.holds("get, which has its right", "ok", told(&get), get.is_ok());
        let (_, failed) = loads(&cache, "b", 100).await;
        row.count("get_or_load without set, errors", 0, failed);
        row.count("connections made for that", 0, seen(&mut redis) - before);
        row
    })
    .await;
}

#[tokio::test]
async fn ds_35_the_shipped_rights_are_enough_and_no_more() {
    let line = crate::bench::shipped_user();
    let acl = format!("user default on nopass ~* &* +@all\n{line}");
    let server = RedisServer::builder().acl(&acl).start();
    let url = format!("redis://tachikoma:password@127.0.0.1:{}/0", server.port());
    let cache = Cache::connect(&url).await.unwrap();
    use_all(&cache).await;
    use_all(&cache.namespace("tenant-7").unwrap()).await;
    pause(ms(700)).await;
    let mut row = FaultRow::new("DS-35", "docs/redis.acl, everything is used");
    let logged = server.command(&["ACL", "LOG"]).array().len() as u64;
    row.count("entries of ACL LOG", 0, logged);
    let other = Cache::connect(&format!("{url}?namespace=other")).await.unwrap();
    let foreign = other.get::<u64>("k").await;
    row.holds("get in another namespace", "rejected", told(&foreign), told(&foreign) == "rejected");
    let mut redis = Connection::open(server.port(), ms(5000)).unwrap();
    redis.command(&["AUTH", "tachikoma", "password"]).unwrap();
    for command in
        [&["KEYS", "*"][..], &["FLUSHALL"], &["FLUSHDB"], &["CONFIG", "GET", "*"], &["RANDOMKEY"]]
    {
        let answer = redis.command(command).unwrap();
        let denied = matches!(&answer, Resp::Error(text) if text.starts_with("NOPERM"));
        row.holds(&format!("{} by this user", command[0]), "NOPERM", denied, denied);
    }
    row.report();
}

#[tokio::test]
async fn ds_36_only_known_schemes_are_connected_to() {
    let mut row = FaultRow::new("DS-36", "a URL from a configuration that nobody should trust");
    for url in [
        "file:///etc/passwd",
        "http://127.0.0.1:80/",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "redis://127.0.0.1:6379/0#insecure",
        "redis://127.0.0.1:6379/0?protocol=2",
        "redis-sentinel://127.0.0.1/",
        "unix:relative.sock?db=x",
    ] {
        let refused = Cache::connect(url).await.map(drop);
        let config = refused.is_err_and(|error| error.kind() == ErrorKind::Config);
        row.holds(url, "config", config, config);
        assert!(RedisConfig::from_url(url).is_err(), "{url}");
    }
    row.report();
}
