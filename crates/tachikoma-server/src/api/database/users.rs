//! Decides how users and their sessions are read and written. Each write is one transaction.
//!
//! Password hashes leave this module for the check of a password only, tokens never enter it.

use std::fmt;

use uuid::Uuid;

use super::{Database, DatabaseError, WriteError, row};
use crate::api::{
    model::{Account, Session, User},
    timestamp::Timestamp,
};

/// Sessions past their end that one login removes: enough to keep up, too few to be felt.
const SWEPT_AT_ONCE: u32 = 100;

/// A user to be created, already found valid.
#[derive(Clone)]
pub(crate) struct NewUser {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) password_hash: String,
}

impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What the check of a password needs.
pub(crate) struct Credentials {
    pub(crate) user_id: Uuid,
    pub(crate) password_hash: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

impl Database {
    /// The secret that all processes on this file share under `name`; `fresh` when there is none.
    pub(crate) async fn secret(&self, name: &str, fresh: Vec<u8>) -> Result<Vec<u8>, WriteError> {
        let mut work = self.write().await?;
        sqlx::query("INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(fresh)
            .execute(&mut *work)
            .await?;
        let secret = sqlx::query_scalar("SELECT value FROM secrets WHERE name = ?")
            .bind(name)
            .fetch_one(&mut *work)
            .await?;
        work.commit().await?;
        Ok(secret)
    }

    /// Creates a user; [`WriteError::Taken`] when the email address has one.
    pub(crate) async fn create_user(
        &self,
        new: NewUser,
        now: Timestamp,
    ) -> Result<User, WriteError> {
        let mut work = self.write().await?;
        sqlx::query(
            "INSERT INTO users (id, name, email, password_hash, created_at) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(row::id(new.id))
        .bind(&new.name)
        .bind(new.email)
        .bind(new.password_hash)
        .bind(now.millis())
        .execute(&mut *work)
        .await?;
        work.commit().await?;
        Ok(User { id: new.id, name: new.name, created_at: now, last_login_at: None })
    }

    /// Reads a user.
    pub(crate) async fn account(&self, id: Uuid) -> Result<Option<Account>, DatabaseError> {
        let row = sqlx::query(
            "SELECT id, name, email, created_at, last_login_at FROM users WHERE id = ?",
        )
        .bind(row::id(id))
        .fetch_optional(&self.reads)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let user = User {
            id: row::get_id(&row, "id")?,
            name: row::get_text(&row, "name")?,
            created_at: row::get_time(&row, "created_at")?,
            last_login_at: row::get_time_or_none(&row, "last_login_at")?,
        };
        Ok(Some(Account { user, email: row::get_text(&row, "email")? }))
    }

    /// What the check of a password needs, for the user with this email address.
    pub(crate) async fn credentials(
        &self,
        email: &str,
    ) -> Result<Option<Credentials>, DatabaseError> {
        let row = sqlx::query("SELECT id, password_hash FROM users WHERE email = ?")
            .bind(email)
            .fetch_optional(&self.reads)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let user_id = row::get_id(&row, "id")?;
        Ok(Some(Credentials { user_id, password_hash: row::get_text(&row, "password_hash")? }))
    }

    /// Begins a session under the hash of its token and notes the login with the user.
    pub(crate) async fn begin_session(
        &self,
        token_hash: &[u8],
        session: &Session,
    ) -> Result<(), WriteError> {
        let mut work = self.write().await?;
        sqlx::query(
            "DELETE FROM sessions WHERE token_hash IN \
             (SELECT token_hash FROM sessions WHERE expires_at <= ? LIMIT ?)",
        )
        .bind(session.created_at.millis())
        .bind(SWEPT_AT_ONCE)
        .execute(&mut *work)
        .await?;
        let login = sqlx::query("UPDATE users SET last_login_at = ? WHERE id = ?")
            .bind(session.created_at.millis())
            .bind(row::id(session.user_id))
            .execute(&mut *work)
            .await?;
        if login.rows_affected() == 0 {
            return Err(WriteError::NotFound);
        }
        sqlx::query(
            "INSERT INTO sessions (token_hash, user_id, created_at, expires_at) \
             VALUES (?, ?, ?, ?)",
        )
        .bind(token_hash)
        .bind(row::id(session.user_id))
        .bind(session.created_at.millis())
        .bind(session.expires_at.millis())
        .execute(&mut *work)
        .await?;
        work.commit().await?;
        Ok(())
    }

    /// Reads the session under the hash of its token. It may be past its end.
    pub(crate) async fn session(
        &self,
        token_hash: &[u8],
    ) -> Result<Option<Session>, DatabaseError> {
        let row = sqlx::query(
            "SELECT user_id, created_at, expires_at FROM sessions WHERE token_hash = ?",
        )
        .bind(token_hash)
        .fetch_optional(&self.reads)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Session {
            user_id: row::get_id(&row, "user_id")?,
            created_at: row::get_time(&row, "created_at")?,
            expires_at: row::get_time(&row, "expires_at")?,
        }))
    }

    /// Ends the session under the hash of its token; [`WriteError::NotFound`] when there is none.
    pub(crate) async fn end_session(&self, token_hash: &[u8]) -> Result<(), WriteError> {
        let mut work = self.write().await?;
        let ended = sqlx::query("DELETE FROM sessions WHERE token_hash = ?")
            .bind(token_hash)
            .execute(&mut *work)
            .await?;
        if ended.rows_affected() == 0 {
            return Err(WriteError::NotFound);
        }
        work.commit().await?;
        Ok(())
    }

    /// How many sessions there are, ended ones included.
    #[cfg(test)]
    pub(crate) async fn session_count(&self) -> Result<i64, DatabaseError> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM sessions").fetch_one(&self.reads).await?)
    }
}
