//! What aggregators publish and hear.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use platziverse_broker::aggregator::{
    Claim, ClaimId, ClaimState, Inbound, Kind, Outbound, Post, PostError, Presence, Request,
    Sender, SenderSettings, Sent, Target, To, client_key,
};
use platziverse_broker::dead::{self, Selection};
use platziverse_broker::topology::{REQUESTS, StreamLimits};
use platziverse_broker::{
    Bound, Context, LiveHandle, LiveMessages, LiveOptions, LiveQueue, LogReader, Topology,
};
use platziverse_config::IngestConfig;
use tokio::time::Instant;
use uuid::Uuid;

use crate::log::{follow, next_message};
use crate::world::*;

const SETTINGS: SenderSettings =
    SenderSettings { publish_timeout: Duration::from_secs(10), in_flight_bytes: 64 << 20 };

const STREAMS: StreamLimits =
    StreamLimits { resume_window: Duration::from_secs(120), bytes_max: 1 << 30 };

fn topology(config: &IngestConfig) -> Topology {
    Topology::for_aggregator(&["chat", "voice"].map(str::to_owned), config, STREAMS)
}

async fn started_with(config: &IngestConfig, settings: SenderSettings) -> (World, Context, Sender) {
    let world = World::new();
    let context = world.context_of(topology(config));
    let sender = Sender::start(&context, settings).await.unwrap();
    (world, context, sender)
}

async fn started() -> (World, Context, Sender) {
    started_with(&IngestConfig::default(), SETTINGS).await
}

fn chat() -> String {
    "chat".to_owned()
}

/// A message whose body is the number.
fn post(to: To, number: u32) -> Post {
    Post::new(to, Kind::Publish, number.to_string())
}

fn to_servers() -> To {
    To::Servers { channel: chat() }
}

fn to_everyone() -> To {
    To::Everyone { channel: chat() }
}

async fn publish(sender: &Sender, post: Post) -> Result<(), PostError> {
    soon("an answer", async { sender.hand(post).await.confirmed().await }).await
}

async fn next_outbound(log: &mut LogReader) -> Outbound {
    Outbound::read("chat", next_message(log).await.1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_servers_reaches_one_queue_and_the_stream_of_requests() {
    let (_world, context, sender) = started().await;
    let mut chat_servers = consume(&context, "IN_CHAT", 10).await;
    let mut voice_servers = consume(&context, "IN_VOICE", 10).await;
    let mut requests = follow(&context, REQUESTS).await;
    let request = Request {
        id: "r1".to_owned(),
        reply_to: Some(client_key("chat", "ana")),
        deadline: Some(platziverse_service::clock::now().plus_millis(60_000)),
    };
    let asked = Post {
        kind: Kind::Request,
        client: Some("ana".to_owned()),
        session: Some(Uuid::from_u128(7)),
        request: Some(request.clone()),
        ..post(to_servers(), 1)
    };
    publish(&sender, asked).await.unwrap();
    publish(&sender, post(To::Servers { channel: "voice".to_owned() }, 2)).await.unwrap();
    let marker = Uuid::now_v7();
    let id = ClaimId { owner: marker, number: 3 };
    let [client, name] = ["ana", "r1"].map(str::to_owned);
    let state = ClaimState::Void;
    let claims = vec![Claim { id, client, request: name, state, instead_of: Some(id) }];
    let claiming = To::Marker { id: marker, claims: claims.clone() };
    publish(&sender, post(claiming, 0)).await.unwrap();

    let delivery = next(&mut chat_servers).await;
    let Request { id, reply_to, deadline } = request;
    assert_eq!(
        Inbound::read(&delivery),
        Inbound {
            kind: Kind::Request,
            client: Some("ana".to_owned()),
            session: Some(Uuid::from_u128(7)),
            request: Some(id.clone()),
            reply_to,
            deadline,
        }
    );
    assert_eq!(delivery.app_id(), Some(&*context.name));
    assert!(delivery.ack().await);
    let delivery = next(&mut voice_servers).await;
    assert_eq!(
        (delivery.body.as_slice(), Inbound::read(&delivery).kind),
        (&b"2"[..], Kind::Publish)
    );

    let (_, asked) = next_message(&mut requests).await;
    assert!(
        matches!(Sent::read(&asked), Sent::Request { client, id: known, at: Some(_) }
            if client == "ana" && known == id),
        "{asked:?}"
    );
    assert_eq!(Sent::read(&next_message(&mut requests).await.1), Sent::Other);
    assert_eq!(Sent::read(&next_message(&mut requests).await.1), Sent::Marker(marker, claims));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_clients_is_in_the_stream_of_their_channel() {
    let (_world, context, sender) = started().await;
    let mut log = follow(&context, "OUT_CHAT").await;
    let clients = || vec!["bob".to_owned(), "ana".to_owned()];
    let id = Uuid::now_v7();
    for to in [
        to_everyone(),
        To::Everyone { channel: "voice".to_owned() },
        To::Client { channel: chat(), client: "ana".to_owned() },
        To::Clients { channel: chat(), clients: clients() },
        To::ChannelMarker { channel: chat(), id },
    ] {
        publish(&sender, post(to, 1)).await.unwrap();
    }
    let mut sorted = clients();
    sorted.sort();
    for target in [
        Target::Everyone,
        Target::Clients(vec!["ana".to_owned()]),
        Target::Clients(sorted),
        Target::Marker(id),
    ] {
        assert_eq!(next_outbound(&mut log).await.target, target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_no_channel_becomes_a_dead_letter() {
    let (world, _context, sender) = started().await;
    let none = || "none".to_owned();
    publish(&sender, post(To::Servers { channel: none() }, 1)).await.unwrap();
    publish(&sender, post(To::Everyone { channel: none() }, 2)).await.unwrap();
    // It is in the stream of requests, but no server would ever see it.
    world.delete_queue("IN_CHAT");
    publish(&sender, post(to_servers(), 3)).await.unwrap();
    let operator = world.operator().await;
    let dead = dead::list(&operator, &Selection::All, 10).await.unwrap();
    let keys: Vec<_> = dead.iter().map(|letter| letter.origin_key.as_str()).collect();
    assert_eq!(keys, ["none", "none.broadcast", "chat"]);
    assert!(dead.iter().all(|letter| letter.reason == "unroutable"), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_keep_the_order_in_which_they_were_handed_over() {
    const MESSAGES: u32 = 3_000;
    let (world, context, sender) = started().await;
    let mut log = follow(&context, "OUT_CHAT").await;
    let mut handed = Vec::new();
    for number in 0..MESSAGES {
        handed.push(sender.hand(post(to_everyone(), number)).await);
        if number == MESSAGES / 2 {
            world.close_connections(1).await;
        }
    }
    let confirmed =
        soon("confirmed", join_all(handed.into_iter().map(|one| one.confirmed()))).await;
    assert!(confirmed.iter().all(Result::is_ok), "{confirmed:?}");
    // After a lost connection all that was not confirmed goes again, from its first on.
    let mut next = 0;
    while next < MESSAGES {
        let body = next_outbound(&mut log).await.body;
        let number: u32 = std::str::from_utf8(&body).unwrap().parse().unwrap();
        assert!(number <= next, "{number} came before {next}");
        next = next.max(number + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_do_nothing_fill_their_queue_and_no_other() {
    let config = IngestConfig { queue_length_max: 100, ..IngestConfig::default() };
    let (_world, context, sender) = started_with(&config, SETTINGS).await;
    let mut log = follow(&context, "OUT_CHAT").await;
    let filling = async {
        let mut accepted = 0;
        while publish(&sender, post(to_servers(), accepted)).await != Err(PostError::Full) {
            accepted += 1;
        }
        accepted
    };
    let accepted = soon("full", filling).await;
    assert!(accepted >= 100, "{accepted}");
    publish(&sender, post(To::Servers { channel: "voice".to_owned() }, 0)).await.unwrap();
    publish(&sender, post(to_everyone(), 7)).await.unwrap();
    assert_eq!(next_outbound(&mut log).await.body, "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rabbitmq_each_is_answered_in_time() {
    let settings = SenderSettings { publish_timeout: Duration::from_secs(2), ..SETTINGS };
    let (world, context, sender) = started_with(&IngestConfig::default(), settings).await;
    assert_eq!(sender.exists("ana").await, Ok(false));
    let path = format!("permissions/{}/{}", context.amqp.vhost, context.amqp.username);
    world.call("DELETE", &path, "");
    world.close_connections(2).await;
    eventually("noticed", async || !context.readiness.is_ready()).await;
    let begun = Instant::now();
    let (published, found) = tokio::join!(
        join_all((0..100).map(|number| publish(&sender, post(to_everyone(), number)))),
        join_all((0..100).map(|number| sender.exists(if number % 2 == 0 { "ana" } else { "bob" })))
    );
    let away = |error: &PostError| matches!(error, PostError::Unavailable(_));
    assert!(published.iter().all(|outcome| outcome.as_ref().is_err_and(away)), "{published:?}");
    assert!(found.iter().all(|outcome| outcome.as_ref().is_err_and(away)), "{found:?}");
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    let permissions = r#"{"configure":".*","write":".*","read":".*"}"#;
    world.call("PUT", &path, permissions);
    eventually("ready again", async || context.readiness.is_ready()).await;
    let mut log = follow(&context, "OUT_CHAT").await;
    publish(&sender, post(to_everyone(), 1_000)).await.unwrap();
    // What was answered otherwise is not published behind its publisher's back.
    assert_eq!(next_outbound(&mut log).await.body, "1000");
    assert_eq!(sender.exists("ana").await, Ok(false));
}

async fn hold(context: &Context, instance: &str, clients: &[&str]) -> (LiveHandle, LiveMessages) {
    let (handle, messages) =
        LiveQueue::start(context, LiveOptions::clients(&instance, format!("own.{instance}")))
            .await
            .unwrap();
    let clients = clients.iter().map(|client| (*client).to_owned()).collect();
    assert_eq!(handle.rebind(clients, Vec::new()).await, Bound::Now);
    (handle, messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_exists_while_somebody_has_it() {
    let (_world, context, sender) = started().await;
    let (one, mut heard) = hold(&context, "host:1", &["ana", "bob"]).await;
    let (_other, _unread) = hold(&context, "host:2", &["bob"]).await;
    for (client, exists) in [("ana", true), ("bob", true), ("eve", false), ("", false)] {
        assert_eq!(sender.exists(client).await, Ok(exists), "{client}");
    }
    assert_eq!(sender.exists(&"e".repeat(256)).await, Ok(false));
    let probe = soon("a probe", heard.next()).await.unwrap();
    assert_eq!(Presence::read(&probe), Presence::Probe);
    one.rebind(Vec::new(), ["ana", "bob"].map(str::to_owned).to_vec()).await;
    let gone = async || sender.exists("ana").await == Ok(false);
    eventually("gone", gone).await;
    assert_eq!(sender.exists("bob").await, Ok(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_another_client_when_many_ask() {
    const CLIENTS: usize = 2_000;
    let (_world, context, sender) = started().await;
    let names: Vec<_> = (0..CLIENTS).map(|number| format!("client {number}")).collect();
    let is_there = |number: usize| number.is_multiple_of(3);
    let there: Vec<_> = (0..CLIENTS).filter(|number| is_there(*number)).collect();
    let there: Vec<_> = there.iter().map(|number| names[*number].as_str()).collect();
    let (_handle, _messages) = hold(&context, "host:1", &there).await;
    let found = soon("answered", join_all(names.iter().map(|name| sender.exists(name)))).await;
    let wrong: BTreeSet<_> =
        (0..CLIENTS).filter(|number| found[*number] != Ok(is_there(*number))).collect();
    assert_eq!(wrong, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_reaches_whoever_has_the_client() {
    let (_world, context, sender) = started().await;
    let [session, epoch] = [Uuid::now_v7(), Uuid::now_v7()];
    let client = || "ana".to_owned();
    let takeover =
        || Post::new(To::Takeover { client: client(), session, epoch }, Kind::Publish, "");
    // Nobody has it: that is no fault.
    publish(&sender, takeover()).await.unwrap();
    let (_one, mut first) = hold(&context, "host:1", &["ana"]).await;
    let (_other, mut second) = hold(&context, "host:2", &["ana", "bob"]).await;
    publish(&sender, takeover()).await.unwrap();
    for heard in [&mut first, &mut second] {
        let message = soon("a takeover", heard.next()).await.unwrap();
        let read = Presence::read(&message);
        assert_eq!(read, Presence::Takeover { client: client(), session, epoch });
    }
    publish(&sender, post(to_everyone(), 1)).await.unwrap();
}
