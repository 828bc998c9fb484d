//! What the cache below holds for this one: a response with its head ready to send, or the index
//! of the variants of a URL.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::policy::{range::Held, reuse::Terms, vary::Selector};

/// One object of the store.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "always behind an `Arc`, and nearly always the large one"
)]
pub(crate) enum Stored {
    Response(StoredResponse),
    /// A response without its body, and what names that: it lies in the memory of whoever fetched
    /// it.
    Apart(StoredResponse, BodyName),
    Index(Index),
}

/// Names a body by its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyName {
    pub(crate) hash: u128,
    pub(crate) length: u64,
}

/// A response, complete, or a part of one whose end was proved.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredResponse {
    /// The whole URL, where the key holds only a hash of it.
    pub(crate) whole: Option<Box<str>>,
    pub(crate) status: StatusCode,
    /// As it is sent, without `Age` and `Cache-Status`.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Which bytes those are; `None` if they are all of it.
    pub(crate) part: Option<Held>,
    pub(crate) terms: Terms,
    pub(crate) selector: Selector,
    pub(crate) tags: Vec<String>,
    /// Whether it goes with something that it was made of.
    pub(crate) is_made_of: bool,
}

/// The variants of one URL.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Index {
    /// The whole URL, where the key holds only a hash of it.
    pub(crate) whole: Option<Box<str>>,
    /// Random, and the same as long as variants are only added: an index that was removed does not
    /// come back under the same one.
    pub(crate) generation: u128,
    /// From the oldest to the most recent.
    pub(crate) variants: Vec<Variant>,
}

/// Where one variant lies, and which requests select it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Variant {
    pub(crate) id: u128,
    pub(crate) created: SystemTime,
    pub(crate) expires: SystemTime,
    pub(crate) selector: Selector,
    pub(crate) tags: Vec<String>,
}

impl StoredResponse {
    /// Which bytes of its representation are held.
    pub(crate) fn held(&self) -> Held {
        self.part.clone().unwrap_or_else(|| Held::whole(self.body.len() as u64))
    }
}

impl Stored {
    pub(crate) fn response(&self) -> Option<&StoredResponse> {
        match self {
            Self::Response(response) => Some(response),
            Self::Apart(..) | Self::Index(_) => None,
        }
    }

    /// All of a response but its body, which may lie apart.
    pub(crate) fn head(&self) -> Option<&StoredResponse> {
        match self {
            Self::Response(head) | Self::Apart(head, _) => Some(head),
            Self::Index(_) => None,
        }
    }

    /// Whether it is a response that goes with something that it was made of.
    pub(crate) fn is_made_of(&self) -> bool {
        self.head().is_some_and(|head| head.is_made_of)
    }

    pub(crate) fn index(&self) -> Option<&Index> {
        match self {
            Self::Index(index) => Some(index),
            Self::Response(_) | Self::Apart(..) => None,
        }
    }

    pub(crate) fn whole(&self) -> Option<&str> {
        match self {
            Self::Response(response) | Self::Apart(response, _) => response.whole.as_deref(),
            Self::Index(index) => index.whole.as_deref(),
        }
    }

    /// About how many bytes of memory this takes.
    pub(super) fn memory_weight(&self) -> usize {
        let of_selector = |selector: &Selector| -> usize {
            let value = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
            selector.fields.iter().map(|(_, field)| 72 + value(field)).sum()
        };
        let of_tags = |tags: &[String]| -> usize { tags.iter().map(|tag| 24 + tag.len()).sum() };
        let of_whole = self.whole().map_or(0, str::len);
        let of_self = size_of::<Self>();
        of_self
            + of_whole
            + match self {
                Self::Response(response) | Self::Apart(response, _) => {
                    // A header map keeps about 100 bytes per field beside name and value.
                    let fields = response.headers.iter();
                    let head: usize =
                        fields.map(|(name, value)| 100 + name.as_str().len() + value.len()).sum();
                    let spans = response.part.as_ref().map_or(0, |part| 16 * part.spans.len());
                    head + spans
                        + response.body.len()
                        + of_selector(&response.selector)
                        + of_tags(&response.tags)
                }
                Self::Index(index) => {
                    let of_variant = |variant: &Variant| {
                        size_of::<Variant>()
                            + of_selector(&variant.selector)
                            + of_tags(&variant.tags)
                    };
                    index.variants.iter().map(of_variant).sum()
                }
            }
    }
}
