use std::collections::BTreeSet;

use platziverse_broker::dead::{self, DeadLetter, Handled, Selection};
use platziverse_broker::{Connection, Lane, topology};
use platziverse_config::IngestConfig;
use platziverse_protocol::dead::{Reason, Stage};
use platziverse_service::chain;
use uuid::Uuid;

use crate::world::*;

fn letter(reason: Reason, origin_exchange: &'static str, origin_key: &'static str) -> Lane {
    let (stage, error) = (Stage::Worker, "it is bad");
    Lane::dead(&DeadLetter { reason, stage, error, origin_exchange, origin_key })
}

/// Buries letters of workers, each with a number and for a reason.
async fn bury(publisher: &TestPublisher, letters: impl IntoIterator<Item = (u128, Reason)>) {
    for (number, reason) in letters {
        let lane = letter(reason, topology::TELEMETRY, "agent.message");
        confirmed(vec![publish(publisher, &lane, number).await]).await;
    }
}

/// Buries a letter for each number, where the exchange is its origin under the key.
async fn bury_all(
    publisher: &TestPublisher,
    numbers: std::ops::Range<u128>,
    (exchange, key): (&'static str, &'static str),
) {
    let lane = letter(Reason::DatabaseRefused, exchange, key);
    let mut outcomes = Vec::new();
    for number in numbers {
        outcomes.push(publish(publisher, &lane, number).await);
    }
    confirmed(outcomes).await;
}

/// Replays all that RabbitMQ will have; what it says of the others.
async fn replay_with_trouble(operator: &Connection) -> String {
    chain(&dead::replay(operator, &Selection::All).await.unwrap_err())
}

/// Waits until these letters are left, in any order.
async fn left(operator: &Connection, wanted: &[u128]) {
    let wanted: BTreeSet<_> = wanted.iter().copied().map(id).collect();
    let are_left = async || {
        let entries = dead::list(operator, &Selection::All, 999).await.unwrap();
        entries.into_iter().filter_map(|entry| entry.id).collect::<BTreeSet<_>>() == wanted
    };
    eventually("those are left", are_left).await;
}

fn id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_shown_replayed_and_purged() {
    let (world, context, publisher) = started().await;
    let reasons = [Reason::InvalidJson, Reason::DatabaseRefused, Reason::InvalidJson];
    bury(&publisher, (1..).zip(reasons)).await;
    let operator = world.operator().await;
    let ids = async |selection: &Selection, limit| -> Vec<_> {
        let entries = dead::list(&operator, selection, limit).await.unwrap();
        entries.into_iter().filter_map(|entry| entry.id).collect()
    };
    // Looking changes nothing, however often.
    for _ in 0..3 {
        eventually("all are back", async || ids(&Selection::All, 10).await.len() == 3).await;
    }
    assert_eq!(ids(&Selection::All, 2).await, [id(1), id(2)]);
    assert_eq!(ids(&Selection::Reason("invalid_json".to_owned()), 10).await, [id(1), id(3)]);

    let shown = dead::show(&operator, &id(2)).await.unwrap().unwrap();
    assert_eq!(numbers(&shown.body), [2]);
    assert_eq!(shown.entry.reason, "database_refused");
    assert_eq!(shown.entry.stage, "worker");
    assert_eq!(shown.entry.error.as_deref(), Some("it is bad"));
    assert_eq!(shown.entry.records, 1);
    assert!(shown.entry.at.is_some());
    assert_eq!(shown.headers["origin"], topology::TELEMETRY);
    assert!(dead::show(&operator, "nobody").await.unwrap().is_none());

    let one = Selection::Ids(BTreeSet::from([id(2)]));
    assert_eq!(dead::replay(&operator, &one).await.unwrap().count, 1);
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    let delivery = next(&mut deliveries).await;
    assert_eq!(numbers(&delivery.body), [2]);
    assert_eq!(delivery.message_id(), Some(id(2).as_str()));
    assert_eq!(delivery.app_id(), Some(&*context.name), "the first publisher's");
    assert_eq!(delivery.kind(), Some("agent.message"));
    assert_eq!((delivery.records(), delivery.header("reason")), (Some(1), None));

    let reason = Selection::Reason("invalid_json".to_owned());
    assert_eq!(dead::purge(&operator, &reason).await.unwrap().count, 2);
    assert_eq!(dead::purge(&operator, &Selection::All).await.unwrap().count, 0);
    assert!(ids(&Selection::All, 10).await.is_empty());
    operator.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rabbitmq_gave_up_says_where_it_was() {
    let world = World::new();
    let config = IngestConfig { delivery_limit: 1, ..IngestConfig::default() };
    let context = world.context(&config);
    let publisher = start(&context).await;
    confirmed(vec![publish(&publisher, &telemetry(), 9).await]).await;
    for _ in 0..2 {
        die_of_the_next(&world, &config).await;
    }
    let operator = world.operator().await;
    let listed = async || !dead::list(&operator, &Selection::All, 10).await.unwrap().is_empty();
    eventually("it is a dead letter", listed).await;
    let entries = dead::list(&operator, &Selection::All, 10).await.unwrap();
    let entry = &entries[0];
    assert_eq!((entry.reason.as_str(), entry.stage.as_str()), ("delivery_limit", "rabbitmq"));
    assert_eq!(entry.origin_exchange, topology::TELEMETRY);
    assert_eq!(entry.origin_key, "agent.message");
    let error = entry.error.as_deref().unwrap();
    assert_eq!(error, "delivered too often from the queue platziverse.ingest");

    assert_eq!(dead::replay(&operator, &Selection::All).await.unwrap().count, 1);
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    assert_eq!(numbers(&next(&mut deliveries).await.body), [9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_to_nowhere_keeps_the_letter() {
    let (world, _, publisher) = started().await;
    let operator = world.operator().await;
    let lane = letter(Reason::UnknownTopic, topology::HEARTBEAT, "nobody");
    confirmed(vec![publish(&publisher, &lane, 1).await]).await;
    let wanted = "1 dead letter cannot be sent back and stays: publishing to platziverse.heartbeat \
                  under \"nobody\": RabbitMQ returned it: it reaches no queue there";
    assert_eq!(replay_with_trouble(&operator).await, wanted);
    left(&operator, &[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_to_listeners_needs_none() {
    let (world, _, publisher) = started().await;
    let operator = world.operator().await;
    let lane = letter(Reason::RetainUnsupported, topology::LIVE, "nobody");
    confirmed(vec![publish(&publisher, &lane, 1).await]).await;
    assert_eq!(dead::replay(&operator, &Selection::All).await.unwrap().count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_past_letters_that_close_the_channel() {
    let (world, _, publisher) = started().await;
    let (good, bad) = ((topology::LIVE, "good"), (topology::LIVE, "bad"));
    bury_all(&publisher, 0..70, good).await;
    bury_all(&publisher, 70..71, bad).await;
    bury_all(&publisher, 71..140, good).await;
    bury_all(&publisher, 140..142, bad).await;
    world.permit_live_keys("^good");
    let operator = world.operator().await;
    let text = replay_with_trouble(&operator).await;
    let start = "after 139 dead letters were sent back: 3 dead letters cannot be sent back and \
                 stay; why the first: publishing to platziverse.live under \"bad\": ";
    assert!(text.starts_with(start) && text.contains("ACCESS_REFUSED"), "{text}");
    left(&operator, &[70, 140, 141]).await;
    let text = replay_with_trouble(&operator).await;
    assert!(text.starts_with("3 dead letters cannot be sent back"), "none twice: {text}");
    world.permit_live_keys(".*");
    assert_eq!(dead::replay(&operator, &Selection::All).await.unwrap().count, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_no_more_keeps_nothing_from_workers() {
    let world = World::new();
    let context = world.context(&IngestConfig { shards: 2, ..IngestConfig::default() });
    let publisher = start(&context).await;
    bury_all(&publisher, 0..1, (topology::TELEMETRY, "agent.message.3")).await;
    let operator = world.operator().await;
    assert_eq!(dead::replay(&operator, &Selection::All).await.unwrap().count, 1);
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    let delivery = next(&mut deliveries).await;
    assert_eq!(numbers(&delivery.body), [0]);
    assert_eq!(delivery.kind(), Some("agent.message"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forbidden_is_replayed_only_by_name() {
    let (world, context, publisher) = started().await;
    let reasons = [Reason::NotAuthorized, Reason::InvalidJson, Reason::NotAuthorized];
    bury(&publisher, (1..).zip(reasons)).await;
    let operator = world.operator().await;
    assert_eq!(dead::replay(&operator, &Selection::All).await.unwrap().count, 1);
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    assert_eq!(numbers(&next(&mut deliveries).await.body), [2]);
    let all_left = async || dead::list(&operator, &Selection::All, 9).await.unwrap().len() == 2;
    eventually("the others are left", all_left).await;
    let one = Selection::Ids(BTreeSet::from([id(3)]));
    assert_eq!(dead::replay(&operator, &one).await.unwrap().count, 1);
    assert_eq!(numbers(&next(&mut deliveries).await.body), [3]);
    let reason = Selection::Reason("not_authorized".to_owned());
    assert_eq!(dead::replay(&operator, &reason).await.unwrap().count, 1);
    assert_eq!(numbers(&next(&mut deliveries).await.body), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_start_was_kept_of_is_never_replayed() {
    let (world, context, publisher) = started().await;
    // The first two have one id.
    let reasons = [Reason::InvalidJson, Reason::InvalidJson, Reason::PacketTooLarge];
    bury(&publisher, [1, 1, 2].into_iter().zip(reasons)).await;
    let operator = world.operator().await;
    let ids = |numbers: &[u128]| -> BTreeSet<_> { numbers.iter().copied().map(id).collect() };
    let replay = async |selection: Selection| dead::replay(&operator, &selection).await.unwrap();
    let all = Handled { count: 2, cut: 1, ..Handled::default() };
    assert_eq!(replay(Selection::All).await, all);
    let left = async || dead::count(&operator).await.unwrap() == 1;
    eventually("one is left", left).await;
    let one = Handled { count: 0, ids: ids(&[2]), cut: 1 };
    assert_eq!(replay(Selection::Ids(ids(&[2, 3]))).await, one);
    let by_reason = Selection::Reason("packet_too_large".to_owned());
    let none = Handled { cut: 1, ..Handled::default() };
    assert_eq!(replay(by_reason.clone()).await, none);
    let deleted = Handled { count: 1, ..Handled::default() };
    assert_eq!(dead::purge(&operator, &by_reason).await.unwrap(), deleted);
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    for _ in 0..2 {
        assert_eq!(numbers(&next(&mut deliveries).await.body), [1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_replayed_in_order_and_what_reaches_nothing_stays() {
    let (world, context, publisher) = started().await;
    let stored = (topology::TELEMETRY, "agent.message");
    bury_all(&publisher, 0..100, stored).await;
    bury_all(&publisher, 100..101, (topology::HEARTBEAT, "nobody")).await;
    bury_all(&publisher, 101..150, stored).await;
    let operator = world.operator().await;
    let text = replay_with_trouble(&operator).await;
    let start =
        "after 149 dead letters were sent back: 1 dead letter cannot be sent back and stays";
    assert!(text.starts_with(start), "{text}");
    left(&operator, &[100]).await;
    let mut deliveries = consume(&context, topology::INGEST, 200).await;
    for number in (0..150).filter(|number| *number != 100) {
        assert_eq!(numbers(&next(&mut deliveries).await.body), [number]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_ends_at_a_queue_that_is_full() {
    let world = World::new();
    let context = world.context(&IngestConfig { queue_length_max: 5, ..IngestConfig::default() });
    let publisher = start(&context).await;
    bury_all(&publisher, 0..300, (topology::TELEMETRY, "agent.message")).await;
    let operator = world.operator().await;
    let text = replay_with_trouble(&operator).await;
    assert!(text.starts_with("after ") && text.contains("refused it: a queue there is full"));
    let count: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    let rest = async || dead::count(&operator).await.unwrap() == 300 - count;
    eventually("the others are left", rest).await;
    assert!(count < 100, "it did not try all: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_any_service_has_started() {
    let world = World::new();
    let wanted = "the queue platziverse.dead does not exist yet: start a service first";
    for selection in [Selection::All, Selection::Reason("invalid_json".to_owned())] {
        let operator = world.operator().await;
        let listed = dead::list(&operator, &selection, 1).await;
        assert_eq!(chain(&listed.unwrap_err()), wanted);
        let purged = dead::purge(&operator, &selection).await;
        assert_eq!(chain(&purged.unwrap_err()), wanted);
    }
}
