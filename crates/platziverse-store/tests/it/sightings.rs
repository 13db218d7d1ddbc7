//! Sightings to store.

use platziverse_protocol::agent::{Agent, AgentMessage, AgentUuid, Metric};
use platziverse_protocol::event::AgentEvent;
use platziverse_protocol::presence::SessionId;
use platziverse_protocol::time::Timestamp;
use platziverse_store::Sighting;
use uuid::Uuid;

/// 2026-03-01T12:00:00Z.
pub(crate) fn noon() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

pub(crate) fn session(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn uuid(text: &str) -> AgentUuid<'static> {
    AgentUuid::parse(text.to_owned()).unwrap()
}

pub(crate) fn agent(uuid_text: &str) -> Agent<'static> {
    Agent {
        uuid: uuid(uuid_text),
        username: "platzi".into(),
        name: "platzi".into(),
        hostname: "platzibogota".into(),
        pid: 10,
    }
}

pub(crate) fn metrics() -> Vec<Metric<'static>> {
    vec![
        Metric { kind: "memory".into(), number: Some(1001.0), text: Some("1001".into()) },
        Metric { kind: "temp".into(), number: Some(33.0), text: None },
        Metric { kind: "state".into(), number: None, text: Some("größer".into()) },
    ]
}

/// A message that the sender neither named nor dated.
pub(crate) fn message(id: u128, uuid_text: &str) -> Sighting<'static> {
    let message =
        AgentMessage { agent: agent(uuid_text), metrics: metrics(), timestamp: None, id: None };
    of(id, AgentEvent::Message(message))
}

pub(crate) fn of(id: u128, event: AgentEvent<'static>) -> Sighting<'static> {
    Sighting {
        id: Uuid::from_u128(id),
        session: session(1),
        gateway: "gateway-1",
        received: noon().plus_millis(i64::try_from(id).unwrap_or(0)),
        event,
    }
}

/// The same message again, named by its sender but not dated, as a sender repeats it.
pub(crate) fn untimed(id: u128, uuid_text: &str, received: Timestamp) -> Sighting<'static> {
    let mut sighting = message(id, uuid_text);
    sighting.received = received;
    if let AgentEvent::Message(message) = &mut sighting.event {
        message.id = Some(sighting.id);
    }
    sighting
}
