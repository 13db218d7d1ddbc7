use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use platziverse_broker::{
    Lane, LiveOptions, LiveQueue, Outcome, Publisher, PublisherOptions, topology,
};
use platziverse_config::IngestConfig;
use tokio::sync::oneshot;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn lines_arrive_in_order_and_share_messages() {
    let (_world, context, publisher) = started().await;
    let mut outcomes = Vec::new();
    for number in 0..2_000 {
        outcomes.push(publish(&publisher, &telemetry(), number).await);
    }
    confirmed(outcomes).await;

    let mut deliveries = consume(&context, topology::INGEST, 100).await;
    let (mut got, mut messages) = (Vec::new(), 0);
    while got.len() < 2_000 {
        let delivery = next(&mut deliveries).await;
        let lines = numbers(&delivery.body);
        let first = uuid::Uuid::from_u128(lines[0]).to_string();
        assert_eq!(delivery.message_id(), Some(first.as_str()));
        assert_eq!(delivery.records(), Some(lines.len() as u64));
        assert_eq!(delivery.app_id(), Some(&*context.name));
        assert_eq!(delivery.kind(), Some("agent.message"));
        assert_eq!(delivery.exchange, topology::TELEMETRY);
        assert_eq!(delivery.routing_key, "agent.message");
        assert!(delivery.timestamp().is_some() && !delivery.redelivered);
        assert!(delivery.ack_multiple().await);
        got.extend(lines);
        messages += 1;
    }
    assert_eq!(got, (0..2_000).collect::<Vec<_>>());
    assert!(messages < 500, "{messages} messages for 2000 lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_makes_lines_wait_and_loses_none() {
    let world = World::new();
    let context = world.context(&IngestConfig { queue_length_max: 5, ..IngestConfig::default() });
    let options = PublisherOptions { batch_records: 1, ..OPTIONS };
    let publisher: TestPublisher = Publisher::start(&context, options).await.unwrap();
    let mut outcomes = Vec::new();
    for number in 0..60 {
        outcomes.push(publish(&publisher, &telemetry(), number).await);
    }
    let waiting = confirmed(outcomes);
    tokio::pin!(waiting);
    let refused = async || world.messages_in(topology::INGEST) >= Some(5);
    tokio::select! {
        () = &mut waiting => panic!("60 lines do not fit into a queue of 5"),
        () = eventually("RabbitMQ refuses", refused) => {}
    }
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    let draining = async {
        let mut got = BTreeSet::new();
        while got.len() < 60 {
            let delivery = next(&mut deliveries).await;
            got.extend(numbers(&delivery.body));
            delivery.ack().await;
        }
        got
    };
    let (got, ()) = tokio::join!(draining, waiting);
    assert_eq!(got, (0..60).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_loses_no_line() {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let options = PublisherOptions { batch_records: 5, ..OPTIONS };
    let publisher: TestPublisher = Publisher::start(&context, options).await.unwrap();
    eventually("listed", async || world.connections().len() == 1).await;
    // Lines are published until the connection has been closed under them twice.
    let closed = AtomicBool::new(false);
    let sending = async {
        let mut outcomes = Vec::new();
        while !closed.load(Ordering::Relaxed) {
            for _ in 0..10 {
                let number = outcomes.len() as u128;
                outcomes.push(publish(&publisher, &telemetry(), number).await);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let count = outcomes.len() as u128;
        confirmed(outcomes).await;
        count
    };
    let closing = async {
        let first = world.close_connections(1).await;
        let renewed = async || world.connections().iter().any(|name| !first.contains(name));
        eventually("connected again", renewed).await;
        world.close_connections(1).await;
        closed.store(true, Ordering::Relaxed);
    };
    let (count, ()) = tokio::join!(sending, closing);

    let mut deliveries = consume(&context, topology::INGEST, 100).await;
    let (mut got, mut bodies) = (BTreeSet::new(), BTreeMap::new());
    while got.len() < usize::try_from(count).unwrap() {
        let delivery = next(&mut deliveries).await;
        let id = delivery.message_id().unwrap().to_owned();
        // What is sent again is the same message under the same id.
        let body = bodies.entry(id).or_insert_with(|| delivery.body.clone());
        assert_eq!(*body, delivery.body);
        got.extend(numbers(&delivery.body));
        delivery.ack().await;
    }
    assert_eq!(got, (0..count).collect());
    eventually("ready again", async || context.readiness.is_ready()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reaches_no_queue_goes_to_the_dead_letters() {
    let (_world, context, publisher) = started().await;
    let unknown = Lane::new(topology::TELEMETRY, "nobody.wants", "x");
    confirmed(vec![publish(&publisher, &unknown, 7).await]).await;
    let mut dead = consume(&context, topology::DEAD, 10).await;
    let delivery = next(&mut dead).await;
    assert_eq!(numbers(&delivery.body), [7]);
    assert_eq!(delivery.routing_key, "nobody.wants");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_is_declared_again_before_anything_is_confirmed() {
    let (world, context, publisher) = started().await;
    world.unbind(topology::DEAD, topology::DEAD, "#");
    world.delete_queue(topology::DEAD);
    let lane = Lane::new(topology::DEAD, "x", "x");
    confirmed(vec![publish(&publisher, &lane, 1).await]).await;
    let mut dead = consume(&context, topology::DEAD, 10).await;
    assert_eq!(numbers(&next(&mut dead).await.body), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_confirms_and_a_forced_end_abandons() {
    let (world, context, publisher) = started().await;
    let outcome = publish(&publisher, &telemetry(), 1).await;
    context.drain.request();
    let late = publish(&publisher, &telemetry(), 2).await;
    drop(publisher);
    soon("a clean end", context.drain.finished()).await;
    confirmed(vec![outcome, late]).await;

    let context = world.context(&IngestConfig { queue_length_max: 1, ..IngestConfig::default() });
    world.delete_queue(topology::INGEST);
    let options = PublisherOptions { batch_records: 1, ..OPTIONS };
    let publisher: TestPublisher = Publisher::start(&context, options).await.unwrap();
    let mut outcomes: Vec<oneshot::Receiver<Outcome>> = Vec::new();
    for number in 0..50 {
        outcomes.push(publish(&publisher, &telemetry(), number).await);
    }
    context.drain.force();
    let last = outcomes.pop().unwrap();
    assert_eq!(soon("abandoned", last).await, Ok(Outcome::Abandoned));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_publisher_gives_lines_back() {
    let world = World::new();
    let context = world.context(&IngestConfig { queue_length_max: 1, ..IngestConfig::default() });
    let options = PublisherOptions { batch_records: 1, buffer_bytes: 3_000, ..OPTIONS };
    let publisher: Publisher<()> = Publisher::start(&context, options).await.unwrap();
    let outgoing = || platziverse_broker::Outgoing {
        lane: telemetry(),
        id: uuid::Uuid::nil(),
        line: bytes::Bytes::from_static(b"{}\n"),
        receipt: (),
    };
    let full = async || publisher.try_publish(outgoing()).is_err();
    eventually("full", full).await;
    let waiting = publisher.publish(outgoing());
    tokio::pin!(waiting);
    let mut deliveries = consume(&context, topology::INGEST, 10).await;
    let draining = async {
        loop {
            next(&mut deliveries).await.ack().await;
        }
    };
    tokio::select! {
        sent = soon("room again", &mut waiting) => sent.unwrap(),
        () = draining => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_close_the_channel_hold_up_their_own_lanes_only() {
    let (world, context, publisher) = started().await;
    world.permit_live_keys("^good");
    let lanes = |name: &str, count: u32| -> Vec<_> {
        (0..count).map(|number| Lane::live(&format!("{name}.{number}"))).collect()
    };
    let (good_lanes, bad_lanes) = (lanes("good", 5), lanes("bad", 15));
    let begun = tokio::time::Instant::now();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for number in 0..50 {
        for lane in &good_lanes {
            good.push(publish(&publisher, lane, number).await);
        }
        if number % 25 == 10 {
            for lane in &bad_lanes {
                bad.push(publish(&publisher, lane, number).await);
            }
        }
    }
    confirmed(good).await;
    eventually("found", async || not_ready(&context).contains("at a message of")).await;
    // While they are tried again and again, what others publish is confirmed.
    for number in 0..100 {
        confirmed(vec![publish(&publisher, &good_lanes[0], number).await]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(not_ready(&context).contains("permissions"), "{}", not_ready(&context));
    assert!(bad.iter_mut().all(|outcome| outcome.try_recv().is_err()));
    world.permit_live_keys(".*");
    confirmed(bad).await;
    eventually("ready again", async || context.readiness.is_ready()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_queue_refuses_is_accused_of_nothing_and_leaves_room() {
    let world = World::new();
    let filter = platziverse_protocol::topic::TopicFilter::parse("plant/#").unwrap();
    let routes = [platziverse_config::Route { filter, queue: "plant".to_owned() }];
    let config = IngestConfig { queue_length_max: 2, ..IngestConfig::default() };
    let context = world.context_of(platziverse_broker::Topology::for_ingest(&config, &routes));
    let options = PublisherOptions { batch_records: 1, buffer_bytes: 40_000, ..OPTIONS };
    let publisher: TestPublisher = Publisher::start(&context, options).await.unwrap();
    let lanes = [Lane::live("plant.a"), Lane::live("plant.b")];
    // More than there is room for.
    let filling = async {
        let mut outcomes = Vec::new();
        for number in 0..400 {
            outcomes.push(publish(&publisher, &lanes[number % 2], 1).await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        outcomes
    };
    let others = async {
        eventually("the queue is full", async || world.messages_in("plant") >= Some(2)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        for number in 0..50 {
            confirmed(vec![publish(&publisher, &Lane::live("other"), number).await]).await;
        }
    };
    tokio::pin!(filling);
    tokio::select! {
        _ = &mut filling => panic!("there is no room for so many"),
        () = soon("others go on", others) => {}
    }
    assert!(context.readiness.is_ready(), "{}", not_ready(&context));
    let mut deliveries = consume(&context, "plant", 10).await;
    let draining = async {
        loop {
            next(&mut deliveries).await.ack().await;
        }
    };
    tokio::select! {
        () = async { confirmed(filling.await).await } => {}
        () = draining => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_gone_is_no_fault_of_the_message() {
    let (world, context, publisher) = started().await;
    world.delete_exchange(topology::LIVE);
    let begun = tokio::time::Instant::now();
    confirmed(vec![publish(&publisher, &Lane::live("a"), 1).await]).await;
    eventually("ready again", async || context.readiness.is_ready()).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "its lane was held");
}

/// Why a process is not ready.
fn not_ready(context: &platziverse_broker::Context) -> String {
    format!("{:?}", context.readiness)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rabbitmq_the_end_does_not_wait_for_it() {
    let (world, context, publisher) = started().await;
    let (_handle, messages) =
        LiveQueue::start(&context, LiveOptions::live(&"host:1", 10)).await.unwrap();
    let deliveries = consume(&context, topology::INGEST, 10).await;
    // Nobody comes in any more.
    let path = format!("permissions/{}/{}", context.amqp.vhost, context.amqp.username);
    world.call("DELETE", &path, "");
    world.close_connections(3).await;
    eventually("noticed", async || !context.readiness.is_ready()).await;
    // Long enough for the waits between attempts to grow beyond what the end may take.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let asked = tokio::time::Instant::now();
    context.drain.request();
    drop((publisher, messages, deliveries));
    soon("the end", context.drain.finished()).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}
