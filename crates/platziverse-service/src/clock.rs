//! The one place that reads the machine's clock; everything else takes the time as an argument.

use platziverse_protocol::time::Timestamp;

/// The time now, in milliseconds.
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    let now = std::time::SystemTime::now();
    let millis = match now.duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => 0,
    };
    Timestamp::EPOCH.plus_millis(millis)
}
