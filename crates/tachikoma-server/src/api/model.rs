//! Decides what a mission, a spec, a user and a session are: the JSON that clients read, which is
//! also what the data cache keeps.
//!
//! No rules about what a request may say ([`fields`](super::fields)), no SQL
//! ([`database`](super::database)), and no secret: password hashes and tokens have no place in
//! these types, so they cannot reach the cache.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::timestamp::Timestamp;

/// Where a mission stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissionStatus {
    /// Written down, not begun. What a mission is when the request does not say.
    #[default]
    Planned,
    /// Being worked on.
    Active,
    /// Done.
    Completed,
    /// Given up.
    Cancelled,
}

impl MissionStatus {
    /// All of them, in the order of a mission's life.
    pub const ALL: [Self; 4] = [Self::Planned, Self::Active, Self::Completed, Self::Cancelled];

    /// The name in JSON and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for MissionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no [`MissionStatus`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not one of planned, active, completed, cancelled")]
pub struct UnknownStatus;

impl FromStr for MissionStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

/// A mission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mission {
    /// Chosen by the server.
    pub id: Uuid,
    /// One line.
    pub title: String,
    /// Any text, often empty.
    pub description: String,
    /// Where it stands.
    pub status: MissionStatus,
    /// 1 when created, one more with each update.
    pub version: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its version last changed.
    pub updated_at: Timestamp,
}

/// One page of the list of missions, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissionPage {
    /// The missions of this page; empty beyond the last page.
    pub items: Vec<Mission>,
    /// The page, from 1.
    pub page: u32,
    /// The most missions that a page holds.
    pub page_size: u32,
    /// How many missions there are on all pages.
    pub total: u64,
}

/// A specification that belongs to a mission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The mission that it belongs to.
    pub mission_id: Uuid,
    /// Chosen by the client, unique within the mission.
    pub spec_id: String,
    /// One line.
    pub title: String,
    /// The text itself.
    pub content: String,
    /// 1 when created, one more with each update.
    pub version: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its version last changed.
    pub updated_at: Timestamp,
}

/// A spec as the list shows it: without its content, which has no small bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecSummary {
    /// Chosen by the client, unique within the mission.
    pub spec_id: String,
    /// One line.
    pub title: String,
    /// 1 when created, one more with each update.
    pub version: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its version last changed.
    pub updated_at: Timestamp,
}

/// All specs of a mission, by spec id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecList {
    /// The mission that they belong to.
    pub mission_id: Uuid,
    /// The specs, without their content.
    pub items: Vec<SpecSummary>,
    /// How many there are.
    pub total: u64,
}

/// A user as anybody may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Chosen by the server.
    pub id: Uuid,
    /// The name to show.
    pub name: String,
    /// When the account was made.
    pub created_at: Timestamp,
    /// When a session was last begun; `null` before the first.
    pub last_login_at: Option<Timestamp>,
}

/// A user as only its owner may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What everybody sees.
    #[serde(flatten)]
    pub user: User,
    /// The address to log in with, in lower case.
    pub email: String,
}

/// Whose session it is and how long it lasts; says nothing about its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Whose session it is.
    pub user_id: Uuid,
    /// When it was begun.
    pub created_at: Timestamp,
    /// From this time on the token is refused.
    pub expires_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_one_name_in_json_in_the_database_and_in_text() {
        for status in MissionStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert_eq!("Planned".parse::<MissionStatus>(), Err(UnknownStatus));
    }
}
