//! Decides how a point in time is kept and written: milliseconds in the database and in the cache,
//! RFC 3339 in JSON.
//!
//! Never reads a clock: the time comes in from [`Clock`](tachikoma_cache::Clock).

use std::{
    fmt,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The last millisecond of the year 9999, where RFC 3339 ends.
const LAST: i64 = 253_402_300_799_999;

/// A point in time in milliseconds since the Unix epoch, from 1970 to 9999.
///
/// `Display` and JSON are RFC 3339 in UTC with milliseconds: `2026-03-01T12:00:00.250Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time `millis` milliseconds after the Unix epoch; outside of 1970 to 9999 the nearest
    /// end.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(if millis < 0 {
            0
        } else if millis > LAST {
            LAST
        } else {
            millis
        })
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0
    }

    /// The time `by` later; at the end of the year 9999 it stays there.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let by = i64::try_from(by.as_millis()).unwrap_or(LAST);
        Self::from_millis(self.0.saturating_add(by))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = Duration::from_millis(self.0.unsigned_abs());
        humantime::format_rfc3339_millis(UNIX_EPOCH + since).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_rfc3339(&text).map_err(de::Error::custom)?;
        let since = time.duration_since(UNIX_EPOCH).map_err(de::Error::custom)?;
        let millis = i64::try_from(since.as_millis()).map_err(de::Error::custom)?;
        Ok(Self::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_timestamp_is_written_in_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        let leap_day = Timestamp::from_millis(1_709_164_800_250);
        assert_eq!(leap_day.to_string(), "2024-02-29T00:00:00.250Z");
        assert_eq!(Timestamp::from_millis(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    proptest! {
        #[test]
        fn a_timestamp_survives_json(millis in 0..=LAST) {
            let before = Timestamp::from_millis(millis);
            let json = serde_json::to_string(&before).unwrap();
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), before);
        }

        #[test]
        fn a_later_time_is_never_an_earlier_one(millis: i64, by: u64) {
            let time = Timestamp::from_millis(millis);
            prop_assert!(time.plus(Duration::from_millis(by)) >= time);
        }
    }
}
