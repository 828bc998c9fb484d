//! `tachikoma demo`: the log kept quiet, the demonstration, until a signal.

use anyhow::Context as _;
use clap::Args;

use super::Failed;
use super::serve::runtime;
use crate::config::values::{LogFilter, LogFormat};
use crate::{demo, shutdown, telemetry};

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Try the printed lines once and end: code 0 if the second answers are hits
    #[arg(long)]
    check: bool,
    /// What to log: a level or tracing directives
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: LogFilter,
}

pub(super) fn demo(args: &DemoArgs) -> Result<(), Failed> {
    telemetry::start(&args.log, LogFormat::Auto)?;
    runtime()?.block_on(async {
        let shutdown = shutdown::on_signals().context("signals cannot be listened for")?;
        Ok(demo::run(args.check, shutdown).await?)
    })
}
