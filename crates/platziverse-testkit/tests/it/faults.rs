//! What was acknowledged is stored once, whatever is killed or stopped meanwhile.

use std::time::Duration;

use platziverse_testkit::{
    Client, Load, Message, Options, PATIENCE, Process, Proxy, QoS, RawClient, Toxic, Version,
    World, check, eventually, millis_ago,
};
use uuid::Uuid;

use crate::books::assert_balanced;
use crate::crowd::{CROWD_BYTES, Crowd};

const OUTAGE: Duration = Duration::from_secs(20);
const STORED: &str = "SELECT count(*) FROM metrics";

/// The least that a gateway may hold: twice its largest packet, in bytes.
const BUFFER: &str = "2097152";

/// Reports for a worker that cannot store them, the metrics of each, and the size of each metric.
const LARGE: u64 = 200;
const LARGE_METRICS: u64 = 60;
const LARGE_BYTES: u64 = 4_000;

/// One AMQP message holds at most so many records, and a worker has so many writers, by default.
const DELIVERY_RECORDS_MAX: f64 = 256.0;
const WRITERS: f64 = 2.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_killed_amid_20_000_messages() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let (mut first, mut second) = (world.worker().await, world.worker().await);
    let load = Load::start(&gateway, 4, 5_000, Duration::ZERO).await;
    // In the middle of its work: some of what it holds may be committed and not yet acked.
    first.counts("platziverse_worker_records_stored_total", 500.0).await;
    holds_something(&first).await;
    first.kill();
    // And one that holds records which it cannot have stored.
    let held = world.database().hold("BEGIN; LOCK TABLE metrics IN EXCLUSIVE MODE").await;
    holds_something(&second).await;
    second.kill();
    drop(held.expect("the lock is had"));
    let third = world.worker().await;
    let report = load.finish().await;
    report.assert_all_acknowledged();
    assert_eq!(report.numbers.len(), 20_000);
    report.assert_stored_once(&world, &[&gateway, &third]).await;
    assert_balanced(&gateway).await;
    assert_balanced(&third).await;
    assert_eq!(world.database().value(STORED).await, "20000");
}

async fn holds_something(worker: &Process) {
    eventually(&format!("{} holds records", worker.name()), PATIENCE, || async {
        let balance = worker.books().await?;
        check(balance.in_flight > 0.0, || format!("{balance:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_while_agents_report_and_send_again() {
    let world = World::start().await;
    let (mut doomed, other) = (world.gateway().await, world.gateway().await);
    let worker = world.worker().await;
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
    world.at_rest(&[&other, &worker]).await;
    let values = "SELECT count(DISTINCT value) FROM metrics";
    assert_eq!(world.database().value(values).await, "3000", "none is lost");
    assert_eq!(world.database().value(STORED).await, "3000", "none is stored twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_stopped_under_load() {
    let world = World::private().await;
    let gateway =
        world.gateway_with(&[("PLATZIVERSE_GATEWAY__PUBLISH_BUFFER_BYTES", BUFFER)]).await;
    let worker = world.worker().await;
    let crowd = Crowd::connect(&gateway).await;
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
    let offer = crowd.offer();
    tokio::time::sleep(OUTAGE).await;
    assert!(gateway.books().await.expect("books").in_flight > 0.0, "it holds what it took");
    let grown = gateway.peak_memory().saturating_sub(before);
    assert!(grown < CROWD_BYTES / 4, "{CROWD_BYTES} bytes are offered, it grew by {grown}");
    assert_balanced(&gateway).await;
    assert_balanced(&worker).await;
    world.servers().run("start", "rabbitmq").await;
    let sent = load.sent();
    load.has_sent(sent + 2_000).await;
    load.stop();
    offer.assert_acknowledged().await;
    let report = load.finish().await;
    report.assert_all_acknowledged();
    report.assert_stored_once(&world, &[&gateway, &worker]).await;
    for process in [&gateway, &worker] {
        eventually("ready again by itself", PATIENCE, || async {
            let (status, body) = process.readyz().await;
            check(status == 200, || body.to_string())
        })
        .await;
    }
    assert_balanced(&gateway).await;
    assert_balanced(&worker).await;
    // The listener was never disconnected, and hears what comes after the outage.
    let last = world.client(&gateway, Version::V3).await;
    last.report(&Message::of("after the outage")).await;
    while !listener.next().await.payload.contains("after the outage") {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_stopped_under_load() {
    let world = World::private().await;
    let gateway = world.gateway().await;
    let worker = world.worker_with(&[("PLATZIVERSE_INGEST__PREFETCH", "1")]).await;
    let load = Load::start(&gateway, 4, u64::MAX, Duration::from_millis(4)).await;
    load.has_sent(2_000).await;
    world.servers().run("stop", "postgres").await;
    eventually("not ready without PostgreSQL", PATIENCE, || async {
        let (status, body) = worker.readyz().await;
        check(status == 503 && body.to_string().contains("postgres"), || body.to_string())
    })
    .await;
    tokio::time::sleep(OUTAGE).await;
    let in_flight = worker.books().await.expect("books").in_flight;
    let in_range = in_flight > 0.0 && in_flight <= WRITERS * DELIVERY_RECORDS_MAX;
    assert!(in_range, "it holds {in_flight} records");
    assert_eq!(gateway.readyz().await.0, 200, "gateways do not need PostgreSQL");
    assert_balanced(&worker).await;
    world.servers().run("start", "postgres").await;
    load.stop();
    let report = load.finish().await;
    report.assert_all_acknowledged();
    report.assert_stored_once(&world, &[&gateway, &worker]).await;
    eventually("ready again by itself", PATIENCE, || async {
        let (status, body) = worker.readyz().await;
        check(status == 200, || body.to_string())
    })
    .await;
    assert_balanced(&gateway).await;
    assert_balanced(&worker).await;
    assert_eq!(world.rabbitmq().dead_letters().await.len(), 0, "an outage is no bad input");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_postgresql_holds_no_more_than_its_prefetch() {
    let world = World::start().await;
    let way = Proxy::start(world.database().address()).await;
    let url = world.database().url_at(way.address());
    let gateway = world.gateway().await;
    let settings = [
        ("PLATZIVERSE_DATABASE__URL", url.as_str()),
        ("PLATZIVERSE_INGEST__PREFETCH", "1"),
        ("PLATZIVERSE_INGEST__WRITERS", "1"),
    ];
    let worker = world.worker_with(&settings).await;
    let client = world.client(&gateway, Version::V5).await;
    client.report(&Message::of("large").metric("first", 1)).await;
    world.at_rest(&[&gateway, &worker]).await;
    way.set(Toxic::Refuse);
    let before = worker.memory();
    let text = "x".repeat(LARGE_BYTES as usize);
    let report = (0..LARGE_METRICS)
        .fold(Message::of("large"), |report, _| report.metric("large", text.clone()));
    for _ in 0..LARGE {
        client.report(&report).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let in_flight = worker.books().await.expect("books").in_flight;
    assert_eq!(in_flight, 1.0, "records held, of one delivery");
    let offered = LARGE * LARGE_METRICS * LARGE_BYTES;
    let grown = worker.peak_memory().saturating_sub(before);
    assert!(grown < offered / 4, "{offered} bytes wait, it grew by {grown}");
    way.set(Toxic::None);
    world.at_rest(&[&gateway, &worker]).await;
    let stored = "SELECT count(*) FROM metrics WHERE type = 'large'";
    assert_eq!(world.database().value(stored).await, (LARGE * LARGE_METRICS).to_string());
    assert_balanced(&worker).await;
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
    report.assert_stored_once(&world, &[&worker]).await;
    let connected = "SELECT count(*) FROM agents WHERE connected";
    world.database().becomes(connected, "0").await;
    assert_balanced(&worker).await;
    let refused = Client::connect(Options::new(gateway.mqtt(), Version::V3)).await;
    assert!(refused.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_when_a_gateway_is_asked_to_end_is_acknowledged() {
    let world = World::start().await;
    let way = Proxy::start(world.amqp_address()).await;
    let url = world.amqp_url_at(way.address());
    let settings =
        [("PLATZIVERSE_AMQP__URL", url.as_str()), ("PLATZIVERSE_OPS__DRAIN_TIMEOUT", "60s")];
    let mut gateway = world.gateway_with(&settings).await;
    let worker = world.worker().await;
    let mut client = RawClient::connect(gateway.mqtt(), Version::V3, "in-flight", 60).await;
    way.set(Toxic::Latency(Duration::from_secs(2)));
    let (mut packets, mut acks) = (Vec::new(), Vec::new());
    for packet in 1..=50_u16 {
        let message = Message::of("in flight").metric("n", packet).json();
        let topic = "agent/message";
        packets.extend(RawClient::publish_packet(Version::V3, topic, packet, message.as_bytes()));
        acks.extend(RawClient::framed(0x40, &packet.to_be_bytes()));
    }
    client.send(&packets).await;
    gateway.counts("platziverse_gateway_publishes_received_total", 50.0).await;
    assert_eq!(gateway.books().await.expect("books").in_flight, 50.0, "none is confirmed yet");
    let (status, answer) = tokio::join!(gateway.terminate(), client.until_closed());
    assert!(status.success(), "{status}: {}", gateway.log());
    assert_eq!(answer, acks, "each PUBACK, in order, before the end");
    world.at_rest(&[&worker]).await;
    assert_eq!(world.database().value(STORED).await, "50");
    assert_eq!(world.database().value("SELECT connected FROM agents").await, "f");
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
    report.assert_stored_once(&world, &[&gateway, &worker]).await;
    assert_balanced(&worker).await;
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
    report.assert_stored_once(&world, &[&gateway, &worker]).await;
    assert_balanced(&worker).await;
}
