//! An nginx of one's own that serves a folder: a third-party HTTP server to stand behind a cache.
//!
//! One process (no master, no workers), the current user, own configuration, logs and temporary
//! folders. Responses carry nginx's own `ETag`, `Last-Modified` and `Accept-Ranges`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::port::PortLease;
use crate::process::{Process, program, wait_until};

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running nginx. Dropping it kills the process and waits until it is gone.
///
/// The program is the one that `TACHIKOMA_NGINX` names, else the one in `PATH` or `/usr/sbin`.
#[derive(Debug)]
pub struct NginxServer {
    port: PortLease,
    folder: TempDir,
    process: Option<Process>,
}

impl NginxServer {
    /// Serves the files of `root`.
    ///
    /// # Panics
    ///
    /// If nginx is missing or does not listen within 30 s.
    #[must_use]
    pub fn serving(root: impl AsRef<Path>) -> Self {
        Self::serving_with(root, "")
    }

    /// Serves the files of `root` with more lines in the `server` block, such as
    /// `add_header Cache-Control max-age=60;`.
    ///
    /// # Panics
    ///
    /// As [`serving`](Self::serving).
    #[must_use]
    pub fn serving_with(root: impl AsRef<Path>, lines: &str) -> Self {
        let port = PortLease::take();
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let text = configuration(folder.path(), root.as_ref(), port.port(), lines);
        fs::write(folder.path().join("nginx.conf"), text).expect("the configuration is written");
        let mut server = Self { port, folder, process: None };
        server.spawn();
        server
    }

    /// The address, such as `http://127.0.0.1:18080`, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The requests that nginx has answered, in order, each as `GET /path 200`.
    ///
    /// nginx writes a line after it has sent the response: wait for it with
    /// [`wait_until`] where the last one matters.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file("access.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Kills the server (SIGKILL) and waits until it is gone. Its port stays reserved.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops the process (SIGSTOP): connections are accepted by the kernel and nothing answers.
    pub fn stop(&self) {
        self.running().stop();
    }

    /// Lets a stopped process go on (SIGCONT).
    pub fn cont(&self) {
        self.running().cont();
    }

    /// Starts the server anew on the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the server was killed")
    }

    fn spawn(&mut self) {
        let mut command = Command::new(program("nginx", "TACHIKOMA_NGINX"));
        command.arg("-p").arg(self.folder.path()).arg("-e").arg(self.file("error.log"));
        command.arg("-c").arg(self.file("nginx.conf"));
        let mut process = Process::spawn(&mut command, &self.file("nginx.log"));
        let address = ([127, 0, 0, 1], self.port()).into();
        let listens = wait_until(START_LIMIT, || {
            let open = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1));
            open.is_ok() || !process.is_running()
        });
        assert!(
            listens && process.is_running(),
            "nginx did not start on port {}:\n{}\n{}",
            self.port(),
            process.log_tail(),
            fs::read_to_string(self.file("error.log")).unwrap_or_default()
        );
        self.process = Some(process);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn configuration(folder: &Path, root: &Path, port: u16, lines: &str) -> String {
    let (folder, root) = (folder.display(), root.display());
    // Workers of a root process change to another user, who cannot read temporary folders.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path \"{folder}/{kind}\";\n"))
        .concat();
    format!(
        r#"daemon off;
master_process off;
{user}
pid "{folder}/nginx.pid";
events {{ worker_connections 512; }}
http {{
{temporary}
    log_format short "$request_method $request_uri $status";
    access_log "{folder}/access.log" short;
    types {{ text/html html; text/plain txt; application/json json; text/css css; }}
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{port};
        server_name _;
        root "{root}";
        etag on;
        {lines}
    }}
}}
"#
    )
}
