use std::collections::BTreeSet;

use futures_util::future::join_all;
use platziverse_broker::mom::{MomStream, StreamDelivery};
use tokio::time::sleep;

use super::*;

async fn next(stream: &mut MomStream) -> Result<StreamDelivery, MomError> {
    soon("a delivery", stream.next()).await.unwrap()
}

fn body(delivery: &StreamDelivery) -> String {
    String::from_utf8(delivery.message.body.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_holds_what_it_may_and_gives_the_rest_back() {
    let (_world, _context, mom) = started().await;
    fill(&mom, 10).await;
    let mut stream = mom.consume(QUEUE, 3).await.unwrap();
    let mut tags = Vec::new();
    for expected in 0..3 {
        let delivery = next(&mut stream).await.unwrap();
        assert_eq!(body(&delivery), expected.to_string());
        tags.push(delivery.tag);
    }
    holds(&mom, 7).await;
    let more = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
    assert!(more.is_err(), "it holds three already");
    stream.ack(tags[0]).await.unwrap();
    assert_eq!(stream.ack(tags[0]).await, Err(MomError::LeaseGone));
    assert_eq!(body(&next(&mut stream).await.unwrap()), "3");
    stream.settler().nack(tags[1]).await.unwrap();
    let back = next(&mut stream).await.unwrap();
    assert_eq!((body(&back), back.message.redelivered), ("1".to_owned(), true));
    let settler = stream.settler();
    drop(stream);
    holds(&mom, 9).await;
    assert_eq!(settler.ack(tags[2]).await, Err(MomError::LeaseGone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_after_a_lost_connection() {
    let (world, context, mom) = started().await;
    fill(&mom, 5).await;
    let mut stream = mom.consume(QUEUE, 2).await.unwrap();
    let held = next(&mut stream).await.unwrap();
    let begun = next(&mut stream).await.unwrap();
    stream.ack(begun.tag).await.unwrap();
    world.close_connections(3).await;
    eventually("noticed", async || !context.readiness.is_ready()).await;
    eventually("ready again", async || context.readiness.is_ready()).await;
    assert_eq!(stream.ack(held.tag).await, Err(MomError::LeaseGone));
    let mut bodies = Vec::new();
    while bodies.len() < 4 {
        let delivery = next(&mut stream).await.unwrap();
        if stream.ack(delivery.tag).await.is_ok() {
            bodies.push(body(&delivery));
        }
    }
    bodies.sort();
    assert_eq!(bodies, ["0", "2", "3", "4"]);
    holds(&mom, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_holds_few_bytes_and_loses_nothing() {
    const BODY: usize = 10_000;
    let world = World::new();
    let settings = MomSettings { streams_bytes: 10 * BODY, ..MomSettings::new("host:1") };
    let (_context, mom) = start_with(&world, settings).await;
    mom.declare_queue("jobs", &LIMITS).await.unwrap();
    for number in 0..50 {
        let body = format!("{number:<BODY$}").into();
        mom.publish(Post { body, ..post(number) }).await.unwrap();
    }
    // At first it is sent all of them.
    let mut stream = mom.consume(QUEUE, 50).await.unwrap();
    eventually("given back", async || mom.count(QUEUE).await.unwrap() >= 38).await;
    let mut left: BTreeSet<_> = (0..50).map(|number| number.to_string()).collect();
    while !left.is_empty() {
        let delivery = next(&mut stream).await.unwrap();
        let number = body(&delivery).trim_end().to_owned();
        if stream.ack(delivery.tag).await.is_ok() {
            assert!(left.remove(&number), "{number} came again after it was acknowledged");
        }
    }
    holds(&mom, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_deleted_queue_ends() {
    let (_world, _context, mom) = started().await;
    let refused = mom.consume("mom.queue.none", 1).await.err();
    assert_eq!(refused, Some(MomError::NoSuchQueue));
    let mut stream = mom.consume(QUEUE, 1).await.unwrap();
    mom.delete_queue("jobs").await.unwrap();
    assert_eq!(next(&mut stream).await, Err(MomError::NoSuchQueue));
    assert_eq!(soon("its end", stream.next()).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_are_given_up_are_free_for_others() {
    // As many as one server has.
    const ALL: usize = 1_900;
    let (_world, _context, mom) = started().await;
    let consume = async |count: usize, at_once: usize| {
        let mut streams = Vec::new();
        while streams.len() < count {
            let some = join_all((0..at_once).map(|_| mom.consume(QUEUE, 1)));
            let some: Result<Vec<_>, _> = soon("consuming", some).await.into_iter().collect();
            streams.extend(some.unwrap());
        }
        streams
    };
    let streams = consume(ALL, 100).await;
    let more = mom.consume(QUEUE, 1).await.err();
    assert!(matches!(more, Some(MomError::TooMany(_))), "{more:?}");
    drop(streams);
    // Each gives its place up in a task of its own.
    sleep(Duration::from_millis(50)).await;
    // More than RabbitMQ allows beside those that are being closed.
    consume(200, 200).await;
}
