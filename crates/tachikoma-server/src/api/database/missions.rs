//! Decides how missions are read and written. Each write is one transaction.

use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{Database, DatabaseError, WriteError, row};
use crate::api::{
    model::{Mission, MissionPage, MissionStatus},
    revision::{Preconditions, Revision},
    timestamp::Timestamp,
};

/// A mission to be created, already found valid.
#[derive(Debug, Clone)]
pub(crate) struct NewMission {
    pub(crate) id: Uuid,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) status: MissionStatus,
}

/// What changes of a mission, already found valid; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct MissionChange {
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) status: Option<MissionStatus>,
}

impl Database {
    /// Reads a mission.
    pub(crate) async fn mission(&self, id: Uuid) -> Result<Option<Mission>, DatabaseError> {
        select(&mut *self.reads.acquire().await?, id).await
    }

    /// Reads one page of the missions, newest first. `page` counts from 1.
    pub(crate) async fn missions(
        &self,
        page: u32,
        page_size: u32,
    ) -> Result<MissionPage, DatabaseError> {
        let mut snapshot = self.snapshot().await?;
        let total: i64 =
            sqlx::query_scalar("SELECT count(*) FROM missions").fetch_one(&mut *snapshot).await?;
        let skipped = i64::from(page.saturating_sub(1)) * i64::from(page_size);
        let rows = sqlx::query("SELECT * FROM missions ORDER BY seq DESC LIMIT ? OFFSET ?")
            .bind(page_size)
            .bind(skipped)
            .fetch_all(&mut *snapshot)
            .await?;
        let items = rows.iter().map(mission).collect::<Result<_, _>>()?;
        Ok(MissionPage { items, page, page_size, total: total.unsigned_abs() })
    }

    /// Creates a mission and returns it.
    pub(crate) async fn create_mission(
        &self,
        mission: NewMission,
        now: Timestamp,
    ) -> Result<Mission, WriteError> {
        let mut work = self.write().await?;
        let created = insert(&mut work, mission, now).await?;
        work.commit().await?;
        Ok(created)
    }

    /// Updates a mission, if it is as `expected`, and returns it.
    pub(crate) async fn update_mission(
        &self,
        id: Uuid,
        change: MissionChange,
        expected: &Preconditions,
        now: Timestamp,
    ) -> Result<Mission, WriteError> {
        let mut work = self.write().await?;
        let current = select(&mut work, id).await?.ok_or(WriteError::NotFound)?;
        expected.check(Some(revision(&current)))?;
        let next = Mission {
            title: change.title.unwrap_or(current.title),
            description: change.description.unwrap_or(current.description),
            status: change.status.unwrap_or(current.status),
            version: current.version.saturating_add(1),
            // Another process wrote last, and its clock may be ahead of ours.
            updated_at: now.max(current.updated_at),
            ..current
        };
        sqlx::query(
            "UPDATE missions SET title = ?, description = ?, status = ?, version = ?, \
             updated_at = ? WHERE id = ?",
        )
        .bind(&next.title)
        .bind(&next.description)
        .bind(next.status.as_str())
        .bind(next.version)
        .bind(next.updated_at.millis())
        .bind(row::id(id))
        .execute(&mut *work)
        .await?;
        work.commit().await?;
        Ok(next)
    }

    /// Deletes a mission with its specs, if it is as `expected`.
    pub(crate) async fn delete_mission(
        &self,
        id: Uuid,
        expected: &Preconditions,
    ) -> Result<(), WriteError> {
        let mut work = self.write().await?;
        let current = select(&mut work, id).await?.ok_or(WriteError::NotFound)?;
        expected.check(Some(revision(&current)))?;
        sqlx::query("DELETE FROM missions WHERE id = ?")
            .bind(row::id(id))
            .execute(&mut *work)
            .await?;
        work.commit().await?;
        Ok(())
    }
}

/// Whether there is a mission with this id.
pub(super) async fn exists(
    connection: &mut SqliteConnection,
    id: Uuid,
) -> Result<bool, DatabaseError> {
    let found = sqlx::query_scalar::<_, i64>("SELECT 1 FROM missions WHERE id = ?")
        .bind(row::id(id))
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// Writes a new mission and returns it.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    new: NewMission,
    now: Timestamp,
) -> Result<Mission, WriteError> {
    let row = sqlx::query(
        "INSERT INTO missions (id, title, description, status, version, created_at, updated_at) \
         VALUES (?, ?, ?, ?, 1, ?, ?) RETURNING *",
    )
    .bind(row::id(new.id))
    .bind(new.title)
    .bind(new.description)
    .bind(new.status.as_str())
    .bind(now.millis())
    .bind(now.millis())
    .fetch_one(connection)
    .await?;
    Ok(mission(&row)?)
}

async fn select(
    connection: &mut SqliteConnection,
    id: Uuid,
) -> Result<Option<Mission>, DatabaseError> {
    let row = sqlx::query("SELECT * FROM missions WHERE id = ?")
        .bind(row::id(id))
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(mission).transpose()
}

fn mission(row: &SqliteRow) -> Result<Mission, DatabaseError> {
    let status = row::get_text(row, "status")?;
    Ok(Mission {
        id: row::get_id(row, "id")?,
        title: row::get_text(row, "title")?,
        description: row::get_text(row, "description")?,
        status: status.parse().map_err(|_| DatabaseError::Unreadable { what: "status" })?,
        version: row::get_version(row)?,
        created_at: row::get_time(row, "created_at")?,
        updated_at: row::get_time(row, "updated_at")?,
    })
}

fn revision(mission: &Mission) -> Revision {
    Revision { version: mission.version, updated_at: mission.updated_at }
}
