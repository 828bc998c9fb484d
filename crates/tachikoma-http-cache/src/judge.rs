//! Decides of a response head whether it is stored, and under which tags: the policy, and what the
//! operator's options add to it. The exchange asks here, and so does who explains one.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};

use crate::{
    policy::{
        Options,
        age::Received,
        decision::{Forward, Refusal},
        range::content_range,
        request::RequestFacts,
        response::ResponseFacts,
        storable::{Storable, storable},
    },
    tags::tags,
};

/// A response that may be stored.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) storable: Storable,
    pub(crate) tags: Vec<String>,
}

/// When the question was asked and answered, by the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) at: SystemTime,
    pub(crate) answered_at: SystemTime,
}

/// Whether and on which terms a response may be stored, as far as its head tells.
pub(crate) fn judge(
    request: &RequestFacts,
    request_headers: &HeaderMap,
    response: &ResponseFacts,
    headers: &HeaderMap,
    asked: Asked,
    options: &Options,
) -> Result<Judged, Refusal> {
    let received = Received {
        requested_at: asked.at,
        at: asked.answered_at,
        date: response.date,
        age: response.age,
    };
    let storable = storable(request, request_headers, response, &received, options)?;
    if !has_type(headers, &options.content_types) {
        return Err(Refusal::ContentType);
    }
    Ok(Judged { storable, tags: tags(headers, options)? })
}

/// Whether a response may take the place of what is stored: a part not of the whole whose body
/// another process has. What came whole, asked for as a part or not, may.
pub(crate) fn may_take_place(
    why: Forward,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let is_part = status == StatusCode::PARTIAL_CONTENT
        && content_range(headers).is_none_or(|(part, total)| Some(part) != total.map(|end| 0..end));
    if why == Forward::Elsewhere && is_part { Err(Refusal::Elsewhere) } else { Ok(()) }
}

fn has_type(headers: &HeaderMap, allowed: &[&str]) -> bool {
    let stated = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let begins = |start: &&str| {
        stated.get(..start.len()).is_some_and(|said| said.eq_ignore_ascii_case(start.as_bytes()))
    };
    allowed.is_empty() || allowed.iter().any(begins)
}
