//! Decides what each route does: reads through the data cache, or commits and then invalidates.
//!
//! Handlers hold no SQL and no rules of validation; they name keys, tags and loaders.

pub(crate) mod missions;
pub(crate) mod sessions;
pub(crate) mod specs;
pub(crate) mod users;
