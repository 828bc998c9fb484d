//! Finds the whole path of a request that a nested axum router has shortened: two nested routers
//! under one cache would else share their keys.

use http::{Extensions, Request, Uri, uri::PathAndQuery};

/// The URI before any router took its prefix away; `None` if this one is not the end of that one,
/// so that nobody can tell what the inner service will see.
pub(super) fn whole_uri<'a>(uri: &'a Uri, extensions: &'a Extensions) -> Option<&'a Uri> {
    let Some(original) = extensions.get::<axum::extract::OriginalUri>() else {
        return Some(uri);
    };
    let text = |uri: &'a Uri| uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let (whole, nested) = (text(&original.0), text(uri));
    // A router nested at `/a` sees `/` for `/a`, and `/?q` for `/a?q`.
    let is_end = whole.ends_with(nested)
        || nested.strip_prefix('/').is_some_and(|nested| whole.ends_with(nested));
    is_end.then_some(&original.0)
}

/// Changes the URI of a request, wherever it stands.
pub(crate) fn rewrite<B>(request: &mut Request<B>, change: impl Fn(&Uri) -> Option<Uri>) {
    if let Some(uri) = change(request.uri()) {
        *request.uri_mut() = uri;
    }
    if let Some(original) = request.extensions_mut().get_mut::<axum::extract::OriginalUri>()
        && let Some(uri) = change(&original.0)
    {
        original.0 = uri;
    }
}
