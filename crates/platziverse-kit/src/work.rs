//! What a server is given to do, and what it answers.

use bytes::Bytes;
use platziverse_broker::Message;
use platziverse_broker::aggregator::{Inbound, Kind, To};
use platziverse_protocol::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

/// What a client has sent to the servers of a channel.
#[derive(Clone, Debug)]
pub struct Work {
    /// The channel.
    pub channel: String,
    /// What is wanted: nothing, an answer, or to answer what the client was asked.
    pub kind: Kind,
    /// Who has sent it; empty if that is not said.
    pub client: String,
    /// The session in which it was sent.
    pub session: Option<Uuid>,
    /// Of a request its id, which is the same if the client asks again; of a reply the id of what it
    /// answers.
    pub request_id: Option<String>,
    /// When the client stops waiting for the answer.
    pub deadline: Option<Timestamp>,
    /// What was sent: JSON.
    pub body: Bytes,
    /// Whether it may have been done before, by this server or another.
    pub redelivered: bool,
    pub(crate) reply_to: Option<To>,
}

impl Work {
    /// What was sent, read as JSON.
    ///
    /// # Errors
    ///
    /// If it is not what is expected. As a handler's error it ends as any other does.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// Reads a message of the channel's queue. Whatever it lacks, it is somebody's message.
    pub(crate) fn of(channel: &str, message: &Message) -> Self {
        let Inbound { kind, client, session, request, reply_to, deadline } = Inbound::read(message);
        Self {
            channel: channel.to_owned(),
            kind,
            client: client.unwrap_or_default(),
            session,
            request_id: request,
            deadline,
            body: Bytes::copy_from_slice(&message.body),
            redelivered: message.redelivered,
            reply_to: reply_to.as_deref().and_then(To::reply),
        }
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_late(&self, now: Timestamp) -> bool {
        self.kind == Kind::Request && self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// What a handler answers. Only a request's answer is sent to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(pub(crate) Bytes);

impl Answer {
    /// An answer in JSON.
    ///
    /// # Errors
    ///
    /// If it cannot be JSON, as a map with keys that are no text.
    pub fn json(answer: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(answer).map(|text| Self(text.into()))
    }
}

impl From<()> for Answer {
    /// Nothing to say: `null`.
    fn from((): ()) -> Self {
        Self(Bytes::from_static(b"null"))
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_json() {
        assert_eq!(Answer::from(()).0, "null");
        assert_eq!(Answer::from(serde_json::json!({"a": "ñ"})).0, "{\"a\":\"ñ\"}");
        assert_eq!(Answer::json(&[1, 2]).unwrap().0, "[1,2]");
    }
}
