//! How sockets end at an aggregator: clients that read too slowly, drains, sessions that go on
//! elsewhere, and what is missed where too much is gone.

use std::time::Duration;

use platziverse_kit::{Options, Server};
use platziverse_testkit::{Aggregator, PATIENCE, World, WsClient, WsOptions, check, eventually};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::aggregator::{back, broadcast, consume, consumer, hears, token};

/// More than the buffers between two sockets hold.
const MANY: usize = 400;
const LONG: usize = 60_000;
/// Messages between two looks at whether it is enough.
const SOME: usize = 20;
const TOO_SLOW: &str = "platziverse_aggregator_closed_sockets_total{of=\"too_slow\"}";

/// Sends long messages to everyone until a client was too slow, at most [`MANY`]: how many.
async fn flood(at: &Aggregator) -> usize {
    let mut publisher = at.client("pat").await;
    let long = "m".repeat(LONG);
    for number in 0..MANY {
        let id = number.to_string();
        publisher.send(broadcast(&id, json!([number, long]))).await;
        if number % SOME == SOME - 1 {
            while publisher.expect("receipt").await["id"] != id {}
            if at.metrics().await.try_get(TOO_SLOW).is_ok_and(|closed| closed >= 1.0) {
                return number + 1;
            }
        }
    }
    MANY
}

fn number(packet: &Value) -> usize {
    let number = packet["message"][0].as_u64().unwrap_or_else(|| panic!("{packet}"));
    usize::try_from(number).expect("it is small")
}

fn narrow(when_full: &'static str) -> [(&'static str, &'static str); 4] {
    [
        ("PLATZIVERSE_AGGREGATOR__WHEN_FULL", when_full),
        ("PLATZIVERSE_AGGREGATOR__OUTBOX_MESSAGES", "10"),
        ("PLATZIVERSE_AGGREGATOR__RECENT_BYTES", "65536"),
        ("PLATZIVERSE_AGGREGATOR__PACKETS_PER_SECOND", "10000"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_too_slowly_is_told_what_was_dropped() {
    let world = World::unmigrated().await;
    let at = world.aggregator_with(&narrow("drop_oldest")).await;
    let mut slow = consumer(&at, "ana", &["chat"]).await;
    assert_eq!(flood(&at).await, MANY);
    let (mut heard, mut dropped, mut last) = (0, 0, None);
    while last != Some(MANY - 1) {
        let packet = slow.receive().await;
        if packet["packet_action"] == "error" {
            assert_eq!(packet["code"], "dropped", "{packet}");
            let text = packet["text"].as_str().unwrap_or_default();
            let count = text.split(": ").nth(1).and_then(|rest| rest.split(' ').next());
            dropped += count.and_then(|count| count.parse::<usize>().ok()).expect("a number");
        } else {
            let number = number(&packet);
            assert!(last < Some(number), "{number} after {last:?}");
            (heard, last) = (heard + 1, Some(number));
        }
    }
    assert!(dropped > 0, "it was fast enough");
    assert_eq!(heard + dropped, MANY);
    let metrics = at.metrics().await;
    let counted = metrics.get("platziverse_aggregator_dropped_messages_total");
    assert_eq!(counted, dropped as f64);
}

/// What a client has read until its socket ends: the numbers, and the close code.
async fn read_on(
    client: &mut WsClient,
    numbers: &mut Vec<usize>,
    offset: &mut u64,
    until: usize,
) -> u16 {
    while numbers.len() < until {
        match client.try_receive(PATIENCE).await {
            Ok(Some(packet)) if packet["packet_action"] == "message" => {
                *offset = packet["offset"].as_u64().expect("an offset");
                numbers.push(number(&packet));
            }
            Ok(Some(packet)) => assert_eq!(packet["packet_action"], "ping", "{packet}"),
            Ok(None) => panic!("nothing more after {} messages", numbers.len()),
            Err(closed) => return closed.code,
        }
    }
    0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_too_slowly_may_come_back_for_it() {
    let world = World::unmigrated().await;
    let at = world.aggregator_with(&narrow("close")).await;
    let mut slow = at.client("ana").await;
    let token = token(&slow.done(consume("1", &["chat"])).await);
    let sent = flood(&at).await;
    let (mut numbers, mut offset) = (Vec::new(), 0);
    assert_eq!(read_on(&mut slow, &mut numbers, &mut offset, sent).await, 4008);
    let options = WsOptions::new(at.address()).client("ana").resume(&token);
    let mut slow = WsClient::connect(options.offsets([("OUT_CHAT", offset)])).await;
    let welcome = slow.expect("welcome").await;
    assert_eq!((&welcome["resumed"], &welcome["missed"]), (&json!(true), &json!({})));
    assert_eq!(read_on(&mut slow, &mut numbers, &mut offset, sent).await, 0);
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
}

/// Few streams are read at a time for those who come back: who takes nothing does not keep them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_need_not_wait_for_those_who_read_nothing() {
    const SLEEPERS: usize = 10;
    let world = World::unmigrated().await;
    let at = world.aggregator_with(&narrow("close")).await;
    let mut tokens = Vec::new();
    for _ in 0..=SLEEPERS {
        let mut ana = at.client("ana").await;
        tokens.push(token(&ana.done(consume("1", &["chat"])).await));
    }
    let sent = flood(&at).await;
    let mut sleepers = Vec::new();
    for token in &tokens[1..] {
        sleepers.push(back(&at, "ana", token).await);
    }
    let (mut ana, welcome) = back(&at, "ana", &tokens[0]).await;
    assert_eq!((&welcome["resumed"], &welcome["missed"]), (&json!(true), &json!({})));
    let (mut numbers, mut offset) = (Vec::new(), 0);
    assert_eq!(read_on(&mut ana, &mut numbers, &mut offset, sent).await, 0);
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_in_one_place() {
    let world = World::unmigrated().await;
    let (one, two) = (world.aggregator().await, world.aggregator().await);
    let mut pat = one.client("pat").await;
    let mut first = one.client("ana").await;
    let told = token(&first.done(consume("1", &["chat"])).await);
    pat.done(broadcast("1", "first")).await;
    hears(&mut first, "first").await;
    // At the same aggregator, and at another one.
    let (mut second, welcome) = back(&one, "ana", &told).await;
    assert_eq!(first.closed().await.code, 4009);
    hears(&mut second, "first").await;
    let (mut third, _) = back(&two, "ana", &token(&welcome)).await;
    assert_eq!(second.closed().await.code, 4009);
    hears(&mut third, "first").await;
    pat.done(broadcast("2", "second")).await;
    hears(&mut third, "second").await;
    // A token of another session, or none at all, disturbs nobody.
    let _other = one.client("ana").await;
    let (_, welcome) = back(&one, "ana", "no.token.at-all").await;
    assert_eq!(welcome["resumed"], false);
    pat.done(broadcast("3", "third")).await;
    hears(&mut third, "third").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregator_that_ends_sends_its_clients_elsewhere() {
    let world = World::unmigrated().await;
    let (mut one, two) = (world.aggregator().await, world.aggregator().await);
    let mut ana = one.client("ana").await;
    let told = token(&ana.done(consume("1", &["chat"])).await);
    let mut pat = one.client("pat").await;
    for number in 0..50 {
        pat.send(broadcast(&number.to_string(), number)).await;
    }
    hears(&mut ana, 0).await;
    one.signal("TERM");
    // What it has read has its receipt before the end.
    let mut receipts = 0;
    let closed = loop {
        match pat.try_receive(PATIENCE).await {
            Ok(Some(packet)) => receipts += usize::from(packet["packet_action"] == "receipt"),
            Ok(None) => panic!("it does not end"),
            Err(closed) => break closed,
        }
    };
    assert_eq!(closed.code, 4012, "{closed:?}");
    let after: Value = serde_json::from_str(&closed.reason).expect("JSON");
    assert!(after["reconnect_after_ms"].as_u64().is_some_and(|wait| wait <= 3_000), "{after}");
    assert_eq!(ana.closed().await.code, 4012);
    assert!(timeout(PATIENCE, one.ended()).await.expect("it ends").success());
    let (mut ana, welcome) = back(&two, "ana", &told).await;
    assert_eq!((&welcome["resumed"], &welcome["missed"]), (&json!(true), &json!({})));
    for number in 0..receipts {
        hears(&mut ana, number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rabbitmq_has_dropped_is_said() {
    let world = World::unmigrated().await;
    let settings = [
        ("PLATZIVERSE_AGGREGATOR__STREAM_BYTES_MAX", "67108864"),
        ("PLATZIVERSE_AGGREGATOR__RECENT_BYTES", "65536"),
    ];
    let at = world.aggregator_with(&settings).await;
    let mut ana = at.client("ana").await;
    let told = token(&ana.done(consume("1", &["chat", "voice"])).await);
    drop(ana);
    let mut options = platziverse_kit::Options::new(world.amqp_url()).expect("it is a URL");
    options = options.channels(["voice", "chat", "tickets"]);
    let server = connect(options).await;
    let sender = server.sender();
    let long = "m".repeat(1_000_000);
    for number in 0..130 {
        sender.broadcast("chat", &json!([number, long])).await.expect("it is stored");
    }
    drop(sender);
    let lost = || async {
        let (mut ana, welcome) = back(&at, "ana", &told).await;
        assert_eq!(welcome["resumed"], true);
        let missed = welcome["missed"].as_object().cloned().unwrap_or_default();
        check(!missed.is_empty(), || "nothing is lost yet".to_owned())?;
        let packet = ana.expect("message").await;
        Ok((missed, packet))
    };
    let (missed, first) = eventually("RabbitMQ drops the oldest", PATIENCE, lost).await;
    assert_eq!(missed.keys().collect::<Vec<_>>(), ["OUT_CHAT"]);
    let gap = &missed["OUT_CHAT"];
    assert!(gap["from"].as_u64() < gap["to"].as_u64(), "{gap}");
    // The first that comes is the first that is there.
    assert!(first["offset"].as_u64() >= gap["to"].as_u64(), "{gap}, {}", first["offset"]);
    assert!(number(&first) > 0);
    assert!(server.end(Duration::from_secs(5)).await);
}

async fn connect(options: Options) -> Server {
    Server::connect(options).await.expect("RabbitMQ is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_were_made_anew_begin_a_session_anew() {
    let world = World::unmigrated().await;
    let mut at = world.aggregator().await;
    let mut ana = consumer(&at, "ana", &["chat"]).await;
    let mut pat = at.client("pat").await;
    for number in 0..20 {
        pat.done(broadcast("1", number)).await;
        hears(&mut ana, number).await;
    }
    let ack = json!({"packet_action": "ack", "id": "1", "offsets": {"OUT_CHAT": 1_000}});
    let told = token(&ana.done(ack).await);
    at.kill();
    world.rabbitmq().delete_queue("OUT_CHAT").await;
    at.restart().expect("it starts again");
    at.ready().await;
    let (mut ana, welcome) = back(&at, "ana", &told).await;
    assert_eq!((&welcome["resumed"], &welcome["channels"]), (&json!(false), &json!([])));
    ana.done(consume("1", &["chat"])).await;
    at.client("pat").await.done(broadcast("1", "anew")).await;
    hears(&mut ana, "anew").await;
}
