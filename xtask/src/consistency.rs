//! Runs the consistency harness: nodes under load and faults, with each server program that is
//! named, then each broken strategy.
//!
//! The harness is a program of its own (`tachikoma-consistency`) that judges each run; this decides
//! which runs there are, and that all must be as they should.

use std::path::Path;
use std::time::Duration;

use crate::Failure;
use crate::process::{Report, cargo, run as run_process};

/// How long each broken strategy may take to show something, in seconds.
const BROKEN: u64 = 30;

/// Building, and the ends of the processes.
const MARGIN: Duration = Duration::from_mins(25);

const STRATEGIES: [&str; 7] = [
    "shipped",
    "naive",
    "blind-fill",
    "late-counter",
    "token-per-process",
    "no-dependencies",
    NO_MARKER,
];

/// It needs a build of its own.
const NO_MARKER: &str = "no-marker";

/// What of the command line is for this command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    minutes: String,
    nodes: String,
    /// Server programs; none: the one in `PATH`.
    servers: Vec<String>,
    strategy: Option<String>,
    query: String,
    /// With an optimised build instead of that of the tests.
    release: bool,
    /// The option whose value comes next.
    open: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            minutes: "1".to_owned(),
            nodes: "3".to_owned(),
            servers: Vec::new(),
            strategy: None,
            query: String::new(),
            release: false,
            open: None,
        }
    }
}

impl Options {
    /// Takes one argument, if it is one of these or the value of the one before.
    pub(crate) fn take(&mut self, argument: &str) -> bool {
        const NAMES: [&str; 6] =
            ["--minutes", "--nodes", "--redis", "--valkey", "--strategy", "--query"];
        if let Some(name) = self.open.take() {
            self.set(name, argument);
            return true;
        }
        if argument == "--release" {
            self.release = true;
            return true;
        }
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        let Some(name) = NAMES.into_iter().find(|known| *known == name) else { return false };
        match value {
            Some(value) => self.set(name, value),
            None => self.open = Some(name),
        }
        true
    }

    fn set(&mut self, name: &str, value: &str) {
        let value = value.to_owned();
        match name {
            "--minutes" => self.minutes = value,
            "--nodes" => self.nodes = value,
            "--strategy" => self.strategy = Some(value),
            "--query" => self.query = value,
            _ => self.servers.push(value),
        }
    }

    /// What runs one after the other: the strategies as they are named, what is shipped with each
    /// server and the others with the first.
    fn runs(&self) -> Result<Vec<Planned<'_>>, Failure> {
        if let Some(name) = self.open {
            return Err(format!("{name} needs a value"));
        }
        let minutes: u64 =
            self.minutes.parse().ok().filter(|minutes| *minutes > 0).ok_or_else(|| {
                format!("--minutes is {:?}; it must be a number from 1", self.minutes)
            })?;
        if !matches!(self.nodes.as_str(), "2" | "3" | "4" | "5") {
            return Err(format!("--nodes is {:?}; it must be 2 to 5", self.nodes));
        }
        if let Some(server) = self.servers.iter().find(|server| !Path::new(server).is_file()) {
            return Err(format!("{server:?} is not a program; --redis and --valkey name one"));
        }
        let only = self.strategy.as_deref();
        let is_wanted = |strategy: &&str| only.is_none_or(|only| only == *strategy);
        let wanted: Vec<_> = STRATEGIES.into_iter().filter(is_wanted).collect();
        if wanted.is_empty() {
            let only = only.unwrap_or_default();
            return Err(format!("--strategy is {only:?}; it must be {}", STRATEGIES.join(", ")));
        }
        let mut runs = Vec::new();
        for strategy in wanted {
            let is_shipped = strategy == "shipped";
            let seconds = if is_shipped || only.is_some() { minutes * 60 } else { BROKEN };
            let faults = if is_shipped { "long" } else { "none" };
            let servers = if is_shipped { self.servers.len().max(1) } else { 1 };
            let server = |at| self.servers.get(at).map(String::as_str);
            runs.extend((0..servers).map(|at| Planned {
                strategy,
                seconds,
                faults,
                server: server(at),
            }));
        }
        Ok(runs)
    }
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Planned<'a> {
    strategy: &'a str,
    seconds: u64,
    faults: &'a str,
    server: Option<&'a str>,
}

/// Runs them; `false` if one is not as it should be.
pub(crate) fn run(report: Report, options: &Options) -> Result<bool, Failure> {
    let (mut good, mut summaries) = (true, Vec::new());
    for Planned { strategy, seconds, faults, server } in options.runs()? {
        let on = server.map(|server| format!(" on {server}")).unwrap_or_default();
        report.line(format!("\n==> {strategy}{on}, {seconds} s"));
        let mut command = cargo(&["run", "--quiet", "--package", "tachikoma-consistency"]);
        if options.release {
            command.arg("--release");
        }
        if strategy == NO_MARKER {
            command.args(["--features", "__no_marker"]);
        }
        command.args(["--", "run", "--strategy", strategy, "--seconds", &seconds.to_string()]);
        command.args(["--faults", faults, "--nodes", &options.nodes, "--query", &options.query]);
        if report.json {
            command.arg("--json");
        }
        if let Some(server) = server {
            command.env("TACHIKOMA_REDIS_SERVER", server);
        }
        let limit = MARGIN + Duration::from_secs(seconds);
        let ended = run_process(&mut command, limit, |line| report.line(line))?;
        good &= ended.success;
        summaries.extend(ended.lines.into_iter().filter(|line| line.starts_with('{')));
    }
    if report.json {
        println!("[{}]", summaries.join(","));
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(arguments: &[&str]) -> Options {
        let mut options = Options::default();
        for argument in arguments {
            assert!(options.take(argument), "{argument}");
        }
        options
    }

    #[test]
    fn a_value_follows_its_option_or_an_equals_sign() {
        let options = taken(&["--minutes", "5", "--nodes=4", "--release"]);
        assert_eq!((options.minutes.as_str(), options.nodes.as_str()), ("5", "4"));
        let first = Planned { strategy: "shipped", seconds: 300, faults: "long", server: None };
        assert_eq!(options.runs().map(|runs| runs[0]), Ok(first));
        let naive = Planned { strategy: "naive", seconds: 60, faults: "none", server: None };
        assert_eq!(taken(&["--strategy", "naive"]).runs(), Ok(vec![naive]));
        assert!(!Options::default().take("--seconds"));
    }

    #[test]
    fn what_is_shipped_runs_with_each_server_and_what_is_broken_with_one() {
        let options = taken(&["--redis", "/bin/sh", "--valkey=/bin/ls"]);
        let runs = options.runs().expect("both are programs");
        let of = |strategy| {
            let of = runs.iter().filter(move |run| run.strategy == strategy);
            of.map(|run| run.server).collect::<Vec<_>>()
        };
        assert_eq!(of("shipped"), [Some("/bin/sh"), Some("/bin/ls")]);
        assert_eq!(of("naive"), [Some("/bin/sh")]);
        assert_eq!(runs.len(), 1 + STRATEGIES.len());
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        for (arguments, part) in [
            (&["--minutes"][..], "needs a value"),
            (&["--minutes", "0"], "\"0\""),
            (&["--nodes", "9"], "2 to 5"),
            (&["--redis", "/nowhere/at/all"], "not a program"),
            (&["--strategy", "best"], "late-counter"),
        ] {
            let failure = taken(arguments).runs().expect_err("it is refused");
            assert!(failure.contains(part), "{failure}");
        }
    }
}
