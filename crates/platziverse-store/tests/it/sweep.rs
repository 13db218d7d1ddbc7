use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use platziverse_config::DatabaseConfig;
use platziverse_protocol::event::AgentEvent;
use platziverse_store::Sighting;
use platziverse_store::sweep::{Candidate, Election, LOST_MAX, Leader, Lost};
use platziverse_store::writer::Writer;

use crate::database::{client, one, with_database};
use crate::sightings::{agent, of, session, uuid};

const CONNECTED: &str = "SELECT count(*) FROM agents WHERE connected";
const NOBODY: [&str; 0] = [];

fn connected(uuid: &str, gateway: &'static str, number: u128) -> Sighting<'static> {
    let event = AgentEvent::Connected(agent(uuid));
    Sighting { gateway, session: session(number), ..of(number, event) }
}

/// A leader where there is none yet.
pub(crate) async fn leader(config: &DatabaseConfig) -> Leader {
    match candidate(config).await.stand().await.unwrap() {
        Election::Won(leader) => leader,
        Election::Lost(_) => panic!("there is a leader"),
    }
}

async fn candidate(config: &DatabaseConfig) -> Candidate {
    Candidate::connect(config, "test").await.unwrap()
}

/// Stands again and again, on one connection.
async fn succeed(mut candidate: Candidate, within: Duration) -> Leader {
    let begun = Instant::now();
    while begun.elapsed() < within {
        match candidate.stand().await.unwrap() {
            Election::Won(leader) => return leader,
            Election::Lost(again) => candidate = again,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the lock was not given up");
}

async fn end(leader: &Leader, alive: &[&str]) -> Vec<Lost> {
    let lost = leader.lost(alive).await.unwrap();
    assert_eq!(leader.end(&lost).await.unwrap(), lost.len() as u64);
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_leader_at_a_time() {
    with_database(async |config| {
        let first = leader(&config).await;
        let Election::Lost(second) = candidate(&config).await.stand().await.unwrap() else {
            panic!("two leaders");
        };
        drop(first);
        let second = succeed(second, Duration::from_secs(5)).await;
        assert_eq!(second.lost(&NOBODY).await.unwrap(), []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_asks_nothing_loses_the_lock() {
    with_database(async |config| {
        let begun = Instant::now();
        let frozen = leader(&config).await;
        let _successor = succeed(candidate(&config).await, Duration::from_secs(20)).await;
        assert!(begun.elapsed() > Duration::from_secs(9), "{:?}", begun.elapsed());
        assert!(frozen.lost(&NOBODY).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_of_lost_gateways_are_ended_once() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        let sightings = [connected("a", "g1", 1), connected("b", "g2", 2), connected("c", "g3", 3)];
        writer.write(&sightings).await.unwrap();

        let leader = leader(&config).await;
        assert_eq!(end(&leader, &["g1", "g2", "g3"]).await, []);
        let b = Lost { uuid: uuid("b"), session: session(2), gateway: "g2".into() };
        assert_eq!(end(&leader, &["g1", "g3"]).await, std::slice::from_ref(&b));
        assert_eq!(end(&leader, &["g1", "g3"]).await, []);
        assert_eq!(leader.end(&[b]).await.unwrap(), 0);

        // A late record of the ended session changes nothing; a newer session does.
        writer.write(&[connected("b", "g2", 2)]).await.unwrap();
        assert_eq!(one::<i64>(&config, CONNECTED).await, 2);
        writer.write(&[connected("b", "g1", 4)]).await.unwrap();
        assert_eq!(one::<i64>(&config, CONNECTED).await, 3);

        let all = end(&leader, &NOBODY).await;
        let mut uuids: Vec<_> = all.iter().map(|lost| lost.uuid.as_str()).collect();
        uuids.sort_unstable();
        assert_eq!(uuids, ["a", "b", "c"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_back_meanwhile_is_not_ended() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        writer.write(&[connected("a", "g1", 1), connected("b", "g1", 2)]).await.unwrap();
        let leader = leader(&config).await;
        let lost = leader.lost(&["g2"]).await.unwrap();
        assert_eq!(lost.len(), 2);
        writer.write(&[connected("a", "g2", 3)]).await.unwrap();
        assert_eq!(leader.end(&lost).await.unwrap(), 1);
        let still = "SELECT uuid FROM agents WHERE connected";
        assert_eq!(one::<String>(&config, still).await, "a");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_and_not_ended_is_told_by_the_next_leader() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        writer.write(&[connected("a", "g1", 1)]).await.unwrap();
        let first = leader(&config).await;
        assert_eq!(first.lost(&NOBODY).await.unwrap().len(), 1);
        drop(first);
        let second = succeed(candidate(&config).await, Duration::from_secs(5)).await;
        assert_eq!(end(&second, &NOBODY).await.len(), 1);
        assert_eq!(one::<i64>(&config, CONNECTED).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_fleet_is_ended_in_parts() {
    with_database(async |config| {
        let fleet = LOST_MAX + 500;
        let insert = format!(
            "INSERT INTO agents (uuid, connected, session, gateway) \
             SELECT n, true, gen_random_uuid(), 'g' || n % 3 FROM generate_series(1, {fleet}) n"
        );
        client(&config).await.batch_execute(&insert).await.unwrap();
        let leader = leader(&config).await;
        let first = end(&leader, &NOBODY).await;
        assert_eq!(first.len(), LOST_MAX);
        assert_eq!(end(&leader, &NOBODY).await.len(), 500);
        assert_eq!(end(&leader, &NOBODY).await.len(), 0);
        assert_eq!(one::<i64>(&config, CONNECTED).await, 0);
    })
    .await;
}

/// Agents come back by ever newer sessions while the sweep ends whoever it finds.
#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_and_writers_never_deadlock() {
    with_database(async |config| {
        const AGENTS: usize = 200;
        const ROUNDS: u128 = 40;
        let names: Vec<String> = (0..AGENTS).map(|number| format!("agent-{number}")).collect();
        let writers_done = AtomicU32::new(0);
        let writing = async |offset: usize| {
            let mut writer = Writer::new(&config, "test");
            for round in 1..=ROUNDS {
                let turned = names.iter().cycle().skip(offset * 7 + 3).take(AGENTS);
                let batch: Vec<_> = turned.map(|name| connected(name, "g", round)).collect();
                writer.write(&batch).await.unwrap();
            }
            writers_done.fetch_add(1, Ordering::Relaxed);
        };
        let leader = leader(&config).await;
        let sweeping = async {
            let mut ended = 0;
            while writers_done.load(Ordering::Relaxed) < 3 || ended == 0 {
                let lost = leader.lost(&NOBODY).await.unwrap();
                ended += leader.end(&lost).await.unwrap();
            }
        };
        tokio::join!(sweeping, writing(0), writing(1), writing(2));
        // The last session of each, if the sweep has not ended it.
        assert!(leader.lost(&NOBODY).await.unwrap().iter().all(|l| l.session == session(ROUNDS)));
    })
    .await;
}
