//! `tachikoma demo`: the whole server with nothing to install and nothing left behind.
//!
//! It serves the reference API from a temporary database full of missions, and a slow page of an
//! origin of its own through the proxy, on free ports. It prints the lines to type; `--check` types
//! them itself and says whether the second answer of each was a hit.

mod check;
mod origin;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use tachikoma_cache::SystemClock;
use uuid::Uuid;

use crate::config::values::{Admin, Listen};
use crate::config::{Config, Settings};
use crate::server::Server;
use crate::shutdown::{self, Shutdown};
use crate::{api, print};

/// Missions in the database of the demonstration.
const MISSIONS: usize = 500;

/// Runs the demonstration until `shutdown` is asked for; with `check`, until its own lines have
/// been tried once.
///
/// # Errors
///
/// No port is free, the temporary folder cannot be written, or a check finds no hit.
pub(crate) async fn run(check: bool, shutdown: Shutdown) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let (stop, stopped) = shutdown::channel();
    let origin = origin::start(SystemClock::new(), stopped.clone()).await?;
    let server = Server::start(settings(folder.path(), origin)?).await?;
    let api = server.api().context("the API is not there")?;
    let seeded = api::seed(api, MISSIONS).await.context("the database cannot be filled")?;
    let mission = *seeded.missions.first().context("there are no missions")?;
    let admin = server.admin_address().context("the admin listener is not there")?;
    let lines = Lines { public: server.address(), admin, mission };

    // The server stops when the check is over, or when it is told to from outside.
    let server = tokio::spawn(server.run(stopped));
    let result = if check {
        check::check(&lines).await
    } else {
        print(&lines.text());
        let mut shutdown = shutdown;
        shutdown.asked().await;
        Ok(())
    };
    stop.ask();
    server.await.context("the server failed")??;
    result
}

fn settings(folder: &Path, origin: SocketAddr) -> anyhow::Result<Config> {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let database = format!("sqlite://{}", folder.join("missions.db").display());
    let settings = Settings {
        listen: Some(Listen(free)),
        admin: Some(Admin::At(free)),
        api: Some(true),
        upstream: Some(format!("http://{origin}").parse()?),
        database: Some(database.parse()?),
        ..Settings::default()
    };
    // Nothing of the environment: a demonstration is the same everywhere.
    Ok(Config::resolve(Settings::default(), settings, |_| None)?)
}

/// The lines to type.
struct Lines {
    public: SocketAddr,
    admin: SocketAddr,
    mission: Uuid,
}

impl Lines {
    /// A page of the slow origin, through the proxy and its response cache.
    fn page(&self) -> String {
        format!("http://{}/", self.public)
    }

    /// A mission of the database, through the data cache.
    fn mission(&self) -> String {
        format!("http://{}/api/v1/missions/{}", self.public, self.mission)
    }

    /// The counters.
    fn stats(&self) -> String {
        format!("http://{}/stats", self.admin)
    }

    fn text(&self) -> String {
        let (page, mission, stats) = (self.page(), self.mission(), self.stats());
        let slow = origin::SLOW.as_millis();
        let public = self.public;
        format!(
            "\
Tachikoma demo: memory cache, temporary database with {MISSIONS} missions.

  public  http://{public}/          a page of a slow origin ({slow} ms), and
          http://{public}/api/v1/missions
  admin   {stats}

A page through the response cache. The first answer is a miss, the second a hit:

  curl -sS -D - -o /dev/null {page} | grep -i cache-status
  curl -sS -D - -o /dev/null {page} | grep -i cache-status

A mission through the data cache. The first is loaded from the database, the second is a hit:

  curl -sS -D - -o /dev/null {mission} | grep -i server-timing
  curl -sS -D - -o /dev/null {mission} | grep -i server-timing

What was counted:

  curl -sS {stats}

Ctrl-C ends it; nothing is left behind.
"
        )
    }
}
