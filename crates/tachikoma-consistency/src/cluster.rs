//! The processes: one Redis, and nodes that each reach it through a proxy of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tachikoma_testkit::{FaultProxy, RedisServer, free_port, wait_until};
use tempfile::TempDir;

use crate::Run;
use crate::client::Client;
use crate::strategy::Strategy;

const START: Duration = Duration::from_secs(30);

/// Where the database is, on systems that have this folder. A commit waits for the disk while it
/// has the only write lock of all nodes, and a disk that others use takes seconds for it.
const IN_MEMORY: &str = "/dev/shm";

const PLAIN: &str = "memory=off";

/// One process of the application.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) port: u16,
    pub(crate) proxy: FaultProxy,
    database: PathBuf,
    strategy: Strategy,
    query: String,
    child: Option<Child>,
}

/// All processes of a run. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) redis: RedisServer,
    folder: TempDir,
}

impl Cluster {
    pub(crate) fn start(options: &Run) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(IN_MEMORY).or_else(|_| tempfile::tempdir())?;
        let redis = RedisServer::builder().data_folder(folder.path()).start();
        let mut nodes = Vec::new();
        for number in 0..options.nodes {
            let plain = number + options.plain >= options.nodes;
            let mut node = Node {
                port: free_port(),
                proxy: FaultProxy::to(redis.port()),
                database: folder.path().join("drill.db"),
                strategy: options.strategy,
                query: if plain { PLAIN.to_owned() } else { options.query.clone() },
                child: None,
            };
            node.start()?;
            nodes.push(node);
        }
        Ok(Self { nodes, redis, folder })
    }

    /// Name and version of the server program.
    pub(crate) fn server(&self) -> String {
        let text = self.redis.command(&["INFO", "server"]).text();
        let of =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        match of("valkey_version") {
            Some(version) => format!("Valkey {version}"),
            None => format!("Redis {}", of("redis_version").unwrap_or("of no version")),
        }
    }

    /// Where Redis writes its dump.
    pub(crate) fn dump(&self) -> PathBuf {
        Path::join(self.folder.path(), "dump.rdb")
    }
}

impl Node {
    /// Starts the process and waits until it answers.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let redis = format!("redis://127.0.0.1:{}/0", self.proxy.port());
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["node", "--port", &self.port.to_string(), "--redis", &redis]);
        command.args(["--strategy", &self.strategy.to_string(), "--query", &self.query]);
        command.arg("--database").arg(&self.database).stdin(Stdio::piped());
        self.child = Some(command.spawn().context("a node cannot be started")?);
        let port = self.port;
        let ready = wait_until(START, || {
            Client::to(port).send("GET", "/api/openapi.json", "").is_ok_and(|a| a.status == 200)
        });
        ensure!(ready, "the node on port {port} does not serve");
        Ok(())
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("the node is not running")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Whether the process is stopped by a signal, as the kernel says.
    pub(crate) fn is_stopped(&self) -> bool {
        let of = |child: &Child| fs::read_to_string(format!("/proc/{}/stat", child.id())).ok();
        let state = self.child.as_ref().and_then(of);
        state.is_some_and(|line| line.rsplit(')').next().is_some_and(|end| end.starts_with(" T ")))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
