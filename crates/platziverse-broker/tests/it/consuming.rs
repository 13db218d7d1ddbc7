use platziverse_broker::{Publisher, topology};
use platziverse_config::IngestConfig;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_redelivers_what_was_not_acknowledged() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
    let lane = telemetry().alone();
    let mut outcomes = Vec::new();
    for number in 0..4 {
        outcomes.push(publish(&publisher, &lane, number).await);
    }
    confirmed(outcomes).await;

    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    assert!(next(&mut deliveries).await.ack().await);
    let held = next(&mut deliveries).await;
    world.close_connections().await;
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
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    world.delete_queue(topology::INGEST);
    let (lane, publisher) = (telemetry(), &publisher);
    // Until it is back, lines go to the dead letters.
    let mut number = 0;
    let delivery = loop {
        confirmed(vec![publish(publisher, &lane, number).await]).await;
        number += 1;
        if let Some(delivery) = deliveries.try_next() {
            break delivery;
        }
        tokio::task::yield_now().await;
    };
    assert!(delivery.ack().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_deliveries_make_a_dead_letter() {
    let world = World::new();
    let context = world.context(&IngestConfig { delivery_limit: 2, ..IngestConfig::default() });
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
    confirmed(vec![publish(&publisher, &telemetry(), 5).await]).await;
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    let mut dead = consume(&context, topology::DEAD, 10).await;
    let requeueing = async {
        loop {
            next(&mut deliveries).await.reject().await;
        }
    };
    let delivery = tokio::select! {
        delivery = next(&mut dead) => delivery,
        () = requeueing => unreachable!(),
    };
    assert_eq!(numbers(&delivery.body), [5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_until_deliveries_are_settled() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
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

    let again = world.context(&IngestConfig::default());
    let path = format!("queues/{}/{}", again.amqp.vhost, topology::INGEST);
    eventually("the queue is empty", async || world.call("GET", &path, "")["messages"] == 0).await;
}
