//! What of a loaded value is stored: its life, its tags, and whether at all.
//!
//! Pure: time and chance are arguments. The leader of the load writes.

use std::time::Duration;

use super::options::LoadOptions;
use super::outcome::{Basis, Held, Made, Product};
use crate::clock::Time;
use crate::codec::TypeOps;
use crate::dependencies::Dependencies;
use crate::entry::{CodecId, Entry, Meta, Object, TypeTag};
use crate::error::Error;
use crate::expiry::Ttl;
use crate::invalidation::{Group, Marks, Snapshot, check_number};
use crate::key::Namespace;

/// How long the note lasts that takes the place of an older value: only so that this is gone, but
/// longer than a busy machine takes to write it. What is over when it comes to be written is not.
const NOTE: Duration = Duration::from_secs(1);

/// An entry but for its marks.
pub(super) struct Unmarked {
    meta: Meta,
    tags: Vec<Group>,
    /// What the value was made of.
    read: Dependencies,
    /// `None`: that the source has no value.
    value: Option<(Object, TypeOps)>,
}

impl Unmarked {
    /// Nothing, for no load of any type.
    pub(super) fn note(now: Time) -> Self {
        let over = Some(now.saturating_add(NOTE));
        let meta = Meta {
            soft_expiry: over,
            hard_expiry: over,
            ..Meta::new(now, TypeTag(0), CodecId::Json)
        };
        Self { meta, tags: Vec::new(), read: Dependencies::default(), value: None }
    }

    /// The entry, with the counters of its tags as they stood before the source was read, and the
    /// marks of what it was made of.
    pub(super) fn entry(self, home: &Namespace, at: Snapshot) -> Entry {
        let marks = Marks::new(&self.tags, at).and(self.read.parts(), home);
        let meta = Meta { marks, ..self.meta };
        match self.value {
            Some((object, ops)) => Entry::of(meta, object, ops.encode, ops.weigh),
            None => Entry::nothing(meta),
        }
    }
}

/// What a load brought.
pub(super) struct Plan {
    /// What the callers get. `None`: the source has no value.
    pub(super) object: Option<Object>,
    /// What is to be stored of it, if anything.
    pub(super) stored: Result<Option<Unmarked>, Error>,
    /// What it was made of.
    pub(super) basis: Basis,
}

/// How a load was asked for.
pub(super) struct Asked<'a> {
    pub(super) options: LoadOptions,
    pub(super) ops: TypeOps,
    pub(super) tags: Vec<Group>,
    pub(super) space: &'a Namespace,
    /// The cache's time to live.
    pub(super) default_ttl: Ttl,
}

impl Asked<'_> {
    /// What a loader's product, made at `now` within `took`, is to become; `None` if the loader
    /// said that the value at hand is unchanged, and there was none. `draw`, from 0 to 1, is for
    /// the jitter.
    pub(super) fn plan(
        self,
        product: Product,
        held: Option<&Held>,
        now: Time,
        took: Duration,
        draw: f64,
    ) -> Option<Plan> {
        let (object, kept) = match product.made {
            Made::Value(object) => (Some(object), None),
            Made::Nothing => (None, None),
            Made::NotModified => {
                let held = held?;
                (held.object.clone(), Some(&held.entry.meta().marks))
            }
        };
        // What it was made of then it is still made of, but for what was read anew.
        let known = kept.map(|marks| Dependencies::of(marks, self.space).without_tags(self.space));
        let read = known.unwrap_or_default().renewed(&product.read);
        let kept = kept.map(Marks::own).unwrap_or_default();
        let mut tags = self.tags;
        let kept = kept.iter().map(|mark| &mark.group).filter(|group| group.as_tag().is_some());
        let late = product.tags.as_deref().unwrap_or_default();
        for tag in late.iter().chain(kept) {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        let basis = basis(tags.clone(), product.tags.as_deref().map(|_| &[][..]), read.clone());
        let ttl = match &object {
            Some(_) => Some(product.ttl.unwrap_or(self.options.ttl)),
            None => self.options.negative_ttl,
        };
        // What cannot be judged later is not kept.
        let Some(ttl) = ttl.filter(|_| product.store && read.is_known()) else {
            return Some(Plan { object, stored: Ok(None), basis });
        };
        let stored = product.tags.and_then(|_| {
            check_number(&tags)?;
            let life = self.options.life(ttl, self.default_ttl, draw);
            let (soft_expiry, hard_expiry) = life.expiries(self.default_ttl, now)?;
            let meta = Meta {
                soft_expiry,
                hard_expiry,
                idle: life.idle,
                load_time: took,
                ..Meta::new(now, self.ops.tag, self.ops.codec)
            };
            let value = object.clone().map(|object| (object, self.ops));
            Ok(Some(Unmarked { meta, tags, read, value }))
        });
        Some(Plan { object, stored, basis })
    }
}

/// What a loaded value was made of; tags that are not allowed leave that unknown.
pub(super) fn basis(
    mut tags: Vec<Group>,
    late: Result<&[Group], &Error>,
    read: Dependencies,
) -> Basis {
    let Ok(late) = late else {
        return Basis::Loaded(tags.into(), Dependencies::unknowable());
    };
    tags.extend_from_slice(late);
    Basis::Loaded(tags.into(), read)
}
