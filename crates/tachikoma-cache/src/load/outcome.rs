//! What goes into a load and what comes of it, its types erased.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::clock::Time;
use crate::codec::{Codecs, TypeOps};
use crate::dependencies::Dependencies;
use crate::entry::{Entry, Object};
use crate::error::Error;
use crate::expiry::Ttl;
use crate::invalidation::Group;
use crate::store::guarantee::age;
use crate::store::{Guarantee, StaleReason};

/// An error of the caller's loader, shared by all who waited.
pub(crate) type SourceError = Arc<dyn Any + Send + Sync>;

/// The caller's loader, its types erased. It is given the value at hand, if there is one.
pub(crate) type Loader =
    Box<dyn FnOnce(Option<Object>) -> BoxFuture<'static, Result<Product, SourceError>> + Send>;

/// What a loader made.
pub(crate) struct Product {
    pub(crate) made: Made,
    /// Its own time to live; `None`: the one that the load was asked for with.
    pub(crate) ttl: Option<Ttl>,
    /// Tags that were known only now.
    pub(crate) tags: Result<Vec<Group>, Error>,
    pub(crate) store: bool,
    /// What the loader read through caches, if that is noted.
    pub(crate) read: Dependencies,
}

/// What a value that a lookup gave was made of.
#[derive(Debug, Clone)]
pub(crate) enum Basis {
    /// It was stored as this entry.
    Stored(Entry),
    /// A loader made it, with these tags, of this.
    Loaded(Arc<[Group]>, Dependencies),
}

/// See [`Product`].
pub(crate) enum Made {
    Value(Object),
    /// The source has no value.
    Nothing,
    /// The value at hand is still what the source has.
    NotModified,
}

impl Product {
    pub(crate) fn of(made: Made) -> Self {
        let read = Dependencies::default();
        Self { made, ttl: None, tags: Ok(Vec::new()), store: true, read }
    }
}

/// Why a load gave no value.
#[derive(Clone)]
pub(crate) enum Failure {
    Source(SourceError),
    Panicked,
    TimedOut,
    Reentrant,
    /// The loader said that the value at hand is unchanged, and there was none.
    NotModified,
    /// Too many loads wait already.
    Overloaded,
    /// Another process loads the key. Only those get it who have a value at hand.
    Elsewhere,
    /// There is no runtime to load in.
    NoRuntime,
    Aborted,
}

/// What a load gave, with how it was come by.
#[derive(Clone)]
pub(crate) struct Given {
    /// `None`: the source has no value.
    pub(crate) object: Option<Object>,
    pub(crate) guarantee: Guarantee,
    pub(crate) by: By,
    /// What it was made of.
    pub(crate) basis: Basis,
}

/// How a value was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The loader ran.
    Loader,
    /// Somebody had stored it meanwhile.
    Store,
    /// Another process loaded it while this one waited.
    Elsewhere,
}

pub(crate) type Outcome = Result<Given, Failure>;

impl Given {
    /// Whether the source has no value.
    pub(super) fn is_nothing(&self) -> bool {
        self.object.is_none()
    }

    pub(super) fn by_loader(object: Option<Object>, basis: Basis) -> Self {
        Self { object, guarantee: Guarantee::Fresh, by: By::Loader, basis }
    }
}

/// A value that was found and decoded.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    /// `None`: that the source has no value.
    pub(crate) object: Option<Object>,
    pub(crate) guarantee: Guarantee,
    /// When it was found.
    pub(crate) at: Time,
}

impl Held {
    /// How old it is, if it is stale.
    pub(crate) fn age(&self, now: Time) -> Duration {
        match self.guarantee {
            // It has been so since before it was found.
            Guarantee::Stale { reason: StaleReason::Disconnected, age } => {
                age.saturating_add(now.since(self.at))
            }
            _ => age(self.entry.meta(), now),
        }
    }

    /// What was found, if a load of this type can use it: a value of the type or, for a load that
    /// may find nothing, the note that there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable) if it is a value and not of the
    /// type.
    pub(crate) fn of(
        (entry, guarantee): (Entry, Guarantee),
        codecs: &Codecs,
        ops: TypeOps,
        optional: bool,
        at: Time,
    ) -> Result<Option<Self>, Error> {
        let meta = entry.meta();
        if meta.negative && (!optional || meta.type_tag != ops.tag) {
            return Ok(None);
        }
        let object = if meta.negative { None } else { Some((ops.decode)(codecs, &entry)?) };
        Ok(Some(Self { entry, object, guarantee, at }))
    }
}
