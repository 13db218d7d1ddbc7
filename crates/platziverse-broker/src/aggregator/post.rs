//! Messages as they are published.

use bytes::Bytes;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use platziverse_protocol::time::Timestamp;
use uuid::Uuid;

use super::claim::Claim;
use super::{
    BROADCAST, CLIENT, CLIENTS_NAMED, DEADLINE, ERROR, FROM, JSON, MARKER, MARKER_KEY, MULTICAST,
    ONE_CLIENT, PUBLISH, REQUEST, SEPARATOR, SESSION, TAKEOVER, WITHDRAWN, WITHDRAWN_KEY,
};
use crate::message;
use crate::post::{Envelope, PostError};
use crate::topology::{CLIENTS, INBOUND, OUTBOUND, REQUESTS, inbound_queue, outbound_stream};

/// Bytes of a key, or of an id (AMQP 0-9-1, shortstr).
const SHORT_MAX: usize = 255;
/// Bytes of all headers. All properties of a message must fit in one frame, of 128 KiB by default.
const HEADERS_MAX: usize = 100 << 10;
/// What a header takes beside its text.
const OVERHEAD: usize = 16;

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Where it goes.
    pub to: To,
    /// What it is.
    pub kind: Kind,
    /// The client that sent it, if one did: the header `client` on the way to servers, `from` on the
    /// way to clients.
    pub client: Option<String>,
    /// The session that it came from.
    pub session: Option<Uuid>,
    /// The request that it is, or the reply to which.
    pub request: Option<Request>,
    /// Why a request failed, in the reply to it.
    pub error: Option<String>,
    /// The body: JSON, unless it is for aggregators only.
    pub body: Bytes,
}

impl Post {
    /// One without anything but its body.
    pub fn new(to: To, kind: Kind, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { to, kind, client: None, session: None, request: None, error: None, body }
    }

    /// The message as it goes to RabbitMQ, and the bytes that it takes here.
    pub(super) fn seal(mut self, now: Timestamp) -> Result<(Envelope, usize), PostError> {
        let route = self.to.route();
        let is_inbound = route.exchange == INBOUND;
        let id = match self.to {
            To::Marker { id, .. } | To::ChannelMarker { id, .. } => id,
            _ => Uuid::now_v7(),
        };
        if let To::Takeover { session, epoch, .. } = self.to {
            self.body = format!("{session} {epoch}").into();
        }
        if let To::Marker { claims, .. } = &self.to
            && !claims.is_empty()
        {
            // Texts and numbers can always be written.
            self.body = serde_json::to_vec(claims).unwrap_or_default().into();
        }
        if let To::Withdrawn { client, request } = &self.to {
            self.client = Some(client.clone());
            self.request = Some(Request { id: request.clone(), reply_to: None, deadline: None });
        }
        let kind = self.to.kind().unwrap_or(self.kind.name());
        let mut properties = message::properties(id, kind, JSON, now);
        let mut headers = Headers::default();
        if let Some(Request { id, reply_to, deadline }) = self.request {
            properties = properties.with_correlation_id(text("the id of a request", &id)?);
            if let Some(reply_to) = reply_to {
                properties = properties.with_reply_to(text("where the reply goes", &reply_to)?);
            }
            if let Some(deadline) = deadline {
                // Not as an expiration: RabbitMQ would make a dead letter of each that nobody waits
                // for, and those fill a queue that others need.
                headers.add(DEADLINE, AMQPValue::LongLongInt(deadline.as_millis()), 0);
            }
        }
        if let To::Clients { clients, .. } = &self.to {
            headers.add_text(CLIENTS_NAMED, Some(clients.join(&SEPARATOR.to_string())));
        }
        headers.add_text(if is_inbound { CLIENT } else { FROM }, self.client);
        let session = self.session.filter(|_| is_inbound);
        headers.add_text(SESSION, session.map(|session| session.to_string()));
        headers.add_text(ERROR, self.error);
        if headers.bytes > HEADERS_MAX {
            return Err(too_long("all headers together: it", HEADERS_MAX));
        }
        let bytes = self.body.len() + headers.bytes;
        let envelope = Envelope {
            exchange: route.exchange,
            key: text("the routing key", &route.key)?,
            queue: route.queue.map(|queue| text("the queue's name", &queue)).transpose()?,
            // What goes to servers is in the stream of requests as well.
            is_copied: is_inbound,
            properties: properties.with_headers(headers.table),
            body: self.body,
        };
        Ok((envelope, bytes))
    }
}

/// The headers of a message.
#[derive(Default)]
struct Headers {
    table: FieldTable,
    bytes: usize,
}

impl Headers {
    fn add(&mut self, name: &'static str, value: AMQPValue, bytes: usize) {
        self.bytes += OVERHEAD + bytes;
        self.table.insert(name.into(), value);
    }

    fn add_text(&mut self, name: &'static str, text: Option<String>) {
        if let Some(text) = text {
            let bytes = text.len();
            self.add(name, AMQPValue::LongString(text.into()), bytes);
        }
    }
}

fn text(what: &str, text: &str) -> Result<ShortString, PostError> {
    ShortString::try_new(text).map_err(|_| too_long(what, SHORT_MAX))
}

fn too_long(what: &str, max: usize) -> PostError {
    PostError::TooLarge(format!("{what} has more than {max} bytes"))
}

/// The way of a message through RabbitMQ.
struct Route {
    exchange: &'static str,
    key: String,
    /// Where it ends, if that is one queue.
    queue: Option<String>,
}

impl Route {
    fn outbound(channel: &str, rest: &str) -> Self {
        let queue = Some(outbound_stream(channel));
        Self { exchange: OUTBOUND, key: format!("{channel}.{rest}"), queue }
    }

    fn requests(key: &str) -> Self {
        Self { exchange: INBOUND, key: key.to_owned(), queue: Some(REQUESTS.to_owned()) }
    }
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// One of a channel's servers.
    Servers {
        /// The channel.
        channel: String,
    },
    /// Every client of a channel.
    Everyone {
        /// The channel.
        channel: String,
    },
    /// One client of a channel.
    Client {
        /// The channel.
        channel: String,
        /// Its id.
        client: String,
    },
    /// Some clients of a channel, in whose ids there is no comma.
    Clients {
        /// The channel.
        channel: String,
        /// Their ids.
        clients: Vec<String>,
    },
    /// Every aggregator, in the stream of requests: what it read before came before.
    Marker {
        /// Tells it from others.
        id: Uuid,
        /// What aggregators are about to send, and what has become of that.
        claims: Vec<Claim>,
    },
    /// Every aggregator, in the stream of a channel.
    ChannelMarker {
        /// The channel.
        channel: String,
        /// Tells it from others.
        id: Uuid,
    },
    /// Every aggregator, in the stream of requests: a request that RabbitMQ refused is not known.
    Withdrawn {
        /// Whose it was.
        client: String,
        /// Its id.
        request: String,
    },
    /// The aggregators that have a client: its session goes on elsewhere. It is no fault if there is
    /// none.
    Takeover {
        /// The client.
        client: String,
        /// Its session.
        session: Uuid,
        /// Which socket has it now: a later one is greater.
        epoch: Uuid,
    },
}

impl To {
    fn route(&self) -> Route {
        match self {
            Self::Servers { channel } => Route {
                exchange: INBOUND,
                key: channel.clone(),
                queue: Some(inbound_queue(channel)),
            },
            Self::Everyone { channel } => Route::outbound(channel, BROADCAST),
            Self::Client { channel, client } => Route {
                exchange: OUTBOUND,
                key: client_key(channel, client),
                queue: Some(outbound_stream(channel)),
            },
            Self::Clients { channel, .. } => Route::outbound(channel, MULTICAST),
            Self::ChannelMarker { channel, .. } => Route::outbound(channel, MARKER),
            Self::Marker { .. } => Route::requests(MARKER_KEY),
            Self::Withdrawn { .. } => Route::requests(WITHDRAWN_KEY),
            Self::Takeover { client, .. } => {
                Route { exchange: CLIENTS, key: client.clone(), queue: None }
            }
        }
    }

    /// The property `type` of what is for aggregators only.
    fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Marker { .. } | Self::ChannelMarker { .. } => Some(MARKER),
            Self::Withdrawn { .. } => Some(WITHDRAWN),
            Self::Takeover { .. } => Some(TAKEOVER),
            _ => None,
        }
    }

    /// The client that a request is to be answered to: what is in its `reply-to`, if
    /// [`client_key`] made it.
    pub fn reply(reply_to: &str) -> Option<Self> {
        let (channel, rest) = reply_to.split_once('.')?;
        let client = rest.strip_prefix(ONE_CLIENT).filter(|client| !client.is_empty())?;
        let [channel, client] = [channel, client].map(str::to_owned);
        Some(Self::Client { channel, client })
    }
}

/// The key of what goes to one client; a request's `reply-to`.
pub fn client_key(channel: &str, client: &str) -> String {
    format!("{channel}.{ONE_CLIENT}{client}")
}

/// What a message is: the property `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is answered by nobody.
    Publish,
    /// It asks for a reply.
    Request,
    /// It is one.
    Reply,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Publish => PUBLISH,
            Self::Request => REQUEST,
            Self::Reply => "reply",
        }
    }
}

/// A request, as the message that it is and the reply to it say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its id, given by the client: the property `correlation-id`. At most 255 bytes.
    pub id: String,
    /// Where the reply goes: a key of `OUTBOUND`, see [`client_key`].
    pub reply_to: Option<String>,
    /// When nobody waits for the reply any more: the header `deadline`. Servers leave undone what is
    /// later.
    pub deadline: Option<Timestamp>,
}
