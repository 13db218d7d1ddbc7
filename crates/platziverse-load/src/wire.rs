//! The few MQTT 3.1.1 packets that a publisher needs. Pure.

use crate::plan::Login;

/// What a server has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// CONNACK with its return code.
    Connack(u8),
    /// PUBACK of a packet identifier.
    Puback(u16),
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

/// DISCONNECT (3.14).
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// The first packet in `bytes` and its length; nothing while it is not whole.
pub(crate) fn first(bytes: &[u8]) -> Option<(Answer, usize)> {
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
        (4, [high, low, ..]) => Answer::Puback(u16::from_be_bytes([*high, *low])),
        _ => Answer::Other,
    };
    Some((answer, at + length))
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
        let check = |bytes: &[u8], want: Option<(Answer, usize)>| assert_eq!(first(bytes), want);
        check(&[0x20, 2, 0, 5], Some((Answer::Connack(5), 4)));
        check(&[0x40, 2, 1, 2, 0x40], Some((Answer::Puback(258), 4)));
        check(&[0x40, 2, 1], None);
        check(&[0xD0, 0], Some((Answer::Other, 2)));
        check(&[], None);
    }

    #[test]
    fn a_publish_says_its_length() {
        let mut bytes = Vec::new();
        publish("a/b", 7, &[b'x'; 300], &mut bytes);
        assert_eq!(bytes[..10], [0x32, 0xB3, 0x02, 0, 3, b'a', b'/', b'b', 0, 7]);
        assert_eq!(first(&bytes), Some((Answer::Other, bytes.len())));
    }

    #[test]
    fn a_login_is_sent() {
        let login = Login { username: "user".into(), password: "pass".into() };
        let bytes = connect("id", Some(&login), 60);
        assert!(bytes.ends_with(b"\0\x02id\0\x04user\0\x04pass"), "{bytes:?}");
        assert_eq!(bytes[9], 0xC2);
    }
}
