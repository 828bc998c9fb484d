//! What the keys have in common that are loaded together: their terms, their source, and each one's
//! state at the beginning. It decides nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::flight::Kind;
use super::options::LoadOptions;
use super::outcome::{Held, Loader};
use crate::clock::Time;
use crate::codec::TypeOps;
use crate::entry::Object;
use crate::invalidation::Group;
use crate::key::Namespace;

/// So many keys go to the store at once.
pub(crate) const AT_ONCE: usize = 1000;

/// Makes a loader of some keys. What it loads is a [`Found`].
pub(crate) type Source = Arc<dyn Fn(Vec<String>) -> Loader + Send + Sync>;

/// What a loader of several keys found, by key.
pub(crate) type Found = HashMap<String, Object>;

/// What holds for all keys of a load.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) namespace: Namespace,
    pub(crate) kind: Kind,
    pub(crate) tags: Vec<Group>,
    pub(crate) options: LoadOptions,
    pub(crate) ops: TypeOps,
    /// As [`Job::store`](super::Job::store).
    pub(crate) store: bool,
    /// As [`Job::local`](super::Job::local).
    pub(crate) local: bool,
    pub(crate) source: Source,
}

/// One key that is to be loaded.
#[derive(Clone)]
pub(super) struct Want {
    /// Its place among the names.
    pub(super) place: usize,
    pub(super) name: String,
    /// What was found of it.
    pub(super) held: Option<Held>,
    pub(super) has_fallback: bool,
    /// As [`Job::renews`](super::Job::renews).
    pub(super) renews: Option<Time>,
}
