//! The binary form of what is stored: compact, versioned, the body as it is.
//!
//! Integers are big-endian; each text is preceded by its length; the body is the rest. The bytes
//! may come from anywhere, so no length in them is trusted, and the envelope around them (version,
//! type, checksum) is that of the cache below.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tachikoma_cache::{Error, ErrorKind, Value};

use super::stored::{BodyName, Index, Stored, StoredResponse, Variant};
use crate::policy::{range::Held, reuse::Terms, vary::Selector};

const VERSION: u8 = 3;
const RESPONSE: u8 = 0;
const INDEX: u8 = 1;
const APART: u8 = 2;

/// Stands for a text that is not there.
const ABSENT: u32 = u32::MAX;

const ALWAYS_VALIDATE: u8 = 1;
const FORBIDS_STALE: u8 = 2;
const SHARED: u8 = 4;
const AUTHORIZED: u8 = 8;
const MADE_OF: u8 = 16;

impl Value for Stored {
    const TYPE: &'static str = "http/1";

    fn encode(&self) -> Result<Bytes, Error> {
        encode(self)
    }

    fn decode(bytes: &Bytes) -> Result<Self, Error> {
        decode(bytes)
    }

    fn weight(&self) -> usize {
        self.memory_weight()
    }
}

fn encode(stored: &Stored) -> Result<Bytes, Error> {
    let body = stored.response().map_or(0, |response| response.body.len());
    let mut out = Writer(BytesMut::with_capacity(body + 1_024));
    out.0.put_u8(VERSION);
    match stored {
        Stored::Response(response) => {
            out.0.put_u8(RESPONSE);
            out.optional(response.whole.as_deref().map(str::as_bytes))?;
            out.head(response)?;
            out.0.put_slice(&response.body);
        }
        Stored::Apart(head, name) => {
            out.0.put_u8(APART);
            out.optional(head.whole.as_deref().map(str::as_bytes))?;
            out.head(head)?;
            out.0.put_u128(name.hash);
            out.0.put_u64(name.length);
        }
        Stored::Index(index) => {
            out.0.put_u8(INDEX);
            out.optional(index.whole.as_deref().map(str::as_bytes))?;
            out.0.put_u128(index.generation);
            out.count(index.variants.len())?;
            for variant in &index.variants {
                out.0.put_u128(variant.id);
                out.time(variant.created);
                out.time(variant.expires);
                out.selector(&variant.selector)?;
                out.tags(&variant.tags)?;
            }
        }
    }
    Ok(out.0.freeze())
}

fn decode(bytes: &Bytes) -> Result<Stored, Error> {
    let mut reader = Reader(bytes.clone());
    reader
        .stored()
        .ok_or_else(|| Error::new(ErrorKind::Undecodable, "not a stored response of this version"))
}

struct Writer(BytesMut);

impl Writer {
    fn count(&mut self, count: usize) -> Result<(), Error> {
        let count = u32::try_from(count).ok().filter(|count| *count < ABSENT);
        self.0.put_u32(count.ok_or_else(|| {
            Error::new(ErrorKind::Unencodable, "a part of the response is over 4 GiB")
        })?);
        Ok(())
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.count(bytes.len())?;
        self.0.put_slice(bytes);
        Ok(())
    }

    fn optional(&mut self, bytes: Option<&[u8]>) -> Result<(), Error> {
        if let Some(bytes) = bytes {
            return self.text(bytes);
        }
        self.0.put_u32(ABSENT);
        Ok(())
    }

    fn duration(&mut self, duration: Duration) {
        self.0.put_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    fn time(&mut self, time: SystemTime) {
        self.duration(time.duration_since(UNIX_EPOCH).unwrap_or_default());
    }

    fn tags(&mut self, tags: &[String]) -> Result<(), Error> {
        self.count(tags.len())?;
        tags.iter().try_for_each(|tag| self.text(tag.as_bytes()))
    }

    fn selector(&mut self, selector: &Selector) -> Result<(), Error> {
        self.0.put_u8(u8::from(selector.exact));
        self.count(selector.fields.len())?;
        for (name, value) in &selector.fields {
            self.text(name.as_str().as_bytes())?;
            self.optional(value.as_deref())?;
        }
        Ok(())
    }

    fn part(&mut self, part: Option<&Held>) -> Result<(), Error> {
        let Some(part) = part else {
            self.0.put_u32(ABSENT);
            return Ok(());
        };
        self.count(part.spans.len())?;
        for span in &part.spans {
            self.0.put_u64(span.start);
            self.0.put_u64(span.end);
        }
        for length in [part.end, part.total] {
            self.0.put_u64(length.unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn head(&mut self, response: &StoredResponse) -> Result<(), Error> {
        let terms = &response.terms;
        self.0.put_u16(response.status.as_u16());
        self.time(terms.received_at);
        for duration in
            [terms.initial_age, terms.lifetime, terms.stale_while_revalidate, terms.stale_if_error]
        {
            self.duration(duration);
        }
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        self.0.put_u8(
            flag(terms.always_validate, ALWAYS_VALIDATE)
                | flag(terms.forbids_stale, FORBIDS_STALE)
                | flag(terms.shared, SHARED)
                | flag(terms.authorized, AUTHORIZED)
                | flag(response.is_made_of, MADE_OF),
        );
        self.part(response.part.as_ref())?;
        self.selector(&response.selector)?;
        self.tags(&response.tags)?;
        self.count(response.headers.len())?;
        for (name, value) in &response.headers {
            self.text(name.as_str().as_bytes())?;
            self.text(value.as_bytes())?;
        }
        Ok(())
    }
}

/// Reads front to back; `None` as soon as something is missing or wrong.
struct Reader(Bytes);

impl Reader {
    fn stored(&mut self) -> Option<Stored> {
        if self.0.try_get_u8().ok()? != VERSION {
            return None;
        }
        let kind = self.0.try_get_u8().ok()?;
        let whole = match self.optional()? {
            Some(bytes) => Some(std::str::from_utf8(&bytes).ok()?.into()),
            None => None,
        };
        match kind {
            RESPONSE => {
                let mut response = self.head(whole)?;
                response.body = std::mem::take(&mut self.0);
                is_of(&response, response.body.len() as u64).then_some(Stored::Response(response))
            }
            APART => {
                let head = self.head(whole)?;
                let hash = self.0.try_get_u128().ok()?;
                let name = BodyName { hash, length: self.0.try_get_u64().ok()? };
                let is_whole = self.0.is_empty() && is_of(&head, name.length);
                is_whole.then_some(Stored::Apart(head, name))
            }
            INDEX => {
                let generation = self.0.try_get_u128().ok()?;
                let variants = self.many(Self::variant)?;
                self.0.is_empty().then_some(Stored::Index(Index { whole, generation, variants }))
            }
            _ => None,
        }
    }

    fn text(&mut self) -> Option<Bytes> {
        let length = self.0.try_get_u32().ok()?;
        self.take(length)
    }

    #[allow(clippy::option_option, reason = "unreadable, absent and a text are three answers")]
    fn optional(&mut self) -> Option<Option<Bytes>> {
        match self.0.try_get_u32().ok()? {
            ABSENT => Some(None),
            length => self.take(length).map(Some),
        }
    }

    fn take(&mut self, length: u32) -> Option<Bytes> {
        let length = usize::try_from(length).ok()?;
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    /// As many as are said to follow, without trusting that number with memory.
    fn many<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.0.try_get_u32().ok()?;
        (0..count).map(|_| one(self)).collect()
    }

    fn duration(&mut self) -> Option<Duration> {
        self.0.try_get_u64().ok().map(Duration::from_millis)
    }

    fn time(&mut self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(self.duration()?)
    }

    fn tag(&mut self) -> Option<String> {
        String::from_utf8(self.text()?.into()).ok()
    }

    fn selector(&mut self) -> Option<Selector> {
        let exact = self.0.try_get_u8().ok()? != 0;
        let fields = self.many(|reader| {
            let name = HeaderName::from_bytes(&reader.text()?).ok()?;
            Some((name, reader.optional()?.map(Vec::from)))
        })?;
        Some(Selector { fields, exact })
    }

    fn variant(&mut self) -> Option<Variant> {
        Some(Variant {
            id: self.0.try_get_u128().ok()?,
            created: self.time()?,
            expires: self.time()?,
            selector: self.selector()?,
            tags: self.many(Self::tag)?,
        })
    }

    #[allow(clippy::option_option, reason = "unreadable, whole and a part are three answers")]
    fn part(&mut self) -> Option<Option<Held>> {
        let count = self.0.try_get_u32().ok()?;
        if count == ABSENT {
            return Some(None);
        }
        let spans = (0..count)
            .map(|_| Some(self.0.try_get_u64().ok()?..self.0.try_get_u64().ok()?))
            .collect::<Option<_>>()?;
        let mut length =
            || self.0.try_get_u64().ok().map(|end| Some(end).filter(|e| *e != u64::MAX));
        Some(Some(Held { spans, end: length()?, total: length()? }))
    }

    /// A response without its body, which follows.
    fn head(&mut self, whole: Option<Box<str>>) -> Option<StoredResponse> {
        let status = StatusCode::from_u16(self.0.try_get_u16().ok()?).ok()?;
        let received_at = self.time()?;
        let initial_age = self.duration()?;
        let lifetime = self.duration()?;
        let stale_while_revalidate = self.duration()?;
        let stale_if_error = self.duration()?;
        let flags = self.0.try_get_u8().ok()?;
        let part = self.part()?;
        let selector = self.selector()?;
        let tags = self.many(Self::tag)?;
        let mut headers = HeaderMap::new();
        for (name, value) in self.many(|reader| {
            let name = HeaderName::from_bytes(&reader.text()?).ok()?;
            Some((name, HeaderValue::from_maybe_shared(reader.text()?).ok()?))
        })? {
            headers.try_append(name, value).ok()?;
        }
        let terms = Terms {
            received_at,
            initial_age,
            lifetime,
            always_validate: flags & ALWAYS_VALIDATE != 0,
            forbids_stale: flags & FORBIDS_STALE != 0,
            stale_while_revalidate,
            stale_if_error,
            shared: flags & SHARED != 0,
            authorized: flags & AUTHORIZED != 0,
        };
        let (body, is_made_of) = (Bytes::new(), flags & MADE_OF != 0);
        Some(StoredResponse {
            whole,
            status,
            headers,
            body,
            part,
            terms,
            selector,
            tags,
            is_made_of,
        })
    }
}

/// Whether a body of this length is of a response: spans of another one would point behind its end.
fn is_of(response: &StoredResponse, length: u64) -> bool {
    response.part.as_ref().is_none_or(|part| part.length() == Some(length))
}
