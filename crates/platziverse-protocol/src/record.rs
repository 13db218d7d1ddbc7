//! Records: what travels in AMQP bodies, one JSON object a line (`application/x-ndjson`).

use std::borrow::Cow;
use std::io::Write as _;
use std::mem;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::{memchr_iter, memchr2};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::presence::SessionId;
use crate::time::Timestamp;

/// The content type of an AMQP body of records.
pub const CONTENT_TYPE: &str = "application/x-ndjson";

/// One MQTT publish on its way through RabbitMQ.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<'a> {
    /// Names the message on every hop; what is stored is stored once under it.
    pub id: Uuid,
    /// The MQTT topic, whole.
    pub topic: Cow<'a, str>,
    /// The client id of the publisher.
    pub client: Cow<'a, str>,
    /// The publisher's session.
    pub session: SessionId,
    /// When the gateway received it.
    pub received: Timestamp,
    /// The quality of service that it was published with: 0, 1 or 2.
    pub qos: u8,
    /// MQTT 5 properties that subscribers get unchanged, if there are any.
    pub properties: Option<Box<Properties>>,
    /// What was published.
    pub payload: Payload<'a>,
}

/// A payload, byte for byte as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload<'a> {
    /// JSON that fits into a line as it is.
    Json(Cow<'a, str>),
    /// Anything else; base64 within the record.
    Bytes(Cow<'a, [u8]>),
}

/// The MQTT 5 properties of a PUBLISH that go on to subscribers (MQTT-3.3.2-4, -15 to -18).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// Whether the payload is UTF-8 text (payload format indicator 1).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub utf8: bool,
    /// Seconds after the receipt at which the message expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_seconds: Option<u32>,
    /// The content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The topic for a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_topic: Option<String>,
    /// Bytes that tell the requester which request a response is for, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_data: Option<String>,
    /// User properties, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<(String, String)>,
}

impl Properties {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Keeps correlation data as text.
    pub fn set_correlation_data(&mut self, bytes: &[u8]) {
        self.correlation_data = Some(STANDARD.encode(bytes));
    }

    /// The correlation data's bytes.
    pub fn correlation_bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.correlation_data.as_ref()?).ok()
    }
}

impl<'a> Payload<'a> {
    /// A payload of which nothing is known.
    pub fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => Self::of_json(text),
            _ => Self::Bytes(Cow::Borrowed(bytes)),
        }
    }

    /// A payload that is known to be JSON.
    pub fn of_json(json: &'a str) -> Self {
        let bytes = json.as_bytes();
        let space = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
        // A line break would end the record, and a reader cuts white space around a value.
        if space(bytes.first()) || space(bytes.last()) || memchr2(b'\n', b'\r', bytes).is_some() {
            Self::Bytes(Cow::Borrowed(bytes))
        } else {
            Self::Json(Cow::Borrowed(json))
        }
    }

    /// The bytes as they were sent.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Json(json) => json.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not the JSON of a record.
    #[error("the line is no record: {0}")]
    Json(#[from] serde_json::Error),
    /// Base64 that is none.
    #[error("the line is no record: payload_base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Neither `payload` nor `payload_base64`.
    #[error("the line is no record: it has no payload")]
    NoPayload,
}

#[derive(Deserialize)]
struct Wire<'a> {
    id: Uuid,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    client: Cow<'a, str>,
    session: SessionId,
    received: Timestamp,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    properties: Option<Box<Properties>>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload_base64: Option<Cow<'a, str>>,
}

/// A payload that is there. It may be the literal `null`, which an `Option` would take for none.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Record<'a> {
    /// Appends the record and a line break to `out`.
    pub fn encode_line(&self, out: &mut Vec<u8>) {
        out.reserve(self.payload.bytes().len() + self.topic.len() + self.client.len() + 220);
        // Writing to a Vec cannot fail.
        let _ = write!(out, r#"{{"id":"{}","topic":"#, self.id);
        put_json(out, &self.topic);
        out.extend_from_slice(br#","client":"#);
        put_json(out, &self.client);
        let (session, received, qos) = (self.session, self.received.as_millis(), self.qos);
        let _ = write!(out, r#","session":"{session}","received":{received},"qos":{qos}"#);
        if let Some(properties) = &self.properties {
            out.extend_from_slice(br#","properties":"#);
            put_json(out, properties);
        }
        match &self.payload {
            Payload::Json(json) => {
                out.extend_from_slice(br#","payload":"#);
                out.extend_from_slice(json.as_bytes());
                out.extend_from_slice(b"}\n");
            }
            Payload::Bytes(bytes) => {
                out.extend_from_slice(br#","payload_base64":""#);
                out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                out.extend_from_slice(b"\"}\n");
            }
        }
    }

    /// Reads one line, borrowing from it.
    pub fn decode_line(line: &'a [u8]) -> Result<Self, RecordError> {
        let wire: Wire<'a> = serde_json::from_slice(line)?;
        let payload = match (wire.payload, wire.payload_base64) {
            (Some(json), _) => Payload::Json(Cow::Borrowed(json.get())),
            (None, Some(text)) => Payload::Bytes(Cow::Owned(STANDARD.decode(text.as_bytes())?)),
            (None, None) => return Err(RecordError::NoPayload),
        };
        Ok(Self {
            id: wire.id,
            topic: wire.topic,
            client: wire.client,
            session: wire.session,
            received: wire.received,
            qos: wire.qos,
            properties: wire.properties,
            payload,
        })
    }
}

/// The lines of an AMQP body, without empty ones.
pub fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut begin = 0;
    let ends = memchr_iter(b'\n', body).chain([body.len()]);
    let lines = ends.map(move |end| &body[mem::replace(&mut begin, end + 1)..end]);
    lines.filter(|line| !line.is_empty())
}

fn put_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Texts and integers into a Vec: serialization cannot fail.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record<'a>(topic: &'a str, client: &'a str, payload: &'a [u8]) -> Record<'a> {
        Record {
            id: Uuid::from_u128(1),
            topic: topic.into(),
            client: client.into(),
            session: SessionId::from_uuid(Uuid::from_u128(2)),
            received: Timestamp::EPOCH,
            qos: 1,
            properties: None,
            payload: Payload::of(payload),
        }
    }

    #[test]
    fn json_is_readable_in_the_line() {
        let mut out = Vec::new();
        record("agent/message", "c", br#"{"a": 1}"#).encode_line(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\"qos\":1,\"payload\":{\"a\": 1}}\n"), "{text}");
    }

    #[test]
    fn null_is_a_payload() {
        let mut out = Vec::new();
        record("t", "c", b"null").encode_line(&mut out);
        let read = Record::decode_line(&out).unwrap();
        assert_eq!(read.payload.bytes(), b"null");
    }

    #[test]
    fn bad_lines() {
        for line in [&b"{}"[..], b"", b"x", b"{\"id\":1}", b"\xff"] {
            assert!(Record::decode_line(line).is_err(), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            topic in "\\PC{1,20}",
            client in "\\PC{0,20}",
            payload in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..50),
                "[ \n]?\\{\"a\":[ \n\r]?[0-9]{1,3}\\}[ \n]?".prop_map(String::into_bytes),
                "null|true|-?[0-9]{1,3}|\"\"|\\[\\]".prop_map(String::into_bytes),
            ],
            user in prop::collection::vec(("\\PC{0,5}", "\\PC{0,5}"), 0..3),
        ) {
            let mut record = record(&topic, &client, &payload);
            let mut properties = Properties { user, ..Properties::default() };
            properties.set_correlation_data(&payload);
            record.properties = Some(Box::new(properties));
            let mut out = Vec::new();
            record.encode_line(&mut out);
            prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            let line = lines(&out).next().unwrap();
            let read = Record::decode_line(line).unwrap();
            prop_assert_eq!(read.payload.bytes(), &payload[..]);
            prop_assert_eq!(&read.properties.as_ref().unwrap().correlation_bytes(), &Some(payload.clone()));
            prop_assert_eq!(read, record);
        }
    }
}
