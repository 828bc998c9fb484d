//! Decides how columns become the values of [`model`](crate::api::model), and back.

use sqlx::{Row, sqlite::SqliteRow};
use uuid::{Uuid, fmt::Hyphenated};

use super::DatabaseError;
use crate::api::timestamp::Timestamp;

/// A UUID as the hyphenated text that the columns hold.
pub(super) fn id(id: Uuid) -> Hyphenated {
    id.hyphenated()
}

/// The UUID in a column.
pub(super) fn get_id(row: &SqliteRow, column: &'static str) -> Result<Uuid, DatabaseError> {
    Ok(row.try_get::<Hyphenated, _>(column)?.into_uuid())
}

/// The text in a column.
pub(super) fn get_text(row: &SqliteRow, column: &'static str) -> Result<String, DatabaseError> {
    Ok(row.try_get(column)?)
}

/// The version in a column.
pub(super) fn get_version(row: &SqliteRow) -> Result<u32, DatabaseError> {
    Ok(row.try_get("version")?)
}

/// The time in a column.
pub(super) fn get_time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, DatabaseError> {
    Ok(Timestamp::from_millis(row.try_get(column)?))
}

/// The time in a column that may be empty.
pub(super) fn get_time_or_none(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<Timestamp>, DatabaseError> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
}
