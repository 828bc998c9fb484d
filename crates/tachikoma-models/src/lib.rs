//! Small models of the cache's protocols, and a search through everything that can happen in them.
//!
//! Each module is one protocol: its state, its steps, and what must never be. A step is one atomic
//! act of one party (a command in Redis, a read of the source, a change in the memory of a process)
//! and is named after the function or the script that does it. Each protocol is searched as it is
//! shipped, where nothing may be found, and in variants that differ from it by one transition,
//! where the search must find what they break: a checker that cannot fail proves nothing.
//!
//! It decides nothing about the code: what is changed there must be changed here by hand.

mod dependencies;
mod groups;
mod guard;
mod lease;
mod pages;
mod search;
mod tracking;

pub use search::Outcome;

/// One protocol with all its variants.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// What it is about, in one word.
    pub name: &'static str,
    /// Searches it as it is, and then each variant.
    pub run: fn() -> Vec<Outcome>,
}

/// All protocols.
pub const SUITES: [Suite; 6] = [
    Suite { name: "lease", run: lease::outcomes },
    Suite { name: "tracking", run: tracking::outcomes },
    Suite { name: "groups", run: groups::outcomes },
    Suite { name: "dependencies", run: dependencies::outcomes },
    Suite { name: "pages", run: pages::outcomes },
    Suite { name: "guard", run: guard::outcomes },
];
