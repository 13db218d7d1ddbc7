//! What a run came to.

use serde::Serialize;

use crate::latency::Latency;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Publishes that were acknowledged, sooner or later, of those due while it counted.
    pub acknowledged: u64,
    /// Publishes that were sent, with those of the warm-up.
    pub sent: u64,
    /// Publishes that had no answer 10 s after the end, those included that were due and could not
    /// be sent.
    pub unanswered: u64,
    /// Seconds that counted.
    pub seconds: f64,
    /// PUBACKs a second while it counted.
    pub rate: f64,
    /// From when a publish was due (open loop) or sent (closed loop) to its PUBACK.
    pub latency: Latency,
    /// Connections that the server closed before the end, and why the first of them.
    pub closed: u64,
    /// Why the first was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a fan-out came to. A delivery is one message that one subscriber hears.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FanOutReport {
    /// Messages that were due while it counted, and were sent.
    pub published: u64,
    /// Deliveries of all messages that were due while it counted, those included that could not be
    /// sent.
    pub expected: u64,
    /// Of these, how many came, sooner or later.
    pub delivered: u64,
    /// Of these, how many had not come 10 s after the end.
    pub missing: u64,
    /// How often a subscriber heard a message that it had heard, with those of the warm-up.
    pub doubled: u64,
    /// Seconds that counted.
    pub seconds: f64,
    /// Deliveries a second while it counted.
    pub rate: f64,
    /// From when a message was due (open loop) or sent (closed loop) to its delivery.
    pub latency: Latency,
    /// Connections that the server closed before the end, the publisher's included.
    pub closed: u64,
    /// Why the first was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a run goes, told once a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Seconds since the clients began to publish.
    pub seconds: f64,
    /// Publishes acknowledged since the last time, a second; in a fan-out, deliveries.
    pub rate: f64,
    /// Publishes that await their PUBACK; in a fan-out, messages that some subscriber has not heard.
    pub in_flight: u64,
    /// Connections that are open.
    pub open: u64,
}
