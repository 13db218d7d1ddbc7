//! Clients that come back, at real aggregators with the servers that people begin with.

use std::time::Duration;

use platziverse_testkit::{Follower, FollowerOptions, PATIENCE, World};
use serde_json::{Value, json};

const CHAT: &str = "OUT_CHAT";

/// What servers have told everybody, in order.
fn said(told: &[Value]) -> Vec<Value> {
    told.iter().map(|message| message["said"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_misses_nothing_whoever_dies() {
    let world = World::unmigrated().await;
    let (mut one, other) = (world.aggregator().await, world.aggregator().await);
    // After its first loss a follower is at the next one.
    let addresses = [other.address(), one.address()];
    let mut server = world.echo_server(world.amqp_url(), &[]);
    let follow = async |client, addresses: &[_]| {
        Follower::start(addresses, FollowerOptions::new(client, &["chat"])).await
    };
    let ana = follow("ana", &addresses).await;
    let bob = follow("bob", &addresses[..1]).await;
    let say = |id: u64| {
        let message = json!({ "say": id });
        bob.send(
            &format!("say {id}"),
            json!({"packet_action": "publish", "channel": {"chat": true}, "message": message}),
        );
    };
    say(1);
    ana.hears(CHAT, 1).await;

    // Her connection is lost, then her aggregator, then the server: what is said meanwhile comes.
    ana.lose_connection();
    say(2);
    ana.connects(2).await;
    ana.hears(CHAT, 2).await;
    one.kill();
    server.kill();
    say(3);
    let _python = world.python_server(world.amqp_url(), &["chat"]);
    ana.request("q", "chat", json!("who?"), PATIENCE);
    let answer = ana.outcome("q").await;
    assert_eq!(
        (&answer["packet_action"], &answer["message"]["echo"]),
        (&json!("reply"), &json!("who?"))
    );
    assert_eq!(said(&ana.hears(CHAT, 3).await), [json!(1), json!(2), json!(3)]);
    assert_eq!(said(&bob.hears(CHAT, 3).await), [json!(1), json!(2), json!(3)]);
    assert_eq!((ana.gaps(), bob.gaps()), (Vec::new(), Vec::new()));
    assert_eq!(ana.outcomes("q").len(), 1);
    assert_eq!(ana.welcomes(), (3, 2), "{:?}", ana.closes());
    assert_eq!(bob.welcomes(), (1, 0), "{:?}", bob.closes());

    // One packet at a time.
    let mut cleo = other.client("cleo").await;
    cleo.done(json!({"packet_action": "consume", "id": "1", "channel": {"chat": true}})).await;
    cleo.send(json!({"packet_action": "jump", "id": "2"})).await;
    let refused = cleo.expect("error").await;
    assert_eq!((&refused["id"], &refused["code"]), (&json!("2"), &json!("invalid_packet")));
    cleo.hears_nothing(Duration::from_millis(50)).await;
}
