//! Consumers that wait: many at a time, at a server that ends, and at what is deleted meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use platziverse_testkit::{Mom, MomUser, RawClient, World};
use tokio::task::JoinSet;

use crate::mom::{consume, create, publish, subscribe, user, waiting};

/// Much less than the consumers wait: who is answered by then was told before its time was over.
const SOON: Duration = Duration::from_secs(30);

/// Somebody who waits for a minute, on a connection of its own.
async fn waiter(server: &Mom, user: &MomUser, of: &str) -> RawClient {
    let mut client = RawClient::open(server.http()).await;
    let request = format!(
        "POST /v1/{of}/consume?wait=60s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\
         Connection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        user.key()
    );
    client.send(request.as_bytes()).await;
    client
}

async fn waiters(server: &Mom, user: &MomUser, of: &str, count: usize) -> Vec<RawClient> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        all.push(waiter(server, user, of).await);
    }
    waiting(server, count as f64).await;
    all
}

/// What they are answered: the status and the body of each.
async fn answers(waiters: impl IntoIterator<Item = RawClient>) -> Vec<(u16, String)> {
    let mut reading = JoinSet::new();
    for mut waiter in waiters {
        reading.spawn(async move {
            let answer = waiter.closed_within(SOON).await.expect("an answer in time");
            let answer = String::from_utf8(answer).expect("text");
            let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            (status.expect("a status"), body.to_owned())
        });
    }
    reading.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_500_who_wait_gets_a_message() {
    const EACH: usize = 250;
    let world = World::start().await;
    let (one, two) = (world.mom().await, world.mom().await);
    let alice = user(&one).await;
    create(&alice, "queues", "q").await;
    let mut all = waiters(&one, &alice, "queues/q", EACH).await;
    all.extend(waiters(&two, &alice, "queues/q", EACH).await);
    let publishing = async {
        for number in 0..2 * EACH {
            publish(&alice, "queues", "q", &number.to_string()).await;
        }
    };
    let (answers, ()) = tokio::join!(answers(all), publishing);
    let mut seen = BTreeSet::new();
    for (status, body) in answers {
        assert_eq!(status, 200, "{body}");
        assert!(seen.insert(body.clone()), "twice: {body}");
    }
    assert_eq!(seen.len(), 2 * EACH);
    assert_eq!(consume(&alice, "queues", "q", "").await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_answers_all_who_wait_and_takes_nothing_along() {
    const MESSAGES: usize = 60;
    let world = World::start().await;
    let (mut one, two) = (world.mom().await, world.mom().await);
    let alice = user(&two).await;
    create(&alice, "queues", "q").await;
    let all = waiters(&one, &alice, "queues/q", 100).await;
    let publishing = async {
        for number in 0..MESSAGES {
            publish(&alice, "queues", "q", &number.to_string()).await;
        }
    };
    let ending = async {
        // In the middle of the publishes.
        two.counts("platziverse_mom_publishes_confirmed_total", MESSAGES as f64 / 4.0).await;
        one.terminate().await
    };
    let (answers, (), status) = tokio::join!(answers(all), publishing, ending);
    assert_eq!(status.code(), Some(0));
    let mut seen = BTreeSet::new();
    let mut empty = 0;
    for (status, body) in answers {
        match status {
            200 => assert!(seen.insert(body.clone()), "twice: {body}"),
            204 => empty += 1,
            _ => panic!("{status} {body}"),
        }
    }
    assert!(empty >= 100 - MESSAGES, "{empty}");
    while seen.len() < MESSAGES {
        let left = consume(&alice, "queues", "q", "wait=30s").await;
        assert_eq!(left.status, 200, "{} of {MESSAGES}: {}", seen.len(), left.text());
        assert!(seen.insert(left.text()), "twice: {}", left.text());
    }
    assert_eq!(consume(&alice, "queues", "q", "").await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_is_known_at_once_to_all_who_wait() {
    let world = World::start().await;
    let (one, two) = (world.mom().await, world.mom().await);
    let (alice, bob) = (user(&one).await, user(&two).await);
    for kind in ["queues", "topics"] {
        create(&alice, kind, "n").await;
        subscribe(&bob, kind, "n").await;
    }
    let left = waiters(&two, &bob, "topics/n", 1).await;
    let gone = bob.at(&one).ask("DELETE", "/v1/topics/n/subscription", b"").await;
    assert_eq!(gone.status, 204, "{}", gone.text());
    for (status, body) in answers(left).await {
        assert!(status == 403 && body.contains("not_subscribed"), "{status} {body}");
    }
    for (kind, code) in [("queues", "unknown_queue"), ("topics", "unknown_topic")] {
        let mut all = waiters(&one, &alice, &format!("{kind}/n"), 20).await;
        all.extend(waiters(&two, &alice, &format!("{kind}/n"), 20).await);
        let gone = alice.ask("DELETE", &format!("/v1/{kind}/n"), b"").await;
        assert_eq!(gone.status, 204, "{}", gone.text());
        for (status, body) in answers(all).await {
            assert!(status == 404 && body.contains(code), "{status} {body}");
        }
    }
}
