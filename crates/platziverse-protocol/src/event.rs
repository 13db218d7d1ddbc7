//! What a record means for the agents and metrics that are kept.

use std::borrow::Cow;

use serde::Deserialize;

use crate::agent::{Agent, AgentMessage, AgentUuid, AgentWire, Object, PayloadError, parse_json};
use crate::presence::SessionId;
use crate::topic::{AGENT_CONNECTED, AGENT_DISCONNECTED, AGENT_MESSAGE};

/// One thing that happened to an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentEvent<'a> {
    /// It sent metrics.
    Message(AgentMessage<'a>),
    /// A session began to report for it.
    Connected(Agent<'a>),
    /// That session ended.
    Disconnected(AgentUuid<'a>),
}

impl<'a> AgentEvent<'a> {
    /// Parses a stored topic's payload.
    pub fn parse(topic: &str, payload: &'a [u8]) -> Result<Self, PayloadError> {
        match topic {
            AGENT_MESSAGE => AgentMessage::parse(payload).map(Self::Message),
            AGENT_CONNECTED => {
                let Object(wire): Object<ConnectedWire<'a>> = parse_json(payload)?;
                wire.agent.0.check().map(Self::Connected)
            }
            AGENT_DISCONNECTED => {
                let Object(wire): Object<DisconnectedWire<'a>> = parse_json(payload)?;
                AgentUuid::parse(wire.agent.0.uuid).map(Self::Disconnected)
            }
            other => Err(PayloadError::Topic(other.to_owned())),
        }
    }

    /// The agent that it happened to.
    pub fn uuid(&self) -> &AgentUuid<'a> {
        match self {
            Self::Message(message) => &message.agent.uuid,
            Self::Connected(agent) => &agent.uuid,
            Self::Disconnected(uuid) => uuid,
        }
    }
}

#[derive(Deserialize)]
struct ConnectedWire<'a> {
    #[serde(borrow)]
    agent: Object<AgentWire<'a>>,
}

#[derive(Deserialize)]
struct DisconnectedWire<'a> {
    #[serde(borrow)]
    agent: Object<UuidWire<'a>>,
}

#[derive(Deserialize)]
struct UuidWire<'a> {
    #[serde(borrow)]
    uuid: Cow<'a, str>,
}

/// The payload of `agent/connected`: the agent, and the session that reports for it.
///
/// A listener may hear the end of an old session after the start of a newer one on another gateway.
/// Sessions sort by time, so the greatest one that it has heard of says what holds.
pub fn connected_payload(agent: &Agent<'_>, session: SessionId) -> String {
    let agent = serde_json::json!({
        "uuid": agent.uuid,
        "username": agent.username,
        "name": agent.name,
        "hostname": agent.hostname,
        "pid": agent.pid,
        "connected": true,
    });
    serde_json::json!({ "agent": agent, "session": session }).to_string()
}

/// The payload of `agent/disconnected`: the agent, and the session that has ended.
pub fn disconnected_payload(uuid: &AgentUuid<'_>, session: SessionId) -> String {
    serde_json::json!({ "agent": { "uuid": uuid }, "session": session }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_payloads_are_read_back() {
        let agent = Agent {
            uuid: AgentUuid::parse("a\"b").unwrap(),
            username: "u".into(),
            name: "n".into(),
            hostname: "h".into(),
            pid: 7,
        };
        let session = SessionId::from_uuid(uuid::Uuid::from_u128(1));
        let payload = connected_payload(&agent, session);
        assert_eq!(
            payload,
            r#"{"agent":{"connected":true,"hostname":"h","name":"n","pid":7,"username":"u","uuid":"a\"b"},"session":"00000000-0000-0000-0000-000000000001"}"#
        );
        let event = AgentEvent::parse(AGENT_CONNECTED, payload.as_bytes()).unwrap();
        assert_eq!(event, AgentEvent::Connected(agent.clone()));
        let payload = disconnected_payload(&agent.uuid, session);
        assert_eq!(
            payload,
            r#"{"agent":{"uuid":"a\"b"},"session":"00000000-0000-0000-0000-000000000001"}"#
        );
        let event = AgentEvent::parse(AGENT_DISCONNECTED, payload.as_bytes()).unwrap();
        assert_eq!(event, AgentEvent::Disconnected(agent.uuid));
        assert!(AgentEvent::parse("agent/other", b"{}").is_err());
    }
}
