//! What goes into a session and what comes out of it, besides packets.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use platziverse_protocol::topic::TopicFilter;
use uuid::Uuid;

use crate::packet::{
    Bytes, Connect, Options, Outgoing, PacketId, Properties, Publish, QoS, Reason, Text, Told, Will,
};

/// What the connection is to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Encode and write a packet.
    Send(Outgoing),
    /// Check credentials (and the will's topic), then answer by [`Session::verdict`].
    ///
    /// [`Session::verdict`]: super::Session::verdict
    Authenticate(Box<Connect>),
    /// Take a message, then answer by [`Session::receipt`], once, in any order.
    ///
    /// The topic is a valid name, aliases are resolved, RETAIN is 0.
    ///
    /// [`Session::receipt`]: super::Session::receipt
    Publish {
        /// What the receipt is for.
        ticket: Ticket,
        /// The message.
        publish: Publish,
    },
    /// Make subscriptions, then answer by [`Session::subscribed`].
    ///
    /// Subscribe and unsubscribe actions of one session are to be carried out in order.
    ///
    /// [`Session::subscribed`]: super::Session::subscribed
    Subscribe {
        /// The SUBSCRIBE that asks.
        packet_id: PacketId,
        /// The filters that are valid, at least one.
        wanted: Vec<Wanted>,
    },
    /// End subscriptions, then answer by [`Session::unsubscribed`].
    ///
    /// [`Session::unsubscribed`]: super::Session::unsubscribed
    Unsubscribe {
        /// The UNSUBSCRIBE that asks.
        packet_id: PacketId,
        /// The filters that are valid, at least one.
        filters: Vec<TopicFilter>,
    },
    /// Tell that the agent has a command: its PUBACK has come.
    Acknowledged(Box<Commanded>),
    /// Count messages that this subscriber does not get.
    Dropped {
        /// Why.
        why: Dropped,
        /// How many.
        count: usize,
    },
    /// Write what is to be sent, then close. No action follows.
    Close(Box<Close>),
}

/// Stands for one publish until its receipt. Opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub(super) u64);

/// A filter that a client wants to subscribe to.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The filter.
    pub filter: TopicFilter,
    /// Its options; the QoS is the one to grant, at most 1.
    pub options: Options,
    /// Its Subscription Identifier.
    pub id: Option<NonZeroU32>,
}

/// Whether a client may connect.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It may, by this identifier: its own, or one that the server has chosen for a client that
    /// sent none (which it is then told, MQTT-3.1.3-7).
    Accepted {
        /// The identifier.
        client_id: Text,
    },
    /// It may not.
    Refused(Told),
}

/// What became of a publish.
#[derive(Clone, Debug, PartialEq)]
pub enum Receipt {
    /// It is stored: RabbitMQ has confirmed it.
    Confirmed,
    /// It is not accepted, and has been kept as a dead letter where need be. MQTT 5 clients are
    /// told; in 3.1.1 there is no such answer, and it is acknowledged as if accepted.
    Refused(Told),
    /// It is unknown whether it is stored. A client that waits for an answer is disconnected, so
    /// that it sends the message again.
    Failed,
}

/// A message on its way to subscribers; shared by all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Where it was published.
    pub topic: Text,
    /// What was published.
    pub payload: Bytes,
    /// At which level.
    pub qos: QoS,
    /// When it expires (section 3.3.2.3.3).
    pub expires: Option<Instant>,
    /// What MQTT 5 says about it; the expiry that is sent is computed from `expires`.
    pub properties: Option<Box<Properties>>,
}

/// A message that matched subscriptions of this client.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The message.
    pub message: Arc<Message>,
    /// The greatest QoS granted to the subscriptions that matched (MQTT-3.3.4-2).
    pub granted: QoS,
    /// The RETAIN flag.
    pub retain: bool,
    /// The identifiers of the subscriptions that matched.
    pub subscription_ids: Vec<NonZeroU32>,
    /// What the PUBACK means, if this is a command and the client is the agent that it is for.
    pub command: Option<Box<Commanded>>,
}

/// A command, and the agent that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commanded {
    /// The agent's uuid.
    pub agent: Text,
    /// The command's id.
    pub id: Uuid,
}

/// Why a message does not reach a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// QoS 0, and too much is waiting for this subscriber.
    QueueFull,
    /// Its Message Expiry Interval has passed (MQTT-3.3.2-5).
    Expired,
    /// Larger than the client's Maximum Packet Size (MQTT-3.1.2-25).
    TooLarge,
    /// The connection ended first.
    Closed,
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Close {
    /// Who ended it.
    pub by: By,
    /// Why.
    pub told: Told,
    /// The will to publish (MQTT-3.1.2-8).
    pub will: Option<Box<Will>>,
    /// The publish that ended it, to be kept as a dead letter with `told`.
    pub refused: Option<Box<Publish>>,
}

impl Close {
    /// Why, as a code.
    pub fn reason(&self) -> Reason {
        self.told.reason
    }
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// The client said goodbye.
    Client,
    /// The connection broke without a goodbye.
    Network,
    /// The gateway, for the reason given.
    Gateway,
}

/// The bounds of a session; one value for all sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many publishes of one client await their receipt (section 3.2.2.3.3).
    pub receive_maximum: PacketId,
    /// The largest packet taken, in bytes.
    pub max_packet_size: u32,
    /// How many topic aliases a client may set.
    pub topic_alias_max: u16,
    /// How many QoS 1 deliveries may await their PUBACK; fewer if the client says so.
    pub outbound_window: PacketId,
    /// How many messages may wait for one subscriber.
    pub outbound_queue: usize,
    /// How many SUBSCRIBE and UNSUBSCRIBE of one client may await their answer.
    pub pending_subscribes: usize,
    /// How long a connection may take to send its CONNECT and to be let in.
    pub connect_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            receive_maximum: PacketId::MIN.saturating_add(255),
            max_packet_size: 1_048_576,
            topic_alias_max: 32,
            outbound_window: PacketId::MIN.saturating_add(63),
            outbound_queue: 1_000,
            pending_subscribes: 16,
            connect_timeout: Duration::from_secs(5),
        }
    }
}
