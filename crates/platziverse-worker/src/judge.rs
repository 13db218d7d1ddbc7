//! What becomes of each line of a delivery. Decided here, carried out by `ingest`.

use platziverse_protocol::dead::Reason;
use platziverse_protocol::event::AgentEvent;
use platziverse_protocol::record::{self, Payload, Record};
use platziverse_store::Sighting;
use uuid::Uuid;

/// The prefix of a gateway's app-id; what follows is its instance.
const GATEWAY_APP: &str = "platziverse-gateway@";

/// The fate of one line.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// It is stored.
    Store(Sighting<'a>),
    /// It becomes a dead letter.
    Reject(Rejection<'a>),
}

/// A line that cannot be stored.
#[derive(Debug)]
pub struct Rejection<'a> {
    /// The line, without its line break.
    pub line: &'a [u8],
    /// The record's id, if the line is a record.
    pub id: Option<Uuid>,
    /// Why, as a name.
    pub reason: Reason,
    /// Why, for a person.
    pub error: String,
}

/// The gateway instance that an AMQP message came from, by its app-id; empty if it came from
/// nobody who sends heartbeats.
pub fn gateway_of(app_id: Option<&str>) -> &str {
    app_id.and_then(|app| app.strip_prefix(GATEWAY_APP)).unwrap_or_default()
}

/// The records of a body, decoded.
pub fn decode(body: &[u8]) -> Vec<(&[u8], Result<Record<'_>, record::RecordError>)> {
    record::lines(body).map(|line| (line, Record::decode_line(line))).collect()
}

/// Judges a decoded line.
pub fn judge<'a>(
    line: &'a [u8],
    record: &'a Result<Record<'a>, record::RecordError>,
    gateway: &'a str,
) -> Verdict<'a> {
    let record = match record {
        Ok(record) => record,
        Err(error) => {
            let (reason, error) = (Reason::MalformedRecord, error.to_string());
            return Verdict::Reject(Rejection { line, id: None, reason, error });
        }
    };
    match event(record) {
        Ok(event) => Verdict::Store(Sighting {
            id: record.id,
            session: record.session,
            gateway,
            received: record.received,
            event,
        }),
        Err(error) => {
            let (reason, error) = (error.reason(), error.to_string());
            Verdict::Reject(Rejection { line, id: Some(record.id), reason, error })
        }
    }
}

fn event<'a>(
    record: &'a Record<'a>,
) -> Result<AgentEvent<'a>, platziverse_protocol::agent::PayloadError> {
    let payload = match &record.payload {
        Payload::Json(json) => json.as_bytes(),
        Payload::Bytes(bytes) => bytes,
    };
    let event = AgentEvent::parse(&record.topic, payload)?;
    if let AgentEvent::Message(message) = &event {
        message.check_time(record.received)?;
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use platziverse_protocol::presence::SessionId;
    use platziverse_protocol::time::Timestamp;

    const GOOD: &str =
        r#"{"agent":{"uuid":"a","username":"u","name":"n","hostname":"h","pid":1},"metrics":[]}"#;

    fn line(topic: &str, payload: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Record {
            id: Uuid::from_u128(1),
            topic: topic.into(),
            client: "c".into(),
            session: SessionId::from_uuid(Uuid::from_u128(2)),
            received: Timestamp::EPOCH,
            qos: 1,
            properties: None,
            payload: Payload::of(payload.as_bytes()),
        }
        .encode_line(&mut out);
        out
    }

    #[test]
    fn verdicts() {
        let check = |body: &[u8], want: Option<Reason>| {
            for (line, record) in decode(body) {
                let got = match judge(line, &record, "g") {
                    Verdict::Store(_) => None,
                    Verdict::Reject(rejection) => {
                        let id = record.as_ref().ok().map(|record| record.id);
                        assert_eq!((rejection.line, rejection.id), (line, id));
                        Some(rejection.reason)
                    }
                };
                assert_eq!(got, want, "{}", String::from_utf8_lossy(body));
            }
        };
        check(&line("agent/message", GOOD), None);
        check(&line("agent/message", &format!(" {GOOD}\n")), None);
        check(&line("agent/connected", GOOD), None);
        check(&line("agent/disconnected", r#"{"agent":{"uuid":"a"}}"#), None);
        check(&line("agent/message", "{}"), Some(Reason::InvalidPayload));
        check(&line("agent/message", "x"), Some(Reason::InvalidJson));
        check(&line("other", GOOD), Some(Reason::UnknownTopic));
        check(b"nonsense\n", Some(Reason::MalformedRecord));
        let future = GOOD.replace("[]", r#"[],"timestamp":90000000000"#);
        check(&line("agent/message", &future), Some(Reason::InvalidPayload));
    }

    #[test]
    fn gateways_are_told_by_app_id() {
        assert_eq!(gateway_of(Some("platziverse-gateway@host:1a2b")), "host:1a2b");
        assert_eq!(gateway_of(Some("something")), "");
        assert_eq!(gateway_of(None), "");
    }
}
