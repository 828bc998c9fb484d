//! What comes of a load, its types erased.

use std::any::Any;
use std::sync::Arc;

use crate::entry::Object;
use crate::store::Guarantee;

/// An error of the caller's loader, shared by all who waited.
pub(crate) type SourceError = Arc<dyn Any + Send + Sync>;

/// Why a load gave no value.
#[derive(Clone)]
pub(crate) enum Failure {
    Source(SourceError),
    Panicked,
    TimedOut,
    Reentrant,
    Aborted,
}

/// A value with how it was come by.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) object: Object,
    pub(crate) guarantee: Guarantee,
    /// Whether the loader ran, or somebody had stored the value meanwhile.
    pub(crate) by_loader: bool,
}

pub(crate) type Outcome = Result<Loaded, Failure>;

impl Loaded {
    pub(super) fn by_loader(object: Object) -> Self {
        Self { object, guarantee: Guarantee::Fresh, by_loader: true }
    }
}
