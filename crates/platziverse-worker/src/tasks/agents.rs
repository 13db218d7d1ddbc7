//! What goes to agents: a command as a message on the agent's own topic.

use bytes::Bytes;
use platziverse_broker::Lane;
use platziverse_protocol::command::{AgentCommand, NoTopic, command_topic, response_topic};
use platziverse_protocol::presence::SessionId;
use platziverse_protocol::record::{Payload, Properties, Record};
use platziverse_protocol::time::Timestamp;
use platziverse_protocol::topic::routing_key;
use uuid::Uuid;

/// Who publishes commands, as a record's client.
const CLIENT: &str = "platziverse";

/// A command as a line for the live exchange. The gateway that has the agent hands it on; without
/// one it reaches nobody.
pub(crate) fn outgoing(
    agent: &str,
    command: &AgentCommand<'_>,
    now: Timestamp,
) -> Result<(Lane, Uuid, Bytes), NoTopic> {
    let topic = command_topic(agent)?;
    let mut properties = Properties {
        utf8: true,
        expiry_seconds: command.expires.map(|expires| seconds(expires.millis_since(now))),
        content_type: Some("application/json".to_owned()),
        response_topic: Some(response_topic(agent)?),
        ..Properties::default()
    };
    properties.set_correlation_data(command.id.to_string().as_bytes());
    let payload = command.to_json();
    let mut line = Vec::new();
    Record {
        id: command.id,
        topic: topic.as_str().into(),
        client: CLIENT.into(),
        session: SessionId::from_uuid(Uuid::nil()),
        received: now,
        qos: 1,
        properties: Some(Box::new(properties)),
        payload: Payload::of_json(&payload),
    }
    .encode_line(&mut line);
    Ok((Lane::live(&routing_key(&topic)), command.id, Bytes::from(line)))
}

/// Whole seconds, rounded up, so that a gateway gives nothing up too early.
fn seconds(millis: i64) -> u32 {
    let seconds = u64::try_from(millis).unwrap_or(0).div_ceil(1_000);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn a_command_on_its_way() {
        let (id, now) = (Uuid::now_v7(), Timestamp::EPOCH.plus_millis(1_000));
        let payload = RawValue::from_string("[1.50]".to_owned()).unwrap();
        let expires = Some(now.plus_millis(1_500));
        let command = AgentCommand { id, name: "reboot", payload: &payload, expires };
        let (lane, message, line) = outgoing("a.b", &command, now).unwrap();
        assert_eq!((lane.routing_key(), message), ("agent.a/b.command", id));
        let record = Record::decode_line(line.trim_ascii_end()).unwrap();
        assert_eq!(record.topic, "agent/a.b/command");
        let text = std::str::from_utf8(record.payload.bytes()).unwrap();
        let want = format!(r#"{{"id":"{id}","name":"reboot","payload":[1.50],"expires":2500}}"#);
        assert_eq!(text, want, "as it was sent");
        let properties = record.properties.unwrap();
        assert_eq!(properties.expiry_seconds, Some(2));
        assert_eq!(properties.response_topic.as_deref(), Some("agent/a.b/response"));
        assert_eq!(properties.correlation_bytes().unwrap(), id.to_string().as_bytes());
        assert!(outgoing("a/b", &command, now).is_err());
    }
}
