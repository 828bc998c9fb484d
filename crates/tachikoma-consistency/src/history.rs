//! What was done and seen in a run: who asked for what, when, and what came. Pure: times are
//! microseconds of one clock.

use std::collections::HashMap;

/// How a value is read and invalidated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    /// By key: `get_or_load`, `delete`.
    Keys,
    /// By tag: `get_or_load` with a tag, `invalidate_tag`.
    Tags,
    /// Missions of the reference API.
    Api,
    /// Responses in the response cache, `purge_tag`.
    Pages,
    /// Responses in the response cache that show a cached value; `delete` of that value.
    Parts,
}

impl Class {
    pub(crate) const ALL: [Self; 5] = [Self::Keys, Self::Tags, Self::Api, Self::Pages, Self::Parts];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Tags => "tags",
            Self::Api => "api",
            Self::Pages => "pages",
            Self::Parts => "parts",
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Came {
    /// The source, for this read or one that it joined.
    Loaded,
    /// Redis.
    Redis,
    /// The memory of the node.
    Memory,
    /// A cache that does not say which of both it was.
    Cache,
    /// A cache that says that it is stale.
    Stale,
}

impl Came {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Redis => "redis",
            Self::Memory => "memory",
            Self::Cache => "cache",
            Self::Stale => "stale",
        }
    }
}

/// What an answer promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// Nothing that was invalidated before.
    AtOnce,
    /// Nothing that was invalidated Δ before.
    Within,
    /// It says that it is stale.
    None,
}

/// One value that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) class: Class,
    pub(crate) id: u16,
    /// When the request was sent and answered.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) node: u8,
    pub(crate) version: u32,
    pub(crate) came: Came,
    pub(crate) promise: Promise,
}

/// One write: it raises the version by one, then invalidates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write {
    pub(crate) class: Class,
    pub(crate) id: u16,
    pub(crate) begin: u64,
    pub(crate) end: u64,
    /// The new version, if the answer was that the invalidation is in.
    pub(crate) told: Option<u32>,
}

/// A request that failed, or was answered with less than success.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) kind: Kind,
    pub(crate) class: Class,
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) node: u8,
    pub(crate) what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A read that failed, or was answered with something else than asked for.
    Read,
    /// A write that failed: it may have been done.
    Write,
    /// A write that was done and whose invalidation is pending.
    Pending,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Pending];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "failed reads",
            Self::Write => "failed writes",
            Self::Pending => "pending writes",
        }
    }
}

/// All that happened in a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) reads: Vec<Read>,
    pub(crate) writes: Vec<Write>,
    pub(crate) troubles: Vec<Trouble>,
    /// The version before the first write, where that is not 0.
    pub(crate) first: HashMap<(Class, u16), u32>,
}

impl History {
    pub(crate) fn add(&mut self, mut other: Self) {
        self.reads.append(&mut other.reads);
        self.writes.append(&mut other.writes);
        self.troubles.append(&mut other.troubles);
        self.first.extend(other.first);
    }
}

/// When something was broken, with the time it takes to recover.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

impl Window {
    /// Whether any of this time is in it.
    pub(crate) fn touches(self, begin: u64, end: u64) -> bool {
        self.begin <= end && begin <= self.end
    }
}
