//! How dead letters are shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use platziverse_broker::dead::{DeadEntry, DeadMessage};
use platziverse_protocol::record::{self, Record};
use serde_json::{Value, json};

use crate::output::{self, Table, UNKNOWN};

pub(super) fn list(entries: &[DeadEntry]) -> Table {
    let headings = ["ID", "AT", "STAGE", "REASON", "FROM", "RECORDS", "BYTES", "ERROR"];
    let mut table = Table::new(headings);
    for entry in entries {
        table.row([
            known(entry.id.clone()),
            at(entry),
            entry.stage.clone(),
            entry.reason.clone(),
            origin(entry),
            entry.records.to_string(),
            entry.bytes.to_string(),
            known(entry.error.clone()),
        ]);
    }
    table
}

/// Headers that the entry already tells.
const TOLD: [&str; 6] = ["error", "origin", "origin-key", "reason", "records", "stage"];

/// Everything there is of one: what is known of it, other headers, and each record as it was
/// published. What is no record is shown as it is.
pub(super) fn text(message: &DeadMessage) -> String {
    let DeadMessage { entry, headers, body } = message;
    let mut pairs = vec![
        ("id", known(entry.id.clone())),
        ("at", at(entry)),
        ("stage", entry.stage.clone()),
        ("reason", entry.reason.clone()),
        ("error", known(entry.error.clone())),
        ("from", origin(entry)),
        ("sender", known(entry.app_id.clone())),
        ("records", entry.records.to_string()),
        ("bytes", entry.bytes.to_string()),
    ];
    let others = headers.iter().filter(|(name, _)| !TOLD.contains(&name.as_str()));
    pairs.extend(others.map(|(name, value)| (name.as_str(), value.clone())));
    record::lines(body).fold(output::pairs(&pairs), |shown, line| {
        format!("{shown}\n{}", Record::decode_line(line).map_or_else(|_| raw(line), |r| whole(&r)))
    })
}

fn raw(line: &[u8]) -> String {
    ended(output::lines(&String::from_utf8_lossy(line)))
}

fn whole(record: &Record<'_>) -> String {
    let head = output::pairs(&[
        ("topic", record.topic.to_string()),
        ("client", record.client.to_string()),
        ("session", record.session.to_string()),
        ("received", record.received.to_string()),
    ]);
    let payload = output::lines(&String::from_utf8_lossy(record.payload.bytes()));
    format!("{head}{}", ended(payload))
}

fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The same for programs; a body that is not UTF-8 is `body_base64`. A line that is no record is
/// null among the records.
pub(super) fn json(message: &DeadMessage) -> anyhow::Result<Value> {
    let DeadMessage { entry, headers, body } = message;
    let mut value = serde_json::to_value(entry)?;
    value["headers"] = json!(headers);
    put(&mut value, "body", body);
    let record =
        |line| Record::decode_line(line).map_or(Value::Null, |record| record_json(&record));
    value["records"] = record::lines(body).map(record).collect();
    Ok(value)
}

fn record_json(record: &Record<'_>) -> Value {
    let mut value = json!({
        "id": record.id,
        "topic": record.topic,
        "client": record.client,
        "session": record.session,
        "received": record.received,
    });
    put(&mut value, "payload", record.payload.bytes());
    value
}

/// Sets `name` to text, or `name_base64` to what is none.
fn put(value: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => value[name] = text.into(),
        Err(_) => value[format!("{name}_base64")] = STANDARD.encode(bytes).into(),
    }
}

fn known(value: Option<String>) -> String {
    value.unwrap_or_else(|| UNKNOWN.to_owned())
}

fn at(entry: &DeadEntry) -> String {
    known(entry.at.map(|at| at.to_string()))
}

fn origin(entry: &DeadEntry) -> String {
    let parts = [entry.origin_exchange.as_str(), entry.origin_key.as_str()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { UNKNOWN.to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use platziverse_protocol::presence::SessionId;
    use platziverse_protocol::record::Payload;
    use platziverse_protocol::time::Timestamp;
    use uuid::Uuid;

    use super::*;

    fn message(body: &[u8]) -> DeadMessage {
        let entry = DeadEntry {
            id: None,
            reason: "invalid_json".to_owned(),
            stage: "gateway".to_owned(),
            error: Some("expected value".to_owned()),
            origin_exchange: "platziverse.telemetry".to_owned(),
            origin_key: "agent.message".to_owned(),
            at: None,
            records: 1,
            bytes: 3,
            app_id: None,
            preview: String::new(),
        };
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = BTreeMap::from([header("reason", "invalid_json"), header("x-a", "b\r")]);
        DeadMessage { entry, headers, body: body.to_vec() }
    }

    #[test]
    fn one_for_people() {
        let want = "\
id       -
at       -
stage    gateway
reason   invalid_json
error    expected value
from     platziverse.telemetry agent.message
sender   -
records  1
bytes    3
x-a      b\\r

{\\u{1b}
";
        assert_eq!(text(&message(b"{\x1b")), want);
    }

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        let record = Record {
            id: Uuid::from_u128(1),
            topic: "agent/message".into(),
            client: "c\x1b1".into(),
            session: SessionId::from_uuid(Uuid::from_u128(2)),
            received: Timestamp::EPOCH,
            qos: 1,
            properties: None,
            payload: Payload::of(payload),
        };
        record.encode_line(&mut line);
        line
    }

    #[test]
    fn a_record_is_shown_as_it_was_published() {
        let body = [record(b"one\x07\xff\nmore"), record(b"[]"), b"odd\n".to_vec()].concat();
        let shown = text(&message(&body));
        let (_, records) = shown.split_once("\n\n").unwrap();
        let want = "\
topic     agent/message
client    c\\u{1b}1
session   00000000-0000-0000-0000-000000000002
received  1970-01-01T00:00:00.000Z
one\\u{7}\u{fffd}
more

topic     agent/message
client    c\\u{1b}1
session   00000000-0000-0000-0000-000000000002
received  1970-01-01T00:00:00.000Z
[]

odd
";
        assert_eq!(records, want);
        let shown = json(&message(&body)).unwrap();
        assert_eq!(shown["records"][0]["payload_base64"], STANDARD.encode(b"one\x07\xff\nmore"));
        assert_eq!(shown["records"][1]["payload"], "[]");
        assert_eq!(shown["records"][1]["topic"], "agent/message");
        assert_eq!(shown["records"][2], Value::Null);
    }

    #[test]
    fn one_for_programs() {
        let shown = json(&message(b"{}\n")).unwrap();
        assert_eq!((&shown["body"], &shown["reason"]), (&json!("{}\n"), &json!("invalid_json")));
        let shown = json(&message(b"\xff")).unwrap();
        assert_eq!((&shown["body"], &shown["body_base64"]), (&Value::Null, &json!("/w==")));
    }
}
