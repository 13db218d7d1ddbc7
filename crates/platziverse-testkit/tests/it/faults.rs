//! What was acknowledged is stored once, whatever is killed or stopped meanwhile.

use std::time::Duration;

use platziverse_testkit::{
    Client, Load, Message, Options, PATIENCE, QoS, Version, World, check, eventually, millis_ago,
};
use uuid::Uuid;

use crate::books::assert_balanced;

const OUTAGE: Duration = Duration::from_secs(20);
const STORED: &str = "SELECT count(*) FROM metrics";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_amid_20_000_messages() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let (mut doomed, other) = (world.worker().await, world.worker().await);
    let load = Load::start(&gateway, 4, 5_000, Duration::ZERO).await;
    // In the middle of its work: it has stored some and holds more.
    doomed.counts("platziverse_worker_records_stored_total", 500.0).await;
    doomed.kill();
    let _third = world.worker().await;
    let report = load.finish().await;
    report.assert_all_acknowledged();
    assert_eq!(report.sent, 20_000);
    report.assert_stored_once(world.database()).await;
    assert_balanced(&gateway, true).await;
    assert_balanced(&other, false).await;
    assert_eq!(world.database().value(STORED).await, "20000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_while_agents_report_and_send_again() {
    let world = World::start().await;
    let (mut doomed, other) = (world.gateway().await, world.gateway().await);
    let _worker = world.worker().await;
    let client = world.client(&doomed, Version::V5).await;
    let now = millis_ago(Duration::ZERO);
    let message =
        |number: u32| Message::of("resender").metric("n", number).id(Uuid::now_v7()).timestamp(now);
    let messages: Vec<_> = (0..3_000).map(|number| message(number).json()).collect();
    let mut pending = Vec::new();
    for (number, message) in messages.iter().enumerate() {
        pending.push(client.send("agent/message", QoS::AtLeastOnce, message.clone()).await);
        if number == 1_500 {
            doomed.kill();
        }
    }
    let again = world.client(&other, Version::V5).await;
    for (pending, message) in pending.into_iter().zip(messages) {
        if pending.acknowledged().await.is_err() {
            again.publish("agent/message", QoS::AtLeastOnce, message).await;
        }
    }
    world.database().becomes("SELECT count(DISTINCT value) FROM metrics", "3000").await;
    assert_eq!(world.database().value(STORED).await, "3000", "none is stored twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_stopped_under_load() {
    let world = World::private().await;
    let gateway = world.gateway().await;
    let worker = world.worker().await;
    let listener = world.listener(&gateway, Version::V5, "agent/message").await;
    let load = Load::start(&gateway, 4, u64::MAX, Duration::from_millis(4)).await;
    load.has_sent(2_000).await;
    world.servers().run("stop", "rabbitmq").await;
    for process in [&gateway, &worker] {
        eventually("not ready without RabbitMQ", PATIENCE, || async {
            let (status, body) = process.readyz().await;
            check(status == 503 && body.to_string().contains("rabbitmq"), || body.to_string())
        })
        .await;
    }
    let before = gateway.memory();
    tokio::time::sleep(OUTAGE).await;
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 50_000_000, "memory stays flat: it grew by {grown} bytes");
    assert_balanced(&gateway, true).await;
    assert_balanced(&worker, false).await;
    world.servers().run("start", "rabbitmq").await;
    let sent = load.sent();
    load.has_sent(sent + 2_000).await;
    load.stop();
    let report = load.finish().await;
    report.assert_all_acknowledged();
    report.assert_stored_once(world.database()).await;
    for process in [&gateway, &worker] {
        eventually("ready again by itself", PATIENCE, || async {
            let (status, body) = process.readyz().await;
            check(status == 200, || body.to_string())
        })
        .await;
    }
    assert_balanced(&gateway, true).await;
    assert_balanced(&worker, false).await;
    // The listener was never disconnected, and hears what comes after the outage.
    let last = world.client(&gateway, Version::V3).await;
    last.report(&Message::of("after the outage")).await;
    while !listener.next().await.payload.contains("after the outage") {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_stopped_under_load() {
    let world = World::private().await;
    let gateway = world.gateway().await;
    let worker = world.worker().await;
    let load = Load::start(&gateway, 4, u64::MAX, Duration::from_millis(4)).await;
    load.has_sent(2_000).await;
    let before = worker.memory();
    world.servers().run("stop", "postgres").await;
    eventually("not ready without PostgreSQL", PATIENCE, || async {
        let (status, body) = worker.readyz().await;
        check(status == 503 && body.to_string().contains("postgres"), || body.to_string())
    })
    .await;
    tokio::time::sleep(OUTAGE).await;
    let grown = worker.memory().saturating_sub(before);
    assert!(grown < 100_000_000, "memory stays flat: it grew by {grown} bytes");
    assert_eq!(gateway.readyz().await.0, 200, "gateways do not need PostgreSQL");
    assert_balanced(&worker, false).await;
    world.servers().run("start", "postgres").await;
    load.stop();
    let report = load.finish().await;
    report.assert_all_acknowledged();
    report.assert_stored_once(world.database()).await;
    eventually("ready again by itself", PATIENCE, || async {
        let (status, body) = worker.readyz().await;
        check(status == 200, || body.to_string())
    })
    .await;
    assert_balanced(&gateway, true).await;
    assert_balanced(&worker, false).await;
    assert_eq!(world.rabbitmq().dead_letters().await.len(), 0, "an outage is no bad input");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_asked_to_end_finishes_what_is_in_flight() {
    let world = World::start().await;
    let mut gateway = world.gateway().await;
    let worker = world.worker().await;
    let idle =
        [world.client(&gateway, Version::V5).await, world.client(&gateway, Version::V3).await];
    idle[0].report(&Message::of("idle")).await;
    let load = Load::start(&gateway, 3, 1_000_000, Duration::ZERO).await;
    load.has_sent(1_000).await;
    let status = gateway.terminate().await;
    assert!(status.success(), "{status}: {}", gateway.log());
    assert_eq!(idle[0].closed().await.code, Some(0x8B), "server shutting down");
    idle[1].closed().await;
    let report = load.finish().await;
    assert!(report.acknowledged.len() >= 500, "{}", report.acknowledged.len());
    report.assert_stored_once(world.database()).await;
    let connected = "SELECT count(*) FROM agents WHERE connected";
    world.database().becomes(connected, "0").await;
    assert_balanced(&worker, false).await;
    let refused = Client::connect(Options::new(gateway.mqtt(), Version::V3)).await;
    assert!(refused.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_asked_to_end_leaves_the_rest_to_others() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let mut ending = world.worker().await;
    let load = Load::start(&gateway, 3, 2_000, Duration::ZERO).await;
    ending.counts("platziverse_worker_records_stored_total", 200.0).await;
    let status = ending.terminate().await;
    assert!(status.success(), "{status}: {}", ending.log());
    let worker = world.worker().await;
    let report = load.finish().await;
    report.assert_all_acknowledged();
    report.assert_stored_once(world.database()).await;
    assert_balanced(&worker, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_database_is_waited_for() {
    let world = World::private().await;
    let gateway = world.gateway().await;
    let settings = [("PLATZIVERSE_DATABASE__STATEMENT_TIMEOUT", "3s")];
    let worker = world.worker_with(&settings).await;
    let load = Load::start(&gateway, 2, u64::MAX, Duration::from_millis(4)).await;
    load.has_sent(500).await;
    world.servers().run("pause", "postgres").await;
    eventually("not ready while PostgreSQL hangs", PATIENCE, || async {
        let (status, body) = worker.readyz().await;
        check(status == 503, || body.to_string())
    })
    .await;
    world.servers().run("resume", "postgres").await;
    load.stop();
    let report = load.finish().await;
    report.assert_all_acknowledged();
    report.assert_stored_once(world.database()).await;
    assert_balanced(&worker, false).await;
}
