//! A response that is arriving, for those who wait for it.
//!
//! Never decides whether it may be shared: that was decided when its head came, and whether it
//! answers a request is decided by the same rules as for a stored one.

use std::{sync::Arc, time::SystemTime};

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{AGE, CONTENT_LENGTH},
};

use tachikoma_cache::{Entries, dependencies::Recorder};

use crate::{
    answer,
    body::CacheBody,
    cache_status,
    feed::{Feed, Reader},
    key::Key,
    policy::{
        decision::Decision,
        request::RequestFacts,
        reuse::{Reuse, Terms, reuse},
        validation::not_modified_head,
        vary::Selector,
    },
};

/// The head of a response that will be stored, and its body as far as it came.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) key: Key,
    pub(crate) status: StatusCode,
    /// As it is sent, without `Age` and `Cache-Status`.
    pub(crate) headers: HeaderMap,
    pub(crate) terms: Terms,
    pub(crate) selector: Selector,
    pub(crate) feed: Arc<Feed>,
    /// What it is made of so far.
    pub(crate) read: Option<Recorder>,
}

/// What a response that is arriving is for one who waited.
#[derive(Debug)]
pub(crate) enum Serves {
    /// The answer.
    Answer(Reader),
    /// Another variant: these fields tell them apart.
    Other(Vec<HeaderName>),
    /// Nothing.
    Nothing,
}

impl Live {
    /// Whether what it was made of so far is still current, as far as this process knows.
    pub(crate) fn is_current(&self, entries: &Entries) -> bool {
        self.read.as_ref().is_none_or(|read| entries.is_current(&read.dependencies()))
    }

    pub(crate) fn serves(
        &self,
        key: &Key,
        request: &HeaderMap,
        facts: &RequestFacts,
        now: SystemTime,
    ) -> Serves {
        if self.key != *key {
            return Serves::Nothing;
        }
        if !self.selector.matches(request) {
            let names = self.selector.fields.iter().map(|(name, _)| name.clone());
            return Serves::Other(names.collect());
        }
        let is_usable = self.selector.covers(&facts.must_select)
            && matches!(reuse(&self.terms, facts, now), Reuse::Fresh { .. });
        match self.feed.join().filter(|_| is_usable) {
            Some(reader) => Serves::Answer(reader),
            None => Serves::Nothing,
        }
    }

    /// The response for one who waited; 304 where the client has it already, and without a body for
    /// HEAD.
    pub(crate) fn answer<B>(
        &self,
        reader: Reader,
        request: &HeaderMap,
        is_head: bool,
        now: SystemTime,
        decision: &Decision,
    ) -> Response<CacheBody<B>> {
        let mut headers = self.headers.clone();
        if let Some(length) = reader.left() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let is_unchanged = answer::is_unchanged(self.status, &headers, request);
        if is_unchanged {
            not_modified_head(&mut headers);
        }
        headers.insert(AGE, HeaderValue::from(self.terms.age(now).as_secs()));
        cache_status::add(&mut headers, decision);
        let has_body = !is_unchanged && !is_head;
        let body = if has_body { CacheBody::fed(reader) } else { CacheBody::empty() };
        let mut response = Response::new(body);
        *response.status_mut() = if is_unchanged { StatusCode::NOT_MODIFIED } else { self.status };
        *response.headers_mut() = headers;
        response
    }
}
