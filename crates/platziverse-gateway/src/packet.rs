//! MQTT packets as the session sees them, the same for 3.1.1 and 5.
//!
//! A field that only MQTT 5 has holds its default when the client speaks 3.1.1. Texts and
//! payloads share the bytes they were read from, except what a session keeps for long.

mod outgoing;
mod reason;

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

pub use ntex_bytes::{ByteString as Text, Bytes};
pub use outgoing::{Ack, Connack, Delivered, Disconnect, Outgoing, Suback, Unsuback};
pub use reason::{Reason, Told};

/// A packet identifier: 1 to 65,535 (MQTT 5, section 2.2.1).
pub type PacketId = NonZeroU16;

/// The two protocol versions that the gateway speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V3,
    /// MQTT 5, protocol level 5.
    V5,
}

impl Version {
    /// The version as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V3 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

/// Quality of service (MQTT 5, section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// 0: delivered at most once, not acknowledged.
    #[default]
    AtMostOnce,
    /// 1: delivered at least once, answered by PUBACK.
    AtLeastOnce,
    /// 2: delivered exactly once, answered by PUBREC, then PUBCOMP.
    ExactlyOnce,
}

impl QoS {
    /// The level as a number, 0 to 2.
    pub fn level(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// The first packet of a connection.
    Connect(Box<Connect>),
    /// An application message.
    Publish(Publish),
    /// The answer to a QoS 1 delivery.
    Puback(PacketId, Reason),
    /// The first answer to a QoS 2 delivery.
    Pubrec(PacketId, Reason),
    /// The release of a QoS 2 publish.
    Pubrel(PacketId, Reason),
    /// The end of a QoS 2 delivery.
    Pubcomp(PacketId, Reason),
    /// A request for subscriptions.
    Subscribe(Subscribe),
    /// A request to end subscriptions.
    Unsubscribe(Unsubscribe),
    /// A sign of life.
    Pingreq,
    /// A goodbye: the reason, and the Session Expiry Interval if the client changes it.
    Disconnect(Reason, Option<u32>),
    /// Enhanced authentication (MQTT 5).
    Auth,
}

impl Packet {
    /// The packet's name in the specification.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "CONNECT",
            Self::Publish(_) => "PUBLISH",
            Self::Puback(..) => "PUBACK",
            Self::Pubrec(..) => "PUBREC",
            Self::Pubrel(..) => "PUBREL",
            Self::Pubcomp(..) => "PUBCOMP",
            Self::Subscribe(_) => "SUBSCRIBE",
            Self::Unsubscribe(_) => "UNSUBSCRIBE",
            Self::Pingreq => "PINGREQ",
            Self::Disconnect(..) => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

/// A CONNECT. It owns its texts, so that no read buffer lives as long as a session.
#[derive(Clone, PartialEq)]
pub struct Connect {
    /// The version that the client speaks.
    pub version: Version,
    /// The client identifier; empty when the server is to assign one.
    pub client_id: Text,
    /// Clean Start, or Clean Session in 3.1.1.
    pub clean_start: bool,
    /// Seconds; 0 means none (section 3.1.2.10).
    pub keep_alive: u16,
    /// The message to publish if the connection ends without a goodbye.
    pub will: Option<Box<Will>>,
    /// The user name.
    pub username: Option<Text>,
    /// The password; never shown.
    pub password: Option<Bytes>,
    /// Session Expiry Interval in seconds (MQTT 5).
    pub session_expiry: u32,
    /// How many unacknowledged QoS 1 and 2 deliveries the client takes (MQTT 5).
    pub receive_maximum: PacketId,
    /// The largest packet that the client takes, in bytes (MQTT 5).
    pub max_packet_size: Option<NonZeroU32>,
    /// How many topic aliases the client takes; none are sent (MQTT 5).
    pub topic_alias_max: u16,
    /// Whether reason strings may go on any packet (MQTT 5, section 3.1.2.11.7).
    pub request_problem_info: bool,
    /// Whether the client names an enhanced authentication method (MQTT 5).
    pub enhanced_auth: bool,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("will", &self.will.as_ref().map(|will| &will.topic))
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "[redacted]"))
            .field("session_expiry", &self.session_expiry)
            .field("receive_maximum", &self.receive_maximum)
            .field("max_packet_size", &self.max_packet_size)
            .finish_non_exhaustive()
    }
}

/// A will: what is published when its client goes without a goodbye (section 3.1.2.5).
#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    /// Where it is published.
    pub topic: Text,
    /// What is published.
    pub payload: Bytes,
    /// At which level.
    pub qos: QoS,
    /// Whether it asks to be retained.
    pub retain: bool,
    /// What MQTT 5 says about the payload.
    pub properties: Option<Box<Properties>>,
}

/// What MQTT 5 says about a message, passed on unchanged to subscribers that speak it
/// (MQTT-3.3.2-4, -15 to -20).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// Payload Format Indicator: the payload is UTF-8.
    pub utf8_payload: bool,
    /// Message Expiry Interval in seconds.
    pub expiry: Option<NonZeroU32>,
    /// Content Type.
    pub content_type: Option<Text>,
    /// Response Topic.
    pub response_topic: Option<Text>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// User Properties, in order.
    pub user: Vec<(Text, Text)>,
}

/// A PUBLISH from a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Where to; empty when `alias` stands for it (MQTT 5). The session resolves aliases.
    pub topic: Text,
    /// The Topic Alias (MQTT 5).
    pub alias: Option<NonZeroU16>,
    /// What is published.
    pub payload: Bytes,
    /// At which level.
    pub qos: QoS,
    /// Set exactly when `qos` is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// Whether the client has sent it before.
    pub dup: bool,
    /// Whether it asks to be retained.
    pub retain: bool,
    /// What MQTT 5 says about the payload.
    pub properties: Option<Box<Properties>>,
}

/// A SUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// Its identifier.
    pub packet_id: PacketId,
    /// The Subscription Identifier of all its filters (MQTT 5).
    pub id: Option<NonZeroU32>,
    /// The filters, unchecked, with what is asked for each; at least one.
    pub filters: Vec<(Text, Options)>,
}

/// Subscription Options (MQTT 5, section 3.8.3.1); 3.1.1 has the QoS only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The level asked for, or granted.
    pub qos: QoS,
    /// Not to be sent what the same connection has published.
    pub no_local: bool,
    /// Keep the RETAIN flag of what is sent.
    pub retain_as_published: bool,
    /// 0 to 2; without retained messages it changes nothing.
    pub retain_handling: u8,
}

/// An UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe {
    /// Its identifier.
    pub packet_id: PacketId,
    /// The filters, unchecked; at least one.
    pub filters: Vec<Text>,
}
