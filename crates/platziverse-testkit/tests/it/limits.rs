//! Every client has bounds: who it may be, how much it may send, how slowly it may read.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params};
use platziverse_testkit::{
    Client, Message, Options, PATIENCE, QoS, RawClient, Version, World, eventually, free_port,
};
use serde_json::json;
use uuid::Uuid;

/// A hash that is cheap to check, for tests only.
fn hash(password: &str) -> String {
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).expect("valid parameters");
    let argon2 = Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, params);
    let salt = SaltString::encode_b64(b"not a secret").expect("a valid salt");
    argon2.hash_password(password.as_bytes(), &salt).expect("hashed").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_passwords() {
    let world = World::start().await;
    // Words that nothing else has in its log.
    let [right, wrong] = ["right", "wrong"].map(|word| format!("{word}-{}", Uuid::new_v4()));
    let users = json!([{"username": "ana", "password_hash": hash(&right)}]).to_string();
    let gateway = world
        .gateway_with(&[
            ("PLATZIVERSE_GATEWAY__ANONYMOUS", "never"),
            ("PLATZIVERSE_GATEWAY__USERS", &users),
        ])
        .await;
    for version in Version::BOTH {
        let open = || Options::new(gateway.mqtt(), version);
        let client = Client::connect(open().credentials("ana", &right)).await;
        client.expect("the right password").report(&Message::example()).await;
        for (username, password) in [("ana", wrong.as_str()), ("ana", ""), ("bob", &right)] {
            let refused = Client::connect(open().credentials(username, password)).await;
            let refused = refused.expect_err("wrong credentials").text;
            assert_eq!(refused, "BadUserNamePassword", "{username} {password:?}");
        }
        let refused = Client::connect(open()).await.expect_err("nobody is anonymous");
        assert_eq!(refused.text, "NotAuthorized");
    }
    let log = gateway.log();
    assert!(log.contains("wrong password"), "refusals are logged: {log}");
    for password in [right, wrong] {
        assert!(!log.contains(&password), "passwords are not logged: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_a_user_may_use() {
    let world = World::start().await;
    let users = json!([{
        "username": "ana", "password_hash": hash("right"),
        "publish": ["agent/message"], "subscribe": ["plant/+/temperature"],
    }]);
    let gateway = world.gateway_with(&[("PLATZIVERSE_GATEWAY__USERS", &users.to_string())]).await;
    for (version, refused) in [(Version::V3, 0x80), (Version::V5, 0x87)] {
        let options = Options::new(gateway.mqtt(), version).credentials("ana", "right");
        let client = Client::connect(options).await.expect("accepted");
        client.report(&Message::example()).await;
        let forbidden = client.publish("plant/1/valve", QoS::AtLeastOnce, "open").await;
        assert_eq!(forbidden.code, if version == Version::V5 { 0x87 } else { 0 });
        assert_eq!(client.subscribe("plant/1/temperature", QoS::AtLeastOnce).await, [1]);
        for filter in ["#", "plant/#", "agent/message"] {
            let codes = client.subscribe(filter, QoS::AtLeastOnce).await;
            assert_eq!(codes, [refused], "{filter} {version:?}");
        }
    }
}

/// An address of this machine that is not loopback, if it has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing: the kernel only chooses the way, and with it the address.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anonymous_clients_are_accepted_on_loopback_only_by_default() {
    let world = World::start().await;
    for (anonymous, accepted) in [(None, false), (Some("always"), true)] {
        let port = free_port().port();
        let listen = format!("0.0.0.0:{port}");
        let mut settings = vec![("PLATZIVERSE_GATEWAY__LISTEN", listen.as_str())];
        settings.extend(anonymous.map(|choice| ("PLATZIVERSE_GATEWAY__ANONYMOUS", choice)));
        let _gateway = world.gateway_with(&settings).await;
        let here = SocketAddr::from(([127, 0, 0, 1], port));
        Client::connect(Options::new(here, Version::V3)).await.expect("loopback is accepted");
        // A machine without a network has nothing more to show.
        let Some(outside) = own_address() else { continue };
        let outside = Options::new(SocketAddr::new(outside, port), Version::V3);
        let outcome = Client::connect(outside).await;
        assert_eq!(outcome.is_ok(), accepted, "{anonymous:?}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_has_a_largest_size() {
    let world = World::start().await;
    let settings = [("PLATZIVERSE_GATEWAY__MAX_PACKET_SIZE", "300000")];
    let gateway = world.gateway_with(&settings).await;
    for version in Version::BOTH {
        let mut client = RawClient::connect(gateway.mqtt(), version, "sizes", 60).await;
        let fits = RawClient::publish_packet(version, "other", 1, &[b'x'; 299_000]);
        client.send(&fits).await;
        assert_eq!(client.packet().await.0, 0x40, "PUBACK");
        // Its length alone is enough to refuse it.
        client.send(&[0x32, 0xE1, 0xA7, 0x12, 0x00]).await;
        let answer = client.until_closed().await;
        if version == Version::V5 {
            assert_eq!(
                (answer.first(), answer.get(2)),
                (Some(&0xE0), Some(&0x95)),
                "{answer:02X?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_connections_is_limited() {
    let world = World::start().await;
    let gateway = world.gateway_with(&[("PLATZIVERSE_GATEWAY__MAX_CONNECTIONS", "2")]).await;
    let open = |version| Client::connect(Options::new(gateway.mqtt(), version));
    let first = open(Version::V3).await.expect("the first");
    let second = open(Version::V5).await.expect("the second");
    for (version, refusal) in [(Version::V3, "ServiceUnavailable"), (Version::V5, "QuotaExceeded")]
    {
        let refused = open(version).await.expect_err("the third is one too many");
        assert_eq!(refused.text, refusal);
    }
    first.disconnect().await;
    eventually("there is room again", PATIENCE, || async {
        open(Version::V5).await.map(drop).map_err(|refused| refused.to_string())
    })
    .await;
    second.report(&Message::example()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_clients_are_ended() {
    let world = World::start().await;
    let settings = [("PLATZIVERSE_GATEWAY__CONNECT_TIMEOUT", "500ms")];
    let gateway = world.gateway_with(&settings).await;
    let _worker = world.worker().await;

    let mut nothing = RawClient::open(gateway.mqtt()).await;
    let mut half = RawClient::open(gateway.mqtt()).await;
    half.send(&RawClient::connect_packet(Version::V5, "half", 60)[..7]).await;
    for client in [&mut nothing, &mut half] {
        client.until_closed().await;
    }

    for version in Version::BOTH {
        let mut client = RawClient::connect(gateway.mqtt(), version, "half-open", 3).await;
        let uuid = format!("{version:?}");
        let message = Message::of(&uuid).json();
        let packet = RawClient::publish_packet(version, "agent/message", 1, message.as_bytes());
        client.send(&packet).await;
        assert_eq!(client.packet().await.0, 0x40, "PUBACK");
        let answer = client.until_closed().await;
        if version == Version::V5 {
            assert_eq!(
                (answer.first(), answer.get(2)),
                (Some(&0xE0), Some(&0x8D)),
                "{answer:02X?}"
            );
        }
        let gone = format!("SELECT connected FROM agents WHERE uuid = '{uuid}'");
        world.database().becomes(&gone, "f").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_pings_stays() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let mut client = RawClient::connect(gateway.mqtt(), Version::V3, "pings", 3).await;
    // Twice as long as it may be silent.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        client.send(&[0xC0, 0x00]).await;
        assert_eq!(client.packet().await, (0xD0, vec![]), "PINGRESP");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_does_not_read_is_bounded_and_harms_nobody() {
    let world = World::start().await;
    let settings = [("PLATZIVERSE_GATEWAY__OUTBOUND_QUEUE", "100")];
    let gateway = world.gateway_with(&settings).await;
    let mut deaf = Vec::new();
    for (number, qos) in [0, 1, 0, 1].into_iter().enumerate() {
        let id = format!("deaf-{number}");
        let mut client = RawClient::connect(gateway.mqtt(), Version::V5, &id, 0).await;
        client.send(&RawClient::subscribe_packet(Version::V5, 1, "big/#", qos)).await;
        assert_eq!(client.packet().await.0, 0x90, "SUBACK");
        deaf.push(client);
    }
    let good = world.listener(&gateway, Version::V5, "big/last").await;
    let publisher = world.client(&gateway, Version::V3).await;
    let before = gateway.memory();
    let payload = vec![b'x'; 20_000];
    let mut pending = Vec::new();
    for _ in 0..3_000 {
        pending.push(publisher.send("big/one", QoS::AtLeastOnce, payload.clone()).await);
    }
    for pending in pending {
        assert_eq!(pending.acknowledged().await.expect("acknowledged").code, 0);
    }
    publisher.publish("big/last", QoS::AtLeastOnce, "end").await;
    assert_eq!(good.next().await.payload, "end", "others hear everything");
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 100_000_000, "60 MB for each of four subscribers: it grew by {grown} bytes");
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_never_acknowledges_still_hears() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let mut rude = RawClient::connect(gateway.mqtt(), Version::V5, "rude", 0).await;
    rude.send(&RawClient::subscribe_packet(Version::V5, 1, "some/#", 1)).await;
    assert_eq!(rude.packet().await.0, 0x90, "SUBACK");
    let publisher = world.client(&gateway, Version::V3).await;
    for _ in 0..20 {
        publisher.publish("some/thing", QoS::AtLeastOnce, "x").await;
    }
    for number in 1..=20 {
        assert_eq!(rude.packet().await.0 & 0xF0, 0x30, "PUBLISH {number}");
    }
}
