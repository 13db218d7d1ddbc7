//! Many consumers of one queue, and the books of its messages.

use std::collections::HashMap;

use platziverse_testkit::{Mom, MomUser, World};
use tokio::task::JoinSet;

use crate::mom::{consume, create, settle, user};

const CONSUMERS: usize = 50;

/// How often each message was received.
type Seen = HashMap<String, u32>;

/// Publishes so many numbered messages, from several publishers at once.
async fn publish_all(servers: &[&Mom], alice: &MomUser, count: usize) {
    let mut publishers = JoinSet::new();
    for first in 0..10 {
        let alice = alice.at(servers[first % servers.len()]);
        publishers.spawn(async move {
            for number in (first..count).step_by(10) {
                let path = "/v1/queues/crowd/messages";
                let sent = alice.ask("POST", path, number.to_string().as_bytes()).await;
                assert_eq!(sent.status, 201, "{}", sent.text());
            }
        });
    }
    publishers.join_all().await;
}

/// Consumes with 50 consumers on all servers, until each has found nothing for a while: what
/// [`one`] has noted.
async fn consume_all<F: Future<Output = Seen> + Send + 'static>(
    servers: &[&Mom],
    alice: &MomUser,
    one: impl Fn(MomUser, usize) -> F,
) -> Seen {
    let mut consumers = JoinSet::new();
    for number in 0..CONSUMERS {
        consumers.spawn(one(alice.at(servers[number % servers.len()]), number));
    }
    let mut all = Seen::new();
    for seen in consumers.join_all().await {
        for (message, times) in seen {
            *all.entry(message).or_default() += times;
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_consumers_share_a_queue() {
    const COUNT: usize = 2_000;
    let world = World::start().await;
    let (one, two) = (world.mom().await, world.mom().await);
    let servers = [&one, &two];
    let alice = user(&one).await;
    create(&alice, "queues", "crowd").await;
    let consuming = consume_all(&servers, &alice, |alice, _| async move {
        let mut seen = Seen::new();
        loop {
            let got = consume(&alice, "queues", "crowd", "wait=5s").await;
            match got.status {
                200 => *seen.entry(got.text()).or_default() += 1,
                204 => return seen,
                _ => panic!("{}", got.text()),
            }
        }
    });
    let (seen, ()) = tokio::join!(consuming, publish_all(&servers, &alice, COUNT));
    assert_eq!(seen.len(), COUNT, "all of them");
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_balanced(&servers, COUNT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_fail_lose_nothing() {
    const COUNT: usize = 500;
    let world = World::start().await;
    let (one, two) = (world.mom().await, world.mom().await);
    let servers = [&one, &two];
    let alice = user(&one).await;
    create(&alice, "queues", "crowd").await;
    publish_all(&servers, &alice, COUNT).await;
    // Each forgets the first ones that it gets, or gives them back, as one that is killed would.
    let seen = consume_all(&servers, &alice, |alice, number| async move {
        let mut seen = Seen::new();
        for turn in 0.. {
            let query = "wait=5s&ack=manual&lease=2s";
            let got = consume(&alice, "queues", "crowd", query).await;
            let lease = got.header("lease").to_owned();
            match (got.status, turn) {
                (204, _) => break,
                (200, 0 | 1) => {}
                (200, 2 | 3) => drop(settle(&alice, &lease, "nack").await),
                // One that is held up until the lease has ended is somebody else's to do.
                (200, _) if settle(&alice, &lease, "ack").await.status == 204 => {
                    *seen.entry(got.text()).or_default() += 1;
                }
                (200, _) => {}
                _ => panic!("{number}: {}", got.text()),
            }
        }
        seen
    })
    .await;
    assert_eq!(seen.len(), COUNT, "none is missing");
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "acknowledged twice: {twice:?}");
    assert!(world.rabbitmq().dead_letters().await.is_empty());
}

/// Every publish is accounted for.
async fn assert_balanced(servers: &[&Mom], count: usize) {
    let mut confirmed = 0.0;
    for server in servers {
        let metrics = server.metrics().await;
        let get = |word: &str| metrics.get(&format!("platziverse_mom_publishes_{word}"));
        let settled = get("confirmed_total") + get("refused_total") + get("in_flight");
        assert_eq!(get("received_total"), settled, "{}", server.name());
        confirmed += get("confirmed_total");
    }
    assert_eq!(confirmed, count as f64);
}
