//! Commands to agents: their topics, what an agent is sent, and what it answers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::agent::{Object, PayloadError, parse_json};
use crate::time::Timestamp;
use crate::topic::check_name;

/// The name of the tasks that are commands to agents.
pub const AGENT_COMMAND: &str = "agent.command";

/// The topic on which a gateway says that an agent listens for its commands from now on. Clients
/// can neither publish nor hear it, nor [`DELIVERED`].
pub const LISTENING: &str = "$platziverse/command/listening";
/// The topic on which a gateway says that an agent has acknowledged a command.
pub const DELIVERED: &str = "$platziverse/command/delivered";

/// The filter of all that agents answer.
pub const RESPONSES: &str = "agent/+/response";

/// Why an agent has no topic of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an agent whose uuid contains /, +, # or U+0000 has no topic for commands")]
pub struct NoTopic;

/// The topic on which an agent hears its commands: `agent/<uuid>/command`.
pub fn command_topic(agent: &str) -> Result<String, NoTopic> {
    topic(agent, "command")
}

/// The topic on which an agent answers: `agent/<uuid>/response`.
pub fn response_topic(agent: &str) -> Result<String, NoTopic> {
    topic(agent, "response")
}

fn topic(agent: &str, last: &str) -> Result<String, NoTopic> {
    let topic = format!("agent/{agent}/{last}");
    let whole = between(&topic, last) == Some(agent);
    if whole && check_name(&topic).is_ok() { Ok(topic) } else { Err(NoTopic) }
}

/// The agent whose commands a topic carries, or a filter without wildcards asks for.
pub fn commanded_agent(topic: &str) -> Option<&str> {
    between(topic, "command")
}

/// The agent that answers on a topic.
pub fn answering_agent(topic: &str) -> Option<&str> {
    between(topic, "response")
}

fn between<'a>(topic: &'a str, last: &str) -> Option<&'a str> {
    let agent = topic.strip_prefix("agent/")?.strip_suffix(last)?.strip_suffix('/')?;
    (!agent.is_empty() && !agent.contains(['/', '+', '#'])).then_some(agent)
}

/// What an agent is sent. It may be sent more than once under one id.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AgentCommand<'a> {
    /// Names the command, for the answer and to tell repeats.
    pub id: Uuid,
    /// What the agent is to do.
    pub name: &'a str,
    /// What it needs to know.
    pub payload: &'a RawValue,
    /// When an answer comes too late, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl AgentCommand<'_> {
    /// The message on the agent's topic.
    pub fn to_json(&self) -> String {
        // Text, numbers, and JSON that is valid already: it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What the payload of a task of the name [`AGENT_COMMAND`] is: `{"name", "payload"}`.
#[derive(Debug, Deserialize, Serialize)]
pub struct Instruction {
    /// What the agent is to do.
    pub name: String,
    /// What it needs to know; `null` if it was not given.
    #[serde(default = "null")]
    pub payload: Box<RawValue>,
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// What an agent answers: JSON of at most 256 KiB without U+0000, `{"id", "result"}` or
/// `{"id", "error"}`. Without either, the command is done and there is no more to say.
#[derive(Debug)]
pub struct Response<'a> {
    /// The command's.
    pub id: Uuid,
    /// What came of it, or why it was not done.
    pub outcome: Result<Option<&'a RawValue>, Cow<'a, str>>,
}

impl<'a> Response<'a> {
    /// Parses and checks a payload.
    pub fn parse(payload: &'a [u8]) -> Result<Self, PayloadError> {
        let Object(wire): Object<Wire<'a>> = parse_json(payload)?;
        let outcome = match (wire.result, wire.error) {
            (Some(_), Some(_)) => {
                return Err(PayloadError::Shape("either `result` or `error`, not both".to_owned()));
            }
            (result, None) => Ok(result),
            (None, Some(error)) => Err(error),
        };
        Ok(Self { id: wire.id, outcome })
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    id: Uuid,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
}

/// What a gateway says of a command, on [`LISTENING`] or on [`DELIVERED`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Report<'a> {
    /// The agent.
    #[serde(borrow)]
    pub agent: Cow<'a, str>,
    /// The command that it has acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead::Reason;

    const ID: &str = "01990000-0000-7000-8000-000000000000";

    #[test]
    fn topics() {
        let check = |agent: &str, addressable: bool| {
            let (command, response) = (command_topic(agent), response_topic(agent));
            assert_eq!(command.is_ok(), addressable, "{agent:?}");
            if let (Ok(command), Ok(response)) = (command, response) {
                assert_eq!(commanded_agent(&command), Some(agent));
                assert_eq!(answering_agent(&response), Some(agent));
                assert_eq!(commanded_agent(&response), None);
            }
        };
        check("yyy", true);
        check("a.b c$", true);
        check("command", true);
        check("", false);
        check("a/b", false);
        check("+", false);
        check("a#", false);
        check("a\0", false);
        for topic in ["agent/+/command", "agent//command", "agent/command", "agent/a/commands"] {
            assert_eq!(commanded_agent(topic), None, "{topic}");
        }
    }

    #[test]
    fn what_an_agent_is_sent() {
        let payload = RawValue::from_string(r#"{"b": 1.50}"#.to_owned()).unwrap();
        let (id, expires) = (ID.parse().unwrap(), Some(Timestamp::EPOCH.plus_millis(5)));
        let command = AgentCommand { id, name: "reboot", payload: &payload, expires };
        assert_eq!(
            command.to_json(),
            format!(r#"{{"id":"{ID}","name":"reboot","payload":{{"b": 1.50}},"expires":5}}"#)
        );
    }

    #[test]
    fn instructions() {
        let whole: Instruction =
            serde_json::from_str(r#"{"name": "reboot", "payload": [1.50], "more": 1}"#).unwrap();
        assert_eq!((&*whole.name, whole.payload.get()), ("reboot", "[1.50]"));
        let least: Instruction = serde_json::from_str(r#"{"name": "reboot"}"#).unwrap();
        assert_eq!(least.payload.get(), "null");
        assert!(serde_json::from_str::<Instruction>("{}").is_err());
    }

    #[test]
    fn answers() {
        let check = |more: &str, want: Result<Option<&str>, &str>| {
            let text = format!(r#"{{"id": "{ID}"{more}}}"#);
            let response = Response::parse(text.as_bytes()).unwrap();
            let got = response.outcome.as_ref().map(|result| result.map(RawValue::get));
            assert_eq!(got.map_err(|error| &**error), want, "{text}");
            assert_eq!(response.id.to_string(), ID);
        };
        check("", Ok(None));
        check(r#", "result": {"a": 1.50}, "more": 1"#, Ok(Some(r#"{"a": 1.50}"#)));
        check(r#", "result": 0, "error": null"#, Ok(Some("0")));
        check(r#", "error": "no \"way\"""#, Err("no \"way\""));
        let refused = |text: &str, reason: Reason| {
            assert_eq!(Response::parse(text.as_bytes()).unwrap_err().reason(), reason, "{text}");
        };
        refused("nonsense", Reason::InvalidJson);
        refused("{}", Reason::InvalidPayload);
        refused(r#"{"id": "1"}"#, Reason::InvalidPayload);
        refused(&format!(r#"{{"id": "{ID}", "error": 1}}"#), Reason::InvalidPayload);
        refused(&format!(r#"{{"id": "{ID}", "result": 1, "error": "x"}}"#), Reason::InvalidPayload);
        refused(&format!(r#"{{"id": "{ID}", "result": "\u0000"}}"#), Reason::InvalidPayload);
    }
}
