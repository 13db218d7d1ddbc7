//! Who leaves while a publisher has no room: what the gateway has to say of it is said all the same.

use platziverse_testkit::{
    Message, PATIENCE, Pending, Process, Proxy, QoS, RawClient, Toxic, Version, World, check,
    eventually,
};

/// The least that may be configured.
const BUFFER: (&str, &str) = ("PLATZIVERSE_GATEWAY__PUBLISH_BUFFER_BYTES", "1048576");
const PACKET: (&str, &str) = ("PLATZIVERSE_GATEWAY__MAX_PACKET_SIZE", "300000");
const FILLER_BYTES: usize = 200_000;
const CONNECTED: &str = "SELECT count(*) FROM agents WHERE connected";

/// A gateway that stays connected to RabbitMQ by a way that can be held up.
async fn gateway(world: &World) -> (Process, Proxy) {
    let way = Proxy::start(world.amqp_address()).await;
    let url = world.amqp_url_at(way.address());
    let settings = [BUFFER, PACKET, ("PLATZIVERSE_AMQP__URL", url.as_str())];
    (world.gateway_with(&settings).await, way)
}

/// Messages of one agent until none is taken any more. Answers those that wait.
async fn fill(world: &World, gateway: &Process) -> Vec<(platziverse_testkit::Client, Pending)> {
    let mut waiting = Vec::new();
    for number in 0..10 {
        let client = world.client(gateway, Version::V5).await;
        let message = Message::of(&format!("filler-{number}")).metric("number", number).json();
        let padding = "x".repeat(FILLER_BYTES);
        let message = message.replacen('{', &format!("{{\"padding\": \"{padding}\", "), 1);
        let pending = client.send("agent/message", QoS::AtLeastOnce, message).await;
        waiting.push((client, pending));
    }
    eventually("all are sent", PATIENCE, || async {
        let entered = gateway.books().await.map_or(0.0, |books| books.in_flight);
        check(entered >= 10.0, || format!("{entered} publishes are in flight"))
    })
    .await;
    waiting
}

/// A CONNECT whose will is a report of `agent`.
fn with_will(agent: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04".to_vec();
    // Will at QoS 1, clean session.
    body.extend([0x0E, 0, 0]);
    for text in [agent, "agent/message", &Message::of(agent).metric("last", 1).json()] {
        body.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
        body.extend(text.as_bytes());
    }
    RawClient::framed(0x10, &body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_there_is_no_room_is_said_to_have_left() {
    let world = World::start().await;
    let (gateway, way) = gateway(&world).await;
    let _worker = world.worker().await;
    let mut agents = Vec::new();
    for number in 0..5 {
        let client = world.client(&gateway, Version::BOTH[number % 2]).await;
        client.report(&Message::of(&format!("agent-{number}")).metric("number", number)).await;
        agents.push(client);
    }
    let mut mourned = RawClient::open(gateway.mqtt()).await;
    mourned.send(&with_will("mourned")).await;
    assert_eq!(mourned.packet().await, (0x20, vec![0, 0]), "CONNACK");
    world.database().becomes(CONNECTED, "5").await;

    way.set(Toxic::HalfOpen);
    let waiting = fill(&world, &gateway).await;
    drop(agents);
    mourned.reset();
    eventually("they are gone", PATIENCE, || async {
        let metrics = gateway.try_metrics().await?;
        let open = metrics.try_get("platziverse_gateway_connections")?;
        check(open == 10.0, || format!("{open} connections are open"))
    })
    .await;
    assert_eq!(world.database().value(CONNECTED).await, "5", "nothing passes");
    way.set(Toxic::None);

    let left = "SELECT count(*) FROM agents WHERE uuid LIKE 'agent-%' AND NOT connected";
    world.database().becomes(left, "5").await;
    let last = "SELECT count(*) FROM metrics WHERE type = 'last'";
    world.database().becomes(last, "1").await;
    let mourned = "SELECT connected FROM agents WHERE uuid = 'mourned'";
    world.database().becomes(mourned, "f").await;
    for (_client, pending) in waiting {
        let answer = pending.acknowledged().await;
        assert!(answer.is_ok_and(|ack| ack.code == 0), "what waited is stored");
    }
}

/// As many as the gateway sends without an acknowledgement.
const WINDOW: u16 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_that_come_together_are_all_read() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let mut subscriber = RawClient::connect(gateway.mqtt(), Version::V3, "subscriber", 0).await;
    subscriber.send(&RawClient::subscribe_packet(Version::V3, 1, "large", 1)).await;
    assert_eq!(subscriber.packet().await.0, 0x90, "SUBACK");
    let publisher = world.client(&gateway, Version::V5).await;
    for _ in 0..2 * WINDOW {
        let payload = vec![b'x'; 32 * 1024];
        assert_eq!(publisher.publish("large", QoS::AtLeastOnce, payload).await.code, 0);
    }
    let mut acknowledgements = Vec::new();
    for _ in 0..WINDOW {
        acknowledgements.extend(acknowledgement(&subscriber.packet().await));
    }
    subscriber.send(&acknowledgements).await;
    for _ in 0..WINDOW {
        subscriber.packet().await;
    }
}

/// The PUBACK for a PUBLISH at QoS 1 to the topic `large`.
fn acknowledgement((kind, body): &(u8, Vec<u8>)) -> [u8; 4] {
    assert_eq!(*kind, 0x32, "PUBLISH at QoS 1");
    let topic = 2 + "large".len();
    [0x40, 2, body[topic], body[topic + 1]]
}
