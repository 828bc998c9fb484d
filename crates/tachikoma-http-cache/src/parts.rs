//! Makes what is to be stored of a part that arrived and of what is stored already.
//!
//! Never decides whether the two belong together: that is [`range`](crate::policy::range).

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::CONTENT_RANGE};

use crate::{
    policy::{
        range::{Combined, Held},
        validation::{self, Validators},
    },
    storage::StoredResponse,
};

/// A response as it is to be stored.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Which bytes those are; `None` if they are all of it.
    pub(crate) part: Option<Held>,
}

/// What a 206 makes together with what is stored: more of it, all of it (then it is a 200), or only
/// itself where they do not belong together or are over `cap` bytes. `None` if nobody can say which
/// bytes it has.
pub(crate) fn combine(
    mut headers: HeaderMap,
    body: Bytes,
    known: Option<&StoredResponse>,
    cap: usize,
) -> Option<Content> {
    let part = Held::part(&headers, body.len() as u64)?;
    headers.remove(CONTENT_RANGE);
    let own = Validators::read(&headers);
    let older =
        known.filter(|known| known.held().combines(&Validators::read(&known.headers), &part, &own));
    let combined = older.map(|older| (older, older.held().with(&part)));
    let fits = |held: &Held| held.length().is_some_and(|length| length <= cap as u64);
    let (headers, body, part) = match combined {
        Some((older, Combined { pieces, held })) if fits(&held) => {
            let mut whole = Vec::with_capacity(older.body.len() + body.len());
            for piece in pieces {
                let bytes = if piece.is_newer { &body } else { &older.body };
                let place = usize::try_from(piece.part.start).ok()?
                    ..usize::try_from(piece.part.end).ok()?;
                whole.extend_from_slice(bytes.get(place)?);
            }
            // RFC 9111 §3.4: the fields of the newer one replace those of the stored one.
            let mut merged = older.headers.clone();
            validation::update(&mut merged, headers);
            (merged, whole.into(), held)
        }
        _ => (headers, body, part),
    };
    Some(if part.is_whole() {
        Content { status: StatusCode::OK, headers, body, part: None }
    } else {
        Content { status: StatusCode::PARTIAL_CONTENT, headers, body, part: Some(part) }
    })
}
