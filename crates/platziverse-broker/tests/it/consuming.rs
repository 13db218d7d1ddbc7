use platziverse_broker::dead::{self, Selection};
use platziverse_broker::{Lane, Publisher, topology};
use platziverse_config::IngestConfig;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_redelivers_what_was_not_acknowledged() {
    let (world, context, publisher) = started().await;
    let lane = telemetry().alone();
    let mut outcomes = Vec::new();
    for number in 0..4 {
        outcomes.push(publish(&publisher, &lane, number).await);
    }
    confirmed(outcomes).await;

    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    assert!(next(&mut deliveries).await.ack().await);
    let held = next(&mut deliveries).await;
    world.close_connections(2).await;
    eventually("the held one is stale", async || held.is_stale()).await;
    assert!(!held.ack().await, "nobody is there to take it");

    let mut again = Vec::new();
    while again.len() < 3 {
        let delivery = next(&mut deliveries).await;
        again.extend(numbers(&delivery.body));
        assert!(delivery.ack().await);
    }
    again.sort_unstable();
    assert_eq!(again, [1, 2, 3]);
    eventually("ready again", async || context.readiness.is_ready()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_made_and_consumed_again() {
    let (world, context, publisher) = started().await;
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    world.delete_queue(topology::INGEST);
    let (lane, publisher) = (telemetry(), &publisher);
    // Until it is back, lines go to the dead letters.
    let mut number = 0;
    let redeclared = async {
        loop {
            confirmed(vec![publish(publisher, &lane, number).await]).await;
            number += 1;
            if let Some(delivery) = deliveries.try_next() {
                break delivery;
            }
            tokio::task::yield_now().await;
        }
    };
    let delivery = soon("the queue is back", redeclared).await;
    assert!(delivery.ack().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_deliveries_make_a_dead_letter() {
    let world = World::new();
    let config = IngestConfig { delivery_limit: 2, ..IngestConfig::default() };
    let context = world.context(&config);
    let publisher = start(&context).await;
    confirmed(vec![publish(&publisher, &telemetry(), 5).await]).await;
    // Whoever takes it dies of it.
    for delivered in 0..3 {
        let delivery = die_of_the_next(&world, &config).await;
        assert_eq!((numbers(&delivery.body), delivery.redelivered), (vec![5], delivered > 0));
    }
    let mut dead = consume(&context, topology::DEAD, 10).await;
    let delivery = next(&mut dead).await;
    assert_eq!(numbers(&delivery.body), [5]);
    assert_eq!(delivery.header("x-first-death-reason").as_deref(), Some("delivery_limit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_shards_leave_nothing_behind() {
    let world = World::new();
    let one = world.context(&IngestConfig::default());
    let publisher: TestPublisher = Publisher::start(&one, OPTIONS).await.unwrap();
    confirmed(vec![publish(&publisher, &telemetry(), 1).await]).await;
    // As before there was an exchange of that name.
    let path =
        format!("bindings/{}/e/{}/q/{}", one.amqp.vhost, topology::TELEMETRY, topology::INGEST);
    world.call("POST", &path, r##"{"routing_key": "agent.#"}"##);

    let config = IngestConfig { shards: 2, ..IngestConfig::default() };
    let two = world.context(&config);
    let sharded: TestPublisher = Publisher::start(&two, OPTIONS).await.unwrap();
    assert_eq!(world.keys(topology::INGEST, topology::INGEST), ["agent.*"]);
    assert!(world.keys(topology::TELEMETRY, topology::INGEST).is_empty());
    let lane = Lane::new(topology::TELEMETRY, "agent.message.1", "agent.message");
    confirmed(vec![publish(&sharded, &lane, 2).await]).await;
    // A gateway that still has the old setting.
    confirmed(vec![publish(&publisher, &telemetry(), 3).await]).await;

    let mut got = Vec::new();
    for queue in topology::ingest_queues(2) {
        let mut deliveries = consume(&two, &queue, 10).await;
        let count = if queue == topology::INGEST { 2 } else { usize::from(queue.ends_with(".1")) };
        for _ in 0..count {
            let delivery = next(&mut deliveries).await;
            got.extend(numbers(&delivery.body));
            assert!(delivery.ack().await);
        }
        assert!(deliveries.try_next().is_none(), "stored once");
    }
    assert_eq!(got, [2, 1, 3]);
    let operator = world.operator().await;
    assert!(dead::list(&operator, &Selection::All, 1).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_until_deliveries_are_settled() {
    let (world, context, publisher) = started().await;
    confirmed(vec![publish(&publisher, &telemetry(), 1).await]).await;
    drop(publisher);
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    let held = next(&mut deliveries).await;
    context.drain.request();
    assert!(soon("the end", deliveries.next()).await.is_none());
    drop(deliveries);
    assert!(held.ack().await, "the connection is open while something is held");
    drop(held);
    soon("a clean end", context.drain.finished()).await;

    eventually("the queue is empty", async || world.messages_in(topology::INGEST) == Some(0)).await;
}
