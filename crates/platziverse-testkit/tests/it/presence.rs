//! `connected` is what the newest session says.

use platziverse_testkit::{Client, Message, Options, RawClient, Version, World};

const CONNECTED: &str = "SELECT connected FROM agents WHERE uuid = 'yyy'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_connected_while_its_session_lasts() {
    let world = World::start().await;
    let (gateway, _worker) = (world.gateway().await, world.worker().await);
    for version in Version::BOTH {
        let agent = world.client(&gateway, version).await;
        agent.report(&Message::example()).await;
        world.database().becomes(CONNECTED, "t").await;
        agent.disconnect().await;
        world.database().becomes(CONNECTED, "f").await;
    }
    let agent = world.client(&gateway, Version::V3).await;
    agent.report(&Message::example()).await;
    world.database().becomes(CONNECTED, "t").await;
    drop(agent);
    world.database().becomes(CONNECTED, "f").await;

    let mut agent = RawClient::connect(gateway.mqtt(), Version::V5, "reset", 60).await;
    let message = Message::example().json();
    let packet = RawClient::publish_packet(Version::V5, "agent/message", 1, message.as_bytes());
    agent.send(&packet).await;
    world.database().becomes(CONNECTED, "t").await;
    agent.reset();
    world.database().becomes(CONNECTED, "f").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_on_one_gateway_leaves_the_agent_connected() {
    let world = World::start().await;
    let (gateway, worker) = (world.gateway().await, world.worker().await);
    let options = Options::new(gateway.mqtt(), Version::V5).id("one");
    let older = Client::connect(options.clone()).await.expect("accepted");
    older.report(&Message::example()).await;
    let newer = Client::connect(options).await.expect("accepted");
    assert_eq!(older.closed().await.code, Some(0x8E), "session taken over");
    newer.report(&Message::example()).await;
    // Both announcements, both messages, one end.
    worker.counts("platziverse_worker_records_stored_total", 5.0).await;
    assert_eq!(world.database().value(CONNECTED).await, "t");
    assert!(newer.is_closed().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_reports_for_several_agents() {
    let world = World::start().await;
    let (gateway, _worker) = (world.gateway().await, world.worker().await);
    let client = world.client(&gateway, Version::V3).await;
    for uuid in ["a", "b", "c"] {
        client.report(&Message::of(uuid)).await;
    }
    let connected = "SELECT count(*) FROM agents WHERE connected";
    world.database().becomes(connected, "3").await;
    drop(client);
    world.database().becomes(connected, "0").await;
}
