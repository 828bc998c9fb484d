//! Decides how often one email address may try to log in: a bucket of attempts that refills.
//!
//! Pure: the time comes in. It counts per process and forgets at a restart; it slows guessing
//! down, it does not lock an account for longer than its owner waits for coffee.

use std::{collections::HashMap, time::Duration};

use super::{
    limits::{LOGIN_ADDRESSES, LOGIN_BURST, LOGIN_REFILL},
    timestamp::Timestamp,
};

/// The attempts of each email address that tried lately.
///
/// The value is the time at which the bucket is full again: a bucket that was emptied by `n`
/// attempts is full `n` refills later (the generic cell rate algorithm).
#[derive(Debug, Default)]
pub(crate) struct LoginLimit {
    full_at: HashMap<String, Timestamp>,
}

impl LoginLimit {
    /// Takes one attempt of this address.
    ///
    /// # Errors
    ///
    /// How long the address has to wait for its next attempt.
    pub(crate) fn attempt(&mut self, email: &str, now: Timestamp) -> Result<(), Duration> {
        let full_at = self.full_at.get(email).copied().unwrap_or(now).max(now);
        let after = full_at.plus(LOGIN_REFILL);
        let latest = now.plus(LOGIN_REFILL * LOGIN_BURST);
        if after > latest {
            let wait = after.millis() - latest.millis();
            return Err(Duration::from_millis(wait.unsigned_abs()));
        }
        if !self.full_at.contains_key(email) && self.full_at.len() >= LOGIN_ADDRESSES {
            self.make_room(now);
        }
        self.full_at.insert(email.to_owned(), after);
        Ok(())
    }

    /// Gives an address its attempts back: it has proved that it is not guessing.
    pub(crate) fn succeeded(&mut self, email: &str) {
        self.full_at.remove(email);
    }

    /// Forgets the full buckets; if all are in use, the one that is full again first.
    fn make_room(&mut self, now: Timestamp) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() < LOGIN_ADDRESSES {
            return;
        }
        let first = self.full_at.iter().min_by_key(|(_, full_at)| **full_at);
        if let Some(email) = first.map(|(email, _)| email.clone()) {
            self.full_at.remove(&email);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn an_address_has_a_burst_and_then_one_attempt_for_each_refill() {
        let mut limit = LoginLimit::default();
        for _ in 0..LOGIN_BURST {
            assert_eq!(limit.attempt("a", NOW), Ok(()));
        }
        assert_eq!(limit.attempt("a", NOW), Err(LOGIN_REFILL));
        assert_eq!(limit.attempt("b", NOW), Ok(()));
        let almost = Timestamp::from_millis(NOW.plus(LOGIN_REFILL).millis() - 1);
        assert_eq!(limit.attempt("a", almost), Err(Duration::from_millis(1)));
        assert_eq!(limit.attempt("a", NOW.plus(LOGIN_REFILL)), Ok(()));
        assert_eq!(limit.attempt("a", NOW.plus(LOGIN_REFILL)), Err(LOGIN_REFILL));
        limit.succeeded("a");
        assert_eq!(limit.attempt("a", NOW), Ok(()));
    }

    #[test]
    fn the_addresses_are_bounded_and_the_busiest_is_remembered() {
        let mut limit = LoginLimit::default();
        for _ in 0..LOGIN_BURST {
            limit.attempt("victim", NOW).unwrap();
        }
        for n in 0..LOGIN_ADDRESSES + 50 {
            limit.attempt(&format!("address {n}"), NOW).unwrap();
        }
        assert_eq!(limit.full_at.len(), LOGIN_ADDRESSES);
        assert_eq!(limit.attempt("victim", NOW), Err(LOGIN_REFILL));
        let later = NOW.plus(LOGIN_REFILL * LOGIN_BURST * 2);
        limit.attempt("new", later).unwrap();
        assert_eq!(limit.full_at.len(), 1);
    }
}
