use futures_util::future::join_all;
use platziverse_config::DatabaseConfig;
use platziverse_protocol::agent::Agent;
use platziverse_protocol::event::AgentEvent;
use platziverse_store::writer::Writer;
use platziverse_store::{Sighting, StoreError};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::database::{client, with_database};
use crate::sightings::{agent, message, noon, of, session, uuid};

const WRITERS: usize = 3;
const CASES: usize = 12;

fn history() -> impl Strategy<Value = Vec<Sighting<'static>>> {
    let one = (0u8..3, 0u8..4, 0i64..4, 0u8..3);
    prop::collection::vec(one, 1..40).prop_map(|parts| {
        parts.into_iter().zip(0u128..).map(|(part, id)| sighting(id, part)).collect()
    })
}

fn sighting(
    id: u128,
    (agent_number, session_number, millis, kind): (u8, u8, i64, u8),
) -> Sighting<'static> {
    let name = format!("agent-{agent_number}");
    let mut sighting = match kind {
        0 => message(id, &name),
        1 => of(id, AgentEvent::Connected(agent(&name))),
        _ => of(id, AgentEvent::Disconnected(uuid(&name))),
    };
    let agent = match &mut sighting.event {
        AgentEvent::Message(message) => Some(&mut message.agent),
        AgentEvent::Connected(agent) => Some(agent),
        AgentEvent::Disconnected(_) => None,
    };
    if let Some(agent) = agent {
        vary(agent, id);
    }
    sighting.session = session(session_number.into());
    sighting.gateway = ["g0", "g1"][usize::from(session_number % 2)];
    sighting.received = noon().plus_millis(millis);
    sighting
}

/// Each attribute takes several values, none of which follows from the others.
fn vary(agent: &mut Agent<'static>, id: u128) {
    agent.username = format!("user-{}", id % 2).into();
    agent.name = format!("name-{}", id / 2 % 2).into();
    agent.hostname = format!("host-{}", id / 4 % 2).into();
    agent.pid = i32::try_from(id / 8 % 2).unwrap();
}

/// What must not depend on the order.
async fn state(config: &DatabaseConfig) -> Vec<String> {
    let client = client(config).await;
    let agents = "SELECT format('%s|%s|%s|%s|%s|%s|%s|%s|%s', uuid, username, name, hostname, pid, \
        connected, session, gateway, last_seen_at) FROM agents ORDER BY uuid";
    let metrics = "SELECT format('%s|%s|%s|%s', a.uuid, type, message_id, ordinal) \
        FROM metrics m JOIN agents a ON a.id = m.agent_id ORDER BY message_id, ordinal";
    let mut rows = client.query(agents, &[]).await.unwrap();
    rows.extend(client.query(metrics, &[]).await.unwrap());
    rows.iter().map(|row| row.get(0)).collect()
}

/// As a worker does: the same batch again while the trouble may pass.
async fn write_all(writer: &mut Writer, batches: Vec<Vec<Sighting<'static>>>) {
    for batch in batches {
        let mut last: Option<StoreError> = None;
        for _ in 0..20 {
            match writer.write(&batch).await {
                Ok(written) => {
                    assert_eq!(written.stored + written.duplicate, batch.len() as u64);
                    last = None;
                    break;
                }
                Err(error) => {
                    assert!(error.is_transient(), "{error}");
                    last = Some(error);
                }
            }
        }
        assert!(last.is_none(), "{last:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_repetition_and_writers_do_not_matter() {
    with_database(async |config| {
        let mut runner = TestRunner::deterministic();
        let cases = history().prop_flat_map(|history| {
            let copies = vec![history.clone(); WRITERS].concat();
            (Just(history), Just(copies).prop_shuffle(), 1usize..8)
        });
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            writers.push(Writer::new(&config, "test"));
        }
        let client = client(&config).await;
        for _ in 0..CASES {
            let (history, shuffled, size) = cases.new_tree(&mut runner).unwrap().current();
            client.batch_execute("TRUNCATE agents, metrics").await.unwrap();
            write_all(&mut writers[0], vec![history]).await;
            let expected = state(&config).await;

            client.batch_execute("TRUNCATE agents, metrics").await.unwrap();
            let share = shuffled.len().div_ceil(WRITERS);
            let shares = shuffled
                .chunks(share)
                .map(|share| share.chunks(size).map(<[_]>::to_vec).collect::<Vec<_>>());
            join_all(writers.iter_mut().zip(shares).map(|(w, share)| write_all(w, share))).await;
            assert_eq!(state(&config).await, expected);
        }
    })
    .await;
}
