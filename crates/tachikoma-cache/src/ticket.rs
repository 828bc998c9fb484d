//! Tickets: what a client carries from an invalidation to its next request, on whichever node.
//!
//! Decides how a ticket is written, and which tickets a process has met already. A ticket is a name
//! and says nothing else: whoever meets one for the first time catches up with everything that
//! ended before that, so also with what the ticket was given for
//! (`docs/decisions/0022-tickets.md`). It asks nobody and reads no clock.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;

use crate::clock::Time;

/// How many tickets a process remembers: who comes with an older one causes one more question.
const REMEMBERED: usize = 1024;

/// What stands before the name: another way to write tickets would have another number.
const VERSION: &str = "1-";

/// The digits of a name.
const DIGITS: usize = 32;

/// Given after an invalidation, it lets a later read on another node skip what is older.
///
/// Made by [`Cache::ticket`](crate::Cache::ticket) and redeemed by
/// [`Cache::honour`](crate::Cache::honour). It is written in 34 characters that may stand in a
/// header or a URL. It holds no secret and proves nothing: a forged one costs a round trip.
///
/// ```
/// # use tachikoma_cache::Ticket;
/// let ticket: Ticket = "1-000000000000000000000000000000ff".parse()?;
/// assert_eq!(ticket.to_string(), "1-000000000000000000000000000000ff");
/// assert!("1-ff".parse::<Ticket>().is_err());
/// # Ok::<(), tachikoma_cache::ParseTicketError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u128);

impl Ticket {
    /// One that nobody has met.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}{:0DIGITS$x}", self.0)
    }
}

impl FromStr for Ticket {
    type Err = ParseTicketError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(VERSION).ok_or(ParseTicketError)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if digits.len() != DIGITS || !digits.bytes().all(is_digit) {
            return Err(ParseTicketError);
        }
        u128::from_str_radix(digits, 16).map(Self).map_err(|_| ParseTicketError)
    }
}

/// A text is no [`Ticket`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseTicketError;

impl fmt::Display for ParseTicketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a ticket is {VERSION:?} and {DIGITS} digits of 0-9 and a-f")
    }
}

impl std::error::Error for ParseTicketError {}

/// The tickets that this process has honoured, the newest of them.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    /// When each was met.
    met: HashMap<Ticket, Time>,
    order: VecDeque<Ticket>,
}

impl Tickets {
    /// When it was met, if this process has honoured it.
    pub(crate) fn met(&self, ticket: Ticket) -> Option<Time> {
        self.met.get(&ticket).copied()
    }

    /// This process has caught up with what was there when this ticket was met.
    pub(crate) fn honoured(&mut self, ticket: Ticket, met: Time) {
        if self.met.contains_key(&ticket) {
            return;
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.met.remove(&oldest);
        }
        self.met.insert(ticket, met);
        self.order.push_back(ticket);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ticket_is_read_as_it_was_written(name: u128) {
            let text = Ticket(name).to_string();
            prop_assert_eq!(text.len(), 34);
            prop_assert_eq!(text.parse(), Ok(Ticket(name)));
        }

        #[test]
        fn what_is_read_was_written_so(text in ".{0,40}|1-[0-9a-fA-F]{31,33}") {
            if let Ok(ticket) = text.parse::<Ticket>() {
                prop_assert_eq!(ticket.to_string(), text);
            }
        }
    }

    #[test]
    fn other_texts_are_no_tickets() {
        let digits = "0".repeat(32);
        for text in [
            String::new(),
            digits.clone(),
            format!("2-{digits}"),
            format!("1-{digits}0"),
            format!("1-+{}", "0".repeat(31)),
            format!("1-{}", "A".repeat(32)),
            format!(" 1-{digits}"),
        ] {
            assert_eq!(text.parse::<Ticket>(), Err(ParseTicketError), "{text:?}");
        }
        let allowed = "a ticket is \"1-\" and 32 digits of 0-9 and a-f";
        assert_eq!(ParseTicketError.to_string(), allowed);
    }

    #[test]
    fn a_process_remembers_when_it_met_the_newest_tickets() {
        let mut tickets = Tickets::default();
        let time = Time::from_millis;
        tickets.honoured(Ticket(0), time(5));
        tickets.honoured(Ticket(0), time(9));
        assert_eq!(tickets.met(Ticket(0)), Some(time(5)), "two requests came with it at once");
        assert_eq!(tickets.met(Ticket(1)), None);
        for name in 1..=REMEMBERED as u128 {
            tickets.honoured(Ticket(name), time(10));
        }
        assert_eq!(tickets.met(Ticket(0)), None, "the oldest is forgotten");
        assert_eq!(tickets.met(Ticket(1)), Some(time(10)));
        assert_eq!((tickets.met.len(), tickets.order.len()), (REMEMBERED, REMEMBERED));
    }
}
