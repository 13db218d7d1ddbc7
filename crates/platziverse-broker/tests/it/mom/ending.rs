use platziverse_broker::mom::Settle;
use platziverse_service::Outcome;
use tokio::time::{Instant, sleep};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_nobody_waits_and_what_is_held_can_be_settled() {
    let (world, context, mom) = started().await;
    fill(&mom, 2).await;
    let (kept, left) = (next_of(&mom, MANUAL).await, next_of(&mom, MANUAL).await);
    let mut stream = mom.consume(QUEUE, 1).await.unwrap();
    let begun = Instant::now();
    let waiting = take(&mom, Duration::from_secs(50), AckMode::Auto);
    let asking = async {
        sleep(Duration::from_millis(500)).await;
        context.drain.request();
    };
    let (taken, ()) = tokio::join!(waiting, asking);
    assert_eq!(taken, Ok(None));
    assert_eq!(soon("the stream's end", stream.next()).await, None);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    mom.settle(&kept.lease.unwrap(), Settle::Ack).await.unwrap();
    drop((mom, stream));
    let outcome = soon("the end", context.drain.finished()).await;
    assert_eq!(outcome, Outcome::Clean);
    let (_context, other) = another(&world, "host:2").await;
    assert_eq!(number(&next_of(&other, AckMode::Auto).await), number(&left));
    holds(&other, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rabbitmq_the_end_waits_for_nobody() {
    let (world, context, mom) = started().await;
    let mut stream = mom.consume(QUEUE, 1).await.unwrap();
    let path = format!("permissions/{}/{}", context.amqp.vhost, context.amqp.username);
    world.call("DELETE", &path, "");
    world.close_connections(3).await;
    eventually("noticed", async || !context.readiness.is_ready()).await;
    let waiting = take(&mom, Duration::from_secs(50), AckMode::Auto);
    let publishing = mom.publish(post(1));
    let asking = async {
        // Long enough for the waits between attempts to grow beyond what the end may take.
        sleep(Duration::from_secs(5)).await;
        context.drain.request();
        Instant::now()
    };
    let (taken, published, asked) = tokio::join!(waiting, publishing, asking);
    assert!(matches!(taken, Err(MomError::Unavailable(_))), "{taken:?}");
    assert!(matches!(published, Err(MomError::Unavailable(_))), "{published:?}");
    assert_eq!(stream.next().await, None);
    drop((mom, stream));
    soon("the end", context.drain.finished()).await;
    // A publish has its own time.
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
}
