//! Decides which database URLs are taken and with which settings the file is opened.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection,
    sqlite::{
        SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};
use tachikoma_cache::{Clock as _, SystemClock};

use super::{
    Database,
    error::is_locked,
    migrate::{MigrateError, migrate},
};
use crate::api::limits;

/// Between two attempts to set the journal mode.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The URL is not one of a file.
    #[error("database: {url:?} is not allowed: it must be sqlite://<path of a file>")]
    Url {
        /// The URL as it was given; SQLite URLs carry no secret.
        url: String,
    },
    /// The file could not be opened or set up.
    #[error("database: {url:?} could not be opened")]
    Open {
        /// The URL as it was given.
        url: String,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// The schema could not be brought to this version.
    #[error("database: {url:?} could not be migrated")]
    Migrate {
        /// The URL as it was given.
        url: String,
        /// What went wrong.
        source: MigrateError,
    },
}

impl Database {
    /// Opens the file of a `sqlite://` URL, creates it if there is none, and brings its schema to
    /// this version. Several processes may do so at once.
    ///
    /// Waits at most 5 s for another process that holds the lock.
    pub(crate) async fn open(url: &str) -> Result<Self, OpenError> {
        let options = options(url)?;
        let failed = |source| OpenError::Open { url: url.to_owned(), source };

        // The journal mode is written into the file: one connection sets it, once.
        let first = options.clone().journal_mode(SqliteJournalMode::Wal);
        let mut connection = connect_alone(&first).await.map_err(failed)?;
        migrate(&mut connection)
            .await
            .map_err(|source| OpenError::Migrate { url: url.to_owned(), source })?;

        // The first connection stays open until the pools have theirs: when the last connection
        // of a file closes, SQLite deletes the log and the next one sets it up again.
        let pool = || SqlitePoolOptions::new().acquire_timeout(limits::ACQUIRE_TIME);
        let reads = pool()
            .max_connections(limits::READ_CONNECTIONS)
            .connect_with(options.clone().pragma("query_only", "on"))
            .await
            .map_err(failed)?;
        let writes = pool().max_connections(1).connect_with(options).await.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        Ok(Self { reads, writes })
    }
}

/// Connects and sets the journal mode. That needs the file for oneself: of two who change it at
/// once SQLite refuses one immediately, whatever its busy timeout, since each waits for the other.
/// That one tries again, until the timeout is over.
async fn connect_alone(options: &SqliteConnectOptions) -> sqlx::Result<SqliteConnection> {
    let clock = SystemClock::new();
    let end = clock.now().saturating_add(limits::BUSY_TIME);
    loop {
        match options.connect().await {
            Err(error) if is_locked(&error) && clock.now() < end => clock.sleep(RETRY_PAUSE).await,
            connected_or_not => return connected_or_not,
        }
    }
}

/// The settings of every connection to the file of `url`.
fn options(url: &str) -> Result<SqliteConnectOptions, OpenError> {
    let refused = || OpenError::Url { url: url.to_owned() };
    // A database in memory belongs to one connection: a pool would show each reader another one.
    let path = url.strip_prefix("sqlite://").ok_or_else(refused)?;
    if path.is_empty()
        || path.starts_with('?')
        || url.contains(":memory:")
        || url.contains("mode=memory")
    {
        return Err(refused());
    }
    let options = SqliteConnectOptions::from_str(url).map_err(|_| refused())?;
    Ok(options
        .create_if_missing(true)
        .foreign_keys(true)
        .busy_timeout(limits::BUSY_TIME)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging())
}
