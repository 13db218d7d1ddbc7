//! The payloads of agents: what is accepted obeys every limit, and what obeys them is accepted.

use platziverse_fuzz::{Fate, Input, Target};
use platziverse_protocol::agent::{AgentMessage, PayloadError};
use platziverse_protocol::event::{self, AgentEvent};
use platziverse_protocol::presence::SessionId;
use platziverse_protocol::time::Timestamp;
use platziverse_protocol::topic::{AGENT_CONNECTED, AGENT_DISCONNECTED, AGENT_MESSAGE};
use proptest::test_runner::{TestCaseError, TestCaseResult};
use proptest::{prop_assert, prop_assert_eq};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::limits;

/// More than the 256 KiB of a payload.
const BYTES_MAX: usize = 300 << 10;

const WORDS: &[&str] = &[
    "agent",
    "uuid",
    "username",
    "name",
    "hostname",
    "pid",
    "metrics",
    "type",
    "value",
    "id",
    "timestamp",
    "null",
    "true",
    "\\u0000",
    "\\\\u0000",
    "\\ud800",
    "\\ud83d\\ude00",
    "NaN",
    "1e999",
    "{}",
    "[]",
    ",",
    ":",
    "[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "2026-01-31T12:00:00Z",
    "0000-01-01T00:00:00+23:59",
    "9999-12-31T23:59:60Z",
    "01990000-0000-7000-8000-000000000000",
    "urn:uuid:",
    "inf",
    "infinity",
    "0x10",
    "+1",
    "1_000",
    "\u{feff}",
    "\u{e9}",
    "\u{10ffff}",
    "\"agent\": {\"uuid\": \"b\"},",
    "{\"type\": \"t\", \"value\": 1},",
];

#[test]
fn payload() {
    Target::new("payload", WORDS, BYTES_MAX).run(check);
}

fn check(input: &Input) -> Result<Fate, TestCaseError> {
    let payload = &input.bytes;
    let parsed = AgentMessage::parse(payload);
    match &parsed {
        Ok(message) => accepted(message)?,
        Err(error) => explained(error)?,
    }
    agrees(payload, &parsed)?;
    presence(payload)?;
    Ok(Fate::of(parsed.is_ok()))
}

fn accepted(message: &AgentMessage<'_>) -> TestCaseResult {
    limits::message(message)?;
    let again = json(message).to_string();
    let again = AgentMessage::parse(again.as_bytes());
    let again = again.map_err(|error| TestCaseError::fail(format!("not read back: {error}")))?;
    prop_assert_eq!(&again.agent, &message.agent);
    prop_assert_eq!(again.timestamp, message.timestamp);
    prop_assert_eq!(again.id, message.id);
    prop_assert_eq!(again.metrics.len(), message.metrics.len());
    for (again, metric) in again.metrics.iter().zip(&message.metrics) {
        prop_assert_eq!(&again.kind, &metric.kind);
        prop_assert_eq!(&again.text, &metric.text);
    }
    Ok(())
}

/// The message as a sender might have written it.
fn json(message: &AgentMessage<'_>) -> Value {
    let metric = |metric: &platziverse_protocol::agent::Metric<'_>| {
        let value = match (&metric.text, metric.number) {
            (Some(text), _) => json!(text),
            (None, number) => json!(number),
        };
        json!({"type": metric.kind, "value": value})
    };
    let agent = &message.agent;
    json!({
        "agent": {
            "uuid": agent.uuid, "username": agent.username, "name": agent.name,
            "hostname": agent.hostname, "pid": agent.pid,
        },
        "metrics": message.metrics.iter().map(metric).collect::<Vec<_>>(),
        "timestamp": message.timestamp,
        "id": message.id.map(|id| id.to_string()),
    })
}

/// What is more than this no client and no log needs to be told, in bytes.
const EXPLANATION_BYTES_MAX: usize = 600;

/// A refusal says what is wrong, in a line that is not as long as the payload.
fn explained(error: &PayloadError) -> TestCaseResult {
    let text = error.to_string();
    prop_assert!((1..=EXPLANATION_BYTES_MAX).contains(&text.len()), "{} bytes", text.len());
    prop_assert!(!error.reason().as_str().is_empty());
    Ok(())
}

/// The contract once more, read from a JSON tree.
fn agrees(payload: &[u8], parsed: &Result<AgentMessage<'_>, PayloadError>) -> TestCaseResult {
    // A tree is not made of numbers that are too large and of deep nesting, which are no fault in
    // a field that is not looked at.
    let Ok(tree) = serde_json::from_slice::<Value>(payload) else { return Ok(()) };
    let allowed = payload.len() <= 256 * 1024 && !has_nul(&tree) && is_message(&tree);
    match parsed {
        Ok(message) => {
            prop_assert!(allowed, "accepted against the contract: {}", tree);
            if !has_repeated_keys(payload, &tree) {
                measured(message, &tree)?;
            }
        }
        // In a tree, the last field of a name has taken the place of the others.
        Err(PayloadError::Shape(text)) if text.starts_with("duplicate field") => {}
        // Its place in the tree may have been taken as well.
        Err(_) if has_repeated_keys(payload, &tree) => {}
        Err(error) => prop_assert!(!allowed, "refused against the contract: {} {}", error, tree),
    }
    Ok(())
}

/// Each value is the one that was sent.
fn measured(message: &AgentMessage<'_>, tree: &Value) -> TestCaseResult {
    let sent = tree["metrics"].as_array().map(Vec::as_slice).unwrap_or_default();
    prop_assert_eq!(message.metrics.len(), sent.len());
    for (metric, sent) in message.metrics.iter().zip(sent) {
        let value = &sent["value"];
        let (number, text) = match value {
            Value::Bool(true) => (Some(1.0), Some("true")),
            Value::Bool(false) => (Some(0.0), Some("false")),
            Value::String(text) => {
                let read = text.parse::<f64>().ok().filter(|number| number.is_finite());
                (read, Some(text.as_str()))
            }
            value => (value.as_f64(), None),
        };
        prop_assert!(limits::same(metric.number, number), "{:?} for {}", metric, value);
        prop_assert_eq!(metric.text.as_deref(), text);
        prop_assert_eq!(Some(&*metric.kind), sent["type"].as_str());
    }
    Ok(())
}

/// Whether a key stands in the text more often than in the tree.
fn has_repeated_keys(payload: &[u8], tree: &Value) -> bool {
    fn keys(tree: &Value) -> usize {
        match tree {
            Value::Object(map) => map.values().map(|value| 1 + keys(value)).sum(),
            Value::Array(list) => list.iter().map(keys).sum(),
            _ => 0,
        }
    }
    // A colon after a string is a key's; there may be others inside of strings.
    let mut colons = 0;
    let (mut inside, mut escaped) = (false, false);
    for byte in payload {
        match (inside, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => inside = !inside,
            (false, b':') => colons += 1,
            _ => {}
        }
    }
    colons > keys(tree)
}

fn has_nul(tree: &Value) -> bool {
    match tree {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn is_message(tree: &Value) -> bool {
    let text = |value: &Value, range: std::ops::RangeInclusive<usize>| {
        value.as_str().is_some_and(|text| range.contains(&text.len()))
    };
    let is_agent = |agent: &Value| {
        text(&agent["uuid"], 1..=255)
            && ["username", "name", "hostname"].iter().all(|name| text(&agent[name], 0..=255))
            && agent["pid"].as_i64().is_some_and(|pid| (0..=i64::from(i32::MAX)).contains(&pid))
    };
    let is_metric = |metric: &Value| {
        let value = &metric["value"];
        text(&metric["type"], 1..=255)
            && (text(value, 0..=4096) || value.is_boolean() || value.is_number())
    };
    let is_time = |time: &Value| match time {
        Value::Null => true,
        Value::String(text) => text.parse::<Timestamp>().is_ok(),
        number => number
            .as_i64()
            .or_else(|| number.as_f64().map(|float| float.floor() as i64))
            .is_some_and(|millis| Timestamp::from_millis(millis).is_ok()),
    };
    let is_id =
        |id: &Value| id.is_null() || id.as_str().is_some_and(|id| Uuid::try_parse(id).is_ok());
    let metrics = tree["metrics"].as_array();
    is_agent(&tree["agent"])
        && metrics.is_some_and(|list| list.len() <= 1000 && list.iter().all(is_metric))
        && is_time(&tree["timestamp"])
        && is_id(&tree["id"])
}

/// The announcements of gateways, which workers read.
fn presence(payload: &[u8]) -> TestCaseResult {
    let session = SessionId::from_uuid(Uuid::from_u128(7));
    for topic in [AGENT_MESSAGE, AGENT_CONNECTED, AGENT_DISCONNECTED, "agent/other"] {
        let Ok(parsed) = AgentEvent::parse(topic, payload) else { continue };
        limits::event(&parsed)?;
        prop_assert!(topic != "agent/other", "a topic that is not stored");
        let (topic, written) = match &parsed {
            AgentEvent::Connected(agent) => (topic, event::connected_payload(agent, session)),
            AgentEvent::Disconnected(uuid) => (topic, event::disconnected_payload(uuid, session)),
            AgentEvent::Message(message) => {
                (AGENT_CONNECTED, event::connected_payload(&message.agent, session))
            }
        };
        let again = AgentEvent::parse(topic, written.as_bytes());
        let again = again.map_err(|error| TestCaseError::fail(format!("{written}: {error}")))?;
        prop_assert_eq!(again.uuid(), parsed.uuid());
    }
    Ok(())
}
