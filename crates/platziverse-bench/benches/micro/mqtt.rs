//! MQTT on the wire: framing, decoding what clients publish, encoding the answers.

use std::fmt;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box, black_box_drop};
use ntex_bytes::{BytePages, BytesMut};
use platziverse_gateway::codec::Codec;
use platziverse_gateway::frame;
use platziverse_gateway::packet::{Ack, Outgoing, Packet, PacketId, Reason, Version};
use platziverse_protocol::topic::AGENT_MESSAGE;

use crate::reports::Fleet;

/// The largest packet that is taken, in bytes.
const LIMIT: u32 = 1 << 20;

/// How a client publishes.
#[derive(Clone, Copy)]
enum Client {
    V3,
    V5,
    /// With a content type and a user property.
    V5WithProperties,
}

const CLIENTS: [Client; 3] = [Client::V3, Client::V5, Client::V5WithProperties];

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3 => "3.1.1",
            Self::V5 => "5",
            Self::V5WithProperties => "5, properties",
        })
    }
}

impl Client {
    fn version(self) -> Version {
        match self {
            Self::V3 => Version::V3,
            Self::V5 | Self::V5WithProperties => Version::V5,
        }
    }

    /// The properties of its PUBLISH, with their length.
    fn properties(self) -> Vec<u8> {
        let mut properties = Vec::new();
        if matches!(self, Self::V5WithProperties) {
            properties.push(0x03);
            put_field(&mut properties, b"application/json");
            properties.push(0x26);
            put_field(&mut properties, b"firmware");
            put_field(&mut properties, b"4.2.1");
        }
        match self {
            Self::V3 => properties,
            Self::V5 | Self::V5WithProperties => {
                let mut whole = Vec::new();
                put_varint(&mut whole, properties.len());
                whole.extend(properties);
                whole
            }
        }
    }

    /// PUBLISH packets at QoS 1, as they arrive in one read.
    fn publishes(self, count: usize) -> Vec<u8> {
        let (mut fleet, mut bytes) = (Fleet::new(2), Vec::new());
        for number in 1..=count {
            let mut body = Vec::new();
            put_field(&mut body, AGENT_MESSAGE.as_bytes());
            body.extend(packet_id(number).get().to_be_bytes());
            body.extend(self.properties());
            body.extend(fleet.payload().into_bytes());
            bytes.push(0x32);
            put_varint(&mut bytes, body.len());
            bytes.extend(body);
        }
        bytes
    }
}

/// Where the packet ends, and whether its lengths add up.
#[divan::bench(args = CLIENTS)]
fn frame_publish(bencher: Bencher<'_, '_>, client: Client) {
    let (bytes, version) = (client.publishes(1), Some(client.version()));
    let whole = frame::next(&bytes, version, LIMIT).ok().flatten();
    assert_eq!(whole.map(|frame| frame.size), Some(bytes.len()));
    counted(bencher, 1, bytes.len())
        .bench(|| frame::next(black_box(&bytes), black_box(version), LIMIT));
}

/// Framing included, from a read to its last packet.
#[divan::bench(args = CLIENTS, consts = [1, 64])]
fn decode_publishes<const COUNT: usize>(bencher: Bencher<'_, '_>, client: Client) {
    let bytes = client.publishes(COUNT);
    let mut codec = Codec::for_version(client.version(), LIMIT);
    assert_eq!(decode(&mut codec, &bytes), COUNT);
    counted(bencher, COUNT, bytes.len()).bench_local(|| decode(&mut codec, black_box(&bytes)));
}

/// Decodes a read as a connection does, which gives its buffer back when all is decoded.
fn decode(codec: &mut Codec, bytes: &[u8]) -> usize {
    let (mut inbound, mut count) = (BytesMut::new(), 0);
    inbound.extend_from_slice(bytes);
    while let Ok(Some(packet)) = codec.decode(&mut inbound) {
        count += usize::from(matches!(packet, Packet::Publish(_)));
        black_box_drop(packet);
    }
    count
}

/// Answers as they are written at once. An item is an answer.
#[divan::bench(args = [Client::V3, Client::V5], consts = [1, 64])]
fn encode_pubacks<const COUNT: usize>(bencher: Bencher<'_, '_>, client: Client) {
    let codec = Codec::for_version(client.version(), LIMIT);
    let answers: Vec<_> = (1..=COUNT)
        .map(|number| Ack { packet_id: packet_id(number), told: Reason::SUCCESS.into() })
        .map(Outgoing::Puback)
        .collect();
    let encode = |answers: &[Outgoing]| {
        let mut out = BytePages::default();
        for answer in answers {
            black_box_drop(codec.encode(answer, &mut out));
        }
        out
    };
    let bytes = encode(&answers).len();
    // In MQTT 5 a reason may follow the identifier.
    assert!((COUNT * 4..=COUNT * 6).contains(&bytes), "{bytes} bytes");
    counted(bencher, COUNT, bytes).bench_local(|| black_box_drop(encode(black_box(&answers))));
}

fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, packets: usize, bytes: usize) -> Bencher<'a, 'b> {
    bencher.counter(ItemsCount::new(packets)).counter(BytesCount::new(bytes))
}

fn packet_id(number: usize) -> PacketId {
    u16::try_from(number).ok().and_then(PacketId::new).expect("1 to 65,535")
}

fn put_field(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("a short field");
    out.extend(length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A Variable Byte Integer (MQTT 5, section 1.5.5).
fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let (more, low) = (value >= 0x80, value & 0x7F);
        out.push(u8::try_from(low).expect("seven bits") | u8::from(more) << 7);
        value >>= 7;
        if !more {
            return;
        }
    }
}
