use super::*;

const LIMIT: u32 = 1_000;

fn check(version: Option<Version>, bytes: &[u8], want: &str) {
    let got = match next(bytes, version, LIMIT) {
        Ok(None) => "more".to_owned(),
        Ok(Some(frame)) => format!("{:?} {}", frame.kind, frame.size),
        Err(fault) => format!("{:02x} {fault}", fault.reason().code()),
    };
    assert_eq!(got, want, "{version:?} {bytes:02x?}");
}

fn both(bytes: &[u8], want: &str) {
    check(Some(Version::V3), bytes, want);
    check(Some(Version::V5), bytes, want);
}

#[test]
fn sizes() {
    both(b"", "more");
    both(b"\xC0", "more");
    both(b"\xC0\x00", "Pingreq 2");
    both(b"\xC0\x00\xC0\x00", "Pingreq 2");
    both(b"\x30\x80", "more");
    both(b"\x30\xFF\xFF\xFF", "more");
    both(b"\x30\xFF\xFF\xFF\xFF", "81 a length of more than four bytes");
    both(b"\x30\xFF\xFF\xFF\xFF\x01", "81 a length of more than four bytes");
    // As soon as the length is known, long before the body.
    both(b"\x30\xE6\x07", "95 a packet of 1001 bytes; at most 1000 are allowed");
    both(b"\x30\xE5\x07", "more");
    both(b"\x30\xFF\xFF\xFF\x7F", "95 a packet of 268435460 bytes; at most 1000 are allowed");
    // A length in more bytes than it needs.
    both(b"\xC0\x80\x80\x80\x00", "Pingreq 5");
}

#[test]
fn types_and_flags() {
    both(b"\x00\x00", "81 a reserved packet type");
    both(b"\x10\x0E\x00\x04MQTT\x04\x02\x00\x3C\x00\x02id", "82 a second CONNECT");
    both(b"\x10\x10\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x02id", "82 a second CONNECT");
    both(b"\x20\x02\x00\x00", "82 a packet that only servers send");
    both(b"\x90\x03\x00\x01\x00", "82 a packet that only servers send");
    both(b"\xB0\x02\x00\x01", "82 a packet that only servers send");
    both(b"\xD0\x00", "82 a packet that only servers send");
    check(Some(Version::V3), b"\xF0\x00", "81 a reserved packet type");
    check(Some(Version::V5), b"\xF0\x00", "Auth 2");
    for first in [0x11, 0x41, 0x52, 0x60, 0x63, 0x78, 0x80, 0x8A, 0xA0, 0xA3, 0xC1, 0xE1] {
        both(&[first, 0], "81 reserved flags are set");
    }
    both(b"\x36\x05\x00\x01a\x00\x01", "81 QoS 3");
    both(b"\x38\x03\x00\x01a", "81 DUP at QoS 0");
    both(b"\x40\x02\x00\x01", "Acknowledgement 4");
    both(b"\x62\x02\x00\x01", "Acknowledgement 4");
    both(b"\xC0\x01\x00", "81 bytes after the end");
    check(Some(Version::V3), b"\xE0\x01\x00", "81 bytes after the end");
    check(Some(Version::V5), b"\xE0\x01\x00", "Disconnect 3");
}

#[test]
fn publishes() {
    let v3 = |bytes: &[u8], want| check(Some(Version::V3), bytes, want);
    let v5 = |bytes: &[u8], want| check(Some(Version::V5), bytes, want);
    v3(b"\x30\x05\x00\x01axy", "Publish 7");
    v3(b"\x30\x05\x00\x01ax", "more");
    v3(b"\x32\x05\x00\x01a\x00\x01", "Publish 7");
    v3(b"\x32\x05\x00\x01a\x00\x00", "81 packet identifier 0");
    both(b"\x30\x00", "81 a field is longer than its packet");
    both(b"\x30\x03\x00\x02a", "81 a field is longer than its packet");
    both(b"\x30\x03\xFF\xFFa", "81 a field is longer than its packet");
    both(b"\x32\x03\x00\x01a", "81 a field is longer than its packet");
    both(b"\x30\x06\x00\x03a\x00bx", "81 a text with U+0000");
    v5(b"\x30\x05\x00\x01a\x00x", "Publish 7");
    v5(b"\x30\x03\x00\x01a", "81 a field is longer than its packet");
    v5(b"\x30\x04\x00\x01a\x01", "81 a field is longer than its packet");
    v5(b"\x30\x05\x00\x01a\x80\x80", "81 a field is longer than its packet");
    v5(b"\x30\x07\x00\x01a\x03\x23\x00\x01", "Publish 9");
    v5(b"\x30\x07\x00\x01a\x03\x23\x00\x00", "94 topic alias 0");
    v5(b"\x30\x06\x00\x01a\x02\x0B\x01", "82 a PUBLISH with a Subscription Identifier");
    v5(b"\x30\x06\x00\x01a\x02\x11\x01", "81 a property that PUBLISH does not have");
    v5(b"\x30\x09\x00\x01a\x05\x08\x00\x02a\0", "81 a text with U+0000");
    v5(b"\x30\x08\x00\x01a\x04\x26\x00\x01a", "81 a field is longer than its packet");
}

#[test]
fn subscribes() {
    let v3 = |bytes: &[u8], want| check(Some(Version::V3), bytes, want);
    let v5 = |bytes: &[u8], want| check(Some(Version::V5), bytes, want);
    v3(b"\x82\x06\x00\x01\x00\x01a\x02", "Subscribe 8");
    v3(b"\x82\x06\x00\x00\x00\x01a\x01", "81 packet identifier 0");
    v3(b"\x82\x06\x00\x01\x00\x01a\x03", "81 invalid subscription options");
    v3(b"\x82\x06\x00\x01\x00\x01a\x04", "81 invalid subscription options");
    v3(b"\x82\x02\x00\x01", "82 a SUBSCRIBE without filters");
    v3(b"\x82\x05\x00\x01\x00\x01a", "81 a field is longer than its packet");
    v5(b"\x82\x07\x00\x01\x00\x00\x01a\x2D", "Subscribe 9");
    v5(b"\x82\x07\x00\x01\x00\x00\x01a\x41", "81 invalid subscription options");
    v5(b"\x82\x07\x00\x01\x00\x00\x01a\x30", "82 Retain Handling 3");
    v5(b"\x82\x03\x00\x01\x00", "82 a SUBSCRIBE without filters");
    v3(b"\xA2\x05\x00\x01\x00\x01a", "Unsubscribe 7");
    v3(b"\xA2\x02\x00\x01", "82 an UNSUBSCRIBE without filters");
    v5(b"\xA2\x06\x00\x01\x00\x00\x01a", "Unsubscribe 8");
    v5(b"\xA2\x06\x00\x01\x00\x00\x01\0", "81 a text with U+0000");
}

/// A CONNECT with these bytes after the fixed header.
fn connect(body: &[u8], want: &str) {
    let mut bytes = vec![0x10, u8::try_from(body.len()).unwrap()];
    bytes.extend_from_slice(body);
    check(None, &bytes, want);
}

#[test]
fn the_first_packet() {
    check(None, b"G", "82 not an MQTT connection");
    check(None, b"\x16\x03\x01", "82 not an MQTT connection");
    check(None, b"\xC0\x00", "82 not an MQTT connection");
    check(None, b"\x30", "82 not an MQTT connection");
    check(None, b"\x10", "more");
    check(None, b"\x10\xFF\xFF\x7F", "95 a packet of 2097155 bytes; at most 1000 are allowed");
    connect(b"", "82 not an MQTT connection");
    connect(b"\x00\x04HTTP\x04\x02\x00\x3C\x00\x00", "82 not an MQTT connection");
    connect(b"\x00\x09MQTT\x04", "82 not an MQTT connection");

    connect(b"\x00\x04MQTT\x04\x02\x00\x3C\x00\x01a", "Connect(V3) 15");
    connect(b"\x00\x04MQTT\x04\xC2\x00\x3C\x00\x01a\x00\x01u\x00\x01p", "Connect(V3) 21");
    connect(b"\x00\x04MQTT\x04\x06\x00\x3C\x00\x01a\x00\x01t\x00\x01m", "Connect(V3) 21");
    connect(b"\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01a", "Connect(V5) 16");
    connect(b"\x00\x04MQTT\x05\x42\x00\x3C\x00\x00\x01a\x00\x01p", "Connect(V5) 19");
    let will = b"\x00\x04MQTT\x05\x06\x00\x3C\x00\x00\x01a\x00\x00\x01t\x00\x01m";
    connect(will, "Connect(V5) 23");
}

#[test]
fn other_versions_are_told_so_in_their_own_words() {
    let refused = |body: &[u8], want: Version| {
        let mut bytes = vec![0x10, u8::try_from(body.len()).unwrap()];
        bytes.extend_from_slice(body);
        match next(&bytes, None, LIMIT) {
            Err(Fault::UnsupportedVersion { answer, .. }) => assert_eq!(answer, want, "{body:?}"),
            other => panic!("{body:?}: {other:?}"),
        }
    };
    refused(b"\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01a", Version::V3);
    refused(b"\x00\x04MQTT\x03\x02\x00\x3C\x00\x01a", Version::V3);
    refused(b"\x00\x04MQTT\x00", Version::V3);
    refused(b"\x00\x04MQTT\x06\x02\x00\x3C\x00\x00\x01a", Version::V5);
    refused(b"\x00\x04MQTT\x7F", Version::V5);
    // Bridges.
    refused(b"\x00\x04MQTT\x84\x02\x00\x3C\x00\x01a", Version::V3);
    refused(b"\x00\x04MQTT\x85\x02\x00\x3C\x00\x00\x01a", Version::V5);
}

#[test]
fn a_connect_is_checked_to_its_end() {
    let short = "81 a field is longer than its packet";
    connect(b"\x00\x04MQTT\x04", short);
    connect(b"\x00\x04MQTT\x04\x02\x00\x3C\x00\x02a", short);
    connect(b"\x00\x04MQTT\x04\x82\x00\x3C\x00\x01a", short);
    connect(b"\x00\x04MQTT\x05\x02\x00\x3C\x05\x00\x01a", short);
    connect(b"\x00\x04MQTT\x04\x02\x00\x3C\x00\x01ax", "81 bytes after the end");
    connect(b"\x00\x04MQTT\x04\x02\x00\x3C\x00\x01\0", "81 a text with U+0000");
    connect(b"\x00\x04MQTT\x04\x03\x00\x3C\x00\x01a", "81 a reserved flag of CONNECT is set");
    connect(b"\x00\x04MQTT\x04\x1E\x00\x3C\x00\x01a", "81 a will at QoS 3");
    connect(b"\x00\x04MQTT\x04\x0A\x00\x3C\x00\x01a", "81 will flags without a will");
    connect(b"\x00\x04MQTT\x04\x22\x00\x3C\x00\x01a", "81 will flags without a will");
    let password = b"\x00\x04MQTT\x04\x42\x00\x3C\x00\x01a\x00\x01p";
    connect(password, "81 a password without a user name");
}
