//! Points in time as they travel: milliseconds since 1970.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// A point in time, in milliseconds since 1970-01-01T00:00:00Z.
///
/// Always within the years 0000 to 9999, so that it can be shown as RFC 3339 and stored by
/// PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// Why a value is no [`Timestamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Before the year 0000 or after 9999.
    #[error("is outside the years 0000 to 9999")]
    OutOfRange,
    /// Text that is no RFC 3339 date and time.
    #[error("is not an RFC 3339 date and time, like 2026-01-31T12:00:00Z")]
    NotRfc3339,
}

const MILLIS_MIN: i64 = -62_167_219_200_000;
const MILLIS_MAX: i64 = 253_402_300_799_999;

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The point `millis` milliseconds after 1970; negative ones are before.
    pub fn from_millis(millis: i64) -> Result<Self, TimestampError> {
        if (MILLIS_MIN..=MILLIS_MAX).contains(&millis) {
            Ok(Self(millis))
        } else {
            Err(TimestampError::OutOfRange)
        }
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The point `millis` milliseconds later, held within the years that can be shown.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis).clamp(MILLIS_MIN, MILLIS_MAX))
    }

    /// Milliseconds from `earlier` to this point; negative if `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// The same point for chrono.
    pub fn to_chrono(self) -> DateTime<Utc> {
        // The range is checked at construction and far inside chrono's own.
        DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// The millisecond that holds the point; sub-millisecond digits are cut.
    pub fn from_chrono(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_millis().clamp(MILLIS_MIN, MILLIS_MAX))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let millis = i64::deserialize(deserializer)?;
        Self::from_millis(millis).map_err(serde::de::Error::custom)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| TimestampError::NotRfc3339)?;
        Self::from_millis(time.timestamp_millis())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_chrono().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |text: &str, want: Result<i64, TimestampError>| {
            assert_eq!(text.parse::<Timestamp>().map(Timestamp::as_millis), want, "{text}");
        };
        check("1970-01-01T00:00:01Z", Ok(1_000));
        check("1970-01-01T01:00:01.5+01:00", Ok(1_500));
        check("1969-12-31T23:59:59Z", Ok(-1_000));
        check("yesterday", Err(TimestampError::NotRfc3339));
        check("2026-01-31", Err(TimestampError::NotRfc3339));
        check("", Err(TimestampError::NotRfc3339));
    }

    #[test]
    fn range() {
        assert!(Timestamp::from_millis(MILLIS_MAX).is_ok());
        assert_eq!(Timestamp::from_millis(i64::MAX), Err(TimestampError::OutOfRange));
        assert_eq!(Timestamp::from_millis(i64::MIN), Err(TimestampError::OutOfRange));
        assert_eq!(Timestamp::EPOCH.plus_millis(i64::MAX).as_millis(), MILLIS_MAX);
        assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00.000Z");
    }
}
