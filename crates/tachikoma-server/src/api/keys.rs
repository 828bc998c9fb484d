//! Decides under which key of the data cache each thing is kept.
//!
//! Pure: parts go in, a key comes out. Keys are built with
//! [`CacheKeyBuilder`], so that different parts never meet in one key, and hold no secret: a
//! session is found by the keyed hash of its token.

use tachikoma_cache::CacheKeyBuilder;
use uuid::Uuid;

use super::token::TokenHash;

/// The key of a mission.
#[must_use]
pub fn mission(id: Uuid) -> String {
    CacheKeyBuilder::new("mission").add(id).build()
}

/// The key of one page of the list of missions; `page` counts from 1.
#[must_use]
pub fn mission_list(page: u32, page_size: u32) -> String {
    CacheKeyBuilder::new("missions").add("list").add(page).add(page_size).build()
}

/// The key of a spec of a mission.
#[must_use]
pub fn spec(mission_id: Uuid, spec_id: &str) -> String {
    CacheKeyBuilder::new("spec").add(mission_id).add(spec_id).build()
}

/// The key of the list of a mission's specs.
#[must_use]
pub fn spec_list(mission_id: Uuid) -> String {
    CacheKeyBuilder::new("specs").add("list").add(mission_id).build()
}

/// The key of a user.
#[must_use]
pub fn user(id: Uuid) -> String {
    CacheKeyBuilder::new("user").add(id).build()
}

/// The key of a session.
#[must_use]
pub fn session(token: &TokenHash) -> String {
    CacheKeyBuilder::new("session").add(token).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::token::{Token, TokenHasher};

    #[test]
    fn keys_are_those_of_the_specification() {
        let id = Uuid::nil();
        assert_eq!(mission(id), format!("mission:{id}"));
        assert_eq!(mission_list(2, 50), "missions:list:2:50");
        assert_eq!(spec(id, "338"), format!("spec:{id}:338"));
        assert_eq!(spec(id, "a:b"), format!("spec:{id}:a%3Ab"));
        assert_eq!(spec_list(id), format!("specs:list:{id}"));
        assert_eq!(user(id), format!("user:{id}"));
    }

    #[test]
    fn the_key_of_a_session_does_not_hold_its_token() {
        let token = Token::random();
        let hash = TokenHasher::new(&[7; 32]).unwrap().hash(&token);
        let key = session(&hash);
        assert_eq!(key, format!("session:{hash}"));
        assert!(!key.contains(token.reveal()));
    }
}
