use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use proptest::prelude::*;

use super::super::claim::{ClaimId, ClaimState};
use super::super::post::{Post, Request, To, client_key};
use super::*;
use crate::post::{Envelope, PostError};
use crate::publisher::short;

const CHAT: &str = "chat";

fn now() -> Timestamp {
    Timestamp::from_millis(1_780_000_000_999).unwrap()
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn chat() -> String {
    CHAT.to_owned()
}

fn sealed(post: Post) -> Envelope {
    post.seal(now()).unwrap().0
}

/// The message as whoever consumes it gets it.
fn arrived(post: Post) -> Message {
    let Envelope { exchange, key, properties, body, .. } = sealed(post);
    message(exchange, key.as_str(), properties, &body)
}

fn message(exchange: &str, key: &str, properties: BasicProperties, body: &[u8]) -> Message {
    Message {
        body: body.to_vec(),
        exchange: exchange.to_owned(),
        routing_key: key.to_owned(),
        redelivered: false,
        properties,
    }
}

fn request(to: To) -> Post {
    Post {
        client: Some("ana".to_owned()),
        session: Some(id(7)),
        request: Some(Request {
            id: "r1".to_owned(),
            reply_to: Some(client_key(CHAT, "ana")),
            deadline: Some(now().plus_millis(1_500)),
        }),
        ..Post::new(to, Kind::Request, "{}")
    }
}

#[test]
fn servers_know_who_asks_and_until_when() {
    let envelope = sealed(request(To::Servers { channel: chat() }));
    assert_eq!((envelope.exchange, envelope.key.as_str()), ("INBOUND", CHAT));
    assert_eq!(envelope.queue.as_ref().map(|queue| queue.as_str()), Some("IN_CHAT"));
    assert!(envelope.is_copied);
    let properties = &envelope.properties;
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(properties.expiration(), &None, "it would become a dead letter");
    assert_eq!(properties.timestamp(), &Some(1_780_000_000));
    assert_eq!(properties.content_type(), &Some("application/json".into()));
    assert_eq!(properties.kind(), &Some("request".into()));
    let version = properties.message_id().as_ref().map(|id| id.as_str().parse::<Uuid>());
    assert_eq!(version.unwrap().unwrap().get_version_num(), 7);
    let inbound = Inbound::read(&arrived(request(To::Servers { channel: chat() })));
    assert_eq!(
        inbound,
        Inbound {
            kind: Kind::Request,
            client: Some("ana".to_owned()),
            session: Some(id(7)),
            request: Some("r1".to_owned()),
            reply_to: Some("chat.client.ana".to_owned()),
            deadline: Some(now().plus_millis(1_500)),
        }
    );
    let reply = To::reply(&inbound.reply_to.unwrap());
    assert_eq!(reply, Some(To::Client { channel: chat(), client: "ana".to_owned() }));
    for odd in ["", "chat", "chat.client.", "chat.broadcast", "client.ana", "chat.clients.ana"] {
        assert_eq!(To::reply(odd), None, "{odd}");
    }
}

#[test]
fn clients_get_what_is_for_them() {
    let ana = || "ana".to_owned();
    for (to, target) in [
        (To::Everyone { channel: chat() }, Target::Everyone),
        (To::Client { channel: chat(), client: ana() }, Target::Clients(vec![ana()])),
        (
            To::Client { channel: chat(), client: "a.b".to_owned() },
            Target::Clients(vec!["a.b".to_owned()]),
        ),
        (
            To::Clients { channel: chat(), clients: vec!["z".to_owned(), ana(), ana()] },
            Target::Clients(vec![ana(), "z".to_owned()]),
        ),
        (To::Clients { channel: chat(), clients: vec![] }, Target::Clients(vec![])),
        (To::ChannelMarker { channel: chat(), id: id(3) }, Target::Marker(id(3))),
    ] {
        let envelope = sealed(Post::new(to.clone(), Kind::Publish, ""));
        assert_eq!(envelope.exchange, "OUTBOUND");
        assert_eq!(envelope.queue.as_ref().map(|queue| queue.as_str()), Some("OUT_CHAT"));
        assert!(!envelope.is_copied);
        let outbound = Outbound::read(CHAT, arrived(Post::new(to, Kind::Publish, "7"))).unwrap();
        assert_eq!((outbound.target, outbound.kind, outbound.from), (target, Kind::Publish, None));
        assert_eq!(outbound.timestamp.map(Timestamp::as_millis), Some(1_780_000_000_000));
        assert_eq!(outbound.body, "7");
    }
}

#[test]
fn clients_know_who_asks_and_what_became_of_it() {
    let to = || To::Client { channel: chat(), client: "bob".to_owned() };
    let asked = Outbound::read(CHAT, arrived(request(to()))).unwrap();
    let from = (asked.kind, asked.from.as_deref(), asked.request.as_deref());
    assert_eq!(from, (Kind::Request, Some("ana"), Some("r1")));
    let table = sealed(request(to())).properties.headers().clone().unwrap();
    assert!(!table.contains_key("client") && !table.contains_key("session"));
    let reply = Post { kind: Kind::Reply, error: Some("no".to_owned()), ..request(to()) };
    let reply = Outbound::read(CHAT, arrived(reply)).unwrap();
    assert_eq!((reply.kind, reply.error.as_deref()), (Kind::Reply, Some("no")));
}

#[test]
fn a_server_need_not_say_that_it_replies() {
    let properties = BasicProperties::default().with_correlation_id("r1".into());
    let bare = |properties| message("OUTBOUND", "chat.client.ana", properties, b"{}");
    let reply = Outbound::read(CHAT, bare(properties.clone())).unwrap();
    assert_eq!((reply.kind, reply.request.as_deref()), (Kind::Reply, Some("r1")));
    let asking =
        Outbound::read(CHAT, bare(properties.clone().with_type("request".into()))).unwrap();
    assert_eq!(asking.kind, Kind::Request);
    let telling = Outbound::read(CHAT, bare(properties.with_type("publish".into()))).unwrap();
    assert_eq!(telling.kind, Kind::Publish);
    // Nobody could reply to it.
    let nameless = BasicProperties::default().with_type("request".into());
    assert_eq!(Outbound::read(CHAT, bare(nameless)).unwrap().kind, Kind::Publish);
}

#[test]
fn all_aggregators_know_what_has_been_asked() {
    let sent = |post| Sent::read(&arrived(post));
    let known = Sent::Request {
        client: "ana".to_owned(),
        id: "r1".to_owned(),
        at: Some(Timestamp::from_millis(1_780_000_000_000).unwrap()),
    };
    assert_eq!(sent(request(To::Servers { channel: chat() })), known);
    let plain = Post { request: None, ..request(To::Servers { channel: chat() }) };
    assert_eq!(sent(Post { kind: Kind::Publish, ..plain }), Sent::Other);
    let reply = Post { kind: Kind::Reply, ..request(To::Servers { channel: chat() }) };
    assert_eq!(sent(reply), Sent::Other);
    let empty = |to| Post::new(to, Kind::Publish, "");
    let marker = |claims| To::Marker { id: id(9), claims };
    assert_eq!(sent(empty(marker(Vec::new()))), Sent::Marker(id(9), Vec::new()));
    let [client, request] = ["ana", "r1"].map(str::to_owned);
    let of = |number| ClaimId { owner: id(7), number };
    let first = Claim {
        id: of(1),
        client: client.clone(),
        request: request.clone(),
        state: ClaimState::Sent,
        instead_of: None,
    };
    let claims = vec![first.clone(), Claim { id: of(2), instead_of: Some(of(1)), ..first }];
    assert_eq!(sent(empty(marker(claims.clone()))), Sent::Marker(id(9), claims));
    let withdrawn = To::Withdrawn { client: client.clone(), request: request.clone() };
    assert_eq!(sent(empty(withdrawn)), Sent::Withdrawn { client, id: request });
}

#[test]
fn a_session_is_taken_over() {
    let to = To::Takeover { client: "ana".to_owned(), session: id(1), epoch: id(2) };
    let envelope = sealed(Post::new(to.clone(), Kind::Publish, "ignored"));
    assert_eq!((envelope.exchange, envelope.key.as_str()), ("platziverse.clients", "ana"));
    assert_eq!(envelope.queue, None);
    let client = "ana".to_owned();
    let taken = Presence::Takeover { client, session: id(1), epoch: id(2) };
    assert_eq!(Presence::read(&arrived(Post::new(to, Kind::Publish, ""))), taken);
    let of_type = |kind: &str| BasicProperties::default().with_type(short(kind));
    let read = |kind, body| Presence::read(&message("", "ana", of_type(kind), body));
    assert_eq!(read("probe", b""), Presence::Probe);
    for (kind, body) in [("takeover", &b"1 2"[..]), ("takeover", &[0xff, b' ']), ("other", b"")] {
        assert_eq!(read(kind, body), Presence::Other);
    }
}

#[test]
fn what_amqp_cannot_carry_is_refused() {
    let refused = |post: Post| matches!(post.seal(now()), Err(PostError::TooLarge(_)));
    let to = |client: usize| To::Client { channel: chat(), client: "c".repeat(client) };
    let key = |client| Post::new(to(client), Kind::Publish, "");
    assert!(!refused(key(255 - "chat.client.".len())) && refused(key(255)));
    let named = |id: usize| {
        let mut post = request(to(1));
        post.request.as_mut().unwrap().id = "i".repeat(id);
        post
    };
    assert!(!refused(named(255)) && refused(named(256)));
    let error = |bytes: usize| Post { error: Some("e".repeat(bytes)), ..key(1) };
    assert!(!refused(error(100_000)) && refused(error(110_000)));
    let clients = |count: usize| {
        let clients = vec!["c".repeat(100); count];
        Post::new(To::Clients { channel: chat(), clients }, Kind::Publish, "")
    };
    assert!(!refused(clients(1_000)) && refused(clients(1_020)));
}

#[test]
fn what_is_for_nobody_is_left_out() {
    let key = |key: &str| message("OUTBOUND", key, BasicProperties::default(), b"{}");
    for odd in [
        "",
        "chat",
        "chat.",
        "chat.x",
        "chat.client",
        "chat.client.",
        "chat.marker",
        "chats.broadcast",
        "chat.multicast",
        "chat.broadcast.x",
        "voice.broadcast",
    ] {
        assert_eq!(Outbound::read(CHAT, key(odd)), None, "{odd}");
    }
    for odd in ["platziverse.marker", "platziverse.withdrawn", "chat", ""] {
        assert_eq!(Sent::read(&key(odd)), Sent::Other, "{odd}");
    }
}

/// Any value that a header may have.
fn value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        any::<f64>().prop_map(AMQPValue::Double),
        any::<Vec<u8>>().prop_map(|bytes| AMQPValue::LongString(bytes.into())),
        any::<Vec<u8>>().prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
        Just(AMQPValue::Void),
    ];
    leaf.prop_recursive(3, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8)
                .prop_map(|all| AMQPValue::FieldArray(all.into())),
            proptest::collection::vec(("[a-z]{1,8}", inner), 0..8).prop_map(|all| {
                let mut table = FieldTable::default();
                for (name, value) in all {
                    table.insert(short(&name), value);
                }
                AMQPValue::FieldTable(table)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_is_too_odd(
        key in "(chat|platziverse|x)?[.]?(broadcast|multicast|client|marker|withdrawn)?[.]?.{0,8}",
        values in proptest::collection::vec(value(), 6),
        texts in proptest::collection::vec(proptest::option::of(".{0,40}"), 4),
        kind in "(request|reply|probe|takeover|x)?",
        body in any::<Vec<u8>>(),
        time in any::<u64>(),
    ) {
        let mut table = FieldTable::default();
        let names = [CLIENT, SESSION, FROM, CLIENTS_NAMED, DEADLINE, ERROR];
        for (name, value) in names.into_iter().zip(values) {
            table.insert(name.into(), value);
        }
        let mut properties = BasicProperties::default()
            .with_headers(table)
            .with_type(short(&kind))
            .with_timestamp(time);
        let mut texts = texts.into_iter().map(|text| text.map(|text| short(&text)));
        if let Some(id) = texts.next().flatten() {
            properties = properties.with_message_id(id);
        }
        if let Some(id) = texts.next().flatten() {
            properties = properties.with_correlation_id(id);
        }
        if let Some(to) = texts.next().flatten() {
            let _ = To::reply(to.as_str());
            properties = properties.with_reply_to(to);
        }
        let message = message("", &key, properties, &body);
        let _ = (Inbound::read(&message), Sent::read(&message), Presence::read(&message));
        if let Some(Outbound { target: Target::Clients(clients), .. }) = Outbound::read(CHAT, message) {
            prop_assert!(clients.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
