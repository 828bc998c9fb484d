//! Runs other programs: shows what they print, keeps it, and ends them when they take too long.
//!
//! The one place of this tool that reads the clock.

use std::fmt::Display;
use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Failure, root};

/// Where progress goes: stdout for people, stderr when stdout is for a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) json: bool,
}

impl Report {
    /// Prints one line of progress.
    pub(crate) fn line(self, text: impl Display) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) lines: Vec<String>,
    pub(crate) took: Duration,
}

/// Measures how long something takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer(Instant);

impl Timer {
    #[expect(clippy::disallowed_methods, reason = "progress lines show real time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A `cargo` command in the root of the workspace, by the cargo that runs us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Runs a program to its end, or kills it and its children after `limit`.
///
/// `see` gets each line of stdout and stderr as it comes; the lines are also returned.
pub(crate) fn run(
    command: &mut Command,
    limit: Duration,
    mut see: impl FnMut(&str),
) -> Result<Ended, Failure> {
    let timer = Timer::start();
    let failed = |error| format!("cannot start {command:?}: {error}");
    // One pipe for both outputs keeps their order: cargo names a test binary on stderr, and the
    // binary prints its cases on stdout.
    let (reader, writer) = pipe().map_err(failed)?;
    let both = writer.try_clone().map_err(failed)?;
    let spawned = command.stdin(Stdio::null()).stdout(both).stderr(writer).spawn();
    // Our own ends of the pipe must close, or its end never comes.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned.map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let lines = read_lines(reader);
    let mut kept = Vec::new();
    loop {
        match lines.recv_timeout(limit.saturating_sub(timer.elapsed())) {
            Ok(line) => {
                see(&line);
                kept.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                kill_tree(child.id());
                let _ = child.wait();
                return Err(format!("{command:?} was killed after {} s", limit.as_secs()));
            }
        }
    }
    let status = child.wait().map_err(|error| format!("cannot wait for {command:?}: {error}"))?;
    Ok(Ended { success: status.success(), lines: kept, took: timer.elapsed() })
}

/// Runs a program for its stdout; its stderr is part of the failure.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn read_lines(source: PipeReader) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut bytes = Vec::new();
        while source.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
            if sender.send(line).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    receiver
}

/// Kills a process and everything it started: tests that hang hang in a grandchild.
fn kill_tree(process: u32) {
    let mut found = vec![process];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(children(parent));
        next += 1;
    }
    let numbers = found.iter().map(u32::to_string);
    let _ = Command::new("kill").arg("-KILL").args(numbers).status();
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|number| parent_of(*number) == Some(parent))
        .collect()
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything; the state and the parent follow it.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_are_seen_and_kept_in_order() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let mut seen = Vec::new();
        let ended = run(&mut command, Duration::from_secs(10), |line| {
            seen.push(line.to_owned());
        })
        .expect("sh starts");
        assert_eq!(seen, ["one", "two", "three"]);
        assert_eq!(ended.lines, seen);
        assert!(!ended.success);
    }

    #[test]
    fn what_takes_too_long_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $!; wait"]);
        let mut child = String::new();
        let failure = run(&mut command, Duration::from_millis(500), |line| {
            line.clone_into(&mut child);
        })
        .expect_err("it is killed");
        assert!(failure.contains("was killed"), "{failure}");
        let gone = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(20));
            std::fs::read_to_string(format!("/proc/{child}/stat"))
                .map_or(true, |stat| stat.contains(") Z "))
        });
        assert!(gone, "process {child} still runs");
    }
}
