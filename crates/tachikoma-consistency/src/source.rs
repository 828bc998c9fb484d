//! The rows whose versions tell how old a value is: each write raises one, in one statement.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tachikoma_cache::{Clock, SystemClock};

/// A value takes up to this long from its row to the cache, so that a write can come in between.
const SLOWEST: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub(crate) struct Source {
    rows: SqlitePool,
    clock: Arc<SystemClock>,
}

impl Source {
    /// Opens the table in a file that the reference API has set up.
    pub(crate) async fn open(file: &Path) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .busy_timeout(Duration::from_secs(5))
            .synchronous(SqliteSynchronous::Off);
        let rows = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        let table = "CREATE TABLE IF NOT EXISTS drill
            (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID";
        sqlx::query(table).execute(&rows).await?;
        Ok(Self { rows, clock: Arc::new(SystemClock::new()) })
    }

    /// The version of a row, read at some moment of this call.
    pub(crate) async fn read(&self, name: &str) -> Result<u32, sqlx::Error> {
        let select = "SELECT version FROM drill WHERE name = ?";
        let version: Option<u32> =
            sqlx::query_scalar(select).bind(name).fetch_optional(&self.rows).await?;
        let part = rand::random::<f64>();
        self.clock.sleep(SLOWEST.mul_f64(part)).await;
        Ok(version.unwrap_or_default())
    }

    /// Raises the version of a row; the new one, which is committed.
    pub(crate) async fn raise(&self, name: &str) -> Result<u32, sqlx::Error> {
        let upsert = "INSERT INTO drill VALUES (?, 1)
            ON CONFLICT (name) DO UPDATE SET version = version + 1 RETURNING version";
        sqlx::query_scalar(upsert).bind(name).fetch_one(&self.rows).await
    }
}
