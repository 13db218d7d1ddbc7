//! What the gateway sends.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::{PacketId, QoS, Reason, Text, Told};
use crate::session::Message;

/// What the gateway sends to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// The answer to CONNECT.
    Connack(Box<Connack>),
    /// An application message.
    Publish(Delivered),
    /// The answer to a QoS 1 publish.
    Puback(Ack),
    /// The first answer to a QoS 2 publish.
    Pubrec(Ack),
    /// Sent only to say that a packet identifier is not known.
    Pubrel(Ack),
    /// The last answer to a QoS 2 publish.
    Pubcomp(Ack),
    /// The answer to SUBSCRIBE.
    Suback(Suback),
    /// The answer to UNSUBSCRIBE.
    Unsuback(Unsuback),
    /// The answer to PINGREQ.
    Pingresp,
    /// The server's goodbye. MQTT 3.1.1 has none: nothing is encoded.
    Disconnect(Disconnect),
}

/// A CONNACK. Fields other than `told` are encoded only on success, and in MQTT 5.
///
/// Wildcard subscriptions and subscription identifiers are available and Maximum QoS is 2, which
/// are the defaults and so are not sent; retained messages and shared subscriptions are announced
/// as not available. Session Present is always 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Connack {
    /// Success, or why not.
    pub told: Told,
    /// How many unacknowledged QoS 1 and 2 publishes are taken (section 3.2.2.3.3).
    pub receive_maximum: PacketId,
    /// The largest packet that is taken, in bytes (section 3.2.2.3.6).
    pub max_packet_size: u32,
    /// How many topic aliases are taken (section 3.2.2.3.8).
    pub topic_alias_max: u16,
    /// The client identifier, when the server chose it (MQTT-3.1.3-7).
    pub assigned_client_id: Option<Text>,
    /// Session Expiry Interval in seconds, when it is not what the client asked for.
    pub session_expiry: Option<u32>,
}

/// One application message on its way to one subscriber.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// The message, shared by all its subscribers.
    pub message: Arc<Message>,
    /// 0 or 1.
    pub qos: QoS,
    /// Set exactly when `qos` is 1.
    pub packet_id: Option<PacketId>,
    /// The RETAIN flag.
    pub retain: bool,
    /// What is left of the Message Expiry Interval, in seconds (MQTT-3.3.2-6).
    pub expiry: Option<NonZeroU32>,
    /// The identifiers of the subscriptions that matched (MQTT-3.3.4-3).
    pub subscription_ids: Vec<NonZeroU32>,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    /// The packet that it answers.
    pub packet_id: PacketId,
    /// What became of it; MQTT 3.1.1 cannot say.
    pub told: Told,
}

/// A SUBACK.
#[derive(Clone, Debug, PartialEq)]
pub struct Suback {
    /// The SUBSCRIBE that it answers.
    pub packet_id: PacketId,
    /// One for each filter, in order (MQTT-3.8.4-6).
    pub reasons: Vec<Reason>,
}

/// An UNSUBACK.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsuback {
    /// The UNSUBSCRIBE that it answers.
    pub packet_id: PacketId,
    /// One for each filter, in order; MQTT 3.1.1 does not send them.
    pub reasons: Vec<Reason>,
}

/// A DISCONNECT.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect {
    /// Why.
    pub told: Told,
}
