//! How dead letters are shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use platziverse_broker::dead::{DeadEntry, DeadMessage};
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

/// Everything there is of one: what is known of it, other headers, an empty line, its body.
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
    let shown = output::lines(&String::from_utf8_lossy(body));
    let end = if shown.ends_with('\n') { "" } else { "\n" };
    format!("{}\n{shown}{end}", output::pairs(&pairs))
}

/// The same for programs; a body that is not UTF-8 is `body_base64`.
pub(super) fn json(message: &DeadMessage) -> anyhow::Result<Value> {
    let DeadMessage { entry, headers, body } = message;
    let mut value = serde_json::to_value(entry)?;
    value["headers"] = json!(headers);
    match std::str::from_utf8(body) {
        Ok(text) => value["body"] = text.into(),
        Err(_) => value["body_base64"] = STANDARD.encode(body).into(),
    }
    Ok(value)
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

    #[test]
    fn one_for_programs() {
        let shown = json(&message(b"{}\n")).unwrap();
        assert_eq!((&shown["body"], &shown["reason"]), (&json!("{}\n"), &json!("invalid_json")));
        let shown = json(&message(b"\xff")).unwrap();
        assert_eq!((&shown["body"], &shown["body_base64"]), (&Value::Null, &json!("/w==")));
    }
}
