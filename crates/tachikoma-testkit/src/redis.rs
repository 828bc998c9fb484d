//! A Redis server of one's own: own port, own folder, killed, stopped and restarted at will.
//!
//! It never persists by itself (`save ""`, no append-only file) and never listens beyond
//! 127.0.0.1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::port::PortLease;
use crate::process::{Process, program, wait_until};
use crate::resp::{Connection, Resp};

const START_LIMIT: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(5);

/// Settings of a [`RedisServer`], each with its default.
#[derive(Debug, Clone, Default)]
pub struct RedisBuilder {
    password: Option<String>,
    acl: Option<String>,
    login: Option<(String, String)>,
    max_memory: Option<String>,
    folder: Option<PathBuf>,
    port: Option<u16>,
    unix_socket: bool,
    arguments: Vec<String>,
}

impl RedisBuilder {
    /// Sets the password of the default user. Default: none.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Sets the lines of an ACL file, such as `user app on >secret ~* +@all`. Default: none.
    #[must_use]
    pub fn acl(mut self, lines: &str) -> Self {
        self.acl = Some(lines.to_owned());
        self
    }

    /// Names the user of [`url`](RedisServer::url) and [`command`](RedisServer::command).
    /// Default: the default user.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Sets `maxmemory`, such as `10mb`. Default: no limit. The policy is `noeviction` unless
    /// [`arguments`](Self::arguments) says otherwise.
    #[must_use]
    pub fn max_memory(mut self, size: &str) -> Self {
        self.max_memory = Some(size.to_owned());
        self
    }

    /// Sets the folder of the dump file, which the caller keeps. Default: a temporary folder that
    /// lives as long as the handle.
    #[must_use]
    pub fn data_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Sets the port. Default: a free one, which stays reserved while the handle lives.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Also listens on a unix socket, see [`RedisServer::unix_socket`]. Default: no.
    #[must_use]
    pub fn unix_socket(mut self) -> Self {
        self.unix_socket = true;
        self
    }

    /// Adds arguments of `redis-server`, such as `["--maxmemory-policy", "allkeys-lru"]`.
    #[must_use]
    pub fn arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts the server and waits until it answers `PING`.
    ///
    /// # Panics
    ///
    /// If `redis-server` is missing or does not answer within 30 s.
    #[must_use]
    pub fn start(self) -> RedisServer {
        let port = self.port.map_or_else(PortLease::take, PortLease::fixed);
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        if let Some(lines) = &self.acl {
            fs::write(folder.path().join("users.acl"), format!("{lines}\n"))
                .expect("the ACL file can be written");
        }
        let mut server = RedisServer { settings: self, port, folder, process: None };
        server.spawn();
        server
    }
}

/// A running `redis-server`. Dropping it kills the process and waits until it is gone.
///
/// The program is the one that `TACHIKOMA_REDIS_SERVER` names, else the one in `PATH`.
#[derive(Debug)]
pub struct RedisServer {
    settings: RedisBuilder,
    port: PortLease,
    folder: TempDir,
    process: Option<Process>,
}

impl RedisServer {
    /// Starts a server with the defaults of [`RedisBuilder`].
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// The settings of a server to start.
    #[must_use]
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// The URL of database 0, with user and password if there are any.
    #[must_use]
    pub fn url(&self) -> String {
        let login = match (&self.settings.login, &self.settings.password) {
            (Some((user, password)), _) => format!("{user}:{password}@"),
            (None, Some(password)) => format!(":{password}@"),
            (None, None) => String::new(),
        };
        format!("redis://{login}127.0.0.1:{}/0", self.port())
    }

    /// Adds the user `tachikoma` of an ACL file with the rights that it lists, on keys of all
    /// namespaces and with another password; returns the URL for them. A restart forgets the user.
    ///
    /// # Panics
    ///
    /// If the file has no such user, or the server does not take the line.
    #[must_use]
    pub fn url_of_user_in(&self, file: &str) -> String {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let line = text.lines().find_map(|line| line.strip_prefix("user tachikoma "));
        let words = line.unwrap_or_else(|| panic!("{file} has no user tachikoma")).split(' ');
        let set = ["ACL", "SETUSER", "tachikoma", "reset"]
            .into_iter()
            .chain(words)
            .chain(["~*", ">test"]);
        let answer = self.command(&set.collect::<Vec<_>>());
        assert_eq!(answer, Resp::Simple("OK".to_owned()), "{file}");
        format!("redis://tachikoma:test@127.0.0.1:{}/0", self.port())
    }

    /// The URL of database 0 with `?namespace=…`.
    #[must_use]
    pub fn url_with(&self, namespace: &str) -> String {
        format!("{}?namespace={namespace}", self.url())
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The unix socket, when the builder asked for one.
    #[must_use]
    pub fn unix_socket(&self) -> Option<PathBuf> {
        self.settings.unix_socket.then(|| self.folder.path().join("redis.sock"))
    }

    /// The process id, while the process has not been killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Kills the server (SIGKILL) and waits until it is gone. Its port stays reserved.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops the process (SIGSTOP): connections stay open and nothing answers.
    pub fn stop(&self) {
        self.running().stop();
    }

    /// Lets a stopped process go on (SIGCONT).
    pub fn cont(&self) {
        self.running().cont();
    }

    /// Starts the server anew on the same port; what was not saved is gone.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Opens a connection that is logged in; each read ends after 5 s.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.connect().unwrap_or_else(|error| panic!("cannot reach redis-server: {error}"))
    }

    /// Sends one command over a new connection and returns the reply, errors included.
    ///
    /// # Panics
    ///
    /// If the server does not answer within 5 s.
    #[track_caller]
    pub fn command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> Resp {
        self.connection()
            .command(arguments)
            .unwrap_or_else(|error| panic!("redis-server did not answer: {error}"))
    }

    /// One number of `INFO`, such as `info("evicted_keys")`.
    ///
    /// # Panics
    ///
    /// If the server does not answer or has no such number.
    #[must_use]
    #[track_caller]
    pub fn info(&self, field: &str) -> i64 {
        let text = self.command(&["INFO", "everything"]).text();
        text.lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok())
            .unwrap_or_else(|| panic!("INFO has no number {field:?}"))
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the server was killed")
    }

    fn connect(&self) -> std::io::Result<Connection> {
        let mut connection = Connection::open(self.port(), DEADLINE)?;
        match (&self.settings.login, &self.settings.password) {
            (Some((user, password)), _) => connection.command(&["AUTH", user, password])?,
            (None, Some(password)) => connection.command(&["AUTH", password])?,
            (None, None) => return Ok(connection),
        };
        Ok(connection)
    }

    fn spawn(&mut self) {
        let mut process = Process::spawn(&mut self.start_command(), &self.file("redis.log"));
        let answers = wait_until(START_LIMIT, || {
            let pong = self.connect().and_then(|mut connection| connection.command(&["PING"]));
            let ready = match pong {
                Ok(Resp::Simple(_)) => true,
                // A server whose user may not PING is ready; one that still loads is not.
                Ok(Resp::Error(text)) => text.starts_with("NOAUTH") || text.starts_with("NOPERM"),
                _ => false,
            };
            ready || !process.is_running()
        });
        assert!(
            answers && process.is_running(),
            "redis-server did not start on port {}:\n{}",
            self.port(),
            process.log_tail()
        );
        self.process = Some(process);
    }

    fn start_command(&self) -> Command {
        let settings = &self.settings;
        let mut command = Command::new(program("redis-server", "TACHIKOMA_REDIS_SERVER"));
        let folder = settings.folder.as_deref().unwrap_or(self.folder.path());
        command.args(["--bind", "127.0.0.1", "--port", &self.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(folder);
        if let Some(password) = &settings.password {
            command.args(["--requirepass", password]);
        }
        if settings.acl.is_some() {
            command.arg("--aclfile").arg(self.file("users.acl"));
        }
        if let Some(size) = &settings.max_memory {
            command.args(["--maxmemory", size]);
        }
        if let Some(socket) = self.unix_socket() {
            command.arg("--unixsocket").arg(socket);
        }
        command.args(&settings.arguments);
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::join(self.folder.path(), name)
    }
}
