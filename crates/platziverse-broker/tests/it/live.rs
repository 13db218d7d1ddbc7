use platziverse_broker::dead::{self, Selection};
use platziverse_broker::{
    Bound, Context, Lane, LiveHandle, LiveMessages, LiveOptions, LiveQueue, Message, Publisher,
    Topology, heartbeat, topology,
};
use platziverse_config::{IngestConfig, Route};
use platziverse_protocol::heartbeat::Heartbeat;
use platziverse_protocol::time::Timestamp;
use platziverse_protocol::topic::TopicFilter;

use crate::world::*;

async fn listen(context: &Context) -> (LiveHandle, LiveMessages) {
    LiveQueue::start(context, LiveOptions::live(&"host:1", 1_000)).await.unwrap()
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

async fn bind(handle: &LiveHandle, key: &str) -> Bound {
    handle.rebind(keys(&[key]), keys(&[])).await
}

async fn next_live(messages: &mut LiveMessages) -> Message {
    soon("a live message", messages.next()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hears_what_it_is_bound_to() {
    let (_world, context, publisher) = started().await;
    let (handle, mut messages) = listen(&context).await;
    assert!(handle.listening_since().is_some());
    assert_eq!(bind(&handle, "agent.message").await, Bound::Now);
    assert_eq!(bind(&handle, "plant.*").await, Bound::Now);
    assert_eq!(bind(&handle, "plant.*").await, Bound::Now);

    // One publish serves storage and listeners.
    confirmed(vec![publish(&publisher, &telemetry(), 1).await]).await;
    assert_eq!(numbers(&next_live(&mut messages).await.body), [1]);
    // Bound twice, it is still bound after one unbind.
    handle.rebind(keys(&[]), keys(&["plant.*"])).await;
    assert_eq!(bind(&handle, "sync").await, Bound::Now);
    confirmed(vec![publish(&publisher, &Lane::live("plant.a"), 2).await]).await;
    assert_eq!(numbers(&next_live(&mut messages).await.body), [2]);
    // Not bound at all, it is no fault and not heard.
    handle.rebind(keys(&[]), keys(&["plant.*"])).await;
    assert_eq!(bind(&handle, "later").await, Bound::Now);
    confirmed(vec![publish(&publisher, &Lane::live("plant.a"), 3).await]).await;
    confirmed(vec![publish(&publisher, &Lane::live("later"), 4).await]).await;
    assert_eq!(numbers(&next_live(&mut messages).await.body), [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_listener_hears_is_kept_although_its_queue_is_gone() {
    let (world, context, publisher) = started().await;
    let (handle, mut messages) = listen(&context).await;
    assert_eq!(bind(&handle, "agent.message").await, Bound::Now);
    world.delete_queue(topology::INGEST);
    confirmed(vec![publish(&publisher, &telemetry(), 1).await]).await;
    assert_eq!(numbers(&next_live(&mut messages).await.body), [1]);

    let operator = world.operator().await;
    let entries = dead::list(&operator, &Selection::All, 10).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].reason, "unroutable");
    operator.declare(&context.topology).await.unwrap();
    assert_eq!(dead::replay(&operator, &Selection::All).await.unwrap().count, 1);
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    assert_eq!(numbers(&next(&mut deliveries).await.body), [1]);
    operator.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_routed_is_kept_although_its_queue_is_gone() {
    let world = World::new();
    let filter = TopicFilter::parse("plant/#").unwrap();
    let routes = [Route { filter, queue: "plant".to_owned() }];
    let context = world.context_of(Topology::for_ingest(&IngestConfig::default(), &routes));
    let publisher = start(&context).await;
    let lane = Lane::live("plant.a");
    confirmed(vec![publish(&publisher, &lane, 1).await]).await;
    let mut deliveries = consume(&context, "plant", 10).await;
    let delivery = next(&mut deliveries).await;
    assert_eq!((numbers(&delivery.body), &*delivery.exchange), (vec![1], topology::LIVE));
    assert!(delivery.ack().await);
    drop((delivery, deliveries));

    let (handle, mut messages) = listen(&context).await;
    assert_eq!(bind(&handle, "plant.a").await, Bound::Now);
    world.delete_queue("plant");
    confirmed(vec![publish(&publisher, &lane, 2).await]).await;
    assert_eq!(numbers(&next_live(&mut messages).await.body), [2]);
    let operator = world.operator().await;
    let entries = dead::list(&operator, &Selection::All, 10).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].reason, "unroutable");
    assert_eq!(entries[0].origin_exchange, topology::LIVE);
    // What nobody has a route for is no dead letter.
    confirmed(vec![publish(&publisher, &Lane::live("other"), 3).await]).await;
    assert_eq!(dead::list(&operator, &Selection::All, 10).await.unwrap().len(), 1);
    operator.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_made_in_the_order_in_which_they_are_asked_for() {
    let (_world, context, publisher) = started().await;
    let (handle, mut messages) = listen(&context).await;
    // Nobody waits for these, and they are made all the same.
    drop(handle.rebind(keys(&["gone", "kept"]), keys(&[])));
    drop(handle.rebind(keys(&[]), keys(&["gone"])));
    drop(handle.rebind(keys(&["swapped"]), keys(&["kept"])));
    drop(handle.rebind(keys(&["kept"]), keys(&["swapped"])));
    let many: Vec<_> = (0..100).map(|n| format!("many.{n}")).collect();
    let first = handle.rebind(many.clone(), keys(&[]));
    // Counted already, but RabbitMQ need not have them yet.
    assert_eq!(handle.rebind(many, keys(&[])).await, Bound::Now);
    for (number, key) in [(1, "gone"), (2, "swapped"), (3, "kept"), (4, "many.0"), (5, "many.99")] {
        confirmed(vec![publish(&publisher, &Lane::live(key), number).await]).await;
    }
    for number in 3..=5 {
        assert_eq!(numbers(&next_live(&mut messages).await.body), [number]);
    }
    assert_eq!(first.await, Bound::Now);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connection_bindings_are_made_later() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let (handle, mut messages) = listen(&context).await;
    let before = handle.listening_since();
    world.close_connections(1).await;
    let rebound = handle.rebind(keys(&["a"]), keys(&[]));
    assert_eq!(soon("an answer", rebound).await, Bound::Now, "the next connection makes it");
    assert_ne!(handle.listening_since(), before);
    let publisher = start(&context).await;
    confirmed(vec![publish(&publisher, &Lane::live("a"), 1).await]).await;
    assert_eq!(numbers(&next_live(&mut messages).await.body), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_forgets_a_queue_that_did_not_start_or_has_ended() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let mut nowhere = context.clone();
    nowhere.amqp.port = 1;
    assert!(LiveQueue::start(&nowhere, LiveOptions::live(&"host:1", 10)).await.is_err());
    assert!(context.readiness.is_ready());
    let (handle, messages) = listen(&context).await;
    assert!(context.readiness.is_ready());
    world.close_connections(1).await;
    drop(messages);
    let ended = async || bind(&handle, "a").await == Bound::Later;
    eventually("the queue has ended", ended).await;
    eventually("nothing depends on it", async || context.readiness.is_ready()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_bound_again_after_a_lost_connection() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let (handle, mut messages) = listen(&context).await;
    assert_eq!(bind(&handle, "a").await, Bound::Now);
    let before = handle.listening_since();
    world.close_connections(1).await;
    let renewed = async || handle.listening_since().is_some_and(|since| Some(since) != before);
    eventually("listening again", renewed).await;
    assert_eq!(bind(&handle, "b").await, Bound::Now);

    let publisher = start(&context).await;
    for (number, key) in [(1, "a"), (2, "b")] {
        confirmed(vec![publish(&publisher, &Lane::live(key), number).await]).await;
        assert_eq!(numbers(&next_live(&mut messages).await.body), [number]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_prefetch_arrives() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let (handle, mut messages) =
        LiveQueue::start(&context, LiveOptions::live(&"host:1", 100_000)).await.unwrap();
    assert_eq!(bind(&handle, "a").await, Bound::Now);
    let publisher = start(&context).await;
    let lane = Lane::live("a").alone();
    let mut outcomes = Vec::new();
    for number in 0..3_000 {
        outcomes.push(publish(&publisher, &lane, number).await);
    }
    confirmed(outcomes).await;
    for number in 0..3_000 {
        assert_eq!(numbers(&next_live(&mut messages).await.body), [number]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_heard_by_everybody() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let mut hearers = Vec::new();
    for instance in ["host:1", "host:2"] {
        hearers.push(LiveQueue::start(&context, LiveOptions::heartbeat(&instance)).await.unwrap());
    }
    let publisher: Publisher<()> = Publisher::start(&context, OPTIONS).await.unwrap();
    let beat = Heartbeat {
        instance: "host:3".to_owned(),
        service: "gateway".to_owned(),
        time: Timestamp::EPOCH,
    };
    publisher.publish(heartbeat::outgoing(&beat, ())).await.unwrap();
    for (_, messages) in &mut hearers {
        assert_eq!(heartbeat::read(&next_live(messages).await).unwrap(), beat);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_rabbitmq_refuses_is_left_out() {
    let (world, context, publisher) = started().await;
    let (handle, mut messages) = listen(&context).await;
    assert_eq!(bind(&handle, "a").await, Bound::Now);
    let since = handle.listening_since();
    world.permit_live_bindings("^[abcz]$");
    let many = ["refused", "b", "also.refused", "#"];
    assert_eq!(handle.rebind(keys(&many), keys(&["also.refused"])).await, Bound::Later);
    assert_eq!(bind(&handle, "c").await, Bound::Now);
    assert_eq!(handle.listening_since(), since, "it has heard everything meanwhile");
    assert!(context.readiness.is_ready());
    hears(&publisher, &mut messages, &["a", "b", "c"], &["refused"]).await;

    // On a new connection all is bound that may be.
    world.permit_live_bindings("^[abcz]$|^refused$");
    world.close_connections(2).await;
    let renewed = async || handle.listening_since().is_some_and(|now| Some(now) != since);
    eventually("listening again", renewed).await;
    hears(&publisher, &mut messages, &["a", "refused", "c"], &["also.refused"]).await;
    // What is not bound is not unbound.
    handle.rebind(keys(&[]), keys(&["#", "a"])).await;
    assert_eq!(bind(&handle, "z").await, Bound::Now);
    hears(&publisher, &mut messages, &["b", "z"], &["a"]).await;
}

/// Of what is published under all these keys, those of the first are heard.
async fn hears(
    publisher: &TestPublisher,
    messages: &mut LiveMessages,
    heard: &[&str],
    not_heard: &[&str],
) {
    for key in not_heard.iter().chain(heard) {
        confirmed(vec![publish(publisher, &Lane::live(key), 1).await]).await;
    }
    for key in heard {
        assert_eq!(next_live(messages).await.routing_key, *key);
    }
}
