//! Decides how the specs of a mission are read and written. Each write is one transaction.

use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{Database, DatabaseError, WriteError, missions, row};
use crate::api::{
    limits,
    model::{Spec, SpecList, SpecSummary},
    revision::{Preconditions, Revision},
    timestamp::Timestamp,
};

/// What a spec is to say from now on, already found valid.
#[derive(Debug, Clone)]
pub(crate) struct SpecChange {
    pub(crate) title: String,
    pub(crate) content: String,
}

/// A spec that was written, and whether it is new.
#[derive(Debug, Clone)]
pub(crate) struct SpecWritten {
    pub(crate) spec: Spec,
    pub(crate) created: bool,
}

impl Database {
    /// Reads a spec of a mission.
    pub(crate) async fn spec(
        &self,
        mission_id: Uuid,
        spec_id: &str,
    ) -> Result<Option<Spec>, DatabaseError> {
        select(&mut *self.reads.acquire().await?, mission_id, spec_id).await
    }

    /// Reads the list of a mission's specs by spec id; `None` when there is no such mission.
    pub(crate) async fn specs(&self, mission_id: Uuid) -> Result<Option<SpecList>, DatabaseError> {
        let mut snapshot = self.snapshot().await?;
        if !missions::exists(&mut snapshot, mission_id).await? {
            return Ok(None);
        }
        let rows = sqlx::query(
            "SELECT spec_id, title, version, created_at, updated_at FROM specs \
             WHERE mission_id = ? ORDER BY spec_id",
        )
        .bind(row::id(mission_id))
        .fetch_all(&mut *snapshot)
        .await?;
        let items = rows.iter().map(summary).collect::<Result<Vec<_>, _>>()?;
        let total = items.len() as u64;
        Ok(Some(SpecList { mission_id, items, total }))
    }

    /// Creates or replaces a spec of a mission, if it is as `expected`.
    pub(crate) async fn put_spec(
        &self,
        mission_id: Uuid,
        spec_id: &str,
        change: SpecChange,
        expected: &Preconditions,
        now: Timestamp,
    ) -> Result<SpecWritten, WriteError> {
        let mut work = self.write().await?;
        if !missions::exists(&mut work, mission_id).await? {
            return Err(WriteError::NotFound);
        }
        let current = select(&mut work, mission_id, spec_id).await?;
        let created = current.is_none();
        expected.check(current.as_ref().map(revision))?;
        if created && count(&mut work, mission_id).await? >= i64::from(limits::SPECS_PER_MISSION) {
            return Err(WriteError::Full);
        }
        let next = next(mission_id, spec_id, change, current, now);
        upsert(&mut work, &next).await?;
        work.commit().await?;
        Ok(SpecWritten { spec: next, created })
    }
}

/// The spec that follows `current` at the time `now`.
pub(super) fn next(
    mission_id: Uuid,
    spec_id: &str,
    change: SpecChange,
    current: Option<Spec>,
    now: Timestamp,
) -> Spec {
    let SpecChange { title, content } = change;
    match current {
        Some(current) => Spec {
            title,
            content,
            version: current.version.saturating_add(1),
            // Another process wrote last, and its clock may be ahead of ours.
            updated_at: now.max(current.updated_at),
            ..current
        },
        None => Spec {
            mission_id,
            spec_id: spec_id.to_owned(),
            title,
            content,
            version: 1,
            created_at: now,
            updated_at: now,
        },
    }
}

/// Writes a spec, whether it is there or not.
pub(super) async fn upsert(
    connection: &mut SqliteConnection,
    spec: &Spec,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO specs (mission_id, spec_id, title, content, version, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (mission_id, spec_id) DO UPDATE SET title = excluded.title, \
         content = excluded.content, version = excluded.version, updated_at = excluded.updated_at",
    )
    .bind(row::id(spec.mission_id))
    .bind(&spec.spec_id)
    .bind(&spec.title)
    .bind(&spec.content)
    .bind(spec.version)
    .bind(spec.created_at.millis())
    .bind(spec.updated_at.millis())
    .execute(connection)
    .await?;
    Ok(())
}

async fn count(connection: &mut SqliteConnection, mission_id: Uuid) -> Result<i64, DatabaseError> {
    let count = sqlx::query_scalar("SELECT count(*) FROM specs WHERE mission_id = ?")
        .bind(row::id(mission_id))
        .fetch_one(connection)
        .await?;
    Ok(count)
}

async fn select(
    connection: &mut SqliteConnection,
    mission_id: Uuid,
    spec_id: &str,
) -> Result<Option<Spec>, DatabaseError> {
    let row = sqlx::query("SELECT * FROM specs WHERE mission_id = ? AND spec_id = ?")
        .bind(row::id(mission_id))
        .bind(spec_id)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(spec).transpose()
}

fn spec(row: &SqliteRow) -> Result<Spec, DatabaseError> {
    Ok(Spec {
        mission_id: row::get_id(row, "mission_id")?,
        spec_id: row::get_text(row, "spec_id")?,
        title: row::get_text(row, "title")?,
        content: row::get_text(row, "content")?,
        version: row::get_version(row)?,
        created_at: row::get_time(row, "created_at")?,
        updated_at: row::get_time(row, "updated_at")?,
    })
}

fn summary(row: &SqliteRow) -> Result<SpecSummary, DatabaseError> {
    Ok(SpecSummary {
        spec_id: row::get_text(row, "spec_id")?,
        title: row::get_text(row, "title")?,
        version: row::get_version(row)?,
        created_at: row::get_time(row, "created_at")?,
        updated_at: row::get_time(row, "updated_at")?,
    })
}

fn revision(spec: &Spec) -> Revision {
    Revision { version: spec.version, updated_at: spec.updated_at }
}
