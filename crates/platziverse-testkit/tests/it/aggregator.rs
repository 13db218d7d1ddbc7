//! The life of a session at an aggregator, seen by clients.

use std::time::Duration;

use platziverse_testkit::{
    Aggregator, PATIENCE, Proxy, Toxic, World, WsClient, WsOptions, check, eventually,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// Long enough for what must not come.
const A_WHILE: Duration = Duration::from_millis(1_500);

/// The packet that begins to consume channels.
pub(crate) fn consume(id: &str, channels: &[&str]) -> Value {
    json!({"packet_action": "consume", "id": id, "channel": chosen(channels)})
}

/// The packet that publishes in `chat`, to the servers if there is no distribution.
pub(crate) fn publish(id: &str, distribution: Value, message: Value) -> Value {
    json!({
        "packet_action": "publish", "id": id, "channel": {"chat": true},
        "distribution": distribution, "message": message,
    })
}

/// The packet that publishes to every client of `chat`.
pub(crate) fn broadcast(id: &str, message: impl Into<Value>) -> Value {
    publish(id, json!({"broadcast": true}), message.into())
}

/// The packet that asks the servers of `chat`.
pub(crate) fn request(id: &str, message: impl Into<Value>, deadline_ms: u64) -> Value {
    json!({
        "packet_action": "request", "id": id, "channel": {"chat": true}, "message": message.into(),
        "deadline_ms": deadline_ms,
    })
}

/// Goes on with a client's session at an aggregator: the client, and its welcome.
pub(crate) async fn back(at: &Aggregator, client: &str, token: &str) -> (WsClient, Value) {
    let options = WsOptions::new(at.address()).client(client).resume(token);
    let mut client = WsClient::connect(options).await;
    let welcome = client.expect("welcome").await;
    (client, welcome)
}

/// What a packet's resume token is.
pub(crate) fn token(packet: &Value) -> String {
    packet["resume_token"].as_str().unwrap_or_else(|| panic!("no token: {packet}")).to_owned()
}

fn chosen(channels: &[&str]) -> Value {
    channels.iter().map(|channel| ((*channel).to_owned(), Value::from(true))).collect()
}

/// A client that consumes channels.
pub(crate) async fn consumer(at: &Aggregator, id: &str, channels: &[&str]) -> WsClient {
    let mut client = at.client(id).await;
    client.done(consume("consume", channels)).await;
    client
}

/// The next message, which must say this.
pub(crate) async fn hears(client: &mut WsClient, message: impl Into<Value>) -> Value {
    let packet = client.expect("message").await;
    assert_eq!(packet["message"], message.into(), "{packet}");
    packet
}

/// The outcome of a request, which must be all that comes.
async fn reply_of(client: &mut WsClient, id: &str) -> Value {
    let reply = client.expect("reply").await;
    assert_eq!(reply["id"], id, "{reply}");
    reply["message"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_reaches_those_it_is_for() {
    let world = World::unmigrated().await;
    let (one, two) = (world.aggregator().await, world.aggregator().await);
    let mut ana = consumer(&one, "ana", &["chat", "voice"]).await;
    let mut bob = consumer(&two, "bob", &["chat"]).await;
    let mut cleo = consumer(&two, "cleo", &["voice"]).await;
    let mut pat = one.client("pat").await;

    let receipt = pat.done(broadcast("1", "to all")).await;
    assert_eq!(receipt, json!({"packet_action": "receipt", "id": "1"}));
    let at_one = hears(&mut ana, "to all").await;
    let at_two = hears(&mut bob, "to all").await;
    assert_eq!(at_one, at_two, "the same at every aggregator");
    assert_eq!(
        (&at_one["channel"], &at_one["source"], &at_one["from"]),
        (&json!("chat"), &json!("OUT_CHAT"), &json!("pat"))
    );

    pat.done(publish("2", json!({"multicast": ["bob", "cleo"]}), json!("to some"))).await;
    let later = hears(&mut bob, "to some").await;
    assert!(later["offset"].as_u64() > at_two["offset"].as_u64(), "{later}");
    let direct = json!({"broadcast": false, "multicast": [], "direct": ["ana", "bob", "eve"]});
    let receipt = pat.done(publish("3", direct, json!("to two"))).await;
    let clients = json!({"ana": "known", "bob": "known", "eve": "unknown"});
    assert_eq!(receipt["clients"], clients);
    hears(&mut bob, "to two").await;
    // Neither what was for others, nor what is of a channel that is not consumed.
    hears(&mut ana, "to two").await;
    let mut all = broadcast("4", "everywhere");
    all["channel"] = json!({"chat": true, "voice": true, "tickets": false});
    pat.done(all).await;
    let heard = hears(&mut cleo, "everywhere").await;
    assert_eq!(heard["source"], "OUT_VOICE");
    let sources = [ana.expect("message").await, ana.expect("message").await];
    let mut sources = sources.map(|packet| packet["source"].clone().to_string());
    sources.sort();
    assert_eq!(sources, ["\"OUT_CHAT\"", "\"OUT_VOICE\""]);
    hears(&mut bob, "everywhere").await;

    // What a client that is away is sent direct: it is awaited.
    drop(bob);
    let receipt = pat.done(publish("5", json!({"direct": ["bob"]}), json!("later"))).await;
    assert_eq!(receipt["clients"], json!({"bob": "known"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_takes_what_it_chooses() {
    let world = World::unmigrated().await;
    let at = world.aggregator().await;
    let mut pat = at.client("pat").await;
    let options = WsOptions::new(at.address()).client("ana");
    let mut ana = WsClient::connect(options).await;
    assert_eq!(ana.protocol(), Some("platziverse.v1"));
    let welcome = ana.expect("welcome").await;
    assert_eq!(
        [&welcome["client"], &welcome["resumed"], &welcome["missed"], &welcome["channels"]],
        [&json!("ana"), &json!(false), &json!({}), &json!([])]
    );
    let mut witness = consumer(&at, "bob", &["chat"]).await;
    pat.done(broadcast("1", "too early")).await;
    hears(&mut witness, "too early").await;
    let mut one_of_two = consume("1", &["chat", "voice"]);
    one_of_two["consume_target"] = json!(["OUT_CHAT"]);
    ana.done(one_of_two).await;
    let mut spoken = broadcast("2", "spoken");
    spoken["channel"] = json!({"voice": true});
    pat.done(spoken.clone()).await;
    pat.done(broadcast("3", "written")).await;
    let heard = hears(&mut ana, "written").await;

    // What is said to have come does not come again; the rest does.
    pat.done(broadcast("4", "kept")).await;
    hears(&mut ana, "kept").await;
    let offset = heard["offset"].clone();
    let ack = json!({"packet_action": "ack", "id": "2", "offsets": {"OUT_CHAT": offset}});
    let said = token(&ana.done(ack).await);
    drop(ana);
    let (mut ana, welcome) = back(&at, "ana", &said).await;
    assert_eq!((&welcome["resumed"], &welcome["channels"]), (&json!(true), &json!(["chat"])));
    hears(&mut ana, "kept").await;

    ana.done(consume("3", &["voice"])).await;
    let unsubscribe = json!({"packet_action": "unsubscribe", "id": "4", "channel": {"chat": true}});
    ana.done(unsubscribe).await;
    pat.done(broadcast("5", "unheard")).await;
    pat.done(spoken).await;
    hears(&mut ana, "spoken").await;
    ana.send(json!({"packet_action": "ping"})).await;
    assert_eq!(ana.receive().await, json!({"packet_action": "pong"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_is_answered_once() {
    let world = World::unmigrated().await;
    let (one, two) = (world.aggregator().await, world.aggregator().await);
    let server = world.echo_server(world.amqp_url(), &["--channel", "chat"]);
    let mut ana = one.client("ana").await;
    ana.send(request("1", json!({"price of": 2}), 20_000)).await;
    let answer = reply_of(&mut ana, "1").await;
    assert_eq!(answer["echo"], json!({"price of": 2}));

    // Again: here, and elsewhere, by a session that begins anew.
    ana.send(request("1", json!({"price of": 2}), 20_000)).await;
    assert_eq!(reply_of(&mut ana, "1").await, answer);
    let mut phone = two.client("ana").await;
    phone.send(request("1", json!({"price of": 2}), 20_000)).await;
    assert_eq!(reply_of(&mut phone, "1").await, answer);
    // The same id of another client is another request.
    let mut bob = consumer(&two, "bob", &["voice"]).await;
    bob.send(request("1", json!({"price of": 3}), 20_000)).await;
    assert_eq!(reply_of(&mut bob, "1").await["echo"], json!({"price of": 3}));
    assert_eq!(server.log().matches("works on").count(), 2, "{}", server.log());

    // Between clients, and a reply that comes when nobody waits any more.
    let ask = json!({
        "packet_action": "request", "id": "2", "channel": {"voice": true}, "message": "there?",
        "distribution": {"direct": ["bob"]}, "deadline_ms": 20_000,
    });
    let answer = |request: &Value, message: &str| {
        json!({
            "packet_action": "reply", "id": "r", "channel": {"voice": true}, "message": message,
            "reply_to": {"client": request["from"], "request_id": request["request_id"]},
        })
    };
    ana.send(ask.clone()).await;
    let asked = hears(&mut bob, "there?").await;
    assert_eq!((&asked["from"], &asked["request_id"]), (&json!("ana"), &json!("2")));
    bob.done(answer(&asked, "yes")).await;
    assert_eq!(reply_of(&mut ana, "2").await, "yes");
    bob.done(answer(&asked, "yes, again")).await;
    let mut late = ask;
    late["id"] = json!("3");
    late["deadline_ms"] = json!(300);
    ana.send(late).await;
    let error = ana.expect("error").await;
    assert_eq!((&error["id"], &error["code"]), (&json!("3"), &json!("timeout")));
    let asked = hears(&mut bob, "there?").await;
    bob.done(answer(&asked, "too late")).await;
    ana.hears_nothing(A_WHILE).await;
}

/// At two aggregators, over two sockets, at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_twice_at_once_is_served_once() {
    const REQUESTS: usize = 60;
    let world = World::unmigrated().await;
    let (one, two) = (world.aggregator().await, world.aggregator().await);
    let (mut ana, mut phone) = (one.client("ana").await, two.client("ana").await);
    for number in 0..REQUESTS {
        let ask = request(&number.to_string(), number, 60_000);
        tokio::join!(ana.send(ask.clone()), phone.send(ask));
    }
    // A server would know a request that it had before: they are counted where they wait for one.
    let waiting = async || world.rabbitmq().peek("IN_CHAT", 1_000).await.len();
    eventually("all are sent", PATIENCE, || async {
        let sent = waiting().await;
        check(sent >= REQUESTS, || sent.to_string())
    })
    .await;
    ana.hears_nothing(A_WHILE).await;
    assert_eq!(waiting().await, REQUESTS);
    let _server = world.echo_server(world.amqp_url(), &["--channel", "chat"]);
    for client in [&mut ana, &mut phone] {
        let mut replies = Vec::new();
        for _ in 0..REQUESTS {
            let reply = client.expect("reply").await;
            assert_eq!(reply["id"], reply["message"]["echo"].to_string());
            replies.push(reply["message"]["echo"].as_u64());
        }
        replies.sort_unstable();
        assert_eq!(replies, (0..REQUESTS as u64).map(Some).collect::<Vec<_>>());
    }

    // Of a client, too.
    let mut bob = consumer(&two, "bob", &["chat"]).await;
    let mut ask = request("direct", "there?", 20_000);
    ask["distribution"] = json!({"direct": ["bob"]});
    tokio::join!(ana.send(ask.clone()), phone.send(ask));
    hears(&mut bob, "there?").await;
    bob.hears_nothing(A_WHILE).await;
}

/// What an aggregator is about to send, another one leaves to it: until it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregator_dies_with_a_request_in_hand() {
    let world = World::unmigrated().await;
    let other = world.aggregator().await;
    let bindings = world.rabbitmq().list("bindings").await;
    let keys = bindings.iter().filter_map(|binding| binding["routing_key"].as_str());
    let owners: Vec<_> = keys.filter_map(|key| key.strip_prefix("aggregator.")).collect();
    let [owner] = owners.as_slice() else { panic!("{bindings:?}") };
    let claims = json!([{"id": {"owner": owner, "number": 9}, "client": "ana", "request": "1"}]);
    let marker = json!({"message_id": Uuid::now_v7().to_string(), "delivery_mode": 2});
    world.rabbitmq().publish("INBOUND", "platziverse.marker", marker, &claims.to_string()).await;

    let at = world.aggregator().await;
    let _server = world.echo_server(world.amqp_url(), &["--channel", "chat"]);
    let mut ana = at.client("ana").await;
    ana.send(request("1", 1, 20_000)).await;
    ana.send(request("2", 2, 20_000)).await;
    assert_eq!(reply_of(&mut ana, "2").await["echo"], 2);
    ana.hears_nothing(A_WHILE).await;
    drop(other);
    assert_eq!(reply_of(&mut ana, "1").await["echo"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_answered_by_a_client() {
    let world = World::unmigrated().await;
    let at = world.aggregator().await;
    let mut ana = consumer(&at, "ana", &["chat"]).await;
    let asks = json!({
        "delivery_mode": 2, "content_type": "application/json", "type": "request",
        "correlation_id": "q-1",
    });
    world.rabbitmq().publish("OUTBOUND", "chat.client.ana", asks, "\"how many?\"").await;
    let asked = hears(&mut ana, "how many?").await;
    assert_eq!((&asked["request_id"], &asked["from"]), (&json!("q-1"), &Value::Null));
    let reply = json!({
        "packet_action": "reply", "id": "1", "channel": {"chat": true}, "message": 2,
        "reply_to": {"request_id": "q-1"},
    });
    ana.done(reply).await;
    let waiting = world.rabbitmq().peek("IN_CHAT", 10).await;
    let [message] = waiting.as_slice() else { panic!("{waiting:?}") };
    let properties = &message["properties"];
    assert_eq!(
        [&message["payload"], &properties["type"], &properties["correlation_id"]],
        [&json!("2"), &json!("reply"), &json!("q-1")]
    );
    assert_eq!(properties["headers"]["client"], "ana");
    assert_eq!(properties["delivery_mode"], 2);
}

/// All channels over one socket, and each over its own: the same is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_socket_or_one_for_each_channel() {
    const CHANNELS: [&str; 3] = ["voice", "chat", "tickets"];
    let world = World::unmigrated().await;
    let at = world.aggregator().await;
    let mut one = consumer(&at, "ana", &CHANNELS).await;
    let mut each = Vec::new();
    for channel in CHANNELS {
        each.push(consumer(&at, "ana", &[channel]).await);
    }
    let mut pat = at.client("pat").await;
    for turn in 0..20 {
        let mut packet = publish(&turn.to_string(), json!({"direct": ["ana"]}), json!(turn));
        packet["channel"] = chosen(&[CHANNELS[turn % 3]]);
        pat.done(packet).await;
        let of_all = hears(&mut one, turn).await;
        assert_eq!(hears(&mut each[turn % 3], turn).await, of_all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_comes_after_the_confirm() {
    let world = World::unmigrated().await;
    let proxy = Proxy::start(world.amqp_address()).await;
    let url = world.amqp_url_at(proxy.address());
    let at = world.aggregator_with(&[("PLATZIVERSE_AMQP__URL", &url)]).await;
    let elsewhere = world.aggregator().await;
    let mut witness = consumer(&elsewhere, "ana", &["chat"]).await;
    let mut pat = at.client("pat").await;
    pat.done(broadcast("1", 1)).await;
    // Nothing moves, and then all of it.
    proxy.set(Toxic::HalfOpen);
    pat.send(broadcast("2", 2)).await;
    pat.hears_nothing(A_WHILE).await;
    proxy.set(Toxic::None);
    assert_eq!(pat.expect("receipt").await["id"], "2");
    // There is no connection, and then there is one again.
    proxy.set(Toxic::Refuse);
    pat.send(broadcast("3", 3)).await;
    pat.hears_nothing(A_WHILE).await;
    proxy.set(Toxic::None);
    assert_eq!(pat.expect("receipt").await["id"], "3");

    for number in 1..=3 {
        hears(&mut witness, number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_given_up_is_sent_when_it_is_asked_again() {
    let world = World::unmigrated().await;
    let proxy = Proxy::start(world.amqp_address()).await;
    let url = world.amqp_url_at(proxy.address());
    let at = world.aggregator_with(&[("PLATZIVERSE_AMQP__URL", &url)]).await;
    let server = world.echo_server(world.amqp_url(), &["--channel", "chat"]);
    let mut ana = at.client("ana").await;
    ana.send(request("1", 1, 20_000)).await;
    assert_eq!(reply_of(&mut ana, "1").await["echo"], 1);
    // It waits for RabbitMQ, and its client is gone before it was sent.
    proxy.set(Toxic::Refuse);
    eventually("the loss is noticed", PATIENCE, || async {
        let (status, body) = at.readyz().await;
        check(status == 503 && body.to_string().contains("messages"), || body.to_string())
    })
    .await;
    ana.send(request("2", 2, 20_000)).await;
    at.counts("platziverse_aggregator_packets_total{of=\"request\"}", 2.0).await;
    drop(ana);
    at.counts("platziverse_aggregator_closed_sockets_total{of=\"gone\"}", 1.0).await;
    proxy.set(Toxic::None);
    let mut ana = at.client("ana").await;
    ana.send(request("2", 2, 20_000)).await;
    assert_eq!(reply_of(&mut ana, "2").await["echo"], 2);
    assert_eq!(server.log().matches("works on 2").count(), 1, "{}", server.log());
}
