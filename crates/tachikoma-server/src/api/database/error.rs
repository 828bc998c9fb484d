//! Decides what a failed statement means to the caller: try again, or report a fault.

use std::borrow::Cow;

use crate::api::revision::Refused;

/// SQLite's primary result codes for a lock that somebody else holds (`SQLITE_BUSY`,
/// `SQLITE_LOCKED`); extended codes carry them in the low byte.
const LOCK_CODES: [u32; 2] = [5, 6];

/// The database did not do what it was asked.
///
/// `Display` names no value of a row and no path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// Every connection, or the write lock, stayed taken until the deadline. Retrying may help.
    #[error("the database is busy")]
    Busy(#[source] sqlx::Error),
    /// The statement failed.
    #[error("the database failed")]
    Failed(#[source] sqlx::Error),
    /// A row holds what this version cannot read.
    #[error("the database holds a {what} that cannot be read")]
    Unreadable {
        /// The column.
        what: &'static str,
    },
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        let busy = match &error {
            sqlx::Error::PoolTimedOut => true,
            error => is_locked(error),
        };
        if busy { Self::Busy(error) } else { Self::Failed(error) }
    }
}

/// Whether SQLite says that somebody else holds the lock.
pub(super) fn is_locked(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| is_lock(error.code()))
}

/// Whether a result code of SQLite says that somebody else holds the lock.
fn is_lock(code: Option<Cow<'_, str>>) -> bool {
    code.and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| LOCK_CODES.contains(&(code & 0xff)))
}

/// A write did not happen, or may not have happened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// There is no such row: nothing was written.
    #[error("there is no such row")]
    NotFound,
    /// The row is not what the request demands: nothing was written.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Another row has this value, which must be unique: nothing was written.
    #[error("the value is taken")]
    Taken,
    /// A mission has as many specs as it may: nothing was written.
    #[error("there are too many rows")]
    Full,
    /// Whether something was written is not known.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl WriteError {
    /// Whether it is certain that no row changed.
    ///
    /// A commit that failed may have been written before it failed: what is cached must go then.
    pub(crate) fn wrote_nothing(&self) -> bool {
        !matches!(self, Self::Database(_))
    }
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) {
            return Self::Taken;
        }
        Self::Database(error.into())
    }
}
