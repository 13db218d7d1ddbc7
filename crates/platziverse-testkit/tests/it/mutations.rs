//! Thousands of clients that send broken MQTT: each is refused or closed, and none harms another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use platziverse_testkit::{
    Message, PATIENCE, Process, RawClient, Version, World, check, eventually,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections with mutated packets; half of them after a good CONNECT.
const CONNECTIONS: usize = 3_000;
/// How many of them are there at a time.
const ABREAST: usize = 250;
/// What the gateway gives a connection for its CONNECT, and each one asks for as its keep-alive.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEP_ALIVE: u16 = 1;
/// A client that says nothing more, or half a packet, is closed by then: after the keep-alive, one
/// and a half times, and a second for the farewell; the rest is for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// A leak of 4 KiB for each connection would be more.
const GROWTH_MAX: u64 = 12_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_packets_harm_nobody() {
    let world = World::start().await;
    let timeout = format!("{}s", CONNECT_TIMEOUT.as_secs());
    let settings = [("PLATZIVERSE_GATEWAY__CONNECT_TIMEOUT", timeout.as_str())];
    let (mut gateway, _worker) = (world.gateway_with(&settings).await, world.worker().await);
    good_clients_work(&world, &gateway).await;
    // The first connections fill what allocators and pools keep; only more than that is a leak.
    let seed = fastrand::u64(..);
    assault(&gateway, seed, CONNECTIONS / 5).await;
    settled(&gateway).await;
    let (before, begun) = (gateway.memory(), Instant::now());
    let ends = assault(&gateway, seed.wrapping_add(1), CONNECTIONS).await;
    let took = begun.elapsed();
    let unspecific = ends.get("DISCONNECT 0x80");
    assert_eq!(unspecific, None, "each fault has a reason of its own: {ends:?}, seed {seed}");
    assert!(ends.len() >= 6, "the mutations show too little: {ends:?}, seed {seed}");

    settled(&gateway).await;
    gateway.assert_runs();
    assert_eq!(gateway.panicked(), None, "seed {seed}");
    let grown = gateway.memory().saturating_sub(before);
    println!("seed {seed}: {CONNECTIONS} connections, {took:?}, {grown} bytes more: {ends:?}");
    assert!(grown < GROWTH_MAX, "it grew by {grown} bytes, seed {seed}");
    good_clients_work(&world, &gateway).await;
}

/// A client of each version publishes, and is acknowledged.
async fn good_clients_work(world: &World, gateway: &Process) {
    for version in Version::BOTH {
        world.client(gateway, version).await.report(&Message::example()).await;
    }
}

/// Waits until nobody is connected and nothing is in flight; then the books balance.
async fn settled(gateway: &Process) {
    eventually("the gateway is as it was", PATIENCE, || async {
        let connections = gateway.metrics().await.get("platziverse_gateway_connections");
        let books = gateway.books().await?;
        let quiet = connections == 0.0 && books.in_flight == 0.0 && books.is_balanced();
        check(quiet, || format!("{connections} connections, {books:?}"))
    })
    .await;
}

/// Lets `connections` clients misbehave, [`ABREAST`] at a time: how many met which end.
async fn assault(gateway: &Process, seed: u64, connections: usize) -> BTreeMap<String, usize> {
    let (mut clients, mut ends) = (JoinSet::new(), BTreeMap::new());
    let mut numbers = 0..connections as u64;
    loop {
        while clients.len() < ABREAST
            && let Some(number) = numbers.next()
        {
            let seed = seed.wrapping_mul(1_000_003).wrapping_add(number);
            clients.spawn(misbehave(gateway.mqtt(), seed));
        }
        let Some(end) = clients.join_next().await else { return ends };
        *ends.entry(end.expect("a client says what is wrong")).or_default() += 1;
    }
}

/// One client, from its first byte to its end; says what that was.
async fn misbehave(address: SocketAddr, seed: u64) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    let version = rng.choice(Version::BOTH).expect("there are two");
    let id = format!("broken-{:x}", rng.u64(..));
    let connected = rng.bool();
    let mut bytes = mutated(&mut rng, version, &id, connected);
    if connected {
        bytes.splice(..0, RawClient::connect_packet(version, &id, KEEP_ALIVE));
    }
    let (answer, end) = exchange(address, &bytes).await;
    let story = || format!("seed {seed}, {answer:02X?} to {}", bytes.escape_ascii());
    match (end, last_word(&answer, version)) {
        // What is refused in MQTT 5 has a reason; only who says goodbye is left in silence. A
        // goodbye is somewhere in the bytes, and a broken CONNECT may be of another version.
        (End::Closed, Ok(word)) if connected && word.starts_with("closed") => {
            let may_leave = version == Version::V3 || bytes.contains(&0xE0);
            assert!(may_leave, "{word}, without a reason: {}", story());
            word
        }
        (End::Closed, Ok(word)) => {
            let told = connected && version == Version::V3 && word.starts_with("DISCONNECT");
            assert!(!told, "MQTT 3.1.1 has no such packet: {}", story());
            word
        }
        (End::Closed, Err(wrong)) => panic!("{wrong}: {}", story()),
        // What was still on its way to a gateway that has closed resets the connection, and with
        // it the last word may be lost, in part.
        (End::Reset, _) => "reset".to_owned(),
        // A broken CONNECT may ask for any keep-alive. It has its answer.
        (End::Open, Ok(word)) if !connected && word.starts_with("closed after") => {
            "open".to_owned()
        }
        (End::Open, _) => panic!("no end after {CLOSED_WITHIN:?}: {}", story()),
    }
}

/// How a connection ended.
enum End {
    /// By the gateway, in order.
    Closed,
    /// By the gateway, with bytes of ours unread.
    Reset,
    /// Not by the gateway.
    Open,
}

/// Sends `bytes`, and reads until the gateway closes.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> (Vec<u8>, End) {
    let mut stream = TcpStream::connect(address).await.expect("the gateway listens");
    // A gateway that has closed takes no more; what it said before can be read all the same.
    let taken = stream.write_all(bytes).await.is_ok();
    let mut answer = Vec::new();
    let reading = async {
        while let Ok(count) = stream.read_buf(&mut answer).await {
            if count == 0 {
                return if taken { End::Closed } else { End::Reset };
            }
        }
        End::Reset
    };
    let end = timeout(CLOSED_WITHIN, reading).await.unwrap_or(End::Open);
    (answer, end)
}

/// What the gateway said at last. All that it says is whole packets that a server may send.
fn last_word(answer: &[u8], version: Version) -> Result<String, String> {
    let mut rest = answer;
    let mut end = "closed without a word".to_owned();
    let mut first = true;
    while !rest.is_empty() {
        let (kind, body, after) = packet(rest).ok_or("half a packet")?;
        end = match (kind >> 4, version) {
            (2, _) if first => connack(body)?,
            (4..=7 | 9 | 11 | 13, _) => "closed after answers".to_owned(),
            (3, _) => "closed after answers".to_owned(),
            (14, _) if after.is_empty() => match body.first() {
                Some(code @ 0x80..) => format!("DISCONNECT 0x{code:02X}"),
                code => return Err(format!("DISCONNECT with {code:02X?}")),
            },
            _ => return Err(format!("a packet that it must not send here: 0x{kind:02X}")),
        };
        (rest, first) = (after, false);
    }
    Ok(end)
}

fn connack(body: &[u8]) -> Result<String, String> {
    match body {
        [0, 0, ..] => Ok("closed after CONNACK".to_owned()),
        [0, code, ..] => Ok(format!("CONNACK 0x{code:02X}")),
        _ => Err(format!("a CONNACK of {body:02X?}")),
    }
}

/// The first packet: its first byte, what follows its length, and what follows that.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (mut length, mut at) = (0, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((bytes[0], bytes.get(at..at + length)?, &bytes[at + length..]))
}

/// What such a client sends: good packets in any order, then broken.
fn mutated(rng: &mut fastrand::Rng, version: Version, id: &str, connected: bool) -> Vec<u8> {
    let mut packets = Vec::new();
    if !connected && rng.u8(..4) > 0 {
        packets.push(RawClient::connect_packet(version, id, KEEP_ALIVE));
    }
    for _ in 0..rng.usize(1..6) {
        packets.push(good_packet(rng, version, id));
    }
    let broken = rng.usize(..packets.len());
    lie(rng, &mut packets[broken]);
    let mut bytes = packets.concat();
    for _ in 0..rng.usize(..3) {
        mutate(rng, &mut bytes);
    }
    // Nothing at all would be another client: one that waits for its timeout.
    if bytes.is_empty() { vec![0] } else { bytes }
}

/// A packet that would be right, though perhaps not here.
fn good_packet(rng: &mut fastrand::Rng, version: Version, id: &str) -> Vec<u8> {
    let packet = rng.u16(..3);
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let numbered = |kind: u8| RawClient::framed(kind, &packet.to_be_bytes());
    match rng.u8(..12) {
        0 => RawClient::connect_packet(version, id, KEEP_ALIVE),
        1 | 2 => {
            let payload = Message::example().json();
            RawClient::publish_packet(version, "agent/message", packet, payload.as_bytes())
        }
        3 => RawClient::publish_packet(version, "other/topic", packet, b"x"),
        4 => RawClient::publish_packet(version, "agent/message", packet, b"{}"),
        5 => RawClient::subscribe_packet(version, packet, "other/+", rng.u8(..3)),
        6 => RawClient::framed(0xA2, &[&packet.to_be_bytes(), properties, b"\0\x01a"].concat()),
        7 => numbered(0x62),
        8 => numbered(rng.choice([0x40, 0x50, 0x70]).expect("there are three")),
        9 => RawClient::framed(0xC0, &[]),
        10 => RawClient::framed(0xE0, &[]),
        // At QoS 2.
        _ => {
            let text = RawClient::publish_packet(version, "other/topic", packet.max(1), b"x");
            [&[text[0] ^ 0x06], &text[1..]].concat()
        }
    }
}

/// Makes a packet say something wrong about itself.
fn lie(rng: &mut fastrand::Rng, packet: &mut Vec<u8>) {
    match rng.u8(..7) {
        // Its length, by a little and by far.
        0 => packet[1] = packet[1].wrapping_add(rng.u8(1..4)),
        1 => packet[1] = packet[1].wrapping_sub(rng.u8(1..4)),
        2 => drop(packet.splice(1..2, [0xFF, 0xFF, 0xFF, rng.u8(..)])),
        // Its reserved flags.
        3 => packet[0] ^= rng.u8(1..16),
        // Its kind.
        4 => packet[0] = rng.u8(..),
        // A length within it.
        5 if packet.len() > 3 => packet[2] = rng.u8(..),
        _ => {}
    }
}

/// Changes any bytes.
fn mutate(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    let at = rng.usize(..bytes.len().max(1));
    let end = (at + rng.usize(1..20)).min(bytes.len());
    match rng.u8(..6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 if at < bytes.len() => bytes[at] = rng.u8(..),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at.min(end)..end)),
        4 => bytes.insert(at.min(bytes.len()), rng.u8(..)),
        _ => bytes.extend_from_within(at.min(end)..end),
    }
}
