use std::collections::BTreeSet;

use bytes::Bytes;
use platziverse_broker::dead::{self, DeadLetter, Handled, Selection};
use platziverse_broker::{Lane, Outgoing, Publisher, topology};
use platziverse_config::IngestConfig;
use platziverse_protocol::dead::{Reason, Stage};
use platziverse_service::chain;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::world::*;

async fn bury(publisher: &TestPublisher, number: u128, reason: Reason) {
    let letter = DeadLetter {
        reason,
        stage: Stage::Worker,
        error: "it is bad",
        origin_exchange: topology::TELEMETRY,
        origin_key: "agent.message",
    };
    let (receipt, outcome) = oneshot::channel();
    let line = Bytes::from(format!("{{\"number\":{number}}}\n"));
    let outgoing =
        Outgoing { lane: Lane::dead(&letter), id: Uuid::from_u128(number), line, receipt };
    publisher.publish(outgoing).await.unwrap();
    confirmed(vec![outcome]).await;
}

fn id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_shown_replayed_and_purged() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
    let reasons = [Reason::InvalidJson, Reason::DatabaseRefused, Reason::InvalidJson];
    for (number, reason) in (1..).zip(reasons) {
        bury(&publisher, number, reason).await;
    }
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
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
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
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let operator = world.operator().await;
    operator.declare(&context.topology).await.unwrap();
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
    let letter = DeadLetter {
        reason: Reason::UnknownTopic,
        stage: Stage::Gateway,
        error: "",
        origin_exchange: topology::HEARTBEAT,
        origin_key: "nobody",
    };
    let lane = Lane::dead(&letter);
    confirmed(vec![publish(&publisher, &lane, 1).await]).await;
    let error = dead::replay(&operator, &Selection::All).await.unwrap_err().to_string();
    let wanted = "publishing to platziverse.heartbeat under \"nobody\": RabbitMQ returned it: it \
                  reaches no queue there";
    assert_eq!(error, wanted);
    operator.close().await;
    let operator = world.operator().await;
    let kept = async || dead::list(&operator, &Selection::All, 9).await.unwrap().len() == 1;
    eventually("it is still there", kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_to_listeners_needs_none() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let operator = world.operator().await;
    operator.declare(&context.topology).await.unwrap();
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
    let letter = DeadLetter {
        reason: Reason::RetainUnsupported,
        stage: Stage::Gateway,
        error: "",
        origin_exchange: topology::LIVE,
        origin_key: "nobody",
    };
    confirmed(vec![publish(&publisher, &Lane::dead(&letter), 1).await]).await;
    assert_eq!(dead::replay(&operator, &Selection::All).await.unwrap().count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forbidden_is_replayed_only_by_name() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
    let reasons = [Reason::NotAuthorized, Reason::InvalidJson, Reason::NotAuthorized];
    for (number, reason) in (1..).zip(reasons) {
        bury(&publisher, number, reason).await;
    }
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
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
    // The first two have one id.
    for (number, reason) in
        [(1, Reason::InvalidJson), (1, Reason::InvalidJson), (2, Reason::PacketTooLarge)]
    {
        bury(&publisher, number, reason).await;
    }
    let operator = world.operator().await;
    let ids = |numbers: &[u128]| -> BTreeSet<_> { numbers.iter().copied().map(id).collect() };
    let replay = async |selection: Selection| dead::replay(&operator, &selection).await.unwrap();
    let all = Handled { count: 2, ids: ids(&[1, 2]), cut: 1 };
    assert_eq!(replay(Selection::All).await, all);
    let left = async || dead::count(&operator).await.unwrap() == 1;
    eventually("one is left", left).await;
    let one = Handled { count: 0, ids: ids(&[2]), cut: 1 };
    assert_eq!(replay(Selection::Ids(ids(&[2, 3]))).await, one);
    let by_reason = Selection::Reason("packet_too_large".to_owned());
    assert_eq!(replay(by_reason.clone()).await, one);
    let deleted = Handled { count: 1, ids: ids(&[2]), cut: 0 };
    assert_eq!(dead::purge(&operator, &by_reason).await.unwrap(), deleted);
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    for _ in 0..2 {
        assert_eq!(numbers(&next(&mut deliveries).await.body), [1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_replayed_in_order_and_what_reaches_nothing_stays() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
    let letter = |origin_key| DeadLetter {
        reason: Reason::DatabaseRefused,
        stage: Stage::Worker,
        error: "",
        origin_exchange: if origin_key == "nobody" {
            topology::HEARTBEAT
        } else {
            topology::TELEMETRY
        },
        origin_key,
    };
    for (numbers, origin_key) in
        [(0..100, "agent.message"), (100..101, "nobody"), (101..150, "agent.message")]
    {
        let mut outcomes = Vec::new();
        for number in numbers {
            outcomes.push(publish(&publisher, &Lane::dead(&letter(origin_key)), number).await);
        }
        confirmed(outcomes).await;
    }
    let operator = world.operator().await;
    let error = dead::replay(&operator, &Selection::All).await.unwrap_err().to_string();
    assert_eq!(error, "after 127 dead letters were sent back");
    operator.close().await;
    let operator = world.operator().await;
    // All that were on their way with the one that failed are settled; those behind are not sent.
    let left = async || -> Vec<_> {
        let entries = dead::list(&operator, &Selection::All, 999).await.unwrap();
        let mut ids: Vec<_> = entries.into_iter().filter_map(|entry| entry.id).collect();
        ids.sort();
        ids
    };
    let wanted: Vec<_> = std::iter::once(100).chain(128..150).map(id).collect();
    eventually("those are left", async || left().await == wanted).await;
    let mut deliveries = consume(&context, topology::INGEST, 200).await;
    for number in (0..128).filter(|number| *number != 100) {
        assert_eq!(numbers(&next(&mut deliveries).await.body), [number]);
    }
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
