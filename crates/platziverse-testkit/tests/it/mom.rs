//! Topics and queues over HTTP, on several servers.

use platziverse_testkit::{Mom, MomAnswer, MomUser, PATIENCE, RawClient, World, check, eventually};
use serde_json::json;

/// A new user at a server.
pub(crate) async fn user(server: &Mom) -> MomUser {
    MomUser::new(server).await
}

/// Creates a topic or a queue: `topics`, `queues`.
pub(crate) async fn create(user: &MomUser, kind: &str, name: &str) {
    let body = json!({ "name": name }).to_string();
    let made = user.ask("POST", &format!("/v1/{kind}"), body.as_bytes()).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

pub(crate) async fn subscribe(user: &MomUser, kind: &str, name: &str) {
    let done = user.ask("POST", &format!("/v1/{kind}/{name}/subscription"), b"").await;
    assert_eq!(done.status, 204, "{}", done.text());
}

/// Publishes a text: how many receive it.
pub(crate) async fn publish(user: &MomUser, kind: &str, name: &str, text: &str) -> u64 {
    let sent = user.ask("POST", &format!("/v1/{kind}/{name}/messages"), text.as_bytes()).await;
    assert_eq!(sent.status, 201, "{}", sent.text());
    sent.json()["receivers"].as_u64().expect("receivers")
}

pub(crate) async fn consume(user: &MomUser, kind: &str, name: &str, query: &str) -> MomAnswer {
    user.ask("POST", &format!("/v1/{kind}/{name}/consume?{query}"), b"").await
}

pub(crate) async fn settle(user: &MomUser, lease: &str, how: &str) -> MomAnswer {
    user.ask("POST", &format!("/v1/leases/{lease}/{how}"), b"").await
}

/// Waits until so many consumers wait at a server.
pub(crate) async fn waiting(server: &Mom, wanted: f64) {
    server.counts("platziverse_mom_waiting_consumers", wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_topic_on_two_servers() {
    let world = World::start().await;
    let (one, two) = (world.mom().await, world.mom().await);
    let (alice, bob, carol) = (user(&one).await, user(&two).await, user(&two).await);
    create(&alice, "topics", "weather").await;
    let again = alice.at(&two).ask("POST", "/v1/topics", br#"{"name": "weather"}"#).await;
    assert_eq!(again.status, 200, "{}", again.text());
    let taken = bob.ask("POST", "/v1/topics", br#"{"name": "weather"}"#).await;
    assert_eq!((taken.status, taken.code().as_str()), (409, "already_exists"));

    // Nobody but its creator is there: nobody receives it, and that is no fault.
    assert_eq!(publish(&alice, "topics", "weather", "nobody").await, 0);
    let early = consume(&bob, "topics", "weather", "").await;
    assert_eq!((early.status, early.code().as_str()), (403, "not_subscribed"));
    subscribe(&bob, "topics", "weather").await;
    subscribe(&carol.at(&one), "topics", "weather").await;
    let twice = bob.at(&one).ask("POST", "/v1/topics/weather/subscription", b"").await;
    assert_eq!((twice.status, twice.code().as_str()), (409, "already_subscribed"));

    let path = "/v1/topics/weather/messages";
    let headers = [("content-type", "text/plain; charset=utf-8"), ("x-header-Trace-Id", "t1")];
    let sent = alice.at(&two).ask_with("POST", path, &headers, "caf\u{e9}".as_bytes()).await;
    assert_eq!((sent.status, sent.json()["receivers"].as_u64()), (201, Some(2)));
    for consumer in [bob.at(&one), carol.clone()] {
        let got = consume(&consumer, "topics", "weather", "wait=10s").await;
        assert_eq!((got.status, got.text().as_str()), (200, "caf\u{e9}"));
        assert_eq!(got.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(got.header("x-header-trace-id"), "t1");
        assert_eq!(got.header("message-id"), sent.json()["id"].as_str().expect("an id"));
        assert_eq!(got.header("message-publisher"), alice.id);
        assert_eq!(got.header("message-redelivered"), "false");
        assert!(got.header("message-timestamp").starts_with("20"), "{:?}", got.headers);
        assert_eq!(consume(&consumer, "topics", "weather", "").await.status, 204);
    }
    assert_eq!(consume(&alice, "topics", "weather", "").await.status, 204, "her own");
    // Whoever publishes is left out, also if it is not the creator.
    assert_eq!(publish(&bob, "topics", "weather", "b").await, 2);
    assert_eq!(consume(&bob, "topics", "weather", "").await.status, 204);
    assert_eq!(consume(&alice, "topics", "weather", "wait=10s").await.text(), "b");

    let shown = carol.ask("GET", "/v1/topics/weather", b"").await.json();
    assert_eq!((shown["subscribers"].as_u64(), shown["messages"].as_u64()), (Some(3), Some(1)));
    assert_eq!((&shown["creator"], &shown["subscribed"]), (&json!(alice.id), &json!(true)));
    let peeked = carol.ask("GET", "/v1/topics/weather/messages?limit=5", b"").await.json();
    assert_eq!(peeked["items"][0]["body"], "Yg==");
    assert_eq!(peeked["items"][0]["publisher"], json!(bob.id));
    let purged = carol.ask("DELETE", "/v1/topics/weather/messages", b"").await;
    assert_eq!((purged.status, purged.json()["purged"].as_u64()), (200, Some(1)));

    let left = carol.ask("DELETE", "/v1/topics/weather/subscription", b"").await;
    assert_eq!(left.status, 204, "{}", left.text());
    assert_eq!(publish(&alice, "topics", "weather", "c").await, 1);
    let not_hers = bob.ask("DELETE", "/v1/topics/weather", b"").await;
    assert_eq!((not_hers.status, not_hers.code().as_str()), (403, "not_creator"));
    let gone = alice.at(&two).ask("DELETE", "/v1/topics/weather", b"").await;
    assert_eq!(gone.status, 204, "{}", gone.text());
    for user in [&alice, &bob, &carol.at(&one)] {
        let gone = consume(user, "topics", "weather", "").await;
        assert_eq!((gone.status, gone.code().as_str()), (404, "unknown_topic"));
    }
    assert_nothing_is_left(&world).await;
}

/// Nothing of any topic or queue is left in RabbitMQ, and no message was lost on its way.
pub(crate) async fn assert_nothing_is_left(world: &World) {
    for kind in ["queues", "exchanges"] {
        let left = world.rabbitmq().list(kind).await;
        let names = left.iter().filter_map(|left| left["name"].as_str());
        let left: Vec<_> = names.filter(|name| name.starts_with("mom.")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let letters = world.rabbitmq().dead_letters().await;
    assert!(letters.is_empty(), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_queue_on_two_servers() {
    let world = World::start().await;
    let (one, two) = (world.mom().await, world.mom().await);
    let (alice, bob) = (user(&one).await, user(&two).await);
    create(&alice, "queues", "jobs").await;
    subscribe(&bob, "queues", "jobs").await;
    for number in 0..4 {
        assert_eq!(publish(&bob, "queues", "jobs", &number.to_string()).await, 1);
    }
    // In order, each to one of them, also to who published it.
    let mut got = Vec::new();
    for consumer in [&alice, &bob, &alice.at(&two), &bob.at(&one)] {
        got.push(consume(consumer, "queues", "jobs", "wait=10s").await.text());
    }
    assert_eq!(got, ["0", "1", "2", "3"]);
    assert_eq!(consume(&alice, "queues", "jobs", "").await.status, 204);

    publish(&alice, "queues", "jobs", "left").await;
    let json = consume(&bob, "queues", "jobs", "wait=10s&format=json&ack=manual").await.json();
    assert_eq!(json["body"], "bGVmdA==");
    assert_eq!(json["content_type"], "application/octet-stream");
    let back = settle(&alice, json["lease"].as_str().expect("a lease"), "nack").await;
    assert_eq!(back.status, 204, "{}", back.text());
    let purge = bob.ask("DELETE", "/v1/queues/jobs/messages", b"").await;
    assert_eq!((purge.status, purge.code().as_str()), (403, "not_creator"));
    let purged = alice.ask("DELETE", "/v1/queues/jobs/messages", b"").await;
    assert_eq!(purged.json()["purged"], 1, "{}", purged.text());

    for name in ["b", "c", "a"] {
        create(&bob, "queues", name).await;
    }
    let page = bob.ask("GET", "/v1/queues?which=created&limit=2", b"").await.json();
    let names = |page: &serde_json::Value| {
        let items = page["items"].as_array().expect("items");
        items.iter().map(|item| item["name"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((names(&page), &page["next"]), (vec!["a".to_owned(), "b".to_owned()], &json!("b")));
    let page = bob.ask("GET", "/v1/queues?which=created&limit=2&after=b", b"").await.json();
    assert_eq!((names(&page), &page["next"]), (vec!["c".to_owned()], &json!(null)));
    let page = bob.ask("GET", "/v1/queues?which=subscribed&after=c", b"").await.json();
    assert_eq!(names(&page), ["jobs"]);
    assert_eq!(page["items"][0]["messages"], 0);

    // With options, asked for again in other words, and in others.
    let with = |ttl: serde_json::Value| {
        json!({"name": "o", "max_length": 2, "message_ttl": ttl, "delivery_limit": 3}).to_string()
    };
    for (ttl, status) in [(json!("1h"), 201), (json!(3_600_000), 200), (json!("2h"), 409)] {
        let made = alice.ask("POST", "/v1/queues", with(ttl).as_bytes()).await;
        assert_eq!(made.status, status, "{}", made.text());
    }
    let shown = alice.ask("GET", "/v1/queues/o", b"").await.json();
    assert_eq!((&shown["message_ttl"], &shown["max_length"]), (&json!(3_600_000), &json!(2)));
    eventually("the queue is full", PATIENCE, || async {
        let sent = alice.ask("POST", "/v1/queues/o/messages", b"x").await;
        check(sent.code() == "queue_full" && sent.status == 503, || sent.text())
    })
    .await;

    for (user, name) in [(&alice, "jobs"), (&alice, "o"), (&bob, "a"), (&bob, "b"), (&bob, "c")] {
        let gone = user.ask("DELETE", &format!("/v1/queues/{name}"), b"").await;
        assert_eq!(gone.status, 204, "{}", gone.text());
    }
    assert_nothing_is_left(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_have_keys_that_can_be_changed() {
    let world = World::start().await;
    let (one, two) = (world.mom().await, world.mom().await);
    let alice = user(&one).await;
    assert!(alice.key().starts_with("pk_") && alice.key().len() == 46);
    assert_eq!(alice.at(&two).ask("GET", "/v1/users/me", b"").await.json()["id"], json!(alice.id));
    let stored = world.database().value("SELECT encode(key_hash, 'escape') FROM mom_users").await;
    assert!(!stored.contains(alice.key()));
    let rotated = alice.ask("POST", "/v1/users/me/key", b"").await.json();
    let new = alice.with_key(rotated["key"].as_str().expect("a key"));
    let old = alice.at(&two).ask("GET", "/v1/users/me", b"").await;
    assert_eq!((old.status, old.code().as_str()), (401, "unknown_key"));
    assert!(old.header("www-authenticate").starts_with("Bearer"));
    assert_eq!(new.at(&two).ask("GET", "/v1/users/me", b"").await.json()["id"], json!(alice.id));

    create(&new, "topics", "mine").await;
    let bob = user(&two).await;
    subscribe(&bob, "topics", "mine").await;
    let refused = new.ask("DELETE", "/v1/users/me", b"").await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "has_objects"));
    // Who is gone receives nothing, and leaves nothing behind.
    assert_eq!(bob.ask("DELETE", "/v1/users/me", b"").await.status, 204);
    assert_eq!(bob.at(&one).ask("GET", "/v1/users/me", b"").await.status, 401);
    assert_eq!(publish(&new, "topics", "mine", "x").await, 0);
    world.database().becomes("SELECT count(*) FROM mom_users", "1").await;
    assert_eq!(new.ask("DELETE", "/v1/topics/mine", b"").await.status, 204);
    assert_eq!(new.ask("DELETE", "/v1/users/me", b"").await.status, 204);
    world.database().becomes("SELECT count(*) FROM mom_users", "0").await;
    assert_nothing_is_left(&world).await;

    let closed = world.mom_with(&[("PLATZIVERSE_MOM__OPEN_REGISTRATION", "false")]).await;
    let refused = MomUser::nobody(&closed).ask("POST", "/v1/users", b"").await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "registration_closed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lent_is_settled_at_any_server() {
    let world = World::start().await;
    let (mut one, two) = (world.mom().await, world.mom().await);
    let alice = user(&one).await;
    create(&alice, "queues", "q").await;
    let lend = async |server: &Mom, lease: &str| {
        let query = format!("wait=30s&ack=manual&lease={lease}");
        let lent = consume(&alice.at(server), "queues", "q", &query).await;
        assert_eq!(lent.status, 200, "{}", lent.text());
        lent
    };
    for (server, other) in [(&one, &two), (&two, &one), (&one, &one)] {
        publish(&alice, "queues", "q", "m").await;
        let lent = lend(server, "5m").await;
        assert_eq!((lent.text().as_str(), lent.header("message-redelivered")), ("m", "false"));
        assert_eq!(consume(&alice.at(other), "queues", "q", "").await.status, 204, "it is lent");
        let there = alice.at(other);
        assert_eq!(settle(&there, lent.header("lease"), "extend?lease=10m").await.status, 204);
        assert_eq!(settle(&there, lent.header("lease"), "nack").await.status, 204);
        let lent_again = lend(other, "5m").await;
        assert_eq!(lent_again.header("message-redelivered"), "true");
        let gone = settle(&there, lent.header("lease"), "ack").await;
        assert_eq!((gone.status, gone.code().as_str()), (410, "lease_gone"));
        assert_eq!(settle(&alice.at(server), lent_again.header("lease"), "ack").await.status, 204);
        let gone = settle(&there, lent_again.header("lease"), "ack").await;
        assert_eq!((gone.status, gone.code().as_str()), (410, "lease_gone"));
        assert_eq!(consume(&alice, "queues", "q", "").await.status, 204, "it is done with");
    }
    // A lease that ends, and one whose server does.
    publish(&alice, "queues", "q", "late").await;
    let lent = lend(&one, "1s").await;
    assert_eq!(lend(&two, "5m").await.header("message-redelivered"), "true");
    assert_eq!(settle(&alice, lent.header("lease"), "ack").await.status, 410);
    publish(&alice, "queues", "q", "orphan").await;
    let lent = lend(&one, "5m").await;
    one.kill();
    assert_eq!(lend(&two, "5m").await.text(), "orphan");
    let gone = settle(&alice.at(&two), lent.header("lease"), "ack").await;
    assert_eq!((gone.status, gone.code().as_str()), (410, "lease_gone"));
    for nonsense in ["x", "%F0%9F", "0123456789abcdef"] {
        let gone = settle(&alice.at(&two), nonsense, "ack").await;
        assert!([400, 410].contains(&gone.status), "{nonsense}: {}", gone.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_reached_from_another_server() {
    let world = World::start().await;
    let (mut one, two) = (world.mom().await, world.mom().await);
    let (alice, bob) = (user(&one).await, user(&one).await);
    create(&alice, "topics", "t").await;
    create(&alice, "queues", "q").await;
    subscribe(&bob, "topics", "t").await;
    for (consumer, kind, name) in [(&bob, "topics", "t"), (&alice, "queues", "q")] {
        let consumer = consumer.clone();
        let asking = async move { consume(&consumer, kind, name, "wait=60s").await };
        let (got, ()) = tokio::join!(asking, async {
            waiting(&one, 1.0).await;
            assert_eq!(publish(&alice.at(&two), kind, name, "now").await, 1);
        });
        assert_eq!((got.status, got.text().as_str()), (200, "now"), "{kind}");
    }
    // A queue that is deleted while somebody waits at it.
    let asking = consume(&alice, "queues", "q", "wait=60s");
    let (got, ()) = tokio::join!(asking, async {
        waiting(&one, 1.0).await;
        assert_eq!(alice.at(&two).ask("DELETE", "/v1/queues/q", b"").await.status, 204);
    });
    assert_eq!((got.status, got.code().as_str()), (404, "unknown_queue"), "{}", got.text());
    // A server that is told to end says so to who waits, and takes nothing.
    let asking = consume(&bob, "topics", "t", "wait=60s");
    let (got, status) = tokio::join!(asking, async {
        waiting(&one, 1.0).await;
        one.terminate().await
    });
    assert_eq!((got.status, status.code()), (204, Some(0)), "{}", got.text());
    assert_eq!(publish(&alice.at(&two), "topics", "t", "later").await, 1);
    assert_eq!(consume(&bob.at(&two), "topics", "t", "wait=30s").await.text(), "later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_waiting_takes_nothing_along() {
    let world = World::start().await;
    let server = world.mom().await;
    let alice = user(&server).await;
    create(&alice, "queues", "q").await;
    let mut gone = Vec::new();
    for _ in 0..10 {
        let mut client = RawClient::open(server.http()).await;
        let request = format!(
            "POST /v1/queues/q/consume?wait=60s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\
             Authorization: Bearer {}\r\n\r\n",
            alice.key()
        );
        client.send(request.as_bytes()).await;
        gone.push(client);
    }
    waiting(&server, 10.0).await;
    for client in gone {
        client.reset();
    }
    let name = "platziverse_mom_waiting_consumers";
    eventually("nobody waits", PATIENCE, || async {
        let seen = server.metrics().await.get(name);
        check(seen == 0.0, || format!("{seen}"))
    })
    .await;
    publish(&alice, "queues", "q", "still here").await;
    assert_eq!(consume(&alice, "queues", "q", "wait=30s").await.text(), "still here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_is_sent_again_is_known_by_its_key() {
    let world = World::start().await;
    let (one, two) = (world.mom().await, world.mom().await);
    let (alice, bob) = (user(&one).await, user(&one).await);
    create(&alice, "queues", "q").await;
    let path = "/v1/queues/q/messages";
    let mut ids = Vec::new();
    for (user, key) in [(&alice, "k"), (&alice.at(&two), "k"), (&bob, "k"), (&alice, "other")] {
        let sent = user.ask_with("POST", path, &[("idempotency-key", key)], b"m").await;
        assert_eq!(sent.status, 201, "{}", sent.text());
        assert_eq!(sent.json()["receivers"], 1);
        ids.push(sent.json()["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(ids[0], ids[1]);
    let shown = alice.ask("GET", "/v1/queues/q/messages", b"").await.json();
    let there: Vec<_> = shown["items"].as_array().expect("items").iter().collect();
    let there: Vec<_> = there.iter().filter_map(|item| item["id"].as_str()).collect();
    assert_eq!(there, [&ids[0], &ids[2], &ids[3]]);
    // Forgotten by a crash after it was stored: published again, under the same id.
    world.database().sql("DELETE FROM mom_publishes").await;
    let sent = alice.ask_with("POST", path, &[("idempotency-key", "k")], b"m").await;
    assert_eq!(sent.json()["id"], json!(ids[0]));
}
