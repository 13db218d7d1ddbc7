//! What a line of the queue of reports says. Pure: decided here, carried out beside it.

use std::borrow::Cow;

use platziverse_protocol::command::{DELIVERED, LISTENING, Report, Response, answering_agent};
use platziverse_protocol::dead::Reason;
use platziverse_protocol::record::Record;
use platziverse_protocol::time::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

/// What is said of an agent or a command.
#[derive(Debug)]
pub(super) enum News {
    /// An agent listens for its commands from now on.
    Listening(String),
    /// An agent has acknowledged a command.
    Delivered { agent: String, id: Uuid, at: Timestamp },
    /// An agent has answered a command.
    Answered {
        agent: String,
        id: Uuid,
        at: Timestamp,
        outcome: Result<Option<Box<RawValue>>, String>,
    },
    /// Nothing of commands: topics that are too long for a key share one.
    Nothing,
}

/// Why a line says nothing that can be used.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) id: Option<Uuid>,
    pub(super) reason: Reason,
    pub(super) error: String,
}

/// Reads a line.
pub(super) fn judge(line: &[u8]) -> Result<News, Unusable> {
    let record = Record::decode_line(line).map_err(|error| Unusable {
        id: None,
        reason: Reason::MalformedRecord,
        error: error.to_string(),
    })?;
    let (topic, payload) = (&*record.topic, record.payload.bytes());
    let unusable = |reason, error| Unusable { id: Some(record.id), reason, error };
    if let Some(agent) = answering_agent(topic) {
        let response = Response::parse(payload)
            .map_err(|error| unusable(error.reason(), error.to_string()))?;
        let outcome = response.outcome.map(|result| result.map(ToOwned::to_owned));
        return Ok(News::Answered {
            agent: agent.to_owned(),
            id: response.id,
            at: record.received,
            outcome: outcome.map_err(Cow::into_owned),
        });
    }
    if topic != LISTENING && topic != DELIVERED {
        return Ok(News::Nothing);
    }
    let report: Report<'_> = serde_json::from_slice(payload)
        .map_err(|error| unusable(Reason::InvalidPayload, error.to_string()))?;
    let agent = report.agent.into_owned();
    match report.id {
        Some(id) if topic == DELIVERED => Ok(News::Delivered { agent, id, at: record.received }),
        None if topic == LISTENING => Ok(News::Listening(agent)),
        _ => Err(unusable(Reason::InvalidPayload, format!("{topic} with a wrong id"))),
    }
}

#[cfg(test)]
mod tests {
    use platziverse_protocol::presence::SessionId;
    use platziverse_protocol::record::Payload;

    use super::*;

    const ID: &str = "01990000-0000-7000-8000-000000000001";

    fn judge_of(topic: &str, payload: &str) -> Result<News, Unusable> {
        let mut line = Vec::new();
        Record {
            id: Uuid::nil(),
            topic: topic.into(),
            client: "c".into(),
            session: SessionId::from_uuid(Uuid::nil()),
            received: Timestamp::EPOCH,
            qos: 1,
            properties: None,
            payload: Payload::of(payload.as_bytes()),
        }
        .encode_line(&mut line);
        judge(line.trim_ascii_end())
    }

    #[test]
    fn what_is_said() {
        let check = |topic: &str, payload: &str, want: &str| {
            let got = match judge_of(topic, payload) {
                Ok(News::Listening(agent)) => format!("{agent} listens"),
                Ok(News::Delivered { agent, id, .. }) => format!("{agent} has {id}"),
                Ok(News::Answered { agent, id, outcome, .. }) => {
                    let outcome =
                        outcome.map(|result| result.map(|result| result.get().to_owned()));
                    format!("{agent} says of {id}: {outcome:?}")
                }
                Ok(News::Nothing) => "nothing".to_owned(),
                Err(unusable) => unusable.reason.to_string(),
            };
            assert_eq!(got, want, "{topic} {payload}");
        };
        check(LISTENING, r#"{"agent":"yyy"}"#, "yyy listens");
        check(DELIVERED, &format!(r#"{{"agent":"yyy","id":"{ID}"}}"#), &format!("yyy has {ID}"));
        let done = format!(r#"{{"id":"{ID}","result":1}}"#);
        check("agent/yyy/response", &done, &format!("yyy says of {ID}: Ok(Some(\"1\"))"));
        check("agent/yyy/response", "nonsense", "invalid_json");
        check("agent/yyy/response", "{}", "invalid_payload");
        check(DELIVERED, r#"{"agent":"yyy"}"#, "invalid_payload");
        check(LISTENING, "1", "invalid_payload");
        check("plant/temp", "1", "nothing");
        assert_eq!(judge(b"{").unwrap_err().reason, Reason::MalformedRecord);
    }
}
