//! The stand-in for [`nested`](super::nested) where no axum router can shorten a path.

use http::{Extensions, Request, Uri};

/// The URI as it is.
#[allow(clippy::unnecessary_wraps, reason = "the other one may find none")]
pub(super) fn whole_uri<'a>(uri: &'a Uri, _: &'a Extensions) -> Option<&'a Uri> {
    Some(uri)
}

/// Changes the URI of a request.
pub(crate) fn rewrite<B>(request: &mut Request<B>, change: impl Fn(&Uri) -> Option<Uri>) {
    if let Some(uri) = change(request.uri()) {
        *request.uri_mut() = uri;
    }
}
