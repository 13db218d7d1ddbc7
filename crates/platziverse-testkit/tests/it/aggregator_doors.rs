//! Who is let in by an aggregator, and what is made of packets that are none.

use jsonwebtoken::{EncodingKey, Header, encode};
use platziverse_testkit::{Aggregator, World, WsClient, WsOptions};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::aggregator::{broadcast, consume};

const SECRET: &str = "a secret of thirty-two bytes that signs";
/// Signed with it: of Bob until 2096, and of Bob until 1970.
const OF_BOB: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJib2IiLCJleHAiOjQwMDAwMDAwMDB9.\
                      lEZN-aziGdhW2p5wgCZbpTWlmHGg3OCnxnWWRB6VBbI";
const OF_BOB_ONCE: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJib2IiLCJleHAiOjF9.\
                           ydIKRVTN2lYJs9e7RD1qWsyDVDcKsrYl5QC5439F4Z0";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
                          MCowBQYDK2VwAyEAWJwBur0VFM6AaMe3N/28pSOAjJbNbxuNFoxN2E2bA9w=\n\
                          -----END PUBLIC KEY-----\n";
/// Signed with its private key: of Cleo until 2096.
const OF_CLEO: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.\
                       eyJzdWIiOiJjbGVvIiwiZXhwIjo0MDAwMDAwMDAwfQ.\
                       VGPXNYe1Nyj_jGAsgQlo4hE2Zwkfvdmq8hpdX0WdB54BWUzq6F6gx-hniagOEHlq68Zz-\
                       dMsNd7f8OGp9TnTBQ";
const OF_ANA: &str = "a token of Ana's own";

/// The status, and that the text says why.
async fn refused(options: WsOptions, status: u16, why: &str) {
    match WsClient::try_connect(options).await {
        Ok(_) => panic!("let in, and not {status}: {why}"),
        Err(refused) => {
            assert_eq!(refused.status, status, "{refused}");
            assert!(refused.text.contains(why), "{refused} says nothing of {why:?}");
        }
    }
}

async fn is_let_in_as(options: WsOptions, client: &str) -> WsClient {
    let mut socket = WsClient::connect(options).await;
    assert_eq!(socket.expect("welcome").await["client"], client);
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_connect() {
    let world = World::unmigrated().await;
    let tokens = json!([{"client": "ana", "token": OF_ANA}]).to_string();
    let settings = [
        ("PLATZIVERSE_AGGREGATOR__ANONYMOUS", "never"),
        ("PLATZIVERSE_AGGREGATOR__TOKENS", tokens.as_str()),
        ("PLATZIVERSE_AGGREGATOR__JWT_SECRET", SECRET),
        ("PLATZIVERSE_AGGREGATOR__JWT_PUBLIC_KEY", PUBLIC_KEY),
        ("PLATZIVERSE_AGGREGATOR__ORIGINS", "[\"https://app.example.com\"]"),
        ("PLATZIVERSE_AGGREGATOR__SOCKETS_PER_CLIENT", "2"),
        ("PLATZIVERSE_AGGREGATOR__SOCKETS_PER_ADDRESS", "4"),
    ];
    let at = world.aggregator_with(&settings).await;
    let plain = || WsOptions::new(at.address());
    refused(plain().client("ana"), 401, "show a token").await;
    for wrong in ["nobody's token", OF_BOB_ONCE, &OF_BOB[..OF_BOB.len() - 1]] {
        refused(plain().token(wrong), 401, "not known here").await;
    }
    let mut ana = is_let_in_as(plain().token(OF_ANA).client("eve"), "ana").await;
    let bob = is_let_in_as(plain().token(OF_BOB), "bob").await;
    let cleo = is_let_in_as(plain().browser_token(OF_CLEO), "cleo").await;
    assert_eq!(cleo.protocol(), Some("platziverse.v1"));

    // A session's token shows nothing by itself, and is of nobody else.
    let token = ana.done(consume("1", &["chat"])).await["resume_token"].clone();
    let token = token.as_str().expect("a token");
    refused(plain().resume(token), 401, "show a token").await;
    drop(cleo);
    let mut other = WsClient::connect(plain().token(OF_BOB).resume(token)).await;
    let welcome = other.expect("welcome").await;
    assert_eq!((&welcome["client"], &welcome["resumed"]), (&json!("bob"), &json!(false)));

    refused(plain().token(OF_BOB), 429, "sockets_per_client").await;
    let _second = is_let_in_as(plain().token(OF_ANA), "ana").await;
    refused(plain().token(OF_CLEO), 429, "sockets_per_address").await;
    drop(bob);
    let page = |origin: &str| plain().token(OF_BOB).origin(origin);
    at.counts("platziverse_aggregator_closed_sockets_total{of=\"gone\"}", 2.0).await;
    let _third = is_let_in_as(page("https://app.example.com"), "bob").await;
    refused(page("https://app.example.com.evil.org"), 403, "aggregator.origins").await;
    refused(plain().protocols(&["platziverse.v2"]), 400, "platziverse.v1").await;
    let offsets = plain().token(OF_BOB).with_query("offsets", "OUT_CHAT");
    refused(offsets, 400, "OUT_CHAT:12").await;
    refused(plain().token(OF_BOB).with_query("room", "1"), 400, "client, resume and offsets").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_while_its_socket_is_open() {
    let world = World::unmigrated().await;
    let at = world.aggregator_with(&[("PLATZIVERSE_AGGREGATOR__JWT_SECRET", SECRET)]).await;
    let (now, _) = Uuid::now_v7().get_timestamp().expect("it has the time").to_unix();
    // A minute more is given, since clocks differ: seconds of it are left.
    let claims = json!({"sub": "bob", "exp": now - 60 + 4});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&Header::default(), &claims, &key).expect("a token");
    let options = WsOptions::new(at.address()).token(&token);
    let mut bob = is_let_in_as(options.clone(), "bob").await;
    bob.done(consume("1", &["chat"])).await;
    let closed = bob.closed().await;
    assert_eq!(closed.code, 4001, "{closed:?}");
    refused(options, 401, "its time is over").await;
}

/// Packets that are wrong: what the error's code is, and what its text says among others.
fn wrong_packets() -> Vec<(Value, &'static str, &'static str)> {
    let chat = json!({"chat": true});
    let publish = |more: Value| {
        let mut packet = json!({"packet_action": "publish", "channel": chat, "message": 1});
        packet
            .as_object_mut()
            .expect("it is one")
            .extend(more.as_object().cloned().unwrap_or_default());
        packet
    };
    let request = |more: Value| {
        let mut packet = publish(more);
        packet["packet_action"] = json!("request");
        packet
    };
    let many: Vec<_> = (0..101).map(|number| number.to_string()).collect();
    vec![
        (json!({"packet_action": "sing"}), "invalid_packet", "no packet_action \"sing\""),
        (json!({"packet_action": "consume"}), "invalid_packet", "set a channel to true"),
        (json!({"packet_action": "consume", "channel": {"chat": false}}), "invalid_packet", "true"),
        (json!({"packet_action": "consume", "channel": {"news": true}}), "unknown_channel", "news"),
        (
            json!({"packet_action": "consume", "channel": chat, "consume_target": ["OUT_VOICE"]}),
            "unknown_target",
            "they have OUT_CHAT",
        ),
        (
            json!({"packet_action": "publish", "channel": chat}),
            "invalid_packet",
            "message is missing",
        ),
        (publish(json!({"publish_target": "amq.topic"})), "unknown_target", "INBOUND or OUTBOUND"),
        (publish(json!({"publish_target": "OUTBOUND"})), "invalid_packet", "needs a distribution"),
        (
            publish(json!({"publish_target": "INBOUND", "distribution": {"broadcast": true}})),
            "invalid_packet",
            "for servers",
        ),
        (
            publish(json!({"distribution": {"broadcast": true, "direct": ["bob"]}})),
            "invalid_packet",
            "one of broadcast",
        ),
        (publish(json!({"distribution": {"direct": ["b.*"]}})), "invalid_packet", "no client"),
        (publish(json!({"distribution": {"multicast": many}})), "invalid_packet", "at most 100"),
        (publish(json!({"colour": "red"})), "invalid_packet", "unknown field `colour`"),
        (request(json!({"deadline_ms": 1})), "invalid_packet", "deadline_ms"),
        (
            request(json!({"channel": {"chat": true, "voice": true}})),
            "invalid_packet",
            "one channel",
        ),
        (request(json!({"distribution": {"broadcast": true}})), "invalid_packet", "one client"),
        (
            json!({"packet_action": "reply", "channel": chat, "message": 1}),
            "invalid_packet",
            "reply_to",
        ),
        (json!({"packet_action": "ack"}), "invalid_packet", "needs offsets"),
        (
            json!({"packet_action": "ack", "offsets": {"IN_CHAT": 1}}),
            "unknown_target",
            "OUT_VOICE, OUT_CHAT, OUT_TICKETS",
        ),
    ]
}

async fn error_is(client: &mut WsClient, id: Value, code: &str, text: &str) {
    let error = client.expect("error").await;
    assert_eq!((&error["id"], &error["code"]), (&id, &json!(code)), "{error}");
    let said = error["text"].as_str().unwrap_or_default();
    assert!(said.contains(text), "{error} says nothing of {text:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_packets_are_answered_in_words() {
    let world = World::unmigrated().await;
    let at = world.aggregator().await;
    let mut ana = at.client("ana").await;
    for (number, (mut packet, code, text)) in wrong_packets().into_iter().enumerate() {
        packet["id"] = json!(number.to_string());
        ana.send(packet).await;
        error_is(&mut ana, json!(number.to_string()), code, text).await;
    }
    // It goes on, and its patience ends.
    ana.done(broadcast("b", 1)).await;
    ana.send_raw(Message::text("{")).await;
    error_is(&mut ana, Value::Null, "invalid_packet", "not understood").await;
    ana.send_raw(Message::binary(vec![1, 2, 3])).await;
    error_is(&mut ana, Value::Null, "invalid_packet", "binary").await;
    assert_eq!(ana.closed().await.code, 4000);

    let mut ana = at.client("ana").await;
    ana.send(request_without_id()).await;
    error_is(&mut ana, Value::Null, "invalid_packet", "needs an id").await;
    let mut long = broadcast("1", 1);
    long["id"] = json!("i".repeat(101));
    ana.send(long).await;
    error_is(&mut ana, Value::Null, "invalid_packet", "1 to 100 bytes").await;
    ana.send(broadcast("2", "m".repeat(65_536))).await;
    error_is(&mut ana, Value::Null, "too_large", "at most 65536 bytes").await;
    assert_eq!(ana.closed().await.code, 1009);
    too_many_requests(&at).await;
}

fn request_without_id() -> Value {
    json!({"packet_action": "request", "channel": {"chat": true}, "message": 1})
}

/// One more than may wait is refused; the others are not disturbed.
async fn too_many_requests(at: &Aggregator) {
    let mut bob = at.client("bob").await;
    for number in 0..=64 {
        bob.send(crate::aggregator::request(&number.to_string(), number, 60_000)).await;
    }
    error_is(&mut bob, json!("64"), "too_many", "64 requests").await;
    bob.done(broadcast("b", 1)).await;
}
