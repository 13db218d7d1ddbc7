//! What a record means for the agents and metrics that are kept.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, AgentMessage, AgentUuid, AgentWire, Object, PayloadError, parse_json};
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

/// The payload of `agent/connected`.
pub fn connected_payload(agent: &Agent<'_>) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        uuid: &'a str,
        username: &'a str,
        name: &'a str,
        hostname: &'a str,
        pid: i32,
        connected: bool,
    }
    let body = Body {
        uuid: agent.uuid.as_str(),
        username: &agent.username,
        name: &agent.name,
        hostname: &agent.hostname,
        pid: agent.pid,
        connected: true,
    };
    serde_json::json!({ "agent": serde_json::to_value(body).unwrap_or_default() }).to_string()
}

/// The payload of `agent/disconnected`.
pub fn disconnected_payload(uuid: &AgentUuid<'_>) -> String {
    serde_json::json!({ "agent": { "uuid": uuid } }).to_string()
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
        let payload = connected_payload(&agent);
        let event = AgentEvent::parse(AGENT_CONNECTED, payload.as_bytes()).unwrap();
        assert_eq!(event, AgentEvent::Connected(agent.clone()));
        let payload = disconnected_payload(&agent.uuid);
        let event = AgentEvent::parse(AGENT_DISCONNECTED, payload.as_bytes()).unwrap();
        assert_eq!(event, AgentEvent::Disconnected(agent.uuid));
        assert!(AgentEvent::parse("agent/other", b"{}").is_err());
    }
}
