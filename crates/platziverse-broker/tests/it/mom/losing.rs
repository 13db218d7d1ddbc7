use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use platziverse_broker::mom::Settle;
use tokio::time::{Instant, sleep};

use super::*;

/// The connections of one server.
const CONNECTIONS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_goes_on_over_a_lost_connection() {
    let (world, context, mom) = started().await;
    fill(&mom, 1).await;
    let held = next_of(&mom, MANUAL).await.lease.unwrap();
    let waiting = join_all((0..20).map(|_| take(&mom, Duration::from_secs(40), AckMode::Auto)));
    let losing = async {
        sleep(Duration::from_millis(500)).await;
        world.close_connections(CONNECTIONS).await;
        eventually("noticed", async || !context.readiness.is_ready()).await;
        eventually("ready again", async || context.readiness.is_ready()).await;
        assert_eq!(mom.settle(&held, Settle::Ack).await, Err(MomError::LeaseGone));
        // With the one that was leased, as many as wait.
        for number in 1..20 {
            mom.publish(post(number)).await.unwrap();
        }
    };
    let (taken, ()) = tokio::join!(waiting, losing);
    let numbers = taken.iter().map(|taken| number(taken.as_ref().unwrap().as_ref().unwrap()));
    assert_eq!(numbers.collect::<BTreeSet<_>>(), (0..20).collect());
    holds(&mom, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_lost_in_the_middle_of_everything_lose_nothing() {
    const MESSAGES: u32 = 4_000;
    let (world, _context, one) = started().await;
    let (_other_context, other) = another(&world, "host:2").await;
    let published = AtomicBool::new(false);
    let publishing = async {
        let mut confirmed = BTreeSet::new();
        for chunk in (0..MESSAGES).collect::<Vec<_>>().chunks(20) {
            let outcomes = join_all(chunk.iter().map(|number| one.publish(post(*number)))).await;
            let pairs = chunk.iter().zip(outcomes);
            confirmed
                .extend(pairs.filter(|(_, outcome)| outcome.is_ok()).map(|(number, _)| *number));
            sleep(Duration::from_millis(50)).await;
        }
        published.store(true, Ordering::Relaxed);
        confirmed
    };
    let takers = join_all((0..30).map(|taker| {
        let (mom, mode) =
            (if taker % 2 == 0 { &one } else { &other }, [AckMode::Auto, MANUAL][taker / 2 % 2]);
        let (published, settler) = (&published, if taker % 3 == 0 { &one } else { &other });
        async move {
            let (mut seen, mut empty) = (Vec::new(), 0);
            // The last ones come back only when RabbitMQ knows that a connection is lost.
            while !published.load(Ordering::Relaxed) || empty < 3 {
                match take(mom, Duration::from_secs(2), mode).await {
                    Ok(Some(taken)) => {
                        seen.push(number(&taken));
                        if let Some(lease) = &taken.lease {
                            let _ = settler.settle(lease, Settle::Ack).await;
                        }
                    }
                    Ok(None) => empty += 1,
                    Err(MomError::Unavailable(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            seen
        }
    }));
    let losing = async {
        // RabbitMQ lists a connection after some seconds only.
        for _ in 0..2 {
            sleep(Duration::from_millis(700)).await;
            world.close_connections(2 * CONNECTIONS).await;
        }
    };
    let all = async { tokio::join!(publishing, takers, losing) };
    let (confirmed, seen, ()) = tokio::time::timeout(Duration::from_secs(120), all).await.unwrap();
    let seen: BTreeSet<u32> = seen.into_iter().flatten().collect();
    let missing: Vec<_> = confirmed.difference(&seen).collect();
    assert!(missing.is_empty(), "{missing:?} of {} confirmed", confirmed.len());
    assert!(confirmed.len() > MESSAGES as usize / 2, "{}", confirmed.len());
    holds(&one, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rabbitmq_everybody_is_answered() {
    let world = World::new();
    let mut settings = MomSettings::new("host:1");
    settings.publish_timeout = Duration::from_secs(2);
    let (context, mom) = start_with(&world, settings).await;
    mom.declare_queue("jobs", &LIMITS).await.unwrap();
    let path = format!("permissions/{}/{}", context.amqp.vhost, context.amqp.username);
    world.call("DELETE", &path, "");
    world.close_connections(CONNECTIONS).await;
    eventually("noticed", async || !context.readiness.is_ready()).await;
    let begun = Instant::now();
    let publishing = join_all((0..100).map(|number| mom.publish(post(number))));
    let taking = join_all((0..100).map(|_| take(&mom, Duration::from_secs(1), AckMode::Auto)));
    let (published, taken) = tokio::join!(publishing, taking);
    let away = |error: &MomError| matches!(error, MomError::Unavailable(_));
    assert!(published.iter().all(|outcome| outcome.as_ref().is_err_and(away)), "{published:?}");
    assert!(taken.iter().all(|outcome| outcome.as_ref().is_err_and(away)), "{taken:?}");
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    let permissions = r#"{"configure":".*","write":".*","read":".*"}"#;
    world.call("PUT", &path, permissions);
    eventually("ready again", async || context.readiness.is_ready()).await;
    // What was answered otherwise is not published behind its publisher's back.
    assert_eq!(mom.count(QUEUE).await, Ok(0));
    fill(&mom, 3).await;
    assert_eq!(number(&next_of(&mom, AckMode::Auto).await), 0);
}
