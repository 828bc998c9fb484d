//! Decides what a write takes out of the data cache: exactly what it changed, in one step.
//!
//! | write | goes | stays |
//! |---|---|---|
//! | mission created | all lists of missions | every mission and spec |
//! | mission updated, deleted | the mission, its specs and their list, all lists of missions | other missions and their specs |
//! | spec written | the spec, the list of the mission's specs | the mission, its other specs, all lists of missions |
//! | login | the user | its sessions |
//! | logout | the session | the user and its other sessions |
//!
//! A list of missions goes as a whole: a new or deleted mission moves all pages behind it.
//!
//! What the response cache keeps of answers goes along, where the data cache has dependencies: it
//! was noted what they show. Nothing here names a response, a URL or a pattern.
//!
//! Call these when the row is committed, never before: a load in between would keep the old row.
//! `Ok` means that the invalidation is in. An error of kind
//! [`Pending`](tachikoma_cache::ErrorKind::Pending) means that the cache keeps and retries it.

use tachikoma_cache::{Cache, Error};
use uuid::Uuid;

use super::{keys, token::TokenHash};

/// What carries a mission: itself, its specs, the list of its specs.
pub(crate) fn mission_tag(id: Uuid) -> String {
    format!("mission:{id}")
}

/// What lists missions.
pub(crate) const MISSION_LISTS: &str = "missions:list";

/// What carries a spec: itself.
pub(crate) fn spec_tag(mission_id: Uuid, spec_id: &str) -> String {
    format!("spec:{mission_id}:{spec_id}")
}

/// What lists the specs of a mission.
pub(crate) fn spec_list_tag(mission_id: Uuid) -> String {
    format!("specs:list:{mission_id}")
}

/// What carries a user.
pub(crate) fn user_tag(id: Uuid) -> String {
    format!("user:{id}")
}

/// After a mission was updated or deleted: takes it out, with its specs and all lists of missions.
///
/// # Errors
///
/// The invalidation is not in; of kind `Pending` if the cache keeps and retries it.
pub async fn mission(cache: &Cache, id: Uuid) -> Result<(), Error> {
    cache.invalidate_tags([mission_tag(id).as_str(), MISSION_LISTS]).await
}

/// After missions were created: takes all lists of missions out.
///
/// # Errors
///
/// As [`mission`].
pub async fn all_missions(cache: &Cache) -> Result<(), Error> {
    cache.invalidate_tags([MISSION_LISTS]).await
}

/// After a spec was written: takes it and the list of its mission's specs out.
///
/// # Errors
///
/// As [`mission`].
pub async fn spec(cache: &Cache, mission_id: Uuid, spec_id: &str) -> Result<(), Error> {
    let (spec, list) = (spec_tag(mission_id, spec_id), spec_list_tag(mission_id));
    cache.invalidate_tags([spec.as_str(), list.as_str()]).await
}

/// After a user was changed: takes it out.
///
/// # Errors
///
/// As [`mission`].
pub async fn user(cache: &Cache, id: Uuid) -> Result<(), Error> {
    cache.invalidate_tags([user_tag(id).as_str()]).await
}

/// After a session was ended: takes it out.
///
/// # Errors
///
/// As [`mission`].
pub async fn session(cache: &Cache, token: &TokenHash) -> Result<(), Error> {
    cache.delete(&keys::session(token)).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    /// What is kept of answers goes with what they show: nobody here knows where it is kept.
    #[test]
    fn no_handler_names_what_the_response_cache_keeps() {
        let sources = [
            include_str!("handlers/missions.rs"),
            include_str!("handlers/specs.rs"),
            include_str!("handlers/users.rs"),
            include_str!("handlers/sessions.rs"),
            include_str!("keys.rs"),
            include_str!("invalidate.rs").split("#[cfg(test)]").next().unwrap(),
        ];
        for source in sources {
            let source = source.to_lowercase();
            for name in ["http_cache", "httpcache", "purge", "surrogate", "cache-tag", "entries()"]
            {
                assert!(!source.contains(name), "{name} in {}", source.lines().next().unwrap());
            }
        }
    }
}
