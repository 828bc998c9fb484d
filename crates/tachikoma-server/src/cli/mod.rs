//! The command line: what can be asked for, and the exit codes.
//!
//! 0: done. 1: it failed while running. 2: it was asked for the wrong way (arguments, variables,
//! the configuration file). Errors go to standard error, what was asked for to standard output.

mod config;
mod demo;
mod remote;
mod serve;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use tachikoma_cache::ErrorKind;

use crate::config::redact::redacted;
use crate::config::{Config, ConfigError, Settings, file};

/// Something was asked for the wrong way.
const USAGE: u8 = 2;

/// Bytes of an argument: far more than a path, a URL, a key or a pattern may have.
const MAX_ARGUMENT: usize = 16 << 10;

/// A cache for HTTP servers: reverse proxy, reference API, admin API.
#[derive(Debug, Parser)]
#[command(name = "tachikoma", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: cache an upstream, the reference API, or both
    Serve(ServeArgs),
    /// Show it all with nothing to install: free ports, a temporary database, lines to type
    Demo(demo::DemoArgs),
    /// Look at the settings a server would run with
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print the statistics of a running server
    Stats(remote::Where),
    /// Remove what a key, a pattern, a tag, a URL or a prefix names from a running server's cache
    Purge(remote::PurgeArgs),
    /// Say what a running server's response cache would do with a request, and why
    Explain(remote::ExplainArgs),
}

/// A file and what overrules it.
#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file (TOML); flags and TACHIKOMA_* variables overrule it
    #[arg(long, env = "TACHIKOMA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl ServeArgs {
    fn resolve(self) -> Result<Config, ConfigError> {
        let said = self.config.as_deref().map(file::load).transpose()?.unwrap_or_default();
        // A variable that is not text is not a secret that could be typed either.
        Config::resolve(said, self.settings, |name| std::env::var(name).ok())
    }
}

/// Why a command ended without success.
enum Failed {
    /// Exit code 2.
    Usage(ConfigError),
    /// Exit code 1.
    Run(anyhow::Error),
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error)
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Run(error)
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(error) = too_long(&arguments) {
        return fail(USAGE, &error);
    }
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let result = match cli.command {
        Command::Serve(args) => serve::serve(args),
        Command::Demo(args) => demo::demo(&args),
        Command::Config(command) => config::run(command),
        Command::Stats(at) => remote::stats(&at),
        Command::Purge(args) => remote::purge(&args),
        Command::Explain(args) => remote::explain(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Usage(error)) => fail(USAGE, &error.to_string()),
        // `{:#}` prints the causes behind the first line.
        Err(Failed::Run(error)) => fail(code_of(&error), &format!("{error:#}")),
    }
}

/// The options of a cache stand in its URL and are read by the cache itself.
fn code_of(error: &anyhow::Error) -> u8 {
    let cause = error.downcast_ref::<tachikoma_cache::Error>();
    if cause.is_some_and(|cause| cause.kind() == ErrorKind::Config) { USAGE } else { 1 }
}

/// Refuses an argument that is longer than any that means something: looking for what it might
/// have been meant to be would take seconds.
fn too_long(arguments: &[OsString]) -> Option<String> {
    let at = arguments.iter().position(|argument| argument.len() > MAX_ARGUMENT)?;
    let before = arguments.get(at.checked_sub(1)?)?.to_string_lossy();
    let place =
        if before.starts_with("--") { before.into_owned() } else { format!("argument {at}") };
    let length = arguments[at].len();
    Some(format!("{place}: {length} bytes are refused: at most {MAX_ARGUMENT} are allowed"))
}

fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {message}");
    ExitCode::from(code)
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let parsed = command.clone().try_get_matches_from(arguments);
    parsed.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|mut error| {
        hide_passwords(&mut error);
        let origin = variable_behind(&error, arguments);
        match origin {
            Some(variable) => command.error(
                clap::error::ErrorKind::ValueValidation,
                format!("{variable}: {}", first_line(&error)),
            ),
            None => error,
        }
    })
}

/// Takes passwords out of what an error repeats of the command line: what is refused may
/// be a URL with a password in it, also where no URL belongs.
fn hide_passwords(error: &mut clap::Error) {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
    {
        let Some(ContextValue::String(text)) = error.get(kind) else { continue };
        let shown = redacted(text);
        error.insert(kind, ContextValue::String(shown));
    }
}

/// The variable that a refused value came from, when the flag itself was not given.
fn variable_behind(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    if !matches!(
        error.kind(),
        clap::error::ErrorKind::ValueValidation | clap::error::ErrorKind::InvalidValue
    ) {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = flag.split([' ', '=', '[']).next()?.to_owned();
    let given = arguments.iter().any(|argument| argument.to_string_lossy().starts_with(&flag));
    let id = flag.trim_start_matches('-');
    let serve = Cli::command().find_subcommand("serve").cloned()?;
    let argument = serve.get_arguments().find(|argument| argument.get_long() == Some(id))?.clone();
    let variable = argument.get_env()?.to_string_lossy().into_owned();
    (!given).then_some(variable)
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
