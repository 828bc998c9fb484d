//! Starts what a measurement needs, each on a free port of this machine, and ends it again: the
//! suite's origin, the cache in front of it, the suite's client.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::suite::Suite;
use crate::Failure;
use crate::metadata::Metadata;
use crate::process::Timer;

const START_LIMIT: Duration = Duration::from_secs(20);
const RUN_LIMIT: Duration = Duration::from_secs(100);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// `tachikoma serve --upstream`, with its defaults.
    Proxy,
    /// The layer in front of a client service, with heuristic freshness on.
    Layer,
}

impl Subject {
    pub(crate) const ALL: [Self; 2] = [Self::Proxy, Self::Layer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Layer => "layer",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Proxy => "The proxy, with its defaults",
            Self::Layer => "The layer in front of a client, with heuristic freshness on",
        }
    }

    pub(crate) fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subject| subject.name() == name)
    }

    /// How cargo builds it.
    pub(super) fn build(self) -> &'static [&'static str] {
        match self {
            Self::Proxy => &["build", "-p", "tachikoma-server", "--bin", "tachikoma"],
            Self::Layer => &["build", "-p", "tachikoma-http-cache", "--example", "cached_client"],
        }
    }

    /// Where cargo puts it.
    pub(super) fn program(self) -> Result<PathBuf, Failure> {
        let target = Metadata::read()?.target_directory;
        Ok(match self {
            Self::Proxy => target.join("debug/tachikoma"),
            Self::Layer => target.join("debug/examples/cached_client"),
        })
    }

    fn command(self, program: &Path, port: u16, upstream: u16) -> Command {
        let mut command = Command::new(program);
        let (listen, upstream) =
            (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{upstream}"));
        match self {
            Self::Proxy => {
                command.args(["serve", "--listen", &listen, "--upstream", &upstream]);
                command.args(["--admin", "off"]);
                // Its defaults are measured, not what this shell happens to say.
                for (name, _) in std::env::vars_os() {
                    if name.to_string_lossy().starts_with("TACHIKOMA_") {
                        command.env_remove(name);
                    }
                }
            }
            Self::Layer => {
                command.args([&listen, &upstream]);
            }
        }
        command
    }
}

/// Runs the suite once; what its client printed.
pub(crate) fn measure(suite: &Suite, subject: Subject, program: &Path) -> Result<String, Failure> {
    let logs = suite.folder.with_file_name(format!("logs-{}", subject.name()));
    std::fs::create_dir_all(&logs)
        .map_err(|error| format!("cannot create {}: {error}", logs.display()))?;
    let (origin_port, port) = (free_port()?, free_port()?);

    let mut origin = Command::new("node");
    origin.arg("server/server.mjs").current_dir(&suite.folder);
    origin.env("npm_config_protocol", "http").env("npm_config_port", origin_port.to_string());
    origin.env("npm_config_pidfile", logs.join("origin.pid"));
    let _origin = Running::start(origin, &logs.join("origin.log"), origin_port)?;
    let cache = subject.command(program, port, origin_port);
    let _cache = Running::start(cache, &logs.join("cache.log"), port)?;

    let mut client = Command::new("node");
    client.args(["--no-warnings", "cli.mjs"]).current_dir(&suite.folder);
    client.env("npm_config_base", format!("http://127.0.0.1:{port}"));
    client.env("npm_config_id", "").env("npm_package_config_id", "");
    let log = File::create(logs.join("client.log")).map_err(|error| error.to_string())?;
    let spawned = client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
    let client = spawned.map_err(|error| format!("cannot start node: {error}"))?;
    Running(client).output()
}

/// A port that nobody listens on. Another program may take it first; then the start fails.
fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// A program that is killed when this is dropped.
struct Running(Child);

impl Running {
    /// Starts a server and waits until it takes connections.
    fn start(mut command: Command, log: &Path, port: u16) -> Result<Self, Failure> {
        let failed = |error| format!("cannot start {command:?}: {error}");
        let out = File::create(log).map_err(failed)?;
        let both = out.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(both).stderr(out);
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut running = Self(child);
        let timer = Timer::start();
        while timer.elapsed() < START_LIMIT {
            if running.0.try_wait().is_ok_and(|status| status.is_some()) {
                break;
            }
            // A whole exchange: an accepted connection alone may be the kernel's.
            if answers(port) {
                return Ok(running);
            }
            thread::sleep(Duration::from_millis(50));
        }
        let said = std::fs::read_to_string(log).unwrap_or_default();
        Err(format!("{command:?} did not start to serve:\n{said}"))
    }

    /// Waits for its end, and returns what it printed.
    fn output(mut self) -> Result<String, Failure> {
        let mut out = self.0.stdout.take().ok_or("no output")?;
        let reader = thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).map(|_| text)
        });
        let timer = Timer::start();
        while !reader.is_finished() {
            if timer.elapsed() > RUN_LIMIT {
                return Err(format!("the suite did not end within {} s", RUN_LIMIT.as_secs()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        let text = reader.join().map_err(|_| "reading the results panicked")?;
        text.map_err(|error| format!("cannot read the results: {error}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answers(port: u16) -> bool {
    let exchange = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"HEAD / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")?;
        let mut start = [0; 5];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/")
    };
    exchange().unwrap_or(false)
}
