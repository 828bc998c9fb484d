//! Decides which scripts bring a database file to the schema of this version, and runs them.
//!
//! The number of scripts that ran is SQLite's `user_version`. All of them run in one transaction
//! that takes the write lock first: of several processes that start at once on a new file one
//! migrates and the others find it done. (sqlx's own migrator takes no lock on SQLite.)

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

/// The scripts in order; the n-th leads to version n. Published scripts never change.
const SCRIPTS: &[&str] = &[include_str!("../../../migrations/0001_reference_api.sql")];

/// The schema could not be brought to this version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    /// A later version of the program wrote this file.
    #[error("the database has schema version {found}, this program knows up to {known}")]
    Newer {
        /// The version of the file.
        found: u32,
        /// The last version that this program knows.
        known: usize,
    },
    /// A statement failed; the file is as it was.
    #[error("the schema could not be brought up to date")]
    Failed(#[from] sqlx::Error),
}

/// Brings the schema to this version; does nothing when it is there.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), MigrateError> {
    let mut work = connection.begin_with("BEGIN IMMEDIATE").await?;
    let found: u32 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *work).await?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(missing) = SCRIPTS.get(done..) else {
        return Err(MigrateError::Newer { found, known: SCRIPTS.len() });
    };
    if missing.is_empty() {
        return Ok(());
    }
    for script in missing {
        sqlx::raw_sql(*script).execute(&mut *work).await?;
    }
    // A pragma takes no bound value; this one is a length of our own.
    let stamp = AssertSqlSafe(format!("PRAGMA user_version = {}", SCRIPTS.len()));
    sqlx::query(stamp).execute(&mut *work).await?;
    Ok(work.commit().await?)
}
