//! Whether the lengths inside a packet add up, and reserved bits are clear.

use super::{Fault, Incomplete, Kind, malformed, protocol_error, varint};
use crate::packet::{Reason, Version};

const SHORT: Fault = malformed("a field is longer than its packet");

/// The kind of a complete packet, if its layout is right. `first` has been checked, unless the
/// version is not known yet: then it is a CONNECT.
pub(super) fn check(first: u8, body: &[u8], version: Option<Version>) -> Result<Kind, Fault> {
    let reader = Reader(body);
    let v5 = version == Some(Version::V5);
    Ok(match first >> 4 {
        1 => Kind::Connect(connect(reader)?),
        3 => publish(reader, first, v5).map(|()| Kind::Publish)?,
        4..=7 => Kind::Acknowledgement,
        8 => subscribe(reader, v5).map(|()| Kind::Subscribe)?,
        10 => unsubscribe(reader, v5).map(|()| Kind::Unsubscribe)?,
        12 => empty(reader).map(|()| Kind::Pingreq)?,
        14 if v5 => Kind::Disconnect,
        14 => empty(reader).map(|()| Kind::Disconnect)?,
        _ => Kind::Auth,
    })
}

/// What is left of a packet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.take(1)?.first().copied().ok_or(SHORT)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        match self.take(2)? {
            [high, low] => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(SHORT),
        }
    }

    /// Bytes after their length in two bytes.
    fn field(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// A UTF-8 string. U+0000 is not allowed in one (MQTT-1.5.4-2); the codec checks the rest.
    fn text(&mut self) -> Result<&'a [u8], Fault> {
        let text = self.field()?;
        if text.contains(&0) { Err(malformed("a text with U+0000")) } else { Ok(text) }
    }

    fn packet_id(&mut self) -> Result<(), Fault> {
        // MQTT-2.2.1-3, MQTT-2.2.1-4.
        if self.u16()? == 0 { Err(malformed("packet identifier 0")) } else { Ok(()) }
    }

    fn properties(&mut self) -> Result<Reader<'a>, Fault> {
        let (length, used) = varint(self.0).map_err(|Incomplete| SHORT)?;
        self.take(used)?;
        self.take(length).map(Reader)
    }

    fn end(self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed("bytes after the end")) }
    }
}

fn empty(reader: Reader<'_>) -> Result<(), Fault> {
    reader.end()
}

/// The version of a CONNECT, if it is one that is spoken here and its fields are all there.
fn connect(mut reader: Reader<'_>) -> Result<Version, Fault> {
    let version = connect_version(&mut reader)?;
    let flags = reader.byte()?;
    connect_flags(flags, version)?;
    reader.u16()?;
    if version == Version::V5 {
        reader.properties()?;
    }
    reader.text()?;
    if flags & WILL != 0 {
        if version == Version::V5 {
            reader.properties()?;
        }
        reader.text()?;
        reader.field()?;
    }
    if flags & USERNAME != 0 {
        reader.text()?;
    }
    if flags & PASSWORD != 0 {
        reader.field()?;
    }
    reader.end()?;
    Ok(version)
}

/// The protocol's name and level (MQTT-3.1.2-1, -2).
///
/// A refusal is written as the client can read it. Bridges set the high bit of the level that
/// they speak, and fall back to the plain level when refused in its format.
fn connect_version(reader: &mut Reader<'_>) -> Result<Version, Fault> {
    let name = reader.field().map_err(|_| Fault::NotMqtt)?;
    let level = reader.byte().map_err(|_| Fault::NotMqtt)?;
    match (name, level) {
        (b"MQTT", 4) => Ok(Version::V3),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT", _) if level & 0x7F >= 5 => {
            Err(Fault::UnsupportedVersion { level, answer: Version::V5 })
        }
        (b"MQTT" | b"MQIsdp", _) => Err(Fault::UnsupportedVersion { level, answer: Version::V3 }),
        _ => Err(Fault::NotMqtt),
    }
}

const USERNAME: u8 = 0b1000_0000;
const PASSWORD: u8 = 0b0100_0000;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL_QOS: u8 = 0b0001_1000;
const WILL: u8 = 0b0000_0100;
const RESERVED: u8 = 0b0000_0001;

fn connect_flags(flags: u8, version: Version) -> Result<(), Fault> {
    // MQTT-3.1.2-3.
    if flags & RESERVED != 0 {
        return Err(malformed("a reserved flag of CONNECT is set"));
    }
    // MQTT-3.1.2-12.
    if flags & WILL_QOS == WILL_QOS {
        return Err(malformed("a will at QoS 3"));
    }
    // MQTT-3.1.2-11, -13.
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(malformed("will flags without a will"));
    }
    // MQTT 3.1.1, MQTT-3.1.2-22.
    if version == Version::V3 && flags & USERNAME == 0 && flags & PASSWORD != 0 {
        return Err(malformed("a password without a user name"));
    }
    Ok(())
}

/// A PUBLISH whose header is longer than the packet would make the codec count below zero.
fn publish(mut reader: Reader<'_>, first: u8, v5: bool) -> Result<(), Fault> {
    reader.text()?;
    if first & 0b0110 != 0 {
        reader.packet_id()?;
    }
    if v5 { publish_properties(reader.properties()?) } else { Ok(()) }
}

/// Section 3.3.2.3. The codec reads them again; what it would call malformed though the
/// specification has a code of its own is found here.
fn publish_properties(mut properties: Reader<'_>) -> Result<(), Fault> {
    while !properties.0.is_empty() {
        match properties.byte()? {
            0x01 => drop(properties.byte()?),
            0x02 => drop(properties.take(4)?),
            0x03 | 0x08 => drop(properties.text()?),
            0x09 => drop(properties.field()?),
            // MQTT-3.3.4-6.
            0x0B => return Err(protocol_error("a PUBLISH with a Subscription Identifier")),
            // MQTT-3.3.2-8.
            0x23 if properties.u16()? == 0 => {
                let text = "topic alias 0";
                return Err(Fault::Invalid { reason: Reason::TOPIC_ALIAS_INVALID, text });
            }
            0x23 => {}
            0x26 => {
                properties.text()?;
                properties.text()?;
            }
            _ => return Err(malformed("a property that PUBLISH does not have")),
        }
    }
    Ok(())
}

fn subscribe(mut reader: Reader<'_>, v5: bool) -> Result<(), Fault> {
    reader.packet_id()?;
    if v5 {
        reader.properties()?;
    }
    // MQTT-3.8.3-2: at least one.
    if reader.0.is_empty() {
        return Err(protocol_error("a SUBSCRIBE without filters"));
    }
    while !reader.0.is_empty() {
        reader.text()?;
        let options = reader.byte()?;
        let reserved = if v5 { 0b1100_0000 } else { 0b1111_1100 };
        // MQTT-3.8.3-5; MQTT 3.1.1, MQTT-3-8.3-4.
        if options & reserved != 0 || options & 0b11 == 0b11 {
            return Err(malformed("invalid subscription options"));
        }
        // Section 3.8.3.1.
        if options & 0b0011_0000 == 0b0011_0000 {
            return Err(protocol_error("Retain Handling 3"));
        }
    }
    Ok(())
}

fn unsubscribe(mut reader: Reader<'_>, v5: bool) -> Result<(), Fault> {
    reader.packet_id()?;
    if v5 {
        reader.properties()?;
    }
    // MQTT-3.10.3-2: at least one.
    if reader.0.is_empty() {
        return Err(protocol_error("an UNSUBSCRIBE without filters"));
    }
    while !reader.0.is_empty() {
        reader.text()?;
    }
    Ok(())
}
