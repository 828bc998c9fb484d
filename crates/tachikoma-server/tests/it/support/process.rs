//! Runs the real binary: to its end, or as a server on free ports.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tachikoma_testkit::wait_until;

const LIMIT: Duration = Duration::from_secs(20);

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tachikoma"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the binary to its end, with these variables set.
pub(crate) fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let child = binary().args(arguments).envs(variables.iter().copied()).spawn().unwrap();
    let mut running = Tachikoma { child, err: Arc::default(), addresses: Vec::new(), out: None };
    let mut pipes = (running.child.stdout.take().unwrap(), running.child.stderr.take().unwrap());
    let err = thread::spawn(move || {
        let mut err = String::new();
        pipes.1.read_to_string(&mut err).unwrap();
        err
    });
    let out = thread::spawn(move || {
        let mut out = String::new();
        pipes.0.read_to_string(&mut out).unwrap();
        out
    });
    let code = running.wait();
    Ended { code, out: out.join().unwrap(), err: err.join().unwrap() }
}

/// A running server; dropping it kills it.
pub(crate) struct Tachikoma {
    child: Child,
    err: Arc<Mutex<Vec<String>>>,
    addresses: Vec<(String, SocketAddr)>,
    out: Option<Receiver<String>>,
}

impl Tachikoma {
    /// `tachikoma serve` with free ports and these arguments; returns when it serves.
    pub(crate) fn serve(arguments: &[&str]) -> Self {
        Self::serve_with(arguments, &[])
    }

    pub(crate) fn serve_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = binary();
        command.args(["serve", "--log-format", "json"]);
        if !arguments.iter().any(|argument| argument.starts_with("--listen")) {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !arguments.iter().any(|argument| argument.starts_with("--admin=")) {
            command.args(["--admin", "127.0.0.1:0"]);
        }
        Self::start(command.args(arguments).envs(variables.iter().copied()))
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (lines, out) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            // Ends, and closes the pipe, at the first line that nobody wants.
            stdout.lines().map_while(Result::ok).all(|line| lines.send(line).is_ok())
        });
        let err: Arc<Mutex<Vec<String>>> = Arc::default();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::clone(&err);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        });
        let mut server = Self { child, err, addresses: Vec::new(), out: Some(out) };
        let ready = wait_until(LIMIT, || {
            server.addresses = server.log().iter().filter_map(|line| address(line)).collect();
            server.addresses.iter().any(|(what, _)| what == "serving") || server.has_ended()
        });
        assert!(ready && !server.has_ended(), "it does not serve: {:#?}", server.log());
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address_of("serving")
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.address_of("admin")
    }

    fn address_of(&self, what: &str) -> SocketAddr {
        let found = self.addresses.iter().find(|(name, _)| name == what);
        found.unwrap_or_else(|| panic!("no {what} in {:?}", self.addresses)).1
    }

    /// The lines of standard error up to now.
    pub(crate) fn log(&self) -> Vec<String> {
        self.err.lock().unwrap().clone()
    }

    /// Waits until a line of standard error holds `part`: it may come after the answer.
    #[track_caller]
    pub(crate) fn assert_logged(&self, part: &str) {
        let logged = || self.log().iter().any(|line| line.contains(part));
        assert!(wait_until(LIMIT, logged), "no {part:?} in {:#?}", self.log());
    }

    /// The next line of standard output.
    pub(crate) fn line(&self) -> String {
        self.out.as_ref().unwrap().recv_timeout(LIMIT).expect("a line in time")
    }

    /// Closes the reading end of its standard output.
    pub(crate) fn close_output(&mut self) {
        self.out = None;
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The bytes of memory that the process holds now.
    pub(crate) fn resident(&self) -> u64 {
        resident(self.child.id())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many files and connections the process has open now.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end and returns the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        assert!(wait_until(LIMIT, || self.has_ended()), "it does not end: {:#?}", self.log());
        self.child.wait().unwrap().code()
    }
}

/// The bytes of memory that a process holds now.
pub(crate) fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

impl Drop for Tachikoma {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The message and address of a log line like `{"message":"serving","address":"http://…"}`.
fn address(line: &str) -> Option<(String, SocketAddr)> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let (_scheme, address) = value["address"].as_str()?.split_once("://")?;
    let address = address.parse().ok()?;
    Some((value["message"].as_str()?.to_owned(), address))
}
