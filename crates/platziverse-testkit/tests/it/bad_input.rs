//! Bad input is refused with a reason, kept with that reason, and never stops good input.

use std::time::Duration;

use platziverse_testkit::{
    Client, DeadLetter, Message, Options, PATIENCE, QoS, RawClient, Version, World, eventually,
    millis_ago,
};
use serde_json::json;
use tokio::task::JoinSet;

/// A payload of `agent/message`, the dead letter's reason, and what the explanation must mention.
type Bad = (&'static str, Vec<u8>, &'static str, &'static str);

fn bad_payloads() -> Vec<Bad> {
    let example = || Message::example().json();
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("not JSON", text("hello"), "invalid_json", "JSON"),
        ("nothing", text(""), "invalid_json", "JSON"),
        ("half of it", text(&example()[..40]), "invalid_json", "JSON"),
        ("not UTF-8", vec![b'"', 0xFF, b'"'], "invalid_json", "UTF-8"),
        ("a NaN", text(&example().replace("\"33\"", "NaN")), "invalid_json", "JSON"),
        (
            "a number too large",
            text(&example().replace("\"33\"", "1e999")),
            "invalid_json",
            "number",
        ),
        ("a raw NUL", text(&example().replace("platzibogota", "pla\0tzi")), "invalid_json", "JSON"),
        ("the wrong shape", text(r#"{"agent": 5, "metrics": []}"#), "invalid_payload", "shape"),
        ("an array", text("[]"), "invalid_payload", "shape"),
        ("no metrics", text(r#"{"agent": {"uuid": "x"}}"#), "invalid_payload", "missing"),
        (
            "an escaped NUL",
            text(&example().replace("platzibogota", "pla\\u0000tzi")),
            "invalid_payload",
            "U+0000",
        ),
        ("an empty uuid", text(&Message::of("").json()), "invalid_payload", "agent.uuid"),
        (
            "a pid out of range",
            text(&Message::example().with_agent("pid", -1).json()),
            "invalid_payload",
            "pid",
        ),
        (
            "a time in the far future",
            text(&Message::example().timestamp(4_102_444_800_000).json()),
            "invalid_payload",
            "timestamp",
        ),
        (
            "more than 256 KiB",
            text(&Message::example().metric("x", "y".repeat(300_000)).json()),
            "payload_too_large",
            "262144",
        ),
    ]
}

/// Waits until there are `count` records in the dead-letter queue.
async fn dead_letters(world: &World, count: u64) -> Vec<DeadLetter> {
    eventually(&format!("{count} dead records"), PATIENCE, || async {
        let letters = world.rabbitmq().dead_letters().await;
        let records: u64 = letters.iter().map(|letter| letter.records).sum();
        if records == count { Ok(letters) } else { Err(format!("{records}: {letters:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_payloads_are_refused_and_kept_with_their_reason() {
    let world = World::start().await;
    let (gateway, _worker) = (world.gateway().await, world.worker().await);
    let (older, newer) =
        (world.client(&gateway, Version::V3).await, world.client(&gateway, Version::V5).await);
    for (name, payload, _, mention) in bad_payloads() {
        let ack = older.publish("agent/message", QoS::AtLeastOnce, payload.clone()).await;
        assert_eq!(ack.code, 0, "{name}: 3.1.1 has no refusal");
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let ack = newer.publish("agent/message", qos, payload.clone()).await;
            assert_eq!(ack.code, 0x99, "{name}: payload format invalid");
            let text = ack.text.unwrap_or_default();
            assert!(text.contains(mention), "{name}: {mention:?} is not in {text:?}");
        }
        older.publish("agent/message", QoS::AtMostOnce, payload).await;
    }
    let letters = dead_letters(&world, 4 * bad_payloads().len() as u64).await;
    for (name, _, reason, mention) in bad_payloads() {
        let found = letters.iter().filter(|letter| {
            letter.reason == reason && letter.error.contains(mention) && letter.stage == "gateway"
        });
        let found: u64 = found.map(|letter| letter.records).sum();
        assert!(found >= 4, "{name}: {reason} with {mention:?} is not in {letters:?}");
    }
    for client in [&older, &newer] {
        client.report(&Message::example()).await;
    }
    world.database().becomes("SELECT count(*) FROM metrics", "4").await;
    assert_eq!(world.database().value("SELECT count(*) FROM agents").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_are_not_for_clients() {
    let world = World::start().await;
    let (gateway, _worker) = (world.gateway().await, world.worker().await);
    let listener = world.listener(&gateway, Version::V5, "#").await;
    let (older, newer) =
        (world.client(&gateway, Version::V3).await, world.client(&gateway, Version::V5).await);
    let topics = ["agent/connected", "agent/disconnected", "$SYS/broker"];
    for topic in topics {
        let payload = Message::example().json();
        let ack = newer.publish(topic, QoS::AtLeastOnce, payload.clone()).await;
        assert_eq!(ack.code, 0x87, "{topic}: not authorized");
        assert!(ack.text.is_some_and(|text| text.contains("publish")), "{topic}");
        assert_eq!(older.publish(topic, QoS::ExactlyOnce, payload).await.code, 0, "{topic}");
    }
    let letters = dead_letters(&world, 2 * topics.len() as u64).await;
    assert!(letters.iter().all(|letter| letter.reason == "not_authorized"), "{letters:?}");

    older.report(&Message::example()).await;
    let heard = [listener.next().await.topic, listener.next().await.topic];
    assert_eq!(heard, ["agent/connected", "agent/message"], "and nothing of what was refused");
    world.database().becomes("SELECT count(*) FROM metrics", "2").await;
}

/// Clients that send too large packets at once.
const LARGE_CLIENTS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_end_the_connection_and_leave_a_note() {
    let world = World::start().await;
    let (gateway, _worker) = (world.gateway().await, world.worker().await);
    let mut clients = Vec::new();
    for number in 0..LARGE_CLIENTS {
        let version = Version::BOTH[number % 2];
        let id = format!("large-{number}");
        clients.push((version, RawClient::connect(gateway.mqtt(), version, &id, 60).await));
    }
    let before = gateway.memory();
    let mut tasks = JoinSet::new();
    for (version, client) in clients {
        tasks.spawn(assert_too_large(version, client));
    }
    tasks.join_all().await;
    let grown = gateway.peak_memory().saturating_sub(before);
    assert!(grown < 20_000_000, "100 MB are offered at once, it grew by {grown} bytes");
    for letter in dead_letters(&world, LARGE_CLIENTS as u64).await {
        assert_eq!(letter.reason, "packet_too_large");
        assert!(letter.error.contains("1048576"), "{}", letter.error);
        assert!(letter.body.len() < 1_000_000, "only its start is kept");
    }
    world.client(&gateway, Version::V3).await.report(&Message::example()).await;
    world.database().becomes("SELECT count(*) FROM metrics", "2").await;
}

async fn assert_too_large(version: Version, mut client: RawClient) {
    let large = vec![b'x'; 10_000_000];
    let packet = RawClient::publish_packet(version, "agent/message", 1, &large);
    // The gateway does not read it to its end.
    let _ = client.try_send(&packet).await;
    let answer = client.until_closed().await;
    if version == Version::V5 && !answer.is_empty() {
        assert_eq!((answer[0], answer[2]), (0xE0, 0x95), "packet too large: {answer:02X?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retained_message_is_refused_and_kept() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    for version in Version::BOTH {
        let client = world.client(&gateway, version).await;
        let payload = Message::example().json();
        client.send_with("agent/message", QoS::AtLeastOnce, true, payload).await;
        let closed = client.closed().await;
        if version == Version::V5 {
            assert_eq!(closed.code, Some(0x9A), "retain not supported: {closed}");
        }
    }
    let letters = dead_letters(&world, 2).await;
    assert!(letters.iter().all(|letter| letter.reason == "retain_unsupported"), "{letters:?}");
}

/// What a connected client may not send: in MQTT 3.1.1, in 5, and the reason code of the answer.
type Malformed = (&'static str, Vec<u8>, Vec<u8>, u8);

fn malformed() -> Vec<Malformed> {
    let connect = |version| RawClient::connect_packet(version, "m", 60);
    let framed = RawClient::framed;
    let same = |name, bytes: &[u8], code| (name, bytes.to_vec(), bytes.to_vec(), code);
    // A PUBLISH and a SUBSCRIBE of MQTT 5 have the length of their properties after the rest.
    let publish = |name, kind: u8, body: &[u8], code| {
        (name, framed(kind, body), framed(kind, &[body, &[0]].concat()), code)
    };
    vec![
        same("a packet type that does not exist", &[0x00, 0x00], 0x81),
        same("a length of five bytes", &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], 0x81),
        same("a topic longer than its packet", &[0x30, 0x04, 0x00, 0x50, b'a', b'b'], 0x81),
        publish("QoS 3", 0x36, &[0x00, 0x01, b'a', 0x00, 0x01], 0x81),
        publish("a topic that is not UTF-8", 0x30, &[0x00, 0x02, 0xFF, 0xFE], 0x81),
        publish("a packet identifier of 0", 0x32, &[0x00, 0x01, b'a', 0x00, 0x00], 0x81),
        publish("a topic with a wildcard", 0x30, &[0x00, 0x03, b'a', b'/', b'#'], 0x90),
        publish("a subscription to nothing", 0x82, &[0x00, 0x01], 0x82),
        ("a second CONNECT", connect(Version::V3), connect(Version::V5), 0x82),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_packets_harm_only_their_sender() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let bystander = world.client(&gateway, Version::V5).await;
    for (name, older, newer, code) in malformed() {
        let mut client = RawClient::connect(gateway.mqtt(), Version::V3, "malformed", 60).await;
        client.send(&older).await;
        assert_eq!(client.until_closed().await, [0_u8; 0], "{name}: 3.1.1 has no words for it");
        let mut client = RawClient::connect(gateway.mqtt(), Version::V5, "malformed", 60).await;
        client.send(&newer).await;
        let answer = client.until_closed().await;
        let seen = (answer.first(), answer.get(2));
        assert_eq!(seen, (Some(&0xE0), Some(&code)), "{name}: DISCONNECT, in {answer:02X?}");
    }
    for (name, bytes) in
        [("HTTP", &b"GET / HTTP/1.1\r\n\r\n"[..]), ("PINGREQ first", &[0xC0, 0x00])]
    {
        let mut client = RawClient::open(gateway.mqtt()).await;
        client.send(bytes).await;
        assert!(client.closed_within(PATIENCE).await.is_some(), "{name}");
    }
    bystander.report(&Message::example()).await;
    assert!(bystander.is_closed().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_keeps_bad_records_and_stores_the_good_ones_beside_them() {
    let world = World::start().await;
    let (gateway, worker) = (world.gateway().await, world.worker().await);
    let client = world.client(&gateway, Version::V3).await;
    client.report(&Message::example()).await;
    world.database().becomes("SELECT count(*) FROM metrics", "2").await;

    let received = millis_ago(Duration::from_secs(60));
    let record = |topic: &str, uuid: &str| {
        let payload: serde_json::Value =
            serde_json::from_str(&Message::example().from_agent(uuid).json()).expect("JSON");
        json!({
            "id": uuid::Uuid::now_v7(), "topic": topic, "client": "c",
            "session": uuid::Uuid::now_v7(), "received": received, "qos": 1,
            "payload": payload,
        })
        .to_string()
    };
    let lines = [
        record("agent/message", "before"),
        "no record".to_owned(),
        record("agent/nonsense", "x"),
        record("agent/message", "after"),
    ];
    let properties = json!({"delivery_mode": 2, "headers": {"records": 4}});
    let body = lines.join("\n") + "\n";
    world.rabbitmq().publish("platziverse.telemetry", "agent.message", properties, &body).await;

    let letters = dead_letters(&world, 2).await;
    let mut reasons: Vec<_> =
        letters.iter().map(|l| (l.reason.as_str(), l.stage.as_str())).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [("malformed_record", "worker"), ("unknown_topic", "worker")]);
    assert!(letters.iter().any(|letter| letter.body.contains("no record")), "{letters:?}");
    world.database().becomes("SELECT count(*) FROM metrics", "6").await;
    worker.counts("platziverse_worker_records_dead_lettered_total", 2.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_database_refuses_is_kept_alone() {
    let world = World::start().await;
    let (gateway, worker) = (world.gateway().await, world.worker().await);
    world.database().sql("ALTER TABLE agents ALTER hostname TYPE varchar(11)").await;
    let client = world.client(&gateway, Version::V5).await;
    let mut pending = Vec::new();
    for number in 0..200 {
        let host = if number == 100 { "nowhere at all" } else { "somewhere" };
        let message = Message::of(&format!("agent-{number}"))
            .with_agent("hostname", host)
            .metric("n", number);
        pending.push(client.send("agent/message", QoS::AtLeastOnce, message.json()).await);
    }
    for pending in pending {
        assert_eq!(pending.acknowledged().await.expect("acknowledged").code, 0);
    }
    world.database().becomes("SELECT count(*) FROM metrics", "199").await;
    // Its announcement is refused as its message is.
    let letters = dead_letters(&world, 2).await;
    for letter in letters {
        assert_eq!((letter.reason.as_str(), letter.stage.as_str()), ("database_refused", "worker"));
        assert!(
            letter.body.contains("nowhere at all") && letter.error.contains("too long"),
            "{letter:?}"
        );
    }
    worker.counts("platziverse_worker_records_dead_lettered_total", 2.0).await;
}

/// What is not acknowledged for so long waits for room, and not for a busy machine.
const NO_ROOM: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_of_one_client_does_not_delay_another() {
    let world = World::start().await;
    // There is no room for what is bad: its sender has to wait.
    let gateway = world.gateway_with(&[("PLATZIVERSE_INGEST__DEAD_LENGTH_MAX", "1")]).await;
    let noisy = Client::connect(Options::new(gateway.mqtt(), Version::V3)).await.expect("accepted");
    let good = world.client(&gateway, Version::V3).await;
    let mut bad = Vec::new();
    // One by one, since what comes at once is kept in one message.
    let mut waiting = loop {
        let mut one = noisy.send("agent/message", QoS::AtLeastOnce, "nonsense").await;
        match one.answer(NO_ROOM).await {
            Some(answer) => bad.push(answer.expect("acknowledged")),
            None => break one,
        }
        assert!(bad.len() < 50, "the dead-letter queue has no bound");
    };
    for number in 0..20 {
        let report = Message::of("good").metric("n", number);
        let reported = tokio::time::timeout(Duration::from_secs(10), good.report(&report)).await;
        reported.expect("acknowledged in time");
    }
    assert!(waiting.so_far().is_none(), "the bad one was still waiting");
    world.rabbitmq().purge("platziverse.dead").await;
    let answer = waiting.acknowledged().await.expect("acknowledged as soon as there is room");
    assert_eq!(answer.code, 0);
}
