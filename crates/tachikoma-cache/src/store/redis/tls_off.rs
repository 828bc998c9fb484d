//! Stands for `tls.rs` in a build without that feature.

/// `rediss://` is refused.
pub(super) const AVAILABLE: bool = false;

/// There is nothing to prepare.
pub(super) fn prepare() {}
