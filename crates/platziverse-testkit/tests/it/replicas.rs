//! Any number of gateways and workers on one broker and one database.

use std::collections::HashSet;
use std::time::Duration;

use platziverse_testkit::{Client, Message, Options, QoS, Version, World, check, eventually};
use tokio::time::Instant;

/// The promise: the agents of a gateway that died are disconnected so soon after its death.
const PRESENCE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_and_three_workers_are_one_service() {
    let world = World::start().await;
    let gateways = [world.gateway().await, world.gateway().await];
    let workers = [world.worker().await, world.worker().await, world.worker().await];
    let listeners = [
        world.listener(&gateways[0], Version::V3, "agent/message").await,
        world.listener(&gateways[1], Version::V5, "agent/+").await,
    ];
    let clients = [
        world.client(&gateways[0], Version::V5).await,
        world.client(&gateways[1], Version::V3).await,
    ];
    let mut pending = Vec::new();
    for number in 0..600_u32 {
        let agent = Message::of(&format!("agent-{}", number % 10)).metric("number", number);
        let client = &clients[(number % 2) as usize];
        pending.push(client.send("agent/message", QoS::AtLeastOnce, agent.json()).await);
    }
    for pending in pending {
        assert_eq!(pending.acknowledged().await.expect("acknowledged").code, 0);
    }
    for listener in &listeners {
        let mut heard = HashSet::new();
        while heard.len() < 600 {
            let message = listener.next().await;
            if message.topic == "agent/message" {
                heard.insert(message.json()["metrics"][0]["value"].as_u64());
            }
        }
    }
    let services = gateways.iter().chain(&workers).collect::<Vec<_>>();
    world.at_rest(&services).await;
    let database = world.database();
    assert_eq!(database.value("SELECT count(DISTINCT value) FROM metrics").await, "600");
    assert_eq!(database.value("SELECT count(*) FROM metrics").await, "600");
    assert_eq!(database.value("SELECT count(*) FROM agents WHERE connected").await, "10");
    for worker in &workers {
        let delivered = worker.books().await.expect("books").entered;
        assert!(delivered > 0.0, "{} was idle", worker.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_across_gateways_leaves_the_agent_connected() {
    let world = World::start().await;
    let (first, second) = (world.gateway().await, world.gateway().await);
    let worker = world.worker().await;
    for (round, version) in (1_u8..).zip(Version::BOTH) {
        let id = format!("wanderer-{round}");
        let older = Options::new(first.mqtt(), version).id(&id);
        let older = Client::connect(older).await.expect("accepted");
        older.report(&Message::example()).await;
        let newer = Options::new(second.mqtt(), version).id(&id);
        let newer = Client::connect(newer).await.expect("accepted");
        newer.report(&Message::example()).await;
        let closed = older.closed().await;
        if version == Version::V5 {
            assert_eq!(closed.code, Some(0x8E), "session taken over: {closed}");
        }
        // In each round both announcements, both messages and the older end; between the rounds
        // the end of the first newer session.
        let records = f64::from(round) * 5.0 + f64::from(round - 1);
        worker.counts("platziverse_worker_records_stored_total", records).await;
        let connected = "SELECT connected FROM agents WHERE uuid = 'yyy'";
        assert_eq!(world.database().value(connected).await, "t");
        assert!(newer.is_closed().is_none());
        newer.disconnect().await;
        world.database().becomes(connected, "f").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_leaves_no_agent_connected() {
    let world = World::start().await;
    let (mut doomed, other) = (world.gateway().await, world.gateway().await);
    let _workers = [world.worker().await, world.worker().await];
    let listener = world.listener(&other, Version::V5, "agent/disconnected").await;
    let clients =
        [world.client(&doomed, Version::V3).await, world.client(&doomed, Version::V5).await];
    let survivor = world.client(&other, Version::V3).await;
    survivor.report(&Message::of("survivor")).await;
    for number in 0..5 {
        clients[number % 2].report(&Message::of(&format!("agent-{number}"))).await;
    }
    let connected = "SELECT count(*) FROM agents WHERE connected";
    world.database().becomes(connected, "6").await;

    let killed = Instant::now();
    doomed.kill();
    eventually("only the survivor is connected", PRESENCE, || async {
        let names = "SELECT string_agg(uuid, ' ') FROM agents WHERE connected";
        let names = world.database().value(names).await;
        check(names == "survivor", || format!("connected: {names}"))
    })
    .await;
    let mut heard = HashSet::new();
    while heard.len() < 5 {
        let rest = PRESENCE.saturating_sub(killed.elapsed());
        let message = listener.next_within(rest).await.expect("agent/disconnected of each agent");
        heard.insert(message.json()["agent"]["uuid"].as_str().map(str::to_owned));
    }
    assert!(!heard.contains(&Some("survivor".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_moves_from_a_killed_gateway_stays_connected() {
    let world = World::start().await;
    let (mut doomed, other) = (world.gateway().await, world.gateway().await);
    let worker = world.worker().await;
    let agent = Client::connect(Options::new(doomed.mqtt(), Version::V3).id("mover")).await;
    agent.expect("accepted").report(&Message::of("mover")).await;
    let left = world.client(&doomed, Version::V3).await;
    left.report(&Message::of("left")).await;
    doomed.kill();
    let agent = Client::connect(Options::new(other.mqtt(), Version::V3).id("mover")).await;
    let agent = agent.expect("accepted");
    agent.report(&Message::of("mover")).await;
    worker.counts("platziverse_worker_agents_swept_total", 1.0).await;
    let rows = "SELECT string_agg(uuid, ' ') FROM agents WHERE connected";
    assert_eq!(world.database().value(rows).await, "mover");
    assert!(agent.is_closed().is_none());
}
