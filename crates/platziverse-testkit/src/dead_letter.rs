//! A message of the dead-letter queue.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A message of the dead-letter queue.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The header `reason`; empty if there is none.
    pub reason: String,
    /// The header `stage`.
    pub stage: String,
    /// The header `error`: the reason for a person.
    pub error: String,
    /// How many records it holds: the header `records`.
    pub records: u64,
    /// All headers.
    pub headers: Value,
    /// The body, as text.
    pub body: String,
}

impl DeadLetter {
    /// Reads a message as the management API gives it.
    pub(crate) fn read(message: &Value) -> Self {
        let headers = message["properties"]["headers"].clone();
        let text = |name: &str| headers[name].as_str().unwrap_or_default().to_owned();
        let payload = message["payload"].as_str().unwrap_or_default();
        let body = match message["payload_encoding"].as_str() {
            Some("base64") => STANDARD.decode(payload).unwrap_or_default(),
            _ => payload.as_bytes().to_vec(),
        };
        Self {
            reason: text("reason"),
            stage: text("stage"),
            error: text("error"),
            records: headers["records"].as_u64().unwrap_or(1),
            body: String::from_utf8_lossy(&body).into_owned(),
            headers,
        }
    }

    /// The records, a line each.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.body.lines()
    }
}
