//! Bytes to packets and back, by the codecs of ntex-mqtt. Their types stay inside this module.

mod encode;
mod v3;
mod v5;

use ntex_bytes::{BytePages, BytesMut};
use ntex_codec::{Decoder, Encoder};
use ntex_mqtt::error::{DecodeError, EncodeError};
use ntex_mqtt::{v3::codec as c3, v5::codec as c5};

pub(crate) use encode::properties_size;
pub use encode::publish_size;

use crate::frame::{self, Fault, Kind};
use crate::packet::{Delivered, Outgoing, Packet, Reason, Version};

/// The codec of one connection. It learns the version from CONNECT, and with it what the client
/// can take.
#[derive(Debug)]
pub struct Codec {
    wire: Wire,
    /// The largest packet taken from the client, in bytes.
    limit: u32,
    /// The largest packet that the client takes, in bytes (MQTT-3.1.2-24).
    client_limit: u32,
    /// Whether the client wants reason strings on acknowledgements (MQTT-3.1.2-29).
    problem_info: bool,
}

#[derive(Debug)]
enum Wire {
    Unknown,
    V3(c3::Codec),
    V5(c5::Codec),
}

/// What became of a packet to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// It was appended.
    Written,
    /// Nothing was appended: the client could not take it, or its version has no such packet.
    Omitted,
}

/// A packet that cannot be written: a fault of this program.
#[derive(Debug, thiserror::Error)]
#[error("encoding a packet")]
pub struct Unencodable(#[source] EncodeError);

impl Codec {
    /// A codec for a connection that has sent nothing. It takes packets of at most `limit` bytes.
    pub fn new(limit: u32) -> Self {
        Self { wire: Wire::Unknown, limit, client_limit: u32::MAX, problem_info: true }
    }

    /// A codec for a connection whose version is known.
    pub fn for_version(version: Version, limit: u32) -> Self {
        let mut codec = Self::new(limit);
        codec.speak(version);
        codec
    }

    /// The version, once CONNECT has told it, or in which a CONNECT is to be refused.
    pub fn version(&self) -> Option<Version> {
        match self.wire {
            Wire::Unknown => None,
            Wire::V3(_) => Some(Version::V3),
            Wire::V5(_) => Some(Version::V5),
        }
    }

    fn speak(&mut self, version: Version) {
        self.wire = match version {
            Version::V3 => Wire::V3(c3::Codec::new()),
            Version::V5 => Wire::V5(c5::Codec::new()),
        };
    }

    /// Takes the next packet from the front of `buf`. `Ok(None)` means that more bytes are needed.
    ///
    /// After a fault the connection is to be closed; decoding must not go on.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Packet>, Fault> {
        let frame = match frame::next(buf, self.version(), self.limit) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(fault) => {
                if let Fault::UnsupportedVersion { answer, .. } = fault {
                    self.speak(answer);
                }
                return Err(fault);
            }
        };
        if let (Wire::Unknown, Kind::Connect(version)) = (&self.wire, frame.kind) {
            self.speak(version);
        }
        let packet = match &self.wire {
            Wire::V3(codec) => v3::packet(codec.decode(buf).map_err(fault)?),
            Wire::V5(codec) => v5::packet(codec.decode(buf).map_err(fault)?),
            Wire::Unknown => None,
        };
        let packet = packet.ok_or(INCOMPLETE)?;
        if let Packet::Connect(connect) = &packet {
            self.client_limit = connect.max_packet_size.map_or(u32::MAX, |size| size.get());
            self.problem_info = connect.request_problem_info;
        }
        Ok(Some(packet))
    }

    /// Appends a packet to `out`, if the client can take it.
    ///
    /// What is too large for it is sent without the reason string, or not at all (MQTT-3.1.2-24,
    /// -25). Without Request Problem Information, acknowledgements have no reason string
    /// (MQTT-3.1.2-29).
    pub fn encode(&self, packet: &Outgoing, out: &mut BytePages) -> Result<Encoded, Unencodable> {
        match packet {
            Outgoing::Publish(publish) => self.encode_publish(publish, out),
            packet if self.client_limit == u32::MAX => self.write(packet, self.wordy(packet), out),
            packet => {
                for text in [self.wordy(packet), false] {
                    let mut pages = BytePages::default();
                    let encoded = self.write(packet, text, &mut pages)?;
                    if pages.len() <= self.client_limit as usize {
                        pages.move_to(out);
                        return Ok(encoded);
                    }
                }
                Ok(Encoded::Omitted)
            }
        }
    }

    /// Whether the packet may have a reason string; CONNACK and DISCONNECT always may.
    fn wordy(&self, packet: &Outgoing) -> bool {
        self.problem_info || matches!(packet, Outgoing::Connack(_) | Outgoing::Disconnect(_))
    }

    fn encode_publish(
        &self,
        publish: &Delivered,
        out: &mut BytePages,
    ) -> Result<Encoded, Unencodable> {
        let Some(version) = self.version() else { return Ok(Encoded::Omitted) };
        if publish_size(publish, version) > self.client_limit as usize {
            return Ok(Encoded::Omitted);
        }
        match &self.wire {
            Wire::V3(codec) => codec.encodev(v3::publish(publish), out),
            Wire::V5(codec) => codec.encodev(v5::publish(publish), out),
            Wire::Unknown => return Ok(Encoded::Omitted),
        }
        .map_err(Unencodable)?;
        Ok(Encoded::Written)
    }

    fn write(
        &self,
        packet: &Outgoing,
        text: bool,
        out: &mut BytePages,
    ) -> Result<Encoded, Unencodable> {
        let written = match &self.wire {
            Wire::V3(codec) => v3::outgoing(packet).map(|packet| codec.encodev(packet, out)),
            Wire::V5(codec) => v5::outgoing(packet, text).map(|packet| codec.encodev(packet, out)),
            Wire::Unknown => None,
        };
        match written {
            Some(result) => result.map(|()| Encoded::Written).map_err(Unencodable),
            None => Ok(Encoded::Omitted),
        }
    }
}

const INCOMPLETE: Fault =
    Fault::Invalid { reason: Reason::MALFORMED_PACKET, text: "a packet that is not complete" };

fn fault(error: DecodeError) -> Fault {
    let (reason, text) = match error {
        DecodeError::InvalidClientId => (
            Reason::CLIENT_IDENTIFIER_NOT_VALID,
            "an empty client identifier without clean session",
        ),
        DecodeError::Utf8Error => (Reason::MALFORMED_PACKET, "a text that is not UTF-8"),
        DecodeError::InvalidLength => (Reason::MALFORMED_PACKET, "a wrong length in a packet"),
        _ => (Reason::MALFORMED_PACKET, "a malformed packet"),
    };
    Fault::Invalid { reason, text }
}

#[cfg(test)]
mod tests;
