//! What the mark of an answer decides.

/// Whether the answer is kept: only with a good mark.
pub(super) fn keeps(mark_is_good: bool) -> bool {
    mark_is_good
}
