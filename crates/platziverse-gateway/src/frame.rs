//! Framing: where the next packet ends, and whether its layout can be trusted.
//!
//! Everything the codec relies on without checking is checked here, from the bytes alone: sizes
//! before a body arrives, flags, and each length that a packet states about its own parts.

mod layout;

use crate::packet::{Reason, Version};

/// A complete packet at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What kind of packet it is.
    pub kind: Kind,
    /// Its length in bytes, the fixed header included.
    pub size: usize,
}

/// The packets that a client may send (MQTT 5, section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CONNECT, in this version.
    Connect(Version),
    /// PUBLISH.
    Publish,
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Acknowledgement,
    /// SUBSCRIBE.
    Subscribe,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// PINGREQ.
    Pingreq,
    /// DISCONNECT.
    Disconnect,
    /// AUTH.
    Auth,
}

/// Why bytes from a client are refused. The connection ends with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The first packet is not an MQTT CONNECT. The connection is closed without an answer.
    #[error("not an MQTT connection")]
    NotMqtt,
    /// A CONNECT of another version (MQTT-3.1.2-2).
    #[error("MQTT protocol level {level} is not supported")]
    UnsupportedVersion {
        /// The protocol level that the client asked for.
        level: u8,
        /// The version in which it understands a refusal.
        answer: Version,
    },
    /// Larger than the limit (section 3.2.2.3.6).
    #[error("a packet of {size} bytes; at most {limit} are allowed")]
    TooLarge {
        /// The size of the whole packet, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: u32,
    },
    /// Not a valid packet, or not one that the protocol allows here.
    #[error("{text}")]
    Invalid {
        /// The code for it.
        reason: Reason,
        /// What is wrong.
        text: &'static str,
    },
}

impl Fault {
    /// The code to tell the client.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotMqtt => Reason::PROTOCOL_ERROR,
            Self::UnsupportedVersion { .. } => Reason::UNSUPPORTED_PROTOCOL_VERSION,
            Self::TooLarge { .. } => Reason::PACKET_TOO_LARGE,
            Self::Invalid { reason, .. } => *reason,
        }
    }
}

const fn malformed(text: &'static str) -> Fault {
    Fault::Invalid { reason: Reason::MALFORMED_PACKET, text }
}

const fn protocol_error(text: &'static str) -> Fault {
    Fault::Invalid { reason: Reason::PROTOCOL_ERROR, text }
}

/// Finds the next packet. `Ok(None)` means that more bytes are needed.
///
/// `version` is what the client speaks; `None` before its CONNECT. `limit` is the largest packet
/// allowed in bytes, header included, and is applied as soon as the packet states its length.
pub fn next(buf: &[u8], version: Option<Version>, limit: u32) -> Result<Option<Frame>, Fault> {
    let Some(&first) = buf.first() else { return Ok(None) };
    match version {
        None if first != CONNECT => return Err(Fault::NotMqtt),
        None => {}
        Some(version) => check_first(first, version)?,
    }
    let Some((remaining, header)) = length(buf)? else { return Ok(None) };
    let size = header + remaining;
    if size > limit as usize {
        return Err(Fault::TooLarge { size, limit });
    }
    let Some(body) = buf.get(header..size) else { return Ok(None) };
    let kind = layout::check(first, body, version)?;
    Ok(Some(Frame { kind, size }))
}

/// The first byte of a CONNECT.
const CONNECT: u8 = 0x10;

/// The type and the flags that go with it (MQTT-2.1.3-1, MQTT-3.3.1-4).
fn check_first(first: u8, version: Version) -> Result<(), Fault> {
    let flags = match (first >> 4, version) {
        // MQTT-3.1.0-2. Whatever version it names, the client's stays what the first one said.
        (1, _) if first == CONNECT => return Err(protocol_error("a second CONNECT")),
        (1 | 4 | 5 | 7 | 12 | 14, _) | (15, Version::V5) => 0,
        (6 | 8 | 10, _) => 0b0010,
        (3, _) => return check_publish_flags(first),
        (0, _) | (15, Version::V3) => return Err(malformed("a reserved packet type")),
        _ => return Err(protocol_error("a packet that only servers send")),
    };
    if first & 0x0F == flags { Ok(()) } else { Err(malformed("reserved flags are set")) }
}

fn check_publish_flags(first: u8) -> Result<(), Fault> {
    match (first >> 1) & 0b11 {
        // MQTT-3.3.1-4.
        3 => Err(malformed("QoS 3")),
        // MQTT-3.3.1-2.
        0 if first & 0b1000 != 0 => Err(malformed("DUP at QoS 0")),
        _ => Ok(()),
    }
}

/// The Remaining Length, at most four bytes (section 1.5.5), and the length of the fixed header.
fn length(buf: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    match varint(&buf[1..]) {
        Ok((value, used)) => Ok(Some((value, 1 + used))),
        Err(Incomplete) if buf.len() >= 5 => Err(malformed("a length of more than four bytes")),
        Err(Incomplete) => Ok(None),
    }
}

/// There are too few bytes, or more than four would be needed.
struct Incomplete;

/// A Variable Byte Integer and how many bytes it takes.
fn varint(buf: &[u8]) -> Result<(usize, usize), Incomplete> {
    let mut value = 0;
    for (index, byte) in buf.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, index + 1));
        }
    }
    Err(Incomplete)
}

#[cfg(test)]
mod tests;
