//! Decides what `Cache-Control` and `Pragma` say. Never decides what follows from it.
//!
//! RFC 9111 §5.2 and §5.4, read defensively: names without regard to case, values quoted or not,
//! several lines, odd spacing. Where a directive comes twice, or its value is not what it should
//! be, the stricter reading holds: less is stored, and for a shorter time.

mod syntax;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{
    HeaderMap, HeaderName,
    header::{self, CACHE_CONTROL, PRAGMA},
};

pub use syntax::{Directive, delta_seconds, directives};

/// Where a directive that may name fields applies (RFC 9111 §5.2.2.4, §5.2.2.7).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// The directive is not there.
    #[default]
    Nothing,
    /// Only to these fields of the response.
    Fields(Vec<HeaderName>),
    /// To the whole response.
    Whole,
}

impl Scope {
    fn widen(&mut self, value: Option<&str>) {
        let Some(fields) = value.and_then(field_names) else {
            *self = Self::Whole;
            return;
        };
        match self {
            Self::Whole => {}
            Self::Fields(known) => known.extend(fields),
            Self::Nothing => *self = Self::Fields(fields),
        }
    }

    /// The fields it names; none if it applies to nothing or to everything.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(fields) => fields,
            Self::Nothing | Self::Whole => &[],
        }
    }
}

/// Fields without which a stored body would be sent as something it is not, or selected wrongly.
/// A directive that names one of them is taken as being about the whole response.
const ESSENTIAL: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::VARY,
    header::CACHE_CONTROL,
    header::ETAG,
];

fn field_names(list: &str) -> Option<Vec<HeaderName>> {
    let names: Option<Vec<HeaderName>> = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .collect();
    names.filter(|names| !names.is_empty() && !names.iter().any(|name| ESSENTIAL.contains(name)))
}

/// The directives of a response (RFC 9111 §5.2.2, RFC 5861 §3 and §4, RFC 8246).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseDirectives {
    /// `no-store`
    pub no_store: bool,
    /// `no-cache`, with or without field names.
    pub no_cache: Scope,
    /// `private`, with or without field names.
    pub private: Scope,
    /// `public`
    pub public: bool,
    /// `must-revalidate`
    pub must_revalidate: bool,
    /// `proxy-revalidate`
    pub proxy_revalidate: bool,
    /// `must-understand`
    pub must_understand: bool,
    /// `no-transform`
    pub no_transform: bool,
    /// `immutable` (RFC 8246)
    pub immutable: bool,
    /// `max-age`; zero where its value is invalid.
    pub max_age: Option<Duration>,
    /// `s-maxage`; zero where its value is invalid.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861 §3); zero where its value is invalid.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861 §4); zero where its value is invalid.
    pub stale_if_error: Option<Duration>,
    /// What this cache does not know, in the order it came: name in lower case, and value.
    pub unknown: Vec<(String, Option<String>)>,
}

impl ResponseDirectives {
    /// Reads every `Cache-Control` line of a response (RFC 9111 §5.2.2).
    pub fn read(headers: &HeaderMap) -> Self {
        Self::of(headers.get_all(CACHE_CONTROL).iter().flat_map(directives))
    }

    /// What these directives say together.
    pub fn of(directives: impl IntoIterator<Item = Directive>) -> Self {
        let mut read = Self::default();
        for directive in directives {
            read.add(&directive);
        }
        read
    }

    fn add(&mut self, directive: &Directive) {
        let value = directive.value.as_deref();
        match directive.name.as_str() {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache.widen(value),
            "private" => self.private.widen(value),
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "no-transform" => self.no_transform = true,
            "immutable" => self.immutable = true,
            "max-age" => shortest(&mut self.max_age, value),
            "s-maxage" => shortest(&mut self.s_maxage, value),
            "stale-while-revalidate" => shortest(&mut self.stale_while_revalidate, value),
            "stale-if-error" => shortest(&mut self.stale_if_error, value),
            _ => self.unknown.push((directive.name.clone(), directive.value.clone())),
        }
    }

    /// Whether stale reuse is forbidden by RFC 9111 §4.2.4: `must-revalidate`,
    /// `proxy-revalidate`, `s-maxage` and `no-cache` each forbid it to a shared cache.
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate
            || self.proxy_revalidate
            || self.s_maxage.is_some()
            || self.no_cache == Scope::Whole
    }
}

/// How stale a response a request accepts (RFC 9111 §5.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxStale {
    /// `max-stale` without a value.
    Any,
    /// At most this long past its freshness.
    For(Duration),
}

/// The directives of a request (RFC 9111 §5.2.1), with `Pragma: no-cache` (§5.4).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestDirectives {
    /// `no-store`
    pub no_store: bool,
    /// `no-cache`, or `Pragma: no-cache` where there is no `Cache-Control`.
    pub no_cache: bool,
    /// `only-if-cached`
    pub only_if_cached: bool,
    /// `max-age`; zero where its value is invalid.
    pub max_age: Option<Duration>,
    /// `min-fresh`; where its value is invalid, longer than anything is fresh.
    pub min_fresh: Option<Duration>,
    /// `max-stale`; zero where its value is invalid.
    pub max_stale: Option<MaxStale>,
    /// `stale-if-error` (RFC 5861 §4)
    pub stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// Reads every `Cache-Control` line of a request, or else its `Pragma`.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        for directive in headers.get_all(CACHE_CONTROL).iter().flat_map(directives) {
            read.add(&directive);
        }
        if !headers.contains_key(CACHE_CONTROL) {
            let mut pragma = headers.get_all(PRAGMA).iter().flat_map(directives);
            read.no_cache = pragma.any(|directive| directive.name == "no-cache");
        }
        read
    }

    fn add(&mut self, directive: &Directive) {
        let value = directive.value.as_deref();
        match directive.name.as_str() {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => shortest(&mut self.max_age, value),
            "stale-if-error" => shortest(&mut self.stale_if_error, value),
            "min-fresh" => {
                let wanted = value.and_then(delta_seconds).unwrap_or(syntax::MAX_DELTA);
                self.min_fresh = Some(self.min_fresh.unwrap_or_default().max(wanted));
            }
            "max-stale" => {
                let accepted = match value {
                    None => MaxStale::Any,
                    Some(value) => MaxStale::For(delta_seconds(value).unwrap_or_default()),
                };
                self.max_stale = Some(match (self.max_stale, accepted) {
                    (Some(MaxStale::For(a)), MaxStale::For(b)) => MaxStale::For(a.min(b)),
                    (Some(limited @ MaxStale::For(_)), MaxStale::Any) => limited,
                    (_, accepted) => accepted,
                });
            }
            _ => {}
        }
    }
}

fn shortest(known: &mut Option<Duration>, value: Option<&str>) {
    let stated = value.and_then(delta_seconds).unwrap_or_default();
    *known = Some(known.map_or(stated, |known| known.min(stated)));
}
