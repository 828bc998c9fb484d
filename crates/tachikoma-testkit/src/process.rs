//! Runs one server process: where its program is, its signals, and its certain end.
//!
//! A process is killed by its own id only, and it is always waited for, so that its port is free
//! when the handle is gone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const POLL: Duration = Duration::from_millis(5);

/// Calls `ready` about every 5 ms until it says yes; `false` after `limit`.
///
/// The limit counts the pauses, not the time that `ready` takes itself.
#[must_use]
pub fn wait_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    for _ in 0..=(limit.as_millis() / POLL.as_millis()) {
        if ready() {
            return true;
        }
        thread::sleep(POLL);
    }
    false
}

/// Finds a program by an environment variable, else in `PATH` and the system's `sbin` folders.
pub(crate) fn program(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "{variable} names {}, which is not a file", path.display());
        return path;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| {
            panic!(
                "{name} is not installed: run the tests with `cargo xtask test`, which installs \
                 it, or set {variable} to its path"
            )
        })
}

/// A running child whose output goes to a file.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> Self {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
        let err = out.try_clone().expect("a file handle can be cloned");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, then waits until the process is gone. It ends a stopped process too.
    pub(crate) fn kill(&mut self) {
        // Both fail only for a process that has already been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP, then waits until the kernel has really stopped it.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = wait_until(Duration::from_secs(10), || self.state() == Some('T'));
        assert!(stopped, "process {} did not stop", self.pid());
    }

    /// SIGCONT.
    pub(crate) fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// The end of the log, for the message of a panic.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("cannot signal process {}: {error}", self.pid()));
    }

    /// The state letter of `/proc/PID/stat`, which follows the name in parentheses.
    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
