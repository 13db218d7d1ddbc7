//! An agent's message becomes rows, and is heard.

use std::time::Duration;

use platziverse_testkit::{Message, PATIENCE, QoS, Version, World, eventually, millis_ago};
use serde_json::json;
use uuid::Uuid;

const AGENTS: &str = "SELECT count(*) FROM agents";
const METRICS: &str = "SELECT count(*) FROM metrics";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_becomes_rows_by_every_version_and_qos() {
    let world = World::start().await;
    let (gateway, _worker) = (world.gateway().await, world.worker().await);
    let mut clients = Vec::new();
    for version in Version::BOTH {
        let client = world.client(&gateway, version).await;
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let uuid = format!("{version:?}-{qos:?}");
            let payload = Message::example().from_agent(&uuid).json();
            let ack = client.publish("agent/message", qos, payload).await;
            assert_eq!(ack.code, 0, "{uuid}: {ack:?}");
        }
        clients.push(client);
    }
    let database = world.database();
    database.becomes(METRICS, "12").await;
    let agents = database
        .sql("SELECT uuid, username, name, hostname, pid, connected FROM agents ORDER BY uuid")
        .await;
    assert_eq!(agents.len(), 6);
    for agent in agents {
        let attributes: Vec<_> = agent[1..].iter().map(|value| value.as_deref()).collect();
        let wanted = ["platzi", "platzi", "platzibogota", "10", "t"].map(Some);
        assert_eq!(attributes, wanted, "{agent:?}");
    }
    let metrics =
        "SELECT type, value, text_value, count(*) FROM metrics GROUP BY 1, 2, 3 ORDER BY 1";
    let metrics = database.sql(metrics).await;
    let wanted = [["memory", "1001", "1001", "6"], ["temp", "33", "33", "6"]];
    assert_eq!(metrics, wanted.map(|row| row.map(|text| Some(text.to_owned())).to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sent_twice_the_agent_is_one_and_the_metrics_are_four() {
    let world = World::start().await;
    let (gateway, _worker) = (world.gateway().await, world.worker().await);
    let client = world.client(&gateway, Version::V3).await;
    client.report(&Message::example()).await;
    client.report(&Message::example()).await;
    world.database().becomes(METRICS, "4").await;
    assert_eq!(world.database().value(AGENTS).await, "1");

    client.report(&Message::example().from_agent("zzz")).await;
    world.database().becomes(METRICS, "6").await;
    assert_eq!(world.database().value(AGENTS).await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_with_an_id_of_its_sender_is_stored_once() {
    let world = World::start().await;
    let (gateway, worker) = (world.gateway().await, world.worker().await);
    let client = world.client(&gateway, Version::V5).await;
    let without_time = Message::example().id(Uuid::now_v7());
    let an_hour_ago = millis_ago(Duration::from_secs(3_600));
    let with_time = Message::example().id(Uuid::now_v7()).timestamp(an_hour_ago);
    for _ in 0..3 {
        client.report(&without_time).await;
        client.report(&with_time).await;
    }
    // Six messages and the announcement of the agent.
    eventually("all seven records are settled", PATIENCE, || async {
        let metrics = worker.metrics().await;
        let settled = metrics.get("platziverse_worker_records_stored_total")
            + metrics.get("platziverse_worker_records_duplicate_total");
        if settled == 7.0 { Ok(()) } else { Err(format!("{settled} are")) }
    })
    .await;
    assert_eq!(world.database().value(METRICS).await, "4");
    let times = "SELECT DISTINCT (extract(epoch FROM timestamp) * 1000)::bigint FROM metrics";
    let times = world.database().sql(times).await;
    assert_eq!(times.len(), 2, "{times:?}");
    assert!(times.contains(&vec![Some(an_hour_ago.to_string())]), "{an_hour_ago}: {times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_hears_an_agent_come_report_and_go() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    for version in Version::BOTH {
        let listener = world.listener(&gateway, version, "agent/#").await;
        let agent = world.client(&gateway, version).await;
        agent.report(&Message::example()).await;

        let connected = listener.next().await;
        assert_eq!(connected.topic, "agent/connected");
        let wanted = json!({
            "uuid": "yyy", "username": "platzi", "name": "platzi", "hostname": "platzibogota",
            "pid": 10, "connected": true,
        });
        assert_eq!(connected.json()["agent"], wanted);

        let message = listener.next().await;
        assert_eq!(message.topic, "agent/message");
        assert_eq!(message.payload, Message::example().json(), "it passes unchanged");

        agent.disconnect().await;
        let disconnected = listener.next().await;
        assert_eq!(disconnected.topic, "agent/disconnected");
        assert_eq!(disconnected.json()["agent"]["uuid"], "yyy");
        let session = connected.json()["session"].clone();
        assert!(session.is_string(), "{session}");
        assert_eq!(disconnected.json()["session"], session);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_wait_in_a_quorum_queue_for_a_worker() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let client = world.client(&gateway, Version::V3).await;
    client.report(&Message::example()).await;

    let rabbitmq = world.rabbitmq();
    let queue = rabbitmq.queue("platziverse.ingest").await.expect("the queue is declared");
    assert_eq!(queue["type"], "quorum");
    let waiting = rabbitmq.peek("platziverse.ingest", 10).await;
    let bodies: Vec<_> = waiting.iter().filter_map(|m| m["payload"].as_str()).collect();
    assert!(bodies.concat().contains("platzibogota"), "{bodies:?}");
    assert_eq!(waiting[0]["properties"]["delivery_mode"], 2, "{waiting:?}");

    let _worker = world.worker().await;
    world.database().becomes(METRICS, "2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_kind_are_stored_as_what_they_are() {
    let world = World::start().await;
    let (gateway, _worker) = (world.gateway().await, world.worker().await);
    let message = Message::of("kinds")
        .metric("1 integer", 33)
        .metric("2 float", -0.5)
        .metric("3 text", "warm")
        .metric("4 number as text", "1e3")
        .metric("5 true", true)
        .metric("6 false", false)
        .metric("7 NaN as text", "NaN");
    world.client(&gateway, Version::V5).await.report(&message).await;
    world.database().becomes(METRICS, "7").await;
    let rows = world.database().sql("SELECT value, text_value FROM metrics ORDER BY type").await;
    let wanted = [
        [Some("33"), None],
        [Some("-0.5"), None],
        [None, Some("warm")],
        [Some("1000"), Some("1e3")],
        [Some("1"), Some("true")],
        [Some("0"), Some("false")],
        [None, Some("NaN")],
    ];
    let wanted: Vec<Vec<_>> =
        wanted.iter().map(|row| row.iter().map(|v| v.map(str::to_owned)).collect()).collect();
    assert_eq!(rows, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_topics_are_delivered_and_not_stored() {
    let world = World::start().await;
    let (gateway, worker) = (world.gateway().await, world.worker().await);
    let everything = world.listener(&gateway, Version::V5, "#").await;
    let one_level = world.listener(&gateway, Version::V3, "plant/+/temperature").await;
    let client = world.client(&gateway, Version::V3).await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        assert_eq!(client.publish("plant/7/temperature", qos, "21").await.code, 0);
        for listener in [&everything, &one_level] {
            let heard = listener.next().await;
            assert_eq!(
                (heard.topic.as_str(), heard.payload.as_str()),
                ("plant/7/temperature", "21")
            );
            assert_eq!(heard.qos, (qos as u8).min(1), "delivered at QoS 1 at most");
        }
    }
    client.report(&Message::example()).await;
    world.database().becomes(METRICS, "2").await;
    let delivered = worker.metrics().await.get("platziverse_worker_records_delivered_total");
    assert_eq!(delivered, 2.0, "only the agent's two records reach the worker");
    assert_eq!(world.rabbitmq().dead_letters().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_sends_a_topic_to_a_queue() {
    let world = World::start().await;
    let routes = r#"[{"filter": "plant/#", "queue": "plants"}]"#;
    let gateway = world.gateway_with(&[("PLATZIVERSE_GATEWAY__ROUTES", routes)]).await;
    let client = world.client(&gateway, Version::V5).await;
    assert_eq!(client.publish("plant/1", QoS::AtLeastOnce, "green").await.code, 0);
    let bodies = world.rabbitmq().peek("plants", 10).await;
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(bodies[0]["payload"].as_str().is_some_and(|body| body.contains("plant/1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_subscription_hears_nothing_more() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    for version in Version::BOTH {
        let client = world.client(&gateway, version).await;
        for filter in ["ended", "kept"] {
            assert_eq!(client.subscribe(filter, QoS::AtMostOnce).await, [0]);
        }
        client.unsubscribe("ended").await;
        for topic in ["ended", "kept"] {
            client.publish(topic, QoS::AtLeastOnce, "x").await;
        }
        assert_eq!(client.next().await.topic, "kept");
    }
}
