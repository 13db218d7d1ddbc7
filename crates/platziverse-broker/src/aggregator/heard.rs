//! Messages as they arrive. Anybody may publish anything: what is odd is left out, and nothing fails.

use bytes::Bytes;
use platziverse_protocol::time::Timestamp;
use uuid::Uuid;

use super::claim::Claim;
use super::post::Kind;
use super::{
    BROADCAST, CLIENT, CLIENTS_NAMED, DEADLINE, ERROR, FROM, MARKER, MARKER_KEY, MULTICAST,
    ONE_CLIENT, PROBE, PUBLISH, REQUEST, SEPARATOR, SESSION, TAKEOVER, WITHDRAWN_KEY,
};
use crate::Message;

impl Kind {
    /// What a message is: a request says so, and whatever else names one replies to it, unless it
    /// says that it does not.
    fn of(message: &Message) -> Self {
        match (message.kind(), message.correlation_id()) {
            (_, None) | (Some(PUBLISH), _) => Self::Publish,
            (Some(REQUEST), Some(_)) => Self::Request,
            (_, Some(_)) => Self::Reply,
        }
    }
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

fn marker(message: &Message) -> Option<Uuid> {
    message.message_id()?.parse().ok()
}

/// For whom a message of a channel's stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every client of the channel.
    Everyone,
    /// These clients, in order, each once.
    Clients(Vec<String>),
    /// Aggregators: a marker.
    Marker(Uuid),
}

/// A message of a channel's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// For whom it is.
    pub target: Target,
    /// What it is.
    pub kind: Kind,
    /// The client that sent it, if one did.
    pub from: Option<String>,
    /// The id of the request that it is, or replies to.
    pub request: Option<String>,
    /// Why the request failed, if it did.
    pub error: Option<String>,
    /// The body, unchanged.
    pub body: Bytes,
    /// When it was published, to the second.
    pub timestamp: Option<Timestamp>,
}

impl Outbound {
    /// Reads a message of a channel's stream; none if it is for nobody.
    pub fn read(channel: &str, message: Message) -> Option<Self> {
        let rest = message.routing_key.strip_prefix(channel)?.strip_prefix('.')?;
        let target = match rest {
            BROADCAST => Target::Everyone,
            MULTICAST => Target::Clients(named(&message)?),
            MARKER => Target::Marker(marker(&message)?),
            rest => {
                let client = rest.strip_prefix(ONE_CLIENT).filter(|client| !client.is_empty())?;
                Target::Clients(vec![client.to_owned()])
            }
        };
        Some(Self {
            target,
            kind: Kind::of(&message),
            from: message.header(FROM),
            request: owned(message.correlation_id()),
            error: message.header(ERROR),
            timestamp: message.timestamp(),
            body: Bytes::from(message.body),
        })
    }
}

/// The clients that a message names.
fn named(message: &Message) -> Option<Vec<String>> {
    let names = message.header(CLIENTS_NAMED)?;
    let names = names.split(SEPARATOR).map(str::trim).filter(|name| !name.is_empty());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// A message of the stream of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A client's request has gone to servers.
    Request {
        /// The client.
        client: String,
        /// The request's id.
        id: String,
        /// When, to the second.
        at: Option<Timestamp>,
    },
    /// It has not, although it was said.
    Withdrawn {
        /// The client.
        client: String,
        /// The request's id.
        id: String,
    },
    /// A marker, with claims.
    Marker(Uuid, Vec<Claim>),
    /// Anything else.
    Other,
}

impl Sent {
    /// Reads a message of the stream of requests.
    pub fn read(message: &Message) -> Self {
        let read = match (message.routing_key.as_str(), Kind::of(message)) {
            (MARKER_KEY, _) => {
                // Without a body there are none.
                let claims = serde_json::from_slice(&message.body).unwrap_or_default();
                marker(message).map(|id| Self::Marker(id, claims))
            }
            (WITHDRAWN_KEY, _) => {
                client_and_id(message).map(|(client, id)| Self::Withdrawn { client, id })
            }
            (_, Kind::Request) => client_and_id(message).map(|(client, id)| Self::Request {
                client,
                id,
                at: message.timestamp(),
            }),
            _ => None,
        };
        read.unwrap_or(Self::Other)
    }
}

fn client_and_id(message: &Message) -> Option<(String, String)> {
    Some((message.header(CLIENT)?, message.correlation_id()?.to_owned()))
}

/// A message to the aggregators that have a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Somebody asked whether there are any.
    Probe,
    /// A session goes on elsewhere.
    Takeover {
        /// The client.
        client: String,
        /// The session.
        session: Uuid,
        /// Which socket has it now: a later one is greater.
        epoch: Uuid,
    },
    /// Anything else.
    Other,
}

impl Presence {
    /// Reads a message of the queue of [`crate::LiveOptions::clients`].
    pub fn read(message: &Message) -> Self {
        match message.kind() {
            Some(PROBE) => Self::Probe,
            Some(TAKEOVER) => takeover(message).unwrap_or(Self::Other),
            _ => Self::Other,
        }
    }
}

fn takeover(message: &Message) -> Option<Presence> {
    let (session, epoch) = std::str::from_utf8(&message.body).ok()?.split_once(' ')?;
    let (session, epoch) = (session.parse().ok()?, epoch.parse().ok()?);
    Some(Presence::Takeover { client: message.routing_key.clone(), session, epoch })
}

/// A message of a queue of servers, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// What it is.
    pub kind: Kind,
    /// The client that sent it.
    pub client: Option<String>,
    /// The session that it came from.
    pub session: Option<Uuid>,
    /// The id of the request that it is, or replies to.
    pub request: Option<String>,
    /// Where the reply goes, see [`super::To::reply`].
    pub reply_to: Option<String>,
    /// When nobody waits for the reply any more.
    pub deadline: Option<Timestamp>,
}

impl Inbound {
    /// Reads a message of a queue `IN_<CHANNEL>`.
    pub fn read(message: &Message) -> Self {
        let deadline = message.number(DEADLINE).and_then(|millis| i64::try_from(millis).ok());
        Self {
            kind: Kind::of(message),
            client: message.header(CLIENT),
            session: message.header(SESSION).and_then(|session| session.parse().ok()),
            request: owned(message.correlation_id()),
            reply_to: owned(message.reply_to()),
            deadline: deadline.and_then(|millis| Timestamp::from_millis(millis).ok()),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
