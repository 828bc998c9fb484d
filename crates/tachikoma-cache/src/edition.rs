//! Decides whether an entry that was found valid need not be judged again.
//!
//! Pure. Whoever judges entries has an [`Edition`]: a number that becomes another one whenever a
//! verdict may have become another one. An entry that was found valid gets that number as its
//! [`Stamp`], and is valid for as long as the two are equal. So a hit of an entry with tags costs
//! one comparison more than one of an entry without.
//!
//! No number is ever given twice in a process: an entry may pass from one store to another.

use std::sync::atomic::AtomicU64;
#[cfg(feature = "memory")]
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};

/// Zero is the stamp of what was never judged.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The state of everything that the verdicts of one judge depend on.
#[derive(Debug)]
pub(crate) struct Edition(AtomicU64);

impl Default for Edition {
    fn default() -> Self {
        Self(AtomicU64::new(NEXT.fetch_add(1, Relaxed)))
    }
}

impl Edition {
    /// Makes every stamp void. Called when what was changed can be seen by all who judge, and
    /// before anybody is told of it.
    pub(crate) fn turn(&self) {
        // Not a plain store: whoever reads this number also sees what the one before it stands for.
        self.0.swap(NEXT.fetch_add(1, Relaxed), AcqRel);
    }

    /// To be asked for before an entry is judged; its [`Stamp`] if it is valid.
    #[cfg(feature = "memory")]
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Acquire)
    }
}

/// The edition in which an entry was last found valid.
#[cfg(feature = "memory")]
#[derive(Debug, Default)]
pub(crate) struct Stamp(AtomicU64);

#[cfg(feature = "memory")]
impl Stamp {
    /// Whether the entry was found valid in this edition.
    pub(crate) fn is(&self, edition: u64) -> bool {
        self.0.load(Relaxed) == edition
    }

    pub(crate) fn set(&self, edition: u64) {
        self.0.store(edition, Relaxed);
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_until_the_edition_turns_and_never_for_another_judge() {
        let (one, other, stamp) = (Edition::default(), Edition::default(), Stamp::default());
        assert!(!stamp.is(one.now()));
        stamp.set(one.now());
        assert!(stamp.is(one.now()) && !stamp.is(other.now()));
        let before = one.now();
        one.turn();
        other.turn();
        assert!(stamp.is(before) && !stamp.is(one.now()) && !stamp.is(other.now()));
    }
}
