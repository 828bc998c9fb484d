//! Starts nodes that share one database and one Redis, loads and breaks them, and checks off line
//! what each read showed: `tachikoma-consistency run --seconds 60`.
//!
//! `node` is one of the processes: the reference API and, beside it, values that are read through
//! the cache by key, by tag and as responses. `run` starts them and reports; its exit code says
//! whether what was found is what the strategy should show: nothing for the code as it is shipped,
//! something for each broken one.

mod check;
mod client;
mod cluster;
mod faults;
mod history;
mod load;
mod mutated;
mod naive;
mod node;
mod report;
mod source;
mod strategy;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use self::check::Checked;
use self::cluster::Cluster;
use self::faults::{Pace, Schedule};
use self::load::Load;
use self::report::Summary;
use self::strategy::Strategy;

#[derive(Debug, Parser)]
#[command(about = "Real processes under faults: is anything stale?")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start nodes, load and break them, check what was read.
    Run(Run),
    /// Be one of the nodes.
    Node(Node),
}

#[derive(Debug, Clone, Args)]
struct Run {
    /// How long to load, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    seconds: u64,
    /// How many processes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=5))]
    nodes: u8,
    #[arg(long, value_enum, default_value_t = Strategy::Shipped)]
    strategy: Strategy,
    /// Which faults: none, each once and short, or all over and over.
    #[arg(long, value_enum, default_value_t = Pace::Long)]
    faults: Pace,
    /// What is added to the Redis URL of nodes with a memory tier, such as `freshness=500ms`.
    #[arg(long, default_value = "")]
    query: String,
    /// So many nodes have no memory tier: what they read comes from Redis.
    #[arg(long, default_value_t = 1)]
    plain: u8,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// How a node is started.
#[derive(Debug, Clone, Args)]
struct Node {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    redis: String,
    #[arg(long)]
    database: PathBuf,
    #[arg(long, value_enum)]
    strategy: Strategy,
    #[arg(long, default_value = "")]
    query: String,
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Run(options) => run(&options),
        Command::Node(options) => node::run(&options).map(|()| true),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tachikoma-consistency: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `false`: it shows something that it should not, or nothing where it should.
fn run(options: &Run) -> anyhow::Result<bool> {
    options.strategy.check_build()?;
    let time = Duration::from_secs(options.seconds);
    let mut cluster = Cluster::start(options)?;
    let server = cluster.server();
    let load = Load::start(&cluster, options.strategy)?;
    let faults = Schedule::new(options.faults).run(&mut cluster, load.watch(), time)?;
    let history = load.end()?;
    drop(cluster);
    let windows: Vec<_> = faults.iter().map(|broke| broke.window).collect();
    let checked = Checked::new(&history, &windows);
    let summary = Summary { options, server, checked, faults };
    if options.json {
        println!("{}", summary.json());
    } else {
        print!("{}", summary.text());
    }
    Ok(summary.is_good())
}
