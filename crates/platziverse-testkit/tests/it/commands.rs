//! Commands to agents: each state is seen, whoever is away or dies meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use platziverse_testkit::{
    Client, PATIENCE, Process, Proxy, QoS, RawClient, Toxic, Version, World, eventually,
};
use serde_json::{Value, json};
use uuid::Uuid;

const COMMANDS: &str = "platziverse.commands";

/// A worker that handles tasks only.
async fn worker(world: &World) -> Process {
    world.worker_with(&[("PLATZIVERSE_WORKER__ROLES", "tasks")]).await
}

/// A client that hears the commands of an agent, and acknowledges them.
async fn agent(world: &World, gateway: &Process, uuid: &str) -> Client {
    world.listener(gateway, Version::V5, &format!("agent/{uuid}/command")).await
}

/// Has a command for an agent sent; its id.
async fn send(world: &World, agent: &str, more: Value) -> Uuid {
    let id = Uuid::now_v7();
    let payload = json!({"name": "reboot", "payload": {"n": 1.5}});
    let mut task = json!({"kind": "command", "name": "agent.command", "target": agent, "id": id,
        "payload": payload});
    for (field, value) in more.as_object().expect("fields") {
        task[field] = value.clone();
    }
    let properties = json!({"delivery_mode": 2});
    world.rabbitmq().publish("", COMMANDS, properties, &task.to_string()).await;
    id
}

async fn becomes(world: &World, id: Uuid, state: &str) {
    let question = format!("SELECT state FROM commands WHERE id = '{id}'");
    world.database().becomes(&question, state).await;
}

async fn answer(agent: &Client, uuid: &str, answer: &Value) -> u8 {
    let topic = format!("agent/{uuid}/response");
    agent.publish(&topic, QoS::AtLeastOnce, answer.to_string()).await.code
}

/// Whether what came in is what became of it, and what is in flight.
async fn books_balance(worker: &Process) {
    let metrics = worker.metrics().await;
    let get = |word: &str| metrics.get(&format!("platziverse_worker_reports_{word}"));
    let fates =
        ["applied_total", "ignored_total", "dead_lettered_total", "requeued_total", "in_flight"];
    let accounted: f64 = fates.iter().map(|fate| get(fate)).sum();
    assert_eq!(get("received_total"), accounted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_state_is_seen() {
    let world = World::start().await;
    let (gateway, worker) = (world.gateway().await, worker(&world).await);
    for version in Version::BOTH {
        let mut agent = RawClient::connect(gateway.mqtt(), version, "yyy", 0).await;
        let topic = "agent/yyy/command";
        agent.send(&RawClient::subscribe_packet(version, 1, topic, 1)).await;
        assert_eq!(agent.packet().await.0, 0x90, "SUBACK");
        // Who only looks on is not the agent, whatever it acknowledges.
        let onlooker = world.listener(&gateway, version, "agent/+/command").await;

        let sent = world
            .platziverse(&["command", "send", "yyy", "reboot", "--payload", "[1.50]", "--json"])
            .await;
        assert!(sent.status.success(), "{sent:?}");
        let sent: Value = serde_json::from_str(&sent.stdout).expect("JSON");
        let id: Uuid = serde_json::from_value(sent["id"].clone()).expect("an id");
        let (kind, body) = agent.packet().await;
        assert_eq!(kind, 0x32, "a PUBLISH at QoS 1");
        let text = String::from_utf8_lossy(&body).into_owned();
        let want = format!(r#"{{"id":"{id}","name":"reboot","payload":[1.50],"expires":"#);
        assert!(text.contains(&want), "{text}");
        assert_eq!(onlooker.next().await.json()["id"], json!(id));
        becomes(&world, id, "sent").await;

        let packet = 2 + topic.len();
        agent.send(&RawClient::framed(0x40, &body[packet..packet + 2])).await;
        becomes(&world, id, "delivered").await;
        let done = json!({"id": id, "result": {"uptime": 0.5}}).to_string();
        let topic = "agent/yyy/response";
        agent.send(&RawClient::publish_packet(version, topic, 7, done.as_bytes())).await;
        assert_eq!(agent.packet().await.0, 0x40, "PUBACK");
        becomes(&world, id, "succeeded").await;
        let shown = world.platziverse(&["command", "show", &id.to_string(), "--json"]).await;
        let row: Value = serde_json::from_str(&shown.stdout).expect("JSON");
        assert_eq!(row["result"], json!({"uptime": 0.5}));
        let times = ["created_at", "sent_at", "delivered_at", "ended_at"];
        let times = times.map(|time| row[time].as_i64().expect(time));
        assert!(times.is_sorted(), "{row}");
    }
    let onlookers = "SELECT count(*) FROM commands WHERE state = 'succeeded'";
    assert_eq!(world.database().value(onlookers).await, "2");
    books_balance(&worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_is_told_what_came_of_it() {
    let world = World::start().await;
    let (gateway, _worker) = (world.gateway().await, worker(&world).await);
    let yyy = agent(&world, &gateway, "yyy").await;
    let send = async |arguments: &[&str]| {
        let mut all = vec!["command", "send", "yyy"];
        all.extend(arguments);
        world.platziverse(&all).await
    };
    let answering = async |more: Value| {
        let mut reply = json!({"id": yyy.next().await.json()["id"]});
        for (field, value) in more.as_object().expect("fields") {
            reply[field] = value.clone();
        }
        assert_eq!(answer(&yyy, "yyy", &reply).await, 0);
    };
    let (done, ()) =
        tokio::join!(send(&["reboot", "--wait", "30s"]), answering(json!({"result": [7]})));
    assert!(done.status.success() && done.stdout.contains("[7]"), "{done:?}");
    let (failed, ()) =
        tokio::join!(send(&["dance", "--wait", "30s"]), answering(json!({"error": "no legs"})));
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(failed.stderr.contains("no legs"), "{failed:?}");
    let silent = send(&["sing", "--wait", "1s"]).await;
    assert!(!silent.status.success() && silent.stderr.contains("not answered"), "{silent:?}");
    let absent = world.platziverse(&["command", "send", "zzz", "sing", "--wait", "500ms"]).await;
    assert!(!absent.status.success() && absent.stderr.contains("when it connects"), "{absent:?}");
    let nowhere = world.platziverse(&["command", "send", "a/b", "sing"]).await;
    assert!(!nowhere.status.success() && nowhere.stderr.contains("no topic"), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_away_gets_its_commands_once_when_it_is_back() {
    let world = World::start().await;
    let (gateway, worker) = (world.gateway().await, worker(&world).await);
    let mut wanted = BTreeSet::new();
    // More than are read at a time.
    for _ in 0..130 {
        wanted.insert(send(&world, "yyy", json!({})).await);
    }
    let sent = "SELECT count(*) FROM commands WHERE state = 'sent'";
    world.database().becomes(sent, "130").await;
    let late = send(&world, "yyy", json!({"expires": 1_000})).await;
    becomes(&world, late, "timed_out").await;
    let yyy = agent(&world, &gateway, "yyy").await;
    let mut got = BTreeSet::new();
    while got.len() < wanted.len() {
        let id: Uuid =
            serde_json::from_value(yyy.next().await.json()["id"].clone()).expect("an id");
        assert!(got.insert(id), "{id} came twice");
    }
    assert_eq!(got, wanted);
    let delivered = "SELECT count(*) FROM commands WHERE state = 'delivered'";
    world.database().becomes(delivered, "130").await;
    // What it has, it is not sent again: it may be what made it go.
    yyy.disconnect().await;
    let yyy = agent(&world, &gateway, "yyy").await;
    let more = send(&world, "yyy", json!({})).await;
    assert_eq!(yyy.next().await.json()["id"], json!(more), "and nothing before it");
    books_balance(&worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_an_answer_times_out() {
    let world = World::start().await;
    let (gateway, _worker) = (world.gateway().await, worker(&world).await);
    let now = platziverse_testkit::millis_ago(Duration::ZERO);
    let yyy = agent(&world, &gateway, "yyy").await;
    let silent = send(&world, "yyy", json!({"expires": now + 3_000})).await;
    assert_eq!(yyy.next().await.json()["expires"], json!(now + 3_000));
    becomes(&world, silent, "delivered").await;
    let absent = send(&world, "zzz", json!({"expires": now + 3_000})).await;
    becomes(&world, silent, "timed_out").await;
    becomes(&world, absent, "timed_out").await;
    // Too late: the first end stays.
    assert_eq!(answer(&yyy, "yyy", &json!({"id": silent, "result": 1})).await, 0);
    let zzz = agent(&world, &gateway, "zzz").await;
    let next = send(&world, "zzz", json!({})).await;
    assert_eq!(zzz.next().await.json()["id"], json!(next), "what has timed out is not sent");
    becomes(&world, silent, "timed_out").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_command_and_no_answer_is_refused() {
    let world = World::start().await;
    let (gateway, worker) = (world.gateway().await, worker(&world).await);
    let yyy = agent(&world, &gateway, "yyy").await;
    let id = send(&world, "yyy", json!({})).await;
    becomes(&world, id, "delivered").await;
    let forged = yyy.publish("agent/yyy/command", QoS::AtLeastOnce, "{}").await;
    assert_eq!(forged.code, 0x87, "{forged:?}");
    for (bad, reason) in [("nonsense", "invalid_json"), (r#"{"id": 1}"#, "invalid_payload")] {
        let ack = yyy.publish("agent/yyy/response", QoS::AtLeastOnce, bad).await;
        assert_eq!(ack.code, 0x99, "{ack:?}");
        let letters = world.rabbitmq().dead_letters().await;
        assert!(letters.iter().any(|letter| letter.reason == reason), "{letters:?}");
    }
    // Of another agent, and to a command that nobody has sent.
    assert_eq!(answer(&yyy, "zzz", &json!({"id": id, "result": 1})).await, 0);
    assert_eq!(answer(&yyy, "yyy", &json!({"id": Uuid::now_v7(), "result": 1})).await, 0);
    // Past the gateway, by whoever may publish to RabbitMQ.
    let properties = json!({"delivery_mode": 2});
    world.rabbitmq().publish("platziverse.live", "agent.yyy.response", properties, "x").await;
    worker.counts("platziverse_worker_reports_dead_lettered_total", 1.0).await;
    worker.counts("platziverse_worker_reports_ignored_total", 2.0).await;
    becomes(&world, id, "delivered").await;
    let unsendable =
        [("no target", None, json!({"name": "x"})), ("no name", Some("yyy"), json!({}))];
    for (what, target, payload) in unsendable {
        let id = send(&world, "yyy", json!({"target": target, "payload": payload})).await;
        becomes(&world, id, "failed").await;
        let letters = world.rabbitmq().dead_letters().await;
        let rejected = letters.iter().find(|letter| letter.body.contains(&id.to_string()));
        assert_eq!(rejected.expect(what).reason, "rejected_by_handler");
    }
    books_balance(&worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_with_a_command_loses_none() {
    let world = World::start().await;
    let (mut doomed, other) = (world.gateway().await, world.gateway().await);
    let (mut first, _second) = (worker(&world).await, worker(&world).await);
    // It reads and acknowledges nothing.
    let mut yyy = RawClient::connect(doomed.mqtt(), Version::V3, "yyy", 0).await;
    yyy.send(&RawClient::subscribe_packet(Version::V3, 1, "agent/yyy/command", 1)).await;
    assert_eq!(yyy.packet().await.0, 0x90);
    let mut wanted = BTreeSet::new();
    for number in 0..40 {
        wanted.insert(send(&world, "yyy", json!({})).await);
        if number == 20 {
            first.kill();
        }
    }
    assert_eq!(yyy.packet().await.0, 0x32);
    doomed.kill();
    let yyy = agent(&world, &other, "yyy").await;
    let mut got = BTreeSet::new();
    while got.len() < wanted.len() {
        let id: Uuid =
            serde_json::from_value(yyy.next().await.json()["id"].clone()).expect("an id");
        got.insert(id);
    }
    assert_eq!(got, wanted);
    for id in &wanted {
        assert_eq!(answer(&yyy, "yyy", &json!({"id": id, "result": null})).await, 0);
    }
    let open = "SELECT count(*) FROM commands WHERE state <> 'succeeded' OR delivered_at IS NULL";
    world.database().becomes(open, "0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_cut_off_from_rabbitmq_catches_up() {
    let world = World::start().await;
    let proxy = Proxy::start(world.amqp_address()).await;
    let url = world.amqp_url_at(proxy.address());
    let gateway = world.gateway_with(&[("PLATZIVERSE_AMQP__URL", &url)]).await;
    let _worker = worker(&world).await;
    let yyy = agent(&world, &gateway, "yyy").await;
    for _ in 0..3 {
        // Its queue goes with its connection, and what is sent meanwhile reaches nobody.
        proxy.set(Toxic::Refuse);
        proxy.cut();
        eventually("not ready without RabbitMQ", PATIENCE, || async {
            let (status, body) = gateway.readyz().await;
            if status == 503 { Ok(()) } else { Err(body.to_string()) }
        })
        .await;
        let id = send(&world, "yyy", json!({})).await;
        becomes(&world, id, "sent").await;
        proxy.set(Toxic::None);
        becomes(&world, id, "delivered").await;
        assert_eq!(yyy.next().await.json()["id"], json!(id));
    }
}
