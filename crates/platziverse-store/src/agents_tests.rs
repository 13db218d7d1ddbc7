use platziverse_protocol::agent::{AgentMessage, AgentUuid};
use platziverse_protocol::presence::SessionId;
use proptest::prelude::*;

use super::*;

const GATEWAYS: [&str; 2] = ["g0", "g1"];

fn agent(uuid: u8, name: u8) -> Agent<'static> {
    Agent {
        uuid: AgentUuid::parse(format!("agent-{uuid}")).unwrap(),
        username: "u".into(),
        name: format!("n{name}").into(),
        hostname: "h".into(),
        pid: i32::from(name),
    }
}

/// A few agents, sessions and times, so that they often meet.
fn sighting() -> impl Strategy<Value = Sighting<'static>> {
    (0u8..3, 0u8..4, 0i64..4, 0u8..3, 0u8..3).prop_map(|(uuid, session, millis, name, kind)| {
        let agent = agent(uuid, name);
        let message = |agent| AgentMessage { agent, metrics: vec![], timestamp: None, id: None };
        Sighting {
            id: Uuid::from_u128(0),
            session: SessionId::from_uuid(Uuid::from_u128(session.into())),
            gateway: GATEWAYS[usize::from(session % 2)],
            received: Timestamp::from_millis(millis).unwrap(),
            event: match kind {
                0 => AgentEvent::Message(message(agent)),
                1 => AgentEvent::Connected(agent),
                _ => AgentEvent::Disconnected(agent.uuid),
            },
        }
    })
}

/// What the database would hold after these batches.
fn stored<'a>(batches: impl Iterator<Item = &'a [Sighting<'a>]>) -> Vec<AgentRow<'a>> {
    let mut rows: Vec<AgentRow<'a>> = Vec::new();
    for row in batches.flat_map(reduce) {
        match rows.iter_mut().find(|known| known.uuid == row.uuid) {
            Some(known) => known.merge(row),
            None => rows.push(row),
        }
    }
    rows.sort_by_key(|row| row.uuid);
    rows
}

proptest! {
    /// Shuffled, repeated, and split into batches of any size, a history leads to the same rows.
    #[test]
    fn order_repetition_and_batches_do_not_matter(
        (history, shuffled, size) in prop::collection::vec(sighting(), 1..40).prop_flat_map(|history| {
            let mut twice = history.clone();
            twice.extend(history.iter().take(history.len() / 2).cloned());
            (Just(history), Just(twice).prop_shuffle(), 1usize..10)
        })
    ) {
        prop_assert_eq!(reduce(&history), stored(shuffled.chunks(size)));
    }
}

#[test]
fn the_ids_that_were_learned_last_are_kept() {
    let names: Vec<String> = (0..IDS_MAX + 1).map(|number| number.to_string()).collect();
    let id = |number: usize| i64::try_from(number).unwrap();
    let mut ids = AgentIds::default();
    for (number, name) in names.iter().enumerate() {
        ids.learn([(&**name, id(number))].into_iter());
        assert!(ids.young.len() + ids.old.len() <= IDS_MAX);
    }
    let known = (0..names.len()).filter(|number| ids.get(&names[*number]) == Some(id(*number)));
    assert!(known.clone().count() > IDS_MAX / 2);
    assert!(known.max() == Some(IDS_MAX));
    // A batch is known as a whole, however large it is, and an id that changed is the new one.
    ids.learn(names.iter().map(|name| (&**name, 7)));
    assert!(names.iter().all(|name| ids.get(name) == Some(7)));
}

#[test]
fn rows_are_ordered_by_bytes() {
    let sightings = ["b", "a", "B", "é"].map(|uuid| Sighting {
        id: Uuid::nil(),
        session: SessionId::from_uuid(Uuid::nil()),
        gateway: "g",
        received: Timestamp::EPOCH,
        event: AgentEvent::Disconnected(AgentUuid::parse(uuid).unwrap()),
    });
    let rows = reduce(&sightings);
    assert_eq!(rows.iter().map(|row| row.uuid).collect::<Vec<_>>(), ["B", "a", "b", "é"]);
}

#[test]
fn the_newest_attributes_and_the_newest_session_are_kept() {
    let at = |session: u128, millis: i64, event| Sighting {
        id: Uuid::nil(),
        session: SessionId::from_uuid(Uuid::from_u128(session)),
        gateway: "g",
        received: Timestamp::from_millis(millis).unwrap(),
        event,
    };
    let uuid = agent(0, 0).uuid;
    let sightings = [
        at(2, 10, AgentEvent::Connected(agent(0, 1))),
        at(1, 20, AgentEvent::Connected(agent(0, 2))),
        at(1, 30, AgentEvent::Disconnected(uuid)),
    ];
    let rows = reduce(&sightings);
    assert_eq!(rows.len(), 1);
    assert!(rows[0].standing.presence.connected());
    assert_eq!(rows[0].attributes.unwrap().name, "n2");
}
