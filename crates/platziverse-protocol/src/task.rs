//! Events and commands: a task's envelope, parsed and checked.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::agent::{Object, PayloadError, TimeWire, check_length, parse_json};
use crate::time::Timestamp;

/// What a task asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Something happened; whoever cares handles it.
    Event,
    /// Something is to be done.
    Command,
}

/// An event or a command: JSON of at most 256 KiB, without U+0000 anywhere.
///
/// Fields that it does not know are ignored.
#[derive(Clone, Debug, Serialize)]
pub struct Task {
    /// What it asks for.
    pub kind: TaskKind,
    /// What happened, or what is to be done: it chooses the handler. 1 to 255 bytes.
    pub name: String,
    /// Names the task however often it is delivered, so that it is done once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Where an event happened. 1 to 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// For whom a command is. 1 to 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whatever the handler needs; `null` if it was not given.
    pub payload: Box<RawValue>,
    /// When it happened or was asked for, as the sender says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// When a command is given up, unless it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl TaskKind {
    /// The name in tasks, in metrics and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Command => "command",
        }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Task {
    /// Parses and checks a message's body.
    pub fn parse(body: &[u8]) -> Result<Self, PayloadError> {
        let Object(wire): Object<Wire<'_>> = parse_json(body)?;
        wire.check()
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    kind: TaskKind,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    id: Option<Uuid>,
    #[serde(borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    target: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Option<TimeWire<'a>>,
    #[serde(borrow, default)]
    expires: Option<TimeWire<'a>>,
}

impl Wire<'_> {
    fn check(self) -> Result<Task, PayloadError> {
        check_length("name", &self.name, 1)?;
        for (field, text) in [("source", &self.source), ("target", &self.target)] {
            if let Some(text) = text {
                check_length(field, text, 1)?;
            }
        }
        Ok(Task {
            kind: self.kind,
            name: self.name.into_owned(),
            id: self.id,
            source: self.source.map(Cow::into_owned),
            target: self.target.map(Cow::into_owned),
            payload: self.payload.unwrap_or(RawValue::NULL).to_owned(),
            timestamp: self.timestamp.map(|time| time.check()).transpose()?,
            expires: match self.expires.map(|time| time.check()).transpose() {
                Ok(expires) => expires,
                Err(error) => return Err(PayloadError::Shape(format!("expires {error}"))),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::PAYLOAD_BYTES_MAX;
    use crate::dead::Reason;

    fn parse(text: &str) -> Result<Task, PayloadError> {
        Task::parse(text.as_bytes())
    }

    #[test]
    fn whole() {
        let text = r#"{"kind": "command", "name": "agent.command", "target": "a\"b", "more": 1,
            "id": "01990000-0000-7000-8000-000000000000", "timestamp": "1970-01-01T00:00:01Z",
            "expires": 2000, "payload": {"b": 1.50, "a": []}}"#;
        let task = parse(text).unwrap();
        assert_eq!((task.kind, task.name.as_str()), (TaskKind::Command, "agent.command"));
        assert_eq!(task.target.as_deref(), Some("a\"b"));
        assert_eq!(task.source, None);
        assert_eq!(task.timestamp.map(Timestamp::as_millis), Some(1_000));
        assert_eq!(task.expires.map(Timestamp::as_millis), Some(2_000));
        assert_eq!(task.payload.get(), r#"{"b": 1.50, "a": []}"#, "as it was sent");
        let again = parse(&serde_json::to_string(&task).unwrap()).unwrap();
        assert_eq!(again.id, task.id);
        assert_eq!((again.timestamp, again.expires), (task.timestamp, task.expires));
        assert_eq!(again.payload.get(), task.payload.get());
    }

    #[test]
    fn the_least() {
        let task = parse(r#"{"kind":"event","name":"x"}"#).unwrap();
        assert_eq!((task.id, task.payload.get()), (None, "null"));
        assert_eq!(
            serde_json::to_string(&task).unwrap(),
            r#"{"kind":"event","name":"x","payload":null}"#
        );
        assert_eq!(
            parse(r#"{"kind":"event","name":"x","payload":null}"#).unwrap().payload.get(),
            "null"
        );
    }

    #[test]
    fn refused() {
        let check = |text: &str, reason: Reason, says: &str| {
            let error = parse(text).unwrap_err();
            assert_eq!(error.reason(), reason, "{text}: {error}");
            assert!(error.to_string().contains(says), "{text}: {error}");
        };
        check("nonsense", Reason::InvalidJson, "not JSON");
        check("[]", Reason::InvalidPayload, "an object");
        check(r#"{"name":"x"}"#, Reason::InvalidPayload, "kind");
        check(r#"{"kind":"other","name":"x"}"#, Reason::InvalidPayload, "`event` or `command`");
        check(r#"{"kind":"event"}"#, Reason::InvalidPayload, "name");
        check(r#"{"kind":"event","name":""}"#, Reason::InvalidPayload, "name has 0 bytes");
        check(r#"{"kind":"event","name":"x","id":"1"}"#, Reason::InvalidPayload, "UUID");
        check(r#"{"kind":"event","name":"x","source":""}"#, Reason::InvalidPayload, "source has 0");
        check(
            r#"{"kind":"event","name":"x","timestamp":"soon"}"#,
            Reason::InvalidPayload,
            "RFC 3339",
        );
        check(r#"{"kind":"event","name":"x","expires":"soon"}"#, Reason::InvalidPayload, "expires");
        check(
            r#"{"kind":"event","name":"x","payload":"\u0000"}"#,
            Reason::InvalidPayload,
            "U+0000",
        );
        let long = "x".repeat(256);
        check(
            &format!(r#"{{"kind":"event","name":"{long}"}}"#),
            Reason::InvalidPayload,
            "256 bytes",
        );
        let huge = "x".repeat(PAYLOAD_BYTES_MAX);
        check(
            &format!(r#"{{"kind":"event","name":"{huge}"}}"#),
            Reason::PayloadTooLarge,
            "at most",
        );
    }
}
