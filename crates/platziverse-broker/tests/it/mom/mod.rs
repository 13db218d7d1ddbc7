//! Messages of applications.

mod ending;
mod leasing;
mod losing;
mod publishing;
mod streaming;
mod taking;

use std::time::Duration;

use bytes::Bytes;
use platziverse_broker::mom::{
    AckMode, Mom, MomError, MomQueueOptions, MomSettings, Post, Taken, queue_name,
};
use platziverse_broker::{Context, Topology};
use platziverse_config::IngestConfig;
use platziverse_protocol::time::Timestamp;
use uuid::Uuid;

use crate::world::*;

const QUEUE: &str = "mom.queue.jobs";

const LIMITS: MomQueueOptions = MomQueueOptions {
    max_length: 100_000,
    max_bytes: 1 << 30,
    delivery_limit: 20,
    message_ttl: None,
};

const MANUAL: AckMode = AckMode::Manual { lease: Duration::from_secs(60) };

fn context(world: &World) -> Context {
    world.context_of(Topology::for_mom(&IngestConfig::default()))
}

async fn start_with(world: &World, settings: MomSettings) -> (Context, Mom) {
    let context = context(world);
    let mom = Mom::start(&context, settings).await.unwrap();
    (context, mom)
}

/// One more server.
async fn another(world: &World, instance: &str) -> (Context, Mom) {
    start_with(world, MomSettings::new(instance)).await
}

/// A vhost with one server and the queue `jobs`.
async fn started() -> (World, Context, Mom) {
    let world = World::new();
    let (context, mom) = another(&world, "host:1").await;
    mom.declare_queue("jobs", &LIMITS).await.unwrap();
    assert_eq!(queue_name("jobs"), QUEUE);
    (world, context, mom)
}

/// A message whose body is the number.
fn post(number: u32) -> Post {
    post_to(vec![QUEUE.to_owned()], number)
}

fn post_to(queues: Vec<String>, number: u32) -> Post {
    Post {
        id: Uuid::now_v7(),
        queues,
        origin: "queue/jobs".to_owned(),
        user: Uuid::from_u128(1),
        content_type: "text/plain".to_owned(),
        headers: Vec::new(),
        body: Bytes::from(number.to_string()),
        timestamp: Timestamp::from_millis(1_780_000_000_000).unwrap(),
    }
}

fn number(taken: &Taken) -> u32 {
    std::str::from_utf8(&taken.message.body).unwrap().parse().unwrap()
}

/// Publishes the numbers below `count`.
async fn fill(mom: &Mom, count: u32) {
    let publishing = (0..count).map(|number| mom.publish(post(number)));
    let outcomes = soon("confirmed", futures_util::future::join_all(publishing)).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

async fn take_now(mom: &Mom) -> Option<Taken> {
    take(mom, Duration::ZERO, AckMode::Auto).await.unwrap()
}

async fn take(mom: &Mom, wait: Duration, mode: AckMode) -> Result<Option<Taken>, MomError> {
    soon("an answer", mom.take(QUEUE, wait, mode)).await
}

/// Takes the next message, which is there already or soon.
async fn next_of(mom: &Mom, mode: AckMode) -> Taken {
    take(mom, Duration::from_secs(30), mode).await.unwrap().unwrap()
}

async fn holds(mom: &Mom, count: u32) {
    let queue = async || mom.count(QUEUE).await == Ok(count);
    eventually(&format!("{count} messages in the queue"), queue).await;
}
