use std::time::Duration;

use platziverse_broker::dead::{self, DeadLetter, Selection};
use platziverse_broker::{Context, Lane, Topology, topology};
use platziverse_config::{IngestConfig, TasksConfig};
use platziverse_protocol::dead::{Reason, Stage};
use platziverse_protocol::task::TaskKind;
use tokio::time::Instant;
use uuid::Uuid;

use crate::world::*;

const DELAY: Duration = Duration::from_millis(700);
/// A queue that older publishers have declared.
const OLDER: &str = "local_iot_core";

fn tasks(queues: &[&str]) -> Topology {
    let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
    let config = TasksConfig { queues, retry_delays: vec![DELAY], ..TasksConfig::default() };
    Topology::for_tasks(&config, &IngestConfig::default())
}

/// A vhost, in which a publisher of tasks to these queues has started.
async fn started(queues: &[&str]) -> (World, Context, TestPublisher) {
    let world = World::new();
    let context = world.context_of(tasks(queues));
    let publisher = start(&context).await;
    (world, context, publisher)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_comes_back_after_its_delay_as_often_as_it_is_tried() {
    let (world, context, publisher) = started(&[topology::EVENTS]).await;
    let lane = Lane::task(topology::EVENTS, TaskKind::Event);
    confirmed(vec![publish(&publisher, &lane, 7).await]).await;
    let mut deliveries = consume(&context, topology::EVENTS, 10).await;
    let mut held = next(&mut deliveries).await;
    assert_eq!((held.attempts(), held.header("error")), (0, None));
    for attempts in 1..=3 {
        let error = format!("failure {attempts}");
        let lane = Lane::retry(DELAY, topology::EVENTS, TaskKind::Event, attempts, &error);
        let begun = Instant::now();
        confirmed(vec![publish(&publisher, &lane, 7).await]).await;
        assert!(held.ack().await);
        held = next(&mut deliveries).await;
        assert!(begun.elapsed() >= DELAY, "{:?}", begun.elapsed());
        assert_eq!((held.attempts(), held.header("error")), (attempts, Some(error)));
        assert_eq!((&*held.exchange, &*held.routing_key), (topology::TASKS, topology::EVENTS));
        assert_eq!((numbers(&held.body), held.kind()), (vec![7], Some("event")));
        assert_eq!(held.message_id(), Some(&*Uuid::from_u128(7).to_string()));
        assert!(!held.redelivered);
    }
    assert!(held.ack().await);
    let empty = async || world.messages_in(topology::EVENTS) == Some(0);
    eventually("it is there once", empty).await;
    let operator = world.operator().await;
    assert_eq!(dead::count(&operator).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_a_message_of_its_own() {
    let (world, _context, publisher) = started(&[topology::EVENTS, topology::COMMANDS]).await;
    let mut outcomes = Vec::new();
    for number in 0..20 {
        let key = if number % 2 == 0 { "command" } else { topology::COMMANDS };
        outcomes.push(publish(&publisher, &Lane::task(key, TaskKind::Command), number).await);
    }
    confirmed(outcomes).await;
    let counted = async || world.messages_in(topology::COMMANDS) == Some(20);
    eventually("one for each", counted).await;
    let properties = &world.peek(topology::COMMANDS)["properties"];
    assert_eq!(properties["content_type"], "application/json");
    assert_eq!((&properties["type"], &properties["delivery_mode"]), (&"command".into(), &2.into()));
    assert_eq!(properties["message_id"], Uuid::from_u128(0).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_exists_is_used_as_it_is() {
    let world = World::new();
    world.declare_classic(OLDER);
    for number in 0..2 {
        let context = world.context_of(tasks(&[OLDER, topology::EVENTS]));
        let publisher = start(&context).await;
        assert_eq!(world.queue_type(OLDER), "classic");
        assert_eq!(world.queue_type(topology::EVENTS), "quorum");
        let lane = Lane::retry(DELAY, OLDER, TaskKind::Event, 1, "no");
        confirmed(vec![publish(&publisher, &lane, number).await]).await;
        let mut deliveries = consume(&context, OLDER, 10).await;
        let delivery = next(&mut deliveries).await;
        assert_eq!((numbers(&delivery.body), delivery.attempts()), (vec![number], 1));
        assert!(delivery.ack().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_missing_is_declared() {
    let (world, context, publisher) = started(&[OLDER]).await;
    assert_eq!(world.queue_type(OLDER), "quorum");
    assert_eq!(world.keys(topology::TASKS, OLDER), [OLDER]);
    let again = world.context_of(tasks(&[OLDER]));
    start(&again).await;
    // As on every new connection.
    world.delete_queue(OLDER);
    let mut deliveries = consume(&context, OLDER, 10).await;
    let lane = Lane::task(OLDER, TaskKind::Event);
    confirmed(vec![publish(&publisher, &lane, 1).await]).await;
    assert_eq!(numbers(&next(&mut deliveries).await.body), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_queue_is_a_dead_letter_after_a_delay_too() {
    let (world, _context, publisher) = started(&[topology::EVENTS]).await;
    let unknown = Lane::task("nobody", TaskKind::Event);
    let gone = Lane::retry(DELAY, "gone", TaskKind::Event, 2, "503");
    let outcomes =
        vec![publish(&publisher, &unknown, 1).await, publish(&publisher, &gone, 2).await];
    confirmed(outcomes).await;
    let operator = world.operator().await;
    let both = async || dead::count(&operator).await.unwrap() == 2;
    eventually("both are dead letters", both).await;
    let entries = dead::list(&operator, &Selection::All, 10).await.unwrap();
    for (entry, key) in entries.iter().zip(["nobody", "gone"]) {
        assert_eq!((&*entry.reason, &*entry.stage), ("unroutable", "rabbitmq"), "{entry:?}");
        assert_eq!((&*entry.origin_exchange, &*entry.origin_key), (topology::TASKS, key));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_task_is_replayed_whole_to_its_queue() {
    let (world, context, publisher) = started(&[topology::EVENTS]).await;
    let retried = Lane::retry(DELAY, topology::EVENTS, TaskKind::Event, 4, "503");
    confirmed(vec![publish(&publisher, &retried, 5).await]).await;
    let mut deliveries = consume(&context, topology::EVENTS, 10).await;
    let given_up = next(&mut deliveries).await;
    let letter = DeadLetter {
        reason: Reason::AttemptsExhausted,
        stage: Stage::Worker,
        error: "attempt 5: 503",
        origin_exchange: topology::TASKS,
        origin_key: topology::EVENTS,
    };
    let lane = Lane::dead(&letter).on_behalf_of("somebody").of_task(given_up.kind());
    confirmed(vec![publish(&publisher, &lane, 5).await]).await;
    assert!(given_up.ack().await);
    drop(deliveries);

    let operator = world.operator().await;
    let entries = dead::list(&operator, &Selection::All, 10).await.unwrap();
    assert_eq!((&*entries[0].reason, entries.len()), ("attempts_exhausted", 1));
    assert_eq!(dead::replay(&operator, &Selection::All).await.unwrap().count, 1);
    let properties = &world.peek(topology::EVENTS)["properties"];
    assert_eq!(properties["content_type"], "application/json");
    let mut deliveries = consume(&context, topology::EVENTS, 10).await;
    let again = next(&mut deliveries).await;
    assert_eq!((again.body.as_slice(), again.kind()), (&*given_up.body, Some("event")));
    assert_eq!((again.message_id(), again.app_id()), (given_up.message_id(), Some("somebody")));
    assert_eq!((&*again.exchange, &*again.routing_key), (topology::TASKS, topology::EVENTS));
    assert_eq!((again.attempts(), again.header("error")), (0, None));
    assert_eq!((again.header("reason"), again.header("origin-type")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_may_have_both_topologies() {
    let world = World::new();
    let ingest = Topology::for_ingest(&IngestConfig::default(), &[]);
    let both = ingest.and(tasks(&[topology::EVENTS, OLDER]));
    let operator = world.operator().await;
    for _ in 0..2 {
        operator.declare(&both).await.unwrap();
    }
    let context = world.context_of(both);
    let publisher = start(&context).await;
    let event = Lane::task("event", TaskKind::Event);
    let outcomes =
        vec![publish(&publisher, &telemetry(), 1).await, publish(&publisher, &event, 2).await];
    confirmed(outcomes).await;
    for (queue, number) in [(topology::INGEST, 1), (topology::EVENTS, 2)] {
        let mut deliveries = consume(&context, queue, 10).await;
        assert_eq!(numbers(&next(&mut deliveries).await.body), [number]);
    }
}
