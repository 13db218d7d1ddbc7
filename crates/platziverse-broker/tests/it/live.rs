use platziverse_broker::{
    Bound, Context, Lane, LiveHandle, LiveMessages, LiveOptions, LiveQueue, Message, Publisher,
    heartbeat,
};
use platziverse_config::IngestConfig;
use platziverse_protocol::heartbeat::Heartbeat;
use platziverse_protocol::time::Timestamp;

use crate::world::*;

async fn listen(context: &Context) -> (LiveHandle, LiveMessages) {
    LiveQueue::start(context, LiveOptions::live(&"host:1", 1_000)).await.unwrap()
}

async fn next_live(messages: &mut LiveMessages) -> Message {
    soon("a live message", messages.next()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hears_what_it_is_bound_to() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
    let (handle, mut messages) = listen(&context).await;
    assert!(handle.listening_since().is_some());
    assert_eq!(handle.bind("agent.message").await, Bound::Now);
    assert_eq!(handle.bind("plant.*").await, Bound::Now);
    assert_eq!(handle.bind("plant.*").await, Bound::Now);

    // One publish serves storage and listeners.
    confirmed(vec![publish(&publisher, &telemetry(), 1).await]).await;
    assert_eq!(numbers(&next_live(&mut messages).await.body), [1]);
    // Bound twice, it is still bound after one unbind.
    handle.unbind("plant.*").await;
    assert_eq!(handle.bind("sync").await, Bound::Now);
    confirmed(vec![publish(&publisher, &Lane::live("plant.a"), 2).await]).await;
    assert_eq!(numbers(&next_live(&mut messages).await.body), [2]);
    // Not bound at all, it is no fault and not heard.
    handle.unbind("plant.*").await;
    assert_eq!(handle.bind("later").await, Bound::Now);
    confirmed(vec![publish(&publisher, &Lane::live("plant.a"), 3).await]).await;
    confirmed(vec![publish(&publisher, &Lane::live("later"), 4).await]).await;
    assert_eq!(numbers(&next_live(&mut messages).await.body), [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn is_bound_again_after_a_lost_connection() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let (handle, mut messages) = listen(&context).await;
    assert_eq!(handle.bind("a").await, Bound::Now);
    let before = handle.listening_since();
    world.close_connections().await;
    let renewed = async || handle.listening_since().is_some_and(|since| Some(since) != before);
    eventually("listening again", renewed).await;
    assert_eq!(handle.bind("b").await, Bound::Now);

    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
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
    assert_eq!(handle.bind("a").await, Bound::Now);
    let publisher: TestPublisher = Publisher::start(&context, OPTIONS).await.unwrap();
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
