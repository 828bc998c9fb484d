//! Refusals of a server that answers: eight codes, six operations each.

use std::any::Any;

use tachikoma_testkit::{FaultRow, free_port};

use super::*;

const UNAVAILABLE: [&str; 6] =
    ["unavailable", "unavailable", "pending", "pending", "pending", "ok"];
const REJECTED: [&str; 6] = ["rejected", "rejected", "pending", "pending", "pending", "ok"];

/// What fails by the server's word does so at once.
const AT_ONCE: Duration = Duration::from_millis(50);

async fn check(row: &mut FaultRow, cache: &Cache, expected: [&str; 6]) {
    Six::of(cache).await.report(row, expected, AT_ONCE);
    let good = loads(cache, "again", 5).await.1 == 0;
    row.holds("get_or_load, again", "ok", if good { "ok" } else { "failed" }, good);
}

/// A cache on a server that refuses from now on, and what must live as long.
async fn refusing(
    builder: RedisBuilder,
    refuse: impl FnOnce(&RedisServer) -> Box<dyn Any>,
) -> (Rig, Box<dyn Any>) {
    let rig = Rig::on(builder).await;
    for key in ["known", "p1"] {
        put(&rig.cache, key).await;
    }
    let kept = refuse(&rig.server);
    (rig, kept)
}

fn nothing() -> Box<dyn Any> {
    Box::new(())
}

#[tokio::test]
async fn fm_11_misconf() {
    measured(async || {
        let mut row = FaultRow::new("FM-11", "MISCONF: it cannot save (a folder has the name)");
        let folder = tempfile::tempdir().unwrap();
        let builder = RedisServer::builder().data_folder(folder.path());
        let (rig, _kept) = refusing(builder, |server| {
            std::fs::create_dir(folder.path().join("dump.rdb")).unwrap();
            server.command(&["CONFIG", "SET", "save", "3600 100000"]);
            server.command(&["BGSAVE"]);
            let failed = tachikoma_testkit::wait_until(ms(10_000), || {
                server.command(&["INFO", "persistence"]).text().contains("bgsave_status:err")
            });
            assert!(failed, "it could save");
            nothing()
        })
        .await;
        let mut expected = REJECTED;
        expected[0] = "ok";
        check(&mut row, &rig.cache, expected).await;
        row
    })
    .await;
}

#[tokio::test]
async fn fm_11_noauth() {
    measured(async || {
        let mut row = FaultRow::new("FM-11", "NOAUTH: a password was set");
        let (rig, _kept) = refusing(RedisServer::builder(), |server| {
            let mut redis = server.connection();
            redis.command(&["CONFIG", "SET", "requirepass", "s3ntinel-pw"]).unwrap();
            redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
            nothing()
        })
        .await;
        soon("refused", ms(3000), async || {
            told(&rig.cache.get::<u64>("known").await) == "rejected"
        })
        .await;
        check(&mut row, &rig.cache, REJECTED).await;
        let before = rig.proxy.accepted();
        pause(ms(2000)).await;
        row.count("attempts to log in, in 2 s", 3, rig.proxy.accepted() - before);
        row
    })
    .await;
}

#[tokio::test]
async fn fm_11_noperm() {
    measured(async || {
        let mut row = FaultRow::new("FM-11", "NOPERM: the user lost its keys");
        let (rig, _kept) = refusing(RedisServer::builder(), |server| {
            server.command(&["ACL", "SETUSER", "default", "resetkeys"]);
            nothing()
        })
        .await;
        check(&mut row, &rig.cache, REJECTED).await;
        row
    })
    .await;
}

#[tokio::test]
async fn fm_11_maxclients() {
    measured(async || {
        let mut row = FaultRow::new("FM-11", "MAXCLIENTS: others hold all connections");
        let (rig, _kept) = refusing(RedisServer::builder(), |server| {
            let mut others: Vec<_> = (0..2).map(|_| server.connection()).collect();
            let list = others[0].command(&["CLIENT", "LIST"]).unwrap().text();
            let ours = list.lines().find(|line| line.contains("name=tachikoma")).unwrap();
            let id = ours.split(' ').next().unwrap().trim_start_matches("id=");
            others[0].command(&["CONFIG", "SET", "maxclients", "2"]).unwrap();
            others[0].command(&["CLIENT", "KILL", "ID", id]).unwrap();
            others[1].command(&["PING"]).unwrap();
            Box::new(others)
        })
        .await;
        until_degraded(&rig.cache).await;
        pause(ms(50)).await;
        check(&mut row, &rig.cache, UNAVAILABLE).await;
        row
    })
    .await;
}

#[tokio::test]
async fn fm_11_busy() {
    measured(async || {
        let mut row = FaultRow::new("FM-11", "BUSY: a script that does not end");
        let builder = RedisServer::builder().arguments(["--lua-time-limit", "10"]);
        let (rig, _kept) = refusing(builder, |server| {
            let mut script = server.connection();
            script.send(&["EVAL", "while true do end", "0"]).unwrap();
            Box::new(script)
        })
        .await;
        soon("busy", ms(5000), async || {
            rig.cache
                .get::<u64>("known")
                .await
                .is_err_and(|error| error.to_string().contains("BUSY"))
        })
        .await;
        check(&mut row, &rig.cache, UNAVAILABLE).await;
        rig.server.connection().command(&["SCRIPT", "KILL"]).unwrap();
        row.at_most("recovery", ms(2000), recovery(&rig.cache).await);
        row
    })
    .await;
}

/// A server of a cluster, with these slots and no others.
fn cluster_node(slots: Option<&str>) -> RedisServer {
    let bus = free_port().to_string();
    let node = RedisServer::builder()
        .arguments(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"])
        .arguments(["--cluster-port", &bus])
        .start();
    if let Some(last) = slots {
        node.command(&["CLUSTER", "ADDSLOTSRANGE", "0", last]);
    }
    node
}

#[tokio::test]
async fn fm_11_clusterdown() {
    measured(async || {
        let mut row = FaultRow::new("FM-11", "CLUSTERDOWN: a cluster whose slots nobody has");
        let node = cluster_node(None);
        let cache = connect(node.port()).await;
        check(&mut row, &cache, UNAVAILABLE).await;
        row
    })
    .await;
}

#[tokio::test]
async fn fm_11_moved() {
    measured(async || {
        let mut row = FaultRow::new("FM-11", "MOVED: another node has the slots");
        let (node, other) = (cluster_node(None), cluster_node(Some("16383")));
        let (host, port) = ("127.0.0.1", other.port().to_string());
        let bus = other.command(&["CONFIG", "GET", "cluster-port"]).array()[1].text();
        node.command(&["CLUSTER", "MEET", host, &port, &bus]);
        let met = tachikoma_testkit::wait_until(ms(20_000), || {
            node.command(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok")
        });
        assert!(met, "the nodes do not meet");
        let cache = connect(node.port()).await;
        check(&mut row, &cache, REJECTED).await;
        row
    })
    .await;
}

#[tokio::test]
async fn fm_11_tryagain() {
    measured(async || {
        let mut row = FaultRow::new("FM-11", "TRYAGAIN: slots are moving (a stub answers so)");
        let port = stub::start_with("-TRYAGAIN Multiple keys request during rehashing of slot\r\n");
        let cache = connect(port).await;
        check(&mut row, &cache, UNAVAILABLE).await;
        row
    })
    .await;
}
