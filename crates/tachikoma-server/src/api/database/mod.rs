//! Decides how the API's rows are kept: SQLite through sqlx, several processes on one file.
//!
//! One connection of each process writes, so that its writers queue in order instead of polling
//! for SQLite's lock; every write is one short `BEGIN IMMEDIATE` transaction, which takes that lock
//! before it reads what it decides on. A few connections read beside it (WAL).
//!
//! Knows nothing of the cache and reads no clock: times come in as arguments.
//! `synchronous=FULL`, because a commit that a power cut takes back would leave the cache newer
//! than the database ([SQLite, WAL mode]).
//!
//! [SQLite, WAL mode]: https://www.sqlite.org/wal.html#performance_considerations

mod error;
mod migrate;
mod missions;
mod open;
mod row;
mod seed;
mod specs;
#[cfg(test)]
mod tests;
mod users;

use sqlx::{Sqlite, SqlitePool, Transaction};

pub(crate) use self::{
    error::{DatabaseError, WriteError},
    missions::{MissionChange, NewMission},
    seed::MissionSeed,
    specs::SpecChange,
    users::NewUser,
};

/// The database of the reference API. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    reads: SqlitePool,
    writes: SqlitePool,
}

impl Database {
    /// Begins a transaction that holds the write lock from its start.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>, DatabaseError> {
        Ok(self.writes.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Begins a transaction whose statements all see one snapshot.
    async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, DatabaseError> {
        Ok(self.reads.begin().await?)
    }

    /// Closes all connections; what is under way ends first.
    pub(crate) async fn close(&self) {
        self.reads.close().await;
        self.writes.close().await;
    }
}
