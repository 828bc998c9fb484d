//! `tachikoma serve`: resolve the settings, start the log, serve until a signal.

use anyhow::Context as _;

use super::{Failed, ServeArgs};
use crate::{Server, shutdown, telemetry};

pub(super) fn serve(args: ServeArgs) -> Result<(), Failed> {
    let config = args.resolve()?;
    telemetry::start(&config.log, config.log_format)?;
    runtime()?.block_on(async {
        let shutdown = shutdown::on_signals().context("signals cannot be listened for")?;
        Server::start(config).await?.run(shutdown).await?;
        Ok(())
    })
}

pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")
}
