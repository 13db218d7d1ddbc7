//! The few MQTT 3.1.1 packets that a client needs. Pure.

use crate::plan::Login;

/// What a server has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// CONNACK with its return code.
    Connack(u8),
    /// PUBLISH, at QoS 1 with a packet identifier.
    Publish {
        /// What is to be answered with a PUBACK.
        packet: Option<u16>,
        payload: &'a [u8],
    },
    /// PUBACK of a packet identifier.
    Puback(u16),
    /// SUBACK with the return code of its first filter.
    Suback(u8),
    Pingresp,
    /// Anything else.
    Other,
}

/// CONNECT with a clean session.
pub(crate) fn connect(client: &str, login: Option<&Login>, keep_alive: u16) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.push(if login.is_some() { 0xC2 } else { 0x02 });
    body.extend(keep_alive.to_be_bytes());
    text(&mut body, client);
    if let Some(login) = login {
        text(&mut body, &login.username);
        text(&mut body, &login.password);
    }
    framed(0x10, &body)
}

/// Appends a PUBLISH at QoS 1.
pub(crate) fn publish(topic: &str, packet: u16, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x32);
    length(out, 4 + topic.len() + payload.len());
    text(out, topic);
    out.extend(packet.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends a SUBSCRIBE to one filter; its packet identifier is 1.
pub(crate) fn subscribe(filter: &str, qos: u8, out: &mut Vec<u8>) {
    out.push(0x82);
    length(out, 5 + filter.len());
    out.extend([0, 1]);
    text(out, filter);
    out.push(qos);
}

/// Appends a PUBACK.
pub(crate) fn puback(packet: u16, out: &mut Vec<u8>) {
    let [high, low] = packet.to_be_bytes();
    out.extend([0x40, 2, high, low]);
}

/// PINGREQ (3.12).
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
/// DISCONNECT (3.14).
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// The first packet in `bytes` and its length; nothing while it is not whole.
pub(crate) fn first(bytes: &[u8]) -> Option<(Answer<'_>, usize)> {
    let kind = *bytes.first()?;
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 || at > 4 {
            break;
        }
    }
    let body = bytes.get(at..at + length)?;
    let answer = match (kind >> 4, body) {
        (2, [_, code, ..]) => Answer::Connack(*code),
        (3, body) => inbound(kind, body).unwrap_or(Answer::Other),
        (4, [high, low, ..]) => Answer::Puback(u16::from_be_bytes([*high, *low])),
        (9, [_, _, code, ..]) => Answer::Suback(*code),
        (13, _) => Answer::Pingresp,
        _ => Answer::Other,
    };
    Some((answer, at + length))
}

/// A PUBLISH at QoS 0 or 1; nothing for others, which no subscriber here is granted.
fn inbound(kind: u8, body: &[u8]) -> Option<Answer<'_>> {
    let (topic, body) = body.split_first_chunk::<2>()?;
    let body = body.get(usize::from(u16::from_be_bytes(*topic))..)?;
    match kind & 0x06 {
        0 => Some(Answer::Publish { packet: None, payload: body }),
        2 => {
            let (packet, payload) = body.split_first_chunk::<2>()?;
            Some(Answer::Publish { packet: Some(u16::from_be_bytes(*packet)), payload })
        }
        _ => None,
    }
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    length(&mut packet, body.len());
    packet.extend_from_slice(body);
    packet
}

fn text(out: &mut Vec<u8>, text: &str) {
    // Longer ones are cut: a server refuses what is then wrong.
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// MQTT-2.2.3: seven bits a byte, the least first.
fn length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let byte = (length & 0x7F) as u8;
        length >>= 7;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let check = |bytes: &[u8], want| assert_eq!(first(bytes), want, "{bytes:x?}");
        check(&[0x20, 2, 0, 5], Some((Answer::Connack(5), 4)));
        check(&[0x40, 2, 1, 2, 0x40], Some((Answer::Puback(258), 4)));
        check(&[0x40, 2, 1], None);
        check(&[0x90, 3, 0, 1, 0x80], Some((Answer::Suback(0x80), 5)));
        check(&[0xD0, 0, 0xD0], Some((Answer::Pingresp, 2)));
        check(&[0xF0, 0], Some((Answer::Other, 2)));
        check(&[], None);
    }

    #[test]
    fn publishes_that_arrive() {
        let check = |bytes: &[u8], want| {
            assert_eq!(first(bytes), Some((want, bytes.len())), "{bytes:x?}");
        };
        let of = |packet, payload| Answer::Publish { packet, payload };
        check(b"\x30\x05\0\x01txy", of(None, b"xy"));
        check(b"\x30\x03\0\x01t", of(None, b""));
        // Retained, and again.
        check(b"\x3B\x07\0\x01t\x01\x02xy", of(Some(258), b"xy"));
        // QoS 2, a topic longer than the packet, and no packet identifier.
        for bytes in [&b"\x34\x05\0\x01t\0\x01"[..], b"\x30\x03\0\x09t", b"\x32\x03\0\x01t"] {
            check(bytes, Answer::Other);
        }
        assert_eq!(first(b"\x30\x05\0\x01tx"), None);
    }

    #[test]
    fn what_a_subscriber_sends() {
        let mut bytes = Vec::new();
        subscribe("a/b", 1, &mut bytes);
        puback(258, &mut bytes);
        assert_eq!(bytes, b"\x82\x08\0\x01\0\x03a/b\x01\x40\x02\x01\x02");
    }

    #[test]
    fn a_publish_says_its_length() {
        let mut bytes = Vec::new();
        publish("a/b", 7, &[b'x'; 300], &mut bytes);
        assert_eq!(bytes[..10], [0x32, 0xB3, 0x02, 0, 3, b'a', b'/', b'b', 0, 7]);
        let answer = Answer::Publish { packet: Some(7), payload: &[b'x'; 300] };
        assert_eq!(first(&bytes), Some((answer, bytes.len())));
    }

    #[test]
    fn a_login_is_sent() {
        let login = Login { username: "user".into(), password: "pass".into() };
        let bytes = connect("id", Some(&login), 60);
        assert!(bytes.ends_with(b"\0\x02id\0\x04user\0\x04pass"), "{bytes:?}");
        assert_eq!(bytes[9], 0xC2);
    }
}
