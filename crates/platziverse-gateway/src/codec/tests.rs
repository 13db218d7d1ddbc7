use std::num::NonZeroU32;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::packet::{
    Ack, Bytes, Connack, Disconnect, PacketId, Properties, QoS, Suback, Told, Unsuback,
};
use crate::session::{Limits, Message};

const CONNECT_V3: &[u8] = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01a";

/// A CONNECT in MQTT 5 with these properties.
fn connect_v5(properties: &[u8]) -> Vec<u8> {
    let length = u8::try_from(properties.len()).unwrap();
    let mut bytes = vec![0x10, 14 + length];
    bytes.extend_from_slice(b"\x00\x04MQTT\x05\x02\x00\x3C");
    bytes.push(length);
    bytes.extend_from_slice(properties);
    bytes.extend_from_slice(b"\x00\x01a");
    bytes
}

/// The codec of a client that has connected so.
fn connected(connect: &[u8]) -> Codec {
    let mut codec = Codec::new(1_000);
    let packet = codec.decode(&mut BytesMut::from(connect)).unwrap().unwrap();
    assert!(matches!(packet, Packet::Connect(_)));
    codec
}

fn decode(codec: &mut Codec, bytes: &[u8]) -> Packet {
    let mut buf = BytesMut::from(bytes);
    let packet = codec.decode(&mut buf).unwrap().unwrap();
    assert!(buf.is_empty(), "{buf:?}");
    packet
}

fn encode(codec: &Codec, packet: &Outgoing) -> Vec<u8> {
    let mut out = BytePages::default();
    let encoded = codec.encode(packet, &mut out).unwrap();
    let bytes = out.freeze().to_vec();
    assert_eq!(encoded == Encoded::Omitted, bytes.is_empty());
    bytes
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

#[test]
fn codecs_move_between_threads() {
    fn check<T: Send>() {}
    check::<Codec>();
}

#[test]
fn a_connect_tells_everything() {
    let mut codec = Codec::new(1_000);
    let bytes = b"\x10\x28\x00\x04MQTT\x04\xEE\x00\x3C\x00\x01a\x00\x04will\x00\x04gone\
        \x00\x04user\x00\x07hidden\xFF";
    let Packet::Connect(connect) = decode(&mut codec, bytes) else { panic!() };
    assert_eq!(codec.version(), Some(Version::V3));
    assert_eq!((connect.version, connect.keep_alive), (Version::V3, 60));
    assert!(connect.clean_start);
    assert_eq!(connect.username.as_deref(), Some("user"));
    assert_eq!(connect.receive_maximum, PacketId::MAX);
    let will = connect.will.as_ref().unwrap();
    assert_eq!((&*will.topic, &will.payload[..]), ("will", &b"gone"[..]));
    assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, true));
    let shown = format!("{connect:?}");
    assert!(shown.contains("[redacted]") && !shown.contains("hidden"), "{shown}");

    let mut codec = Codec::new(1_000);
    let properties = b"\x11\x00\x00\x00\x0A\x21\x00\x05\x27\x00\x00\x00\x64\x22\x00\x07\x17\x00";
    let Packet::Connect(connect) = decode(&mut codec, &connect_v5(properties)) else { panic!() };
    assert_eq!((connect.version, connect.session_expiry), (Version::V5, 10));
    assert_eq!((connect.receive_maximum.get(), connect.topic_alias_max), (5, 7));
    assert_eq!(connect.max_packet_size, NonZeroU32::new(100));
    assert!(!connect.request_problem_info && !connect.enhanced_auth);

    let bytes = connect_v5(b"\x15\x00\x03foo");
    let Packet::Connect(connect) = decode(&mut Codec::new(1_000), &bytes) else { panic!() };
    assert!(connect.enhanced_auth);
}

#[test]
fn faults_of_a_connect() {
    let check = |bytes: &[u8], reason: Reason, version: Option<Version>| {
        let mut codec = Codec::new(1_000);
        let fault = codec.decode(&mut BytesMut::from(bytes)).unwrap_err();
        assert_eq!((fault.reason(), codec.version()), (reason, version), "{bytes:?}");
    };
    let v3 = Some(Version::V3);
    let no_id = b"\x10\x0C\x00\x04MQTT\x04\x00\x00\x3C\x00\x00";
    check(no_id, Reason::CLIENT_IDENTIFIER_NOT_VALID, v3);
    let not_utf8 = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01\xFF";
    check(not_utf8, Reason::MALFORMED_PACKET, v3);
    check(b"\x10\x07\x00\x04MQTT\x03", Reason::UNSUPPORTED_PROTOCOL_VERSION, v3);
    let level_6 = b"\x10\x07\x00\x04MQTT\x06";
    check(level_6, Reason::UNSUPPORTED_PROTOCOL_VERSION, Some(Version::V5));
    let twice = connect_v5(b"\x21\x00\x05\x21\x00\x05");
    check(&twice, Reason::MALFORMED_PACKET, Some(Version::V5));
    check(&connect_v5(b"\x21\x00\x00"), Reason::MALFORMED_PACKET, Some(Version::V5));
}

#[test]
fn packets_from_a_3_1_1_client() {
    let check = |bytes: &[u8], want: &str| {
        assert_eq!(format!("{:?}", decode(&mut connected(CONNECT_V3), bytes)), want);
    };
    check(b"\x40\x02\x00\x07", "Puback(7, 0x00 success)");
    check(b"\x50\x02\x00\x07", "Pubrec(7, 0x00 success)");
    check(b"\x62\x02\x00\x07", "Pubrel(7, 0x00 success)");
    check(b"\x70\x02\x00\x07", "Pubcomp(7, 0x00 success)");
    check(b"\xC0\x00", "Pingreq");
    check(b"\xE0\x00", "Disconnect(0x00 success, None)");
    check(
        b"\xA2\x08\x00\x07\x00\x01a\x00\x01b",
        "Unsubscribe(Unsubscribe { packet_id: 7, filters: [\"a\", \"b\"] })",
    );
    let packet = decode(&mut connected(CONNECT_V3), b"\x82\x06\x00\x07\x00\x01a\x02");
    let Packet::Subscribe(subscribe) = packet else { panic!() };
    assert_eq!((subscribe.packet_id, &*subscribe.filters[0].0), (id(7), "a"));
    assert_eq!(subscribe.filters[0].1.qos, QoS::ExactlyOnce);

    let packet = decode(&mut connected(CONNECT_V3), b"\x3D\x07\x00\x01a\x00\x07hi");
    let Packet::Publish(publish) = packet else { panic!() };
    assert_eq!((&*publish.topic, &publish.payload[..]), ("a", &b"hi"[..]));
    assert_eq!((publish.qos, publish.packet_id), (QoS::ExactlyOnce, Some(id(7))));
    assert!(publish.dup && publish.retain && publish.properties.is_none());
}

#[test]
fn packets_from_an_mqtt_5_client() {
    let check = |bytes: &[u8], want: &str| {
        assert_eq!(format!("{:?}", decode(&mut connected(&connect_v5(b"")), bytes)), want);
    };
    check(b"\x40\x02\x00\x07", "Puback(7, 0x00 success)");
    check(b"\x40\x03\x00\x07\x97", "Puback(7, 0x97 quota exceeded)");
    check(b"\x62\x04\x00\x07\x92\x00", "Pubrel(7, 0x92 packet identifier not found)");
    check(b"\xE0\x00", "Disconnect(0x00 success, None)");
    check(b"\xE0\x01\x04", "Disconnect(0x04 disconnect with will message, None)");
    check(b"\xE0\x07\x00\x05\x11\x00\x00\x00\x0A", "Disconnect(0x00 success, Some(10))");
    check(b"\xF0\x00", "Auth");
    let mut codec = connected(&connect_v5(b""));
    let packet = decode(&mut codec, b"\x82\x09\x00\x07\x02\x0B\x05\x00\x01a\x2D");
    let Packet::Subscribe(subscribe) = packet else { panic!() };
    assert_eq!(subscribe.id, NonZeroU32::new(5));
    let options = subscribe.filters[0].1;
    assert!(options.no_local && options.retain_as_published && options.retain_handling == 2);
}

#[test]
fn publish_properties() {
    let mut codec = connected(&connect_v5(b""));
    let properties = b"\x01\x01\x02\x00\x00\x00\x09\x03\x00\x01c\x08\x00\x01r\x09\x00\x01d\
        \x23\x00\x03\x26\x00\x01k\x00\x01v";
    let mut bytes = vec![0x30, u8::try_from(4 + properties.len() + 2).unwrap(), 0, 1, b'a'];
    bytes.push(u8::try_from(properties.len()).unwrap());
    bytes.extend_from_slice(properties);
    bytes.extend_from_slice(b"hi");
    let Packet::Publish(publish) = decode(&mut codec, &bytes) else { panic!() };
    assert_eq!((publish.alias, &publish.payload[..]), (Some(id(3)), &b"hi"[..]));
    let want = Properties {
        utf8_payload: true,
        expiry: NonZeroU32::new(9),
        content_type: Some("c".into()),
        response_topic: Some("r".into()),
        correlation_data: Some(Bytes::from_static(b"d")),
        user: vec![("k".into(), "v".into())],
    };
    assert_eq!(publish.properties, Some(Box::new(want)));
}

#[test]
fn packets_arrive_in_pieces_and_in_bunches() {
    let mut codec = Codec::new(1_000);
    let mut buf = BytesMut::new();
    let stream = [CONNECT_V3, b"\x32\x07\x00\x01a\x00\x01hi", b"\xC0\x00"].concat();
    let mut names = Vec::new();
    for byte in &stream {
        buf.extend_from_slice(&[*byte]);
        names.extend(codec.decode(&mut buf).unwrap().map(|packet| packet.name()));
    }
    assert_eq!(names, ["CONNECT", "PUBLISH", "PINGREQ"]);

    let mut buf = BytesMut::from(&stream[..]);
    let mut codec = Codec::new(1_000);
    let all = std::iter::from_fn(|| codec.decode(&mut buf).unwrap());
    assert_eq!(all.map(|packet| packet.name()).collect::<Vec<_>>(), names);
}

fn connack(told: Told) -> Outgoing {
    let limits = Limits::default();
    Outgoing::Connack(Box::new(Connack {
        told,
        receive_maximum: limits.receive_maximum,
        max_packet_size: limits.max_packet_size,
        topic_alias_max: limits.topic_alias_max,
        assigned_client_id: Some("me".into()),
        session_expiry: Some(0),
    }))
}

fn ack(reason: Reason) -> Ack {
    Ack { packet_id: id(7), told: Told::new(reason, "words") }
}

fn delivered(qos: QoS) -> Delivered {
    let properties = Properties {
        utf8_payload: true,
        content_type: Some("c".into()),
        response_topic: Some("r".into()),
        correlation_data: Some(Bytes::from_static(b"d")),
        user: vec![("k".into(), "v".into())],
        ..Properties::default()
    };
    Delivered {
        message: Arc::new(Message {
            topic: "a".into(),
            payload: Bytes::from_static(b"hi"),
            qos,
            expires: None,
            properties: Some(Box::new(properties)),
        }),
        qos,
        packet_id: (qos != QoS::AtMostOnce).then(|| id(7)),
        retain: false,
        expiry: NonZeroU32::new(9),
        subscription_ids: vec![NonZeroU32::new(200).unwrap()],
    }
}

#[test]
fn packets_to_a_3_1_1_client() {
    let codec = Codec::for_version(Version::V3, 1_000);
    let check = |packet: Outgoing, want: &[u8]| {
        assert_eq!(encode(&codec, &packet), want, "{packet:?}");
    };
    let ids = |reasons: &[Reason]| (id(7), reasons.to_vec());
    check(connack(Reason::SUCCESS.into()), b"\x20\x02\x00\x00");
    check(connack(Reason::UNSUPPORTED_PROTOCOL_VERSION.into()), b"\x20\x02\x00\x01");
    check(connack(Reason::BAD_USERNAME_OR_PASSWORD.into()), b"\x20\x02\x00\x04");
    check(connack(Reason::RETAIN_NOT_SUPPORTED.into()), b"\x20\x02\x00\x05");
    check(connack(Reason::PROTOCOL_ERROR.into()), b"");
    check(Outgoing::Puback(ack(Reason::NOT_AUTHORIZED)), b"\x40\x02\x00\x07");
    check(Outgoing::Pubrec(ack(Reason::SUCCESS)), b"\x50\x02\x00\x07");
    check(Outgoing::Pubcomp(ack(Reason::SUCCESS)), b"\x70\x02\x00\x07");
    let (packet_id, reasons) =
        ids(&[Reason::SUCCESS, Reason::GRANTED_QOS_1, Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED]);
    let suback = Suback { packet_id, reasons: reasons.clone() };
    check(Outgoing::Suback(suback), b"\x90\x05\x00\x07\x00\x01\x80");
    check(Outgoing::Unsuback(Unsuback { packet_id, reasons }), b"\xB0\x02\x00\x07");
    check(Outgoing::Pingresp, b"\xD0\x00");
    check(Outgoing::Disconnect(Disconnect { told: Reason::SUCCESS.into() }), b"");
    check(Outgoing::Publish(delivered(QoS::AtMostOnce)), b"\x30\x05\x00\x01ahi");
    check(Outgoing::Publish(delivered(QoS::AtLeastOnce)), b"\x32\x07\x00\x01a\x00\x07hi");
}

#[test]
fn packets_to_an_mqtt_5_client() {
    let codec = Codec::for_version(Version::V5, 1_000);
    let check = |packet: Outgoing, want: &[u8]| {
        assert_eq!(encode(&codec, &packet), want, "{packet:?}");
    };
    check(
        connack(Reason::SUCCESS.into()),
        b"\x20\x1C\x00\x00\x19\x11\x00\x00\x00\x00\x21\x01\x00\x25\x00\x27\x00\x10\x00\x00\
          \x12\x00\x02me\x22\x00\x20\x2A\x00",
    );
    let told = Told::new(Reason::UNSUPPORTED_PROTOCOL_VERSION, "no");
    check(connack(told), b"\x20\x08\x00\x84\x05\x1F\x00\x02no");
    let puback = b"\x40\x0C\x00\x07\x99\x08\x1F\x00\x05words";
    check(Outgoing::Puback(ack(Reason::PAYLOAD_FORMAT_INVALID)), puback);
    let rec = Ack { packet_id: id(7), told: Reason::SUCCESS.into() };
    check(Outgoing::Pubrec(rec), b"\x50\x04\x00\x07\x00\x00");
    let unknown = ack(Reason::PACKET_IDENTIFIER_NOT_FOUND);
    check(Outgoing::Pubrel(unknown.clone()), b"\x62\x04\x00\x07\x92\x00");
    check(Outgoing::Pubcomp(unknown), b"\x70\x04\x00\x07\x92\x00");
    let reasons = vec![Reason::GRANTED_QOS_1, Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED];
    let suback = Suback { packet_id: id(7), reasons };
    check(Outgoing::Suback(suback), b"\x90\x05\x00\x07\x00\x01\x9E");
    let reasons = vec![Reason::SUCCESS, Reason::NO_SUBSCRIPTION_EXISTED];
    let unsuback = Unsuback { packet_id: id(7), reasons };
    check(Outgoing::Unsuback(unsuback), b"\xB0\x05\x00\x07\x00\x00\x11");
    let goodbye = Disconnect { told: Told::new(Reason::SESSION_TAKEN_OVER, "x") };
    check(Outgoing::Disconnect(goodbye), b"\xE0\x06\x8E\x04\x1F\x00\x01x");
    check(
        Outgoing::Publish(delivered(QoS::AtLeastOnce)),
        b"\x32\x25\x00\x01a\x00\x07\x1D\x09\x00\x01d\x02\x00\x00\x00\x09\x03\x00\x01c\x01\x01\
          \x08\x00\x01r\x0B\xC8\x01\x26\x00\x01k\x00\x01vhi",
    );
}

#[test]
fn the_size_of_a_publish_is_known_beforehand() {
    for version in [Version::V3, Version::V5] {
        let codec = Codec::for_version(version, 1_000);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            for length in [0, 1, 60, 100, 127, 128, 200, 16_300, 16_384, 2_097_152] {
                let mut packet = delivered(qos);
                let message = Arc::make_mut(&mut packet.message);
                message.payload = Bytes::from(vec![0; length]);
                let size = publish_size(&packet, version);
                assert_eq!(encode(&codec, &Outgoing::Publish(packet)).len(), size);
            }
        }
    }
}

#[test]
fn a_client_gets_nothing_that_is_too_large_for_it() {
    // At most 20 bytes.
    let codec = connected(&connect_v5(b"\x27\x00\x00\x00\x14"));
    let told = |text: &str| Ack { packet_id: id(7), told: Told::new(Reason::NOT_AUTHORIZED, text) };
    let fits = Outgoing::Puback(told("eleven byte"));
    assert_eq!(encode(&codec, &fits).len(), 20);
    let too_long = Outgoing::Puback(told("twelve bytes"));
    assert_eq!(encode(&codec, &too_long), b"\x40\x04\x00\x07\x87\x00");
    assert_eq!(encode(&codec, &Outgoing::Publish(delivered(QoS::AtMostOnce))), b"");
    let mut small = delivered(QoS::AtMostOnce);
    Arc::make_mut(&mut small.message).properties = None;
    assert_eq!(encode(&codec, &Outgoing::Publish(small)).len(), 2 + 3 + 9 + 2);

    // At most 1 byte: the protocol allows it, though nothing fits.
    let codec = connected(&connect_v5(b"\x27\x00\x00\x00\x01"));
    assert_eq!(encode(&codec, &Outgoing::Pingresp), b"");
}

#[test]
fn reason_strings_only_where_they_are_wanted() {
    let codec = connected(&connect_v5(b"\x17\x00"));
    let puback = encode(&codec, &Outgoing::Puback(ack(Reason::NOT_AUTHORIZED)));
    assert_eq!(puback, b"\x40\x04\x00\x07\x87\x00");
    let told = Told::new(Reason::SERVER_SHUTTING_DOWN, "x");
    let goodbye = encode(&codec, &Outgoing::Disconnect(Disconnect { told }));
    assert_eq!(goodbye, b"\xE0\x06\x8B\x04\x1F\x00\x01x");
}

#[test]
fn a_reason_string_is_cut() {
    let codec = Codec::for_version(Version::V5, 1_000);
    let told = Told::new(Reason::PROTOCOL_ERROR, "ü".repeat(40_000));
    let bytes = encode(&codec, &Outgoing::Disconnect(Disconnect { told }));
    assert_eq!(bytes.len(), 1 + 2 + 1 + 2 + 3 + 1_024);
}

/// Starts of valid packets, so that random bytes get past the first checks.
fn starts() -> impl Strategy<Value = Vec<u8>> {
    let starts: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        CONNECT_V3.to_vec(),
        connect_v5(b""),
        CONNECT_V3[..9].to_vec(),
        connect_v5(b"")[..9].to_vec(),
    ];
    prop::sample::select(starts)
}

/// A packet whose type and length are likely, with random content.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![
        0x10_u8, 0x30, 0x32, 0x34, 0x3D, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0, 0xF0,
    ]);
    let byte = prop_oneof![4 => 0_u8..6, 2 => 0_u8..0x30, 1 => any::<u8>()];
    (first, prop::collection::vec(byte, 0..40), -1_i8..2).prop_map(|(first, body, off)| {
        let length = u8::try_from(body.len()).unwrap().saturating_add_signed(off);
        [&[first, length], &body[..]].concat()
    })
}

fn feed(bytes: &[u8]) {
    let mut codec = Codec::new(1_000);
    let mut buf = BytesMut::from(bytes);
    while let Ok(Some(_)) = codec.decode(&mut buf) {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_never_panic(
        start in starts(),
        bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        feed(&[start, bytes].concat());
    }

    #[test]
    fn random_packets_never_panic(
        start in starts(),
        packets in prop::collection::vec(packets(), 1..6),
    ) {
        feed(&[start, packets.concat()].concat());
    }

    #[test]
    fn a_valid_packet_with_wrong_bytes_never_panics(
        v5: bool,
        at in 0..60_usize,
        byte: u8,
        cut in 0..60_usize,
    ) {
        let connect = if v5 { connect_v5(b"\x21\x00\x05") } else { CONNECT_V3.to_vec() };
        let publish = b"\x32\x12\x00\x01a\x00\x07\x0A\x03\x00\x01c\x26\x00\x01k\x00\x01vhi";
        let mut bytes = [&connect[..], publish, b"\x82\x07\x00\x01\x00\x00\x01a\x01"].concat();
        if let Some(there) = bytes.get_mut(at) {
            *there = byte;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        feed(&bytes);
    }
}
