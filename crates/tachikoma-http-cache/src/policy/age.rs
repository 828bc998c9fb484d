//! Decides how old a response is. Never decides whether that is too old.
//!
//! RFC 9111 §4.2.3 and §5.1. Our own clock counts the time a response spent here; `Date` and
//! `Age` count the time before.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::AGE};

use super::directives::delta_seconds;

/// When a response was asked for and received, and what it says of its own age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// When the request was sent (`request_time`).
    pub requested_at: SystemTime,
    /// When the head of the response arrived (`response_time`).
    pub at: SystemTime,
    /// Its `Date`, if it has a valid one.
    pub date: Option<SystemTime>,
    /// Its `Age`, if it has a valid one.
    pub age: Option<Duration>,
}

/// Returns the age a response had when it arrived: `corrected_initial_age` ([RFC 9111 §4.2.3]).
///
/// Without a `Date`, or with one in the future, only `Age` and the time on the wire count. A `Date`
/// has whole seconds, so only whole seconds since then count.
///
/// [RFC 9111 §4.2.3]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
pub fn initial_age(received: &Received) -> Duration {
    let apparent = received.date.map_or(0, |date| since(date, received.at).as_secs());
    let on_the_wire = since(received.requested_at, received.at);
    let stated = received.age.unwrap_or_default().saturating_add(on_the_wire);
    Duration::from_secs(apparent).max(stated)
}

/// Returns the age of a response that had `initial` when it arrived at `at` ([RFC 9111 §4.2.3]).
///
/// If our clock stepped back since, no time counts as passed.
///
/// [RFC 9111 §4.2.3]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
pub fn current_age(initial: Duration, at: SystemTime, now: SystemTime) -> Duration {
    initial.saturating_add(since(at, now))
}

/// Reads `Age` ([RFC 9111 §5.1]): the first member of the first line counts; one that is not a
/// number of seconds is ignored; one that is too large counts as 2³¹ seconds.
///
/// [RFC 9111 §5.1]: https://www.rfc-editor.org/rfc/rfc9111#section-5.1
pub fn read(headers: &HeaderMap) -> Option<Duration> {
    let line = headers.get(AGE)?.to_str().ok()?;
    delta_seconds(line.split(',').next()?.trim())
}

fn since(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[track_caller]
    fn check_read(lines: &[&str], expected: Option<u64>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AGE, HeaderValue::from_str(line).unwrap());
        }
        assert_eq!(read(&headers), expected.map(Duration::from_secs), "{lines:?}");
    }

    #[test]
    fn age_is_the_first_number_of_the_first_line() {
        check_read(&[], None);
        check_read(&["0"], Some(0));
        check_read(&[" 60 "], Some(60));
        check_read(&["60, 7200"], Some(60));
        check_read(&["60", "7200"], Some(60));
        check_read(&["7200", "60"], Some(7200));
    }

    #[test]
    fn an_age_that_is_no_number_is_ignored() {
        for line in ["", "-1", "-7200", "1.5", "7200a", "7200;a=b", "\"7200\"", "a, 7200", "+1"] {
            check_read(&[line], None);
        }
    }

    #[test]
    fn an_age_too_large_is_two_to_the_31() {
        check_read(&["2147483648"], Some(1 << 31));
        check_read(&["2147483649"], Some(1 << 31));
        check_read(&["18446744073709551615"], Some(1 << 31));
        check_read(&["99999999999999999999999999"], Some(1 << 31));
    }

    #[track_caller]
    fn check_initial(date: Option<u64>, age: Option<u64>, wire: u64, expected: u64) {
        let received = Received {
            requested_at: at(1_000 - wire),
            at: at(1_000),
            date: date.map(at),
            age: age.map(Duration::from_secs),
        };
        assert_eq!(initial_age(&received), Duration::from_secs(expected), "{received:?}");
    }

    #[test]
    fn the_initial_age_is_the_larger_of_date_and_age() {
        check_initial(Some(1_000), None, 0, 0);
        check_initial(Some(990), None, 0, 10);
        check_initial(Some(990), Some(30), 0, 30);
        check_initial(Some(900), Some(30), 0, 100);
        check_initial(Some(1_000), Some(30), 2, 32);
        check_initial(None, Some(30), 0, 30);
        check_initial(None, None, 3, 3);
    }

    #[test]
    fn the_part_of_a_second_that_a_date_leaves_out_does_not_count() {
        let millis = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        for (arrived, expected) in [(9_000, 0), (9_999, 0), (10_000, 1)] {
            let at_ms = millis(arrived);
            let received =
                Received { requested_at: at_ms, at: at_ms, date: Some(at(9)), age: None };
            assert_eq!(initial_age(&received), Duration::from_secs(expected), "{arrived}");
        }
    }

    #[test]
    fn a_date_in_the_future_is_age_zero() {
        check_initial(Some(2_000), None, 0, 0);
        check_initial(Some(2_000), Some(5), 0, 5);
    }

    #[test]
    fn a_clock_that_stepped_back_counts_no_time() {
        assert_eq!(current_age(Duration::from_secs(5), at(100), at(50)), Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn a_response_only_grows_older(initial: u32, arrived: u32, now: u32, more: u32) {
            let initial = Duration::from_secs(initial.into());
            let age = |now| current_age(initial, at(arrived.into()), at(now));
            prop_assert!(age(now.into()) <= age(u64::from(now) + u64::from(more)));
        }
    }
}
