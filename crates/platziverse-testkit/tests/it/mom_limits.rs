//! What becomes of messages that are too old, come back too often, or find no room; and leases that
//! are made shorter.

use platziverse_testkit::{Mom, MomUser, PATIENCE, World, check, eventually};
use serde_json::{Value, json};

use crate::mom::{consume, publish, settle, subscribe, user};

async fn create_with(user: &MomUser, kind: &str, options: Value) {
    let made = user.ask("POST", &format!("/v1/{kind}"), options.to_string().as_bytes()).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

/// `platziverse dead list`, once it has so many letters.
async fn dead_letters(world: &World, count: usize) -> Vec<Value> {
    eventually("the dead letters", PATIENCE, || async {
        let ended = world.platziverse(&["dead", "list", "--json"]).await;
        let list: Value = serde_json::from_str(&ended.stdout).map_err(|_| ended.stderr.clone())?;
        let letters = list["entries"].as_array().cloned().unwrap_or_default();
        check(letters.len() == count, || list.to_string())?;
        Ok::<_, String>(letters)
    })
    .await
}

async fn lend(server: &Mom, user: &MomUser, lease: &str) -> String {
    let query = format!("wait=30s&ack=manual&lease={lease}");
    let lent = consume(&user.at(server), "queues", "n", &query).await;
    assert_eq!(lent.status, 200, "{}", lent.text());
    lent.header("lease").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_or_comes_back_too_often_becomes_a_dead_letter() {
    let world = World::start().await;
    let server = world.mom().await;
    let alice = user(&server).await;
    create_with(&alice, "queues", json!({"name": "n", "delivery_limit": 2})).await;
    create_with(&alice, "queues", json!({"name": "old", "message_ttl": "300ms"})).await;
    publish(&alice, "queues", "old", "too old").await;
    let letters = dead_letters(&world, 1).await;
    assert_eq!(letters[0]["reason"], "expired", "{letters:?}");
    assert_eq!(consume(&alice, "queues", "old", "").await.status, 204);

    publish(&alice, "queues", "n", "nobody can").await;
    for _ in 0..3 {
        let lease = lend(&server, &alice, "5m").await;
        assert_eq!(settle(&alice, &lease, "nack").await.status, 204);
    }
    let letters = dead_letters(&world, 2).await;
    let words = serde_json::to_string(&letters).expect("JSON");
    for word in ["delivery_limit", "mom.queue.n", "mom.queue.old"] {
        assert!(words.contains(word), "{word}: {words}");
    }
    assert_eq!(consume(&alice, "queues", "n", "").await.status, 204);
    // It gets another chance, where it came from.
    let replayed = world.platziverse(&["dead", "replay", "--reason", "delivery_limit"]).await;
    assert!(replayed.status.success(), "{replayed:?}");
    assert_eq!(consume(&alice, "queues", "n", "wait=30s").await.text(), "nobody can");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_without_room_holds_up_who_publishes() {
    let world = World::start().await;
    let server = world.mom().await;
    let (alice, bob) = (user(&server).await, user(&server).await);
    create_with(&alice, "topics", json!({"name": "n", "max_length": 3})).await;
    subscribe(&bob, "topics", "n").await;
    eventually("the subscriber has no room", PATIENCE, || async {
        let sent = alice.ask("POST", "/v1/topics/n/messages", b"x").await;
        let is_full = (sent.status, sent.code().as_str()) == (503, "queue_full");
        check(is_full && sent.header("retry-after") == "1", || sent.text())
    })
    .await;
    // Who consumes makes room.
    let mut taken = 0;
    while consume(&bob, "topics", "n", "").await.status == 200 {
        taken += 1;
    }
    assert!(taken >= 3, "{taken}");
    eventually("there is room again", PATIENCE, || async {
        let sent = alice.ask("POST", "/v1/topics/n/messages", b"x").await;
        check(sent.status == 201, || sent.text())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_ends_when_its_extension_does() {
    let world = World::start().await;
    let (one, two) = (world.mom().await, world.mom().await);
    let alice = user(&one).await;
    create_with(&alice, "queues", json!({"name": "n"})).await;
    publish(&alice, "queues", "n", "m").await;
    for (server, other) in [(&one, &two), (&two, &two)] {
        let lease = lend(server, &alice, "20m").await;
        assert_eq!(consume(&alice, "queues", "n", "").await.status, 204, "it is lent");
        let shorter = settle(&alice.at(other), &lease, "extend?lease=1s").await;
        assert_eq!(shorter.status, 204, "{}", shorter.text());
        let again = lend(other, &alice, "5m").await;
        let late = settle(&alice, &lease, "ack").await;
        assert_eq!((late.status, late.code().as_str()), (410, "lease_gone"));
        assert_eq!(settle(&alice, &again, "nack").await.status, 204);
    }
}
