//! How a node keeps what it read: as shipped, or in a way that is known to be broken.

use std::fmt;
use std::sync::Arc;

use anyhow::ensure;
use clap::ValueEnum;
use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_cache::{Cache, SystemClock};

use crate::mutated::{Mutated, Mutation};

/// Shorter than a process is stopped for.
const LEASE: &str = "2s";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strategy {
    /// The cache of this workspace.
    Shipped,
    /// Plain `GET`, `SET` and `DEL`.
    Naive,
    /// The shipped cache on a store that fills without asking for the lease.
    BlindFill,
    /// The shipped cache on a store that takes the counters of tags after the load.
    LateCounter,
    /// The shipped cache, several handles of it on a store whose loads all have the same token.
    TokenPerProcess,
    /// The shipped cache, built with a memory tier that keeps what it read whatever it heard
    /// meanwhile (`--features __no_marker`).
    NoMarker,
    /// The shipped cache, whose responses do not know what they were made of.
    NoDependencies,
}
impl Strategy {
    /// Whether what was read through the cache is noted, so that what is made of it goes with it.
    pub(crate) fn notes_dependencies(self) -> bool {
        matches!(self, Self::Shipped | Self::NoMarker)
    }

    /// # Errors
    ///
    /// If this program was built for another strategy.
    pub(crate) fn check_build(self) -> anyhow::Result<()> {
        let (wants, has) = (self == Self::NoMarker, cfg!(feature = "__no_marker"));
        ensure!(
            wants == has,
            "--strategy is {self}; `no-marker` needs a build with `--features __no_marker`, and \
             every other strategy one without"
        );
        Ok(())
    }

    /// Whether nothing stale may be shown.
    pub(crate) fn is_sound(self) -> bool {
        self == Self::Shipped
    }

    /// The caches of a node, any of which may be used; none: it uses Redis by itself.
    pub(crate) async fn caches(self, url: &str, query: &str) -> anyhow::Result<Vec<Cache>> {
        let mutation = match self {
            Self::Naive => return Ok(Vec::new()),
            Self::Shipped | Self::NoMarker | Self::NoDependencies => {
                let notes = self.notes_dependencies();
                let settings = format!("namespace=drill&lease={LEASE}&dependencies={notes}");
                let url = format!("{url}?{settings}&{query}");
                return Ok(vec![Cache::connect(url.trim_end_matches('&')).await?]);
            }
            Self::BlindFill => Mutation::BlindFill,
            Self::LateCounter => Mutation::LateCounter,
            Self::TokenPerProcess => Mutation::TokenPerProcess,
        };
        let (config, _) = RedisConfig::from_url(url)?;
        let inner = RedisStore::connect(config, Arc::new(SystemClock::new())).await?;
        let store = Arc::new(Mutated::new(inner, mutation));
        let handles = if self == Self::TokenPerProcess { 4 } else { 1 };
        let handle = |_| Ok(Cache::on(Arc::clone(&store) as _).namespace("drill").build()?);
        (0..handles).map(handle).collect()
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shipped => "shipped",
            Self::Naive => "naive",
            Self::BlindFill => "blind-fill",
            Self::LateCounter => "late-counter",
            Self::TokenPerProcess => "token-per-process",
            Self::NoMarker => "no-marker",
            Self::NoDependencies => "no-dependencies",
        })
    }
}
