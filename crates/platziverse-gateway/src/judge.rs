//! What is to be done with a publish. Pure: decided here, carried out by the connection.

use platziverse_protocol::agent::{Agent, AgentMessage, PayloadError};
use platziverse_protocol::command::{Response, answering_agent, commanded_agent};
use platziverse_protocol::dead;
use platziverse_protocol::time::Timestamp;
use platziverse_protocol::topic::{AGENT_CONNECTED, AGENT_DISCONNECTED, AGENT_MESSAGE};
use uuid::Uuid;

use crate::auth::Permissions;
use crate::packet::{Publish, Reason, Text, Told};

/// The fate of a publish.
#[derive(Debug, PartialEq)]
pub enum Judgement<'a> {
    /// It is stored, and binds the session to an agent.
    Store {
        /// The agent that it is about.
        agent: Agent<'a>,
        /// The id that its sender gave it.
        id: Option<Uuid>,
    },
    /// It goes to subscribers, and to the queues of configured routes.
    Deliver,
    /// It is refused, and kept as a dead letter.
    Refuse(Refused),
}

/// Why a publish is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// For the dead-letter queue.
    pub reason: dead::Reason,
    /// For the client.
    pub told: Told,
}

impl Refused {
    /// A refusal with words for both.
    pub fn new(reason: dead::Reason, code: Reason, text: impl Into<Text>) -> Self {
        Self { reason, told: Told::new(code, text) }
    }
}

/// Judges a publish received at `received` from a client with these permissions.
pub fn judge<'a>(
    publish: &'a Publish,
    permissions: &Permissions,
    received: Timestamp,
) -> Judgement<'a> {
    let topic: &str = &publish.topic;
    let forbidden = |text: &str| {
        let (reason, code) = (dead::Reason::NotAuthorized, Reason::NOT_AUTHORIZED);
        Judgement::Refuse(Refused::new(reason, code, text))
    };
    if topic == AGENT_CONNECTED || topic == AGENT_DISCONNECTED {
        return forbidden("only gateways publish agent/connected and agent/disconnected");
    }
    // Section 4.7.2: such topics are not for clients to exchange messages.
    if topic.starts_with('$') {
        return forbidden("clients do not publish to topics that begin with $");
    }
    // What an agent does must be in the table of commands.
    if commanded_agent(topic).is_some() {
        return forbidden("agents get commands from workers only: platziverse command send");
    }
    if !permissions.may_publish(topic) {
        return forbidden("this client may not publish to this topic");
    }
    let invalid = |error: &PayloadError| {
        let (reason, code) = (error.reason(), Reason::PAYLOAD_FORMAT_INVALID);
        Judgement::Refuse(Refused::new(reason, code, error.to_string()))
    };
    if answering_agent(topic).is_some() {
        return match Response::parse(&publish.payload) {
            Ok(_) => Judgement::Deliver,
            Err(error) => invalid(&error),
        };
    }
    if topic != AGENT_MESSAGE {
        return Judgement::Deliver;
    }
    match parse(&publish.payload, received) {
        Ok(message) => Judgement::Store { id: message.id, agent: message.agent },
        Err(error) => invalid(&error),
    }
}

fn parse(payload: &[u8], received: Timestamp) -> Result<AgentMessage<'_>, PayloadError> {
    let message = AgentMessage::parse(payload)?;
    message.check_time(received)?;
    Ok(message)
}
