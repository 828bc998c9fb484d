//! The stand-in for [`nested`](super::nested) where no axum router can shorten a path.

use http::{Extensions, Uri};

/// The URI as it is.
#[allow(clippy::unnecessary_wraps, reason = "the other one may find none")]
pub(super) fn whole_uri<'a>(uri: &'a Uri, _: &'a Extensions) -> Option<&'a Uri> {
    Some(uri)
}
