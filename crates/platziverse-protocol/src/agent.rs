//! What an agent says: the payload of `agent/message`, parsed and checked.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use memchr::memchr;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dead::Reason;
use crate::time::{Timestamp, TimestampError};

/// The largest payload of an agent's message, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// The longest name (uuid, username, name, hostname, metric type), in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The most metrics in one message.
pub const METRICS_MAX: usize = 1_000;
/// The longest text value of a metric, in bytes.
pub const TEXT_BYTES_MAX: usize = 4 * 1024;
/// How far a message's time may lie ahead of its receipt, in milliseconds.
pub const AHEAD_MILLIS_MAX: i64 = 24 * 60 * 60 * 1_000;

/// An agent's name for itself: any text of 1 to 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct AgentUuid<'a>(Cow<'a, str>);

/// The agent that a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent<'a> {
    /// Which agent.
    pub uuid: AgentUuid<'a>,
    /// The user that it runs as.
    pub username: Cow<'a, str>,
    /// Its name.
    pub name: Cow<'a, str>,
    /// The machine that it runs on.
    pub hostname: Cow<'a, str>,
    /// Its process id, 0 to 2^31-1.
    pub pid: i32,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric<'a> {
    /// What was measured: the field `type`.
    pub kind: Cow<'a, str>,
    /// The value as a finite number; of a boolean 1 or 0; of a text what it reads as, if it does.
    pub number: Option<f64>,
    /// The value as text, if it was sent as a text or a boolean.
    pub text: Option<Cow<'a, str>>,
}

/// A checked payload of `agent/message`.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentMessage<'a> {
    /// Who measured.
    pub agent: Agent<'a>,
    /// What was measured.
    pub metrics: Vec<Metric<'a>>,
    /// When it was measured, if the sender said so.
    pub timestamp: Option<Timestamp>,
    /// The message's id, if the sender gave one.
    pub id: Option<Uuid>,
}

/// Why a payload is refused. The text is for the person who wrote the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// More than [`PAYLOAD_BYTES_MAX`].
    #[error("the payload has {0} bytes; at most {PAYLOAD_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// Bytes that are no UTF-8.
    #[error("the payload is not JSON: it is not UTF-8")]
    NotUtf8,
    /// Text that is no JSON.
    #[error("the payload is not JSON: {0}")]
    NotJson(String),
    /// A field is missing or has the wrong type.
    #[error("the payload has the wrong shape: {0}")]
    Shape(String),
    /// U+0000, which PostgreSQL cannot hold.
    #[error("the payload contains U+0000, which cannot be stored")]
    Nul,
    /// A text that is too short or too long.
    #[error("{field} has {length} bytes; {allowed} are allowed")]
    Length {
        /// Where.
        field: &'static str,
        /// How long it is, in bytes.
        length: usize,
        /// How long it may be.
        allowed: &'static str,
    },
    /// Outside 0 to 2^31-1.
    #[error("agent.pid is {0}; 0 to 2147483647 are allowed")]
    Pid(i64),
    /// More than [`METRICS_MAX`].
    #[error("there are {0} metrics; at most {METRICS_MAX} are allowed")]
    Metrics(usize),
    /// A time that is none.
    #[error("timestamp {0}")]
    Timestamp(#[from] TimestampError),
    /// A time more than [`AHEAD_MILLIS_MAX`] after the receipt.
    #[error("timestamp {timestamp} is more than a day after the receipt at {received}")]
    Ahead {
        /// What the sender said.
        timestamp: Timestamp,
        /// When the gateway received it.
        received: Timestamp,
    },
    /// A record of a topic that carries no agent event.
    #[error("topic {0:?} is not stored; agent/message, agent/connected and agent/disconnected are")]
    Topic(String),
}

impl PayloadError {
    /// The name under which such payloads are counted and kept.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::TooLarge(_) => Reason::PayloadTooLarge,
            Self::NotUtf8 | Self::NotJson(_) => Reason::InvalidJson,
            Self::Topic(_) => Reason::UnknownTopic,
            Self::Shape(_)
            | Self::Nul
            | Self::Length { .. }
            | Self::Pid(_)
            | Self::Metrics(_)
            | Self::Timestamp(_)
            | Self::Ahead { .. } => Reason::InvalidPayload,
        }
    }
}

impl<'a> AgentUuid<'a> {
    /// Checks `text` as an agent's uuid: 1 to 255 bytes, no U+0000.
    pub fn parse(text: impl Into<Cow<'a, str>>) -> Result<Self, PayloadError> {
        let text = text.into();
        check_length("agent.uuid", &text, 1)?;
        if text.contains('\0') {
            return Err(PayloadError::Nul);
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, owning its text.
    pub fn into_owned(self) -> AgentUuid<'static> {
        AgentUuid(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> AgentMessage<'a> {
    /// Parses and checks a payload, borrowing from it where no escape stands in the way.
    pub fn parse(payload: &'a [u8]) -> Result<Self, PayloadError> {
        let Object(wire): Object<MessageWire<'a>> = parse_json(payload)?;
        wire.check()
    }

    /// Refuses a time that is more than a day after `received`.
    pub fn check_time(&self, received: Timestamp) -> Result<(), PayloadError> {
        match self.timestamp {
            Some(timestamp) if timestamp.millis_since(received) > AHEAD_MILLIS_MAX => {
                Err(PayloadError::Ahead { timestamp, received })
            }
            _ => Ok(()),
        }
    }
}

/// Parses a payload of at most [`PAYLOAD_BYTES_MAX`] bytes without U+0000 anywhere.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, PayloadError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(PayloadError::TooLarge(payload.len()));
    }
    let text = std::str::from_utf8(payload).map_err(|_| PayloadError::NotUtf8)?;
    let value = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => PayloadError::Shape(abridged(error.to_string())),
        _ => PayloadError::NotJson(error.to_string()),
    })?;
    if has_escaped_nul(text) { Err(PayloadError::Nul) } else { Ok(value) }
}

/// The start and the end of what serde says: between them it quotes the value, however long, and
/// after it says what was expected and where.
fn abridged(text: String) -> String {
    const BYTES: usize = 200;
    let start = text.floor_char_boundary(BYTES);
    let end = text.ceil_char_boundary(text.len().saturating_sub(BYTES));
    if start >= end { text } else { format!("{}…{}", &text[..start], &text[end..]) }
}

/// Whether valid JSON has the escape for U+0000 in a string. A raw NUL is no JSON to begin with.
fn has_escaped_nul(json: &str) -> bool {
    // Most have no escape at all, and to see that is many times faster than to look for one.
    let Some(begin) = memchr(b'\\', json.as_bytes()) else { return false };
    json[begin..].match_indices("\\u0000").any(|(at, _)| {
        let before = json.as_bytes()[begin..begin + at]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        before % 2 == 0
    })
}

pub(crate) fn check_length(
    field: &'static str,
    text: &str,
    min: usize,
) -> Result<(), PayloadError> {
    if (min..=NAME_BYTES_MAX).contains(&text.len()) {
        return Ok(());
    }
    let allowed = if min == 0 { "0 to 255" } else { "1 to 255" };
    Err(PayloadError::Length { field, length: text.len(), allowed })
}

/// A JSON object. What serde derives would also take an array, in the order of the fields.
#[derive(Clone, Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(V(PhantomData))
    }
}

#[derive(Deserialize)]
struct MessageWire<'a> {
    #[serde(borrow)]
    agent: Object<AgentWire<'a>>,
    #[serde(borrow)]
    metrics: Vec<Object<MetricWire<'a>>>,
    #[serde(borrow, default)]
    timestamp: Option<TimeWire<'a>>,
    #[serde(default)]
    id: Option<Uuid>,
}

#[derive(Deserialize)]
pub(crate) struct AgentWire<'a> {
    #[serde(borrow)]
    uuid: Cow<'a, str>,
    #[serde(borrow)]
    username: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    hostname: Cow<'a, str>,
    pid: i64,
}

#[derive(Deserialize)]
struct MetricWire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    value: ValueWire<'a>,
}

enum ValueWire<'a> {
    Number(f64),
    Bool(bool),
    Text(Cow<'a, str>),
}

pub(crate) enum TimeWire<'a> {
    Millis(i64),
    Text(Cow<'a, str>),
}

impl<'a> MessageWire<'a> {
    fn check(self) -> Result<AgentMessage<'a>, PayloadError> {
        if self.metrics.len() > METRICS_MAX {
            return Err(PayloadError::Metrics(self.metrics.len()));
        }
        let metrics = self.metrics.into_iter().map(|metric| metric.0.check());
        let metrics = metrics.collect::<Result<_, _>>()?;
        let timestamp = self.timestamp.map(|time| time.check()).transpose()?;
        Ok(AgentMessage { agent: self.agent.0.check()?, metrics, timestamp, id: self.id })
    }
}

impl<'a> AgentWire<'a> {
    pub(crate) fn check(self) -> Result<Agent<'a>, PayloadError> {
        check_length("agent.username", &self.username, 0)?;
        check_length("agent.name", &self.name, 0)?;
        check_length("agent.hostname", &self.hostname, 0)?;
        let pid = i32::try_from(self.pid).ok().filter(|pid| *pid >= 0);
        Ok(Agent {
            uuid: AgentUuid::parse(self.uuid)?,
            username: self.username,
            name: self.name,
            hostname: self.hostname,
            pid: pid.ok_or(PayloadError::Pid(self.pid))?,
        })
    }
}

impl<'a> MetricWire<'a> {
    fn check(self) -> Result<Metric<'a>, PayloadError> {
        check_length("metrics[].type", &self.kind, 1)?;
        let (number, text) = match self.value {
            ValueWire::Number(number) => (Some(number), None),
            ValueWire::Bool(true) => (Some(1.0), Some(Cow::Borrowed("true"))),
            ValueWire::Bool(false) => (Some(0.0), Some(Cow::Borrowed("false"))),
            ValueWire::Text(text) if text.len() > TEXT_BYTES_MAX => {
                let (field, allowed) = ("metrics[].value", "0 to 4096");
                return Err(PayloadError::Length { field, length: text.len(), allowed });
            }
            ValueWire::Text(text) => {
                (text.parse().ok().filter(|number: &f64| number.is_finite()), Some(text))
            }
        };
        Ok(Metric { kind: self.kind, number, text })
    }
}

impl TimeWire<'_> {
    pub(crate) fn check(&self) -> Result<Timestamp, TimestampError> {
        match self {
            Self::Millis(millis) => Timestamp::from_millis(*millis),
            Self::Text(text) => text.parse(),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ValueWire<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = ValueWire<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a boolean or a string")
            }
            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(ValueWire::Number(value as f64))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(ValueWire::Number(value as f64))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                Ok(ValueWire::Number(value))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(ValueWire::Bool(value))
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(ValueWire::Text(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(ValueWire::Text(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for TimeWire<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = TimeWire<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("milliseconds since 1970 or an RFC 3339 date and time")
            }
            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(TimeWire::Millis(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(TimeWire::Millis(i64::try_from(value).unwrap_or(i64::MAX)))
            }
            // Many languages know no other numbers. Whatever is outside of i64 is held at its
            // ends, and those are outside of the years that are allowed.
            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(TimeWire::Millis(value.floor() as i64))
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(TimeWire::Text(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(TimeWire::Text(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_any(V)
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
