use platziverse_protocol::event::AgentEvent;
use platziverse_store::Sighting;
use platziverse_store::StoreError;
use platziverse_store::sweep::{Ended, Leader};
use platziverse_store::writer::Writer;

use crate::database::{one, with_database};
use crate::sightings::{agent, noon, of, session, uuid};

fn connected(uuid: &str, gateway: &'static str, number: u128) -> Sighting<'static> {
    let event = AgentEvent::Connected(agent(uuid));
    Sighting { gateway, session: session(number), ..of(number, event) }
}

async fn end(leader: &Leader, alive: &[&str]) -> Result<Vec<Ended>, StoreError> {
    leader.end_gateways_except(alive, noon()).await?.commit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_leader_at_a_time() {
    with_database(async |config| {
        let first = Leader::acquire(&config, "first").await.unwrap().unwrap();
        assert!(Leader::acquire(&config, "second").await.unwrap().is_none());
        drop(first);
        let mut second = None;
        for _ in 0..100 {
            second = Leader::acquire(&config, "second").await.unwrap();
            if second.is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(!second.unwrap().is_lost());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_of_lost_gateways_are_ended_once() {
    with_database(async |config| {
        let mut writer = Writer::connect(&config, "test").await.unwrap();
        let sightings = [connected("a", "g1", 1), connected("b", "g2", 2), connected("c", "g3", 3)];
        writer.write(&sightings).await.unwrap();

        let leader = Leader::acquire(&config, "test").await.unwrap().unwrap();
        let all = ["g1", "g2", "g3"];
        assert_eq!(end(&leader, &all).await.unwrap(), []);
        let ended = end(&leader, &["g1", "g3"]).await.unwrap();
        let b = Ended { uuid: uuid("b"), session: session(2), gateway: "g2".into() };
        assert_eq!(ended, [b]);
        assert_eq!(end(&leader, &["g1", "g3"]).await.unwrap(), []);

        // A late record of the ended session changes nothing; a newer session does.
        writer.write(&[connected("b", "g2", 2)]).await.unwrap();
        assert_eq!(one::<i64>(&config, "SELECT count(*) FROM agents WHERE connected").await, 2);
        writer.write(&[connected("b", "g1", 4)]).await.unwrap();
        assert_eq!(one::<i64>(&config, "SELECT count(*) FROM agents WHERE connected").await, 3);

        let nobody: [&str; 0] = [];
        assert_eq!(end(&leader, &nobody).await.unwrap().len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_ended_by_the_next_leader() {
    with_database(async |config| {
        let mut writer = Writer::connect(&config, "test").await.unwrap();
        writer.write(&[connected("a", "g1", 1)]).await.unwrap();
        let nobody: [&str; 0] = [];
        let first = Leader::acquire(&config, "first").await.unwrap().unwrap();
        let ending = first.end_gateways_except(&nobody, noon()).await.unwrap();
        assert_eq!(ending.agents().len(), 1);
        drop(ending);
        drop(first);
        let mut second = None;
        while second.is_none() {
            second = Leader::acquire(&config, "second").await.unwrap();
        }
        assert_eq!(end(&second.unwrap(), &nobody).await.unwrap().len(), 1);
        assert_eq!(one::<i64>(&config, "SELECT count(*) FROM agents WHERE connected").await, 0);
    })
    .await;
}
