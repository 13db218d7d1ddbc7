//! Why and where a message became a dead letter.

use std::fmt;
use std::str::FromStr;

/// Why a message could not be stored or delivered. Its name is the header `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The payload is not JSON.
    InvalidJson,
    /// The payload is JSON of the wrong shape, or a value in it is out of its limits.
    InvalidPayload,
    /// The payload is larger than 256 KiB.
    PayloadTooLarge,
    /// The MQTT packet is larger than the gateway reads; only its start is kept.
    PacketTooLarge,
    /// The client may not publish to that topic.
    NotAuthorized,
    /// The client asked for a retained message, which the gateway does not keep.
    RetainUnsupported,
    /// The client reports for more agents than one connection may.
    QuotaExceeded,
    /// A line of an AMQP message is no record.
    MalformedRecord,
    /// A record of a topic that is not stored.
    UnknownTopic,
    /// PostgreSQL refused this record, whatever was stored beside it.
    DatabaseRefused,
    /// A command whose name no handler has.
    UnknownCommand,
    /// The handler of an event or a command says that it can never be done.
    RejectedByHandler,
    /// An event or a command failed as often as it may be tried.
    AttemptsExhausted,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::InvalidJson,
        Self::InvalidPayload,
        Self::PayloadTooLarge,
        Self::PacketTooLarge,
        Self::NotAuthorized,
        Self::RetainUnsupported,
        Self::QuotaExceeded,
        Self::MalformedRecord,
        Self::UnknownTopic,
        Self::DatabaseRefused,
        Self::UnknownCommand,
        Self::RejectedByHandler,
        Self::AttemptsExhausted,
    ];

    /// The name in headers, metrics and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidPayload => "invalid_payload",
            Self::PayloadTooLarge => "payload_too_large",
            Self::PacketTooLarge => "packet_too_large",
            Self::NotAuthorized => "not_authorized",
            Self::RetainUnsupported => "retain_unsupported",
            Self::QuotaExceeded => "quota_exceeded",
            Self::MalformedRecord => "malformed_record",
            Self::UnknownTopic => "unknown_topic",
            Self::DatabaseRefused => "database_refused",
            Self::UnknownCommand => "unknown_command",
            Self::RejectedByHandler => "rejected_by_handler",
            Self::AttemptsExhausted => "attempts_exhausted",
        }
    }
}

/// Which part gave the message up. Its name is the header `stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The gateway, before anything was stored.
    Gateway,
    /// The worker, instead of storing it.
    Worker,
}

impl Stage {
    /// The name in headers and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Worker => "worker",
        }
    }
}

/// A name that is no [`Reason`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no reason; there are {names}", names = Reason::ALL.map(Reason::as_str).join(", "))]
pub struct UnknownReason(String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|reason| reason.as_str() == name);
        found.ok_or_else(|| UnknownReason(name.to_owned()))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert!("nonsense".parse::<Reason>().is_err());
    }
}
