//! Decides whether a stored response may answer a request now, fresh or stale, or must be
//! validated first. Never decides which stored response: that is [`vary`](super::vary).
//!
//! RFC 9111 §4, §4.2 and §5.2.1; RFC 5861 for the two stale windows.

use std::time::{Duration, SystemTime};

use super::{
    Options,
    age::current_age,
    decision::{Refusal, StaleUse},
    directives::MaxStale,
    request::RequestFacts,
};

/// On which terms a stored response may be reused: all that [`reuse`] needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// When its head arrived.
    pub received_at: SystemTime,
    /// Its age at that moment.
    pub initial_age: Duration,
    /// How long after its creation it is fresh.
    pub lifetime: Duration,
    /// `no-cache`: never used without a validation.
    pub always_validate: bool,
    /// Never used stale (RFC 9111 §4.2.4).
    pub forbids_stale: bool,
    /// How long it may be used stale while it is refreshed; zero where stale use is forbidden.
    pub stale_while_revalidate: Duration,
    /// How long it may be used stale when the origin fails; zero where stale use is forbidden.
    pub stale_if_error: Duration,
    /// `public` or `s-maxage`: also for requests with `Cookie`.
    pub shared: bool,
    /// `public`, `s-maxage` or `must-revalidate`: also for requests with `Authorization`.
    pub authorized: bool,
}

impl Terms {
    /// Its age now (RFC 9111 §4.2.3).
    pub fn age(&self, now: SystemTime) -> Duration {
        current_age(self.initial_age, self.received_at, now)
    }

    /// Whether it was fresh when it came.
    pub fn was_fresh(&self) -> bool {
        self.lifetime > self.initial_age
    }

    /// Whether it is fresh now (RFC 9111 §4.2): its lifetime exceeds its age.
    pub fn is_fresh_at(&self, now: SystemTime) -> bool {
        self.lifetime > self.age(now)
    }

    /// How long from now it is worth keeping: to its end, and then for its stale windows, or for
    /// `keep_stale` where it can be validated or a request may accept it.
    pub fn worth_keeping(&self, now: SystemTime, keep_stale: Duration) -> Duration {
        let fresh = self.lifetime.saturating_sub(self.age(now));
        let after = keep_stale.max(self.stale_while_revalidate).max(self.stale_if_error);
        fresh.saturating_add(after)
    }
}

/// Whether and how a stored response may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reuse {
    /// At once, with this much freshness left.
    Fresh {
        /// What is left.
        ttl: Duration,
    },
    /// At once, though it is stale.
    Stale {
        /// For how long it has been stale.
        by: Duration,
        /// What allows it. `WhileRevalidate` asks for a refresh in the background.
        allowed: StaleUse,
    },
    /// After a successful validation.
    Validate {
        /// It would be fresh, but the request asks for more.
        fresh: bool,
    },
    /// Not for this request.
    Refused(Refusal),
}

/// Decides whether a stored response may answer a request now ([RFC 9111 §4]).
///
/// [RFC 9111 §4]: https://www.rfc-editor.org/rfc/rfc9111#section-4
pub fn reuse(terms: &Terms, request: &RequestFacts, now: SystemTime) -> Reuse {
    if request.has_authorization && !terms.authorized {
        return Reuse::Refused(Refusal::Authorization);
    }
    if request.has_cookie && !terms.shared {
        return Reuse::Refused(Refusal::Cookie);
    }
    let age = terms.age(now);
    let fresh = terms.lifetime > age;
    if terms.always_validate {
        return Reuse::Validate { fresh: false };
    }
    let asked = &request.directives;
    if asked.no_cache {
        return Reuse::Validate { fresh };
    }
    // The request may shorten the lifetime, never lengthen it. `max-age=0` means "ask the origin".
    let lifetime = asked.max_age.map_or(terms.lifetime, |max| max.min(terms.lifetime));
    let needed = age.saturating_add(asked.min_fresh.unwrap_or_default());
    if lifetime > age && lifetime >= needed {
        return Reuse::Fresh { ttl: terms.lifetime.saturating_sub(age) };
    }
    match stale_use(terms, request, age, lifetime) {
        Some(_) if lifetime > age => Reuse::Validate { fresh },
        Some(allowed) if !fresh => Reuse::Stale { by: age.saturating_sub(terms.lifetime), allowed },
        // Fresh in itself, and `max-stale` lifts the request's own `max-age`.
        Some(_) => Reuse::Fresh { ttl: terms.lifetime.saturating_sub(age) },
        None => Reuse::Validate { fresh },
    }
}

/// RFC 9111 §4.2.4: what allows stale use, if anything does.
fn stale_use(
    terms: &Terms,
    request: &RequestFacts,
    age: Duration,
    lifetime: Duration,
) -> Option<StaleUse> {
    if terms.forbids_stale {
        return None;
    }
    let stale_for = age.saturating_sub(lifetime);
    match request.directives.max_stale {
        Some(MaxStale::Any) => return Some(StaleUse::MaxStale),
        Some(MaxStale::For(limit)) if stale_for <= limit => return Some(StaleUse::MaxStale),
        _ => {}
    }
    // A request that states what it accepts accepts nothing older.
    let asks_nothing =
        request.directives.max_age.is_none() && request.directives.min_fresh.is_none();
    (asks_nothing && stale_for < terms.stale_while_revalidate).then_some(StaleUse::WhileRevalidate)
}

/// How the origin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It answered, with a 5xx.
    Answered,
    /// It could not be reached, or gave no answer.
    Disconnected,
}

/// Whether a stale response may be sent because the origin failed, what allows it, and for how long
/// it has been stale ([RFC 5861 §4], [RFC 9111 §4.2.4]).
///
/// Without `stale-if-error`, only a cache that is disconnected may, for
/// `options.stale_if_disconnected`, and only for a request that does not say how old an answer may
/// be.
///
/// [RFC 5861 §4]: https://www.rfc-editor.org/rfc/rfc5861#section-4
/// [RFC 9111 §4.2.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.4
pub fn stale_if_error(
    terms: &Terms,
    request: &RequestFacts,
    failed: Failed,
    now: SystemTime,
    options: &Options,
) -> Option<(Duration, StaleUse)> {
    let asked = &request.directives;
    if terms.forbids_stale || terms.always_validate || asked.no_cache {
        return None;
    }
    let stale_for = terms.age(now).saturating_sub(terms.lifetime);
    if stale_for < asked.stale_if_error.unwrap_or_default().max(terms.stale_if_error) {
        return Some((stale_for, StaleUse::IfError));
    }
    let asks_nothing = asked.max_age.is_none() && asked.min_fresh.is_none();
    let is_allowed = failed == Failed::Disconnected && asks_nothing && !terms.lifetime.is_zero();
    (is_allowed && stale_for < options.stale_if_disconnected)
        .then_some((stale_for, StaleUse::Disconnected))
}

#[cfg(test)]
mod tests;
