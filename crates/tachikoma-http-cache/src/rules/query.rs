//! Takes parameters out of a query. Nothing is decoded, sorted or merged: what stays, stays as it
//! was sent.

use http::{Uri, uri::PathAndQuery};
use tachikoma_cache::glob::Glob;

/// The URI without the parameters whose names match; `None` if there are none.
pub(crate) fn without(uri: &Uri, names: &[Glob]) -> Option<Uri> {
    let query = uri.query().filter(|_| !names.is_empty())?;
    let is_ignored = |parameter: &&str| {
        let name = parameter.split_once('=').map_or(*parameter, |(name, _)| name);
        names.iter().any(|pattern| pattern.matches(name.as_bytes()))
    };
    if !query.split('&').any(|parameter| is_ignored(&parameter)) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|parameter| !is_ignored(parameter)).collect();
    let mut target = uri.path().to_owned();
    if !kept.is_empty() {
        target.push('?');
        target.push_str(&kept.join("&"));
    }
    let mut parts = uri.clone().into_parts();
    // A part of what was valid is valid.
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}
