//! The MQTT codec: it takes any bytes, and how TCP cuts them makes no difference.

use ntex_bytes::BytesMut;
use platziverse_fuzz::{Fate, Input, Target};
use platziverse_gateway::codec::Codec;
use platziverse_gateway::frame::{self, Fault};
use platziverse_gateway::packet::Version;
use proptest::test_runner::{TestCaseError, TestCaseResult};
use proptest::{prop_assert, prop_assert_eq};

/// The largest packet that is taken here, in bytes.
const LIMIT: u32 = 8 << 10;

/// More than one packet of [`LIMIT`].
const BYTES_MAX: usize = 20_000;

const WORDS: &[&str] = &[
    "\u{10}\u{0c}\0\u{4}MQTT\u{4}\u{2}\0\u{3c}\0\0",
    "\u{10}\u{0d}\0\u{4}MQTT\u{5}\u{2}\0\u{3c}\0\0\0",
    "\0\u{4}MQTT",
    "MQIsdp",
    "agent/message",
    "$SYS/#",
    "+/#",
    "\0\0",
    "\0\u{1}a",
    "\u{1}",
    "\u{5}",
    "\u{3}\0\u{1}t",
    "\u{23}\0\u{1}",
    "\u{0b}\u{1}",
    "\u{26}\0\u{1}a\0\u{1}b",
    "\u{11}\0\0\0\u{1}",
    "\u{7f}",
    "\u{30}\u{5}\0\u{1}a",
    "\u{32}\u{6}\0\u{1}a\0\u{1}x",
    "\u{40}\u{2}\0\u{1}",
    "\u{62}\u{2}\0\u{1}",
];

#[test]
fn frames() {
    Target::new("frames", WORDS, BYTES_MAX).run(check);
}

fn check(input: &Input) -> Result<Fate, TestCaseError> {
    let mut read = false;
    for version in [None, Some(Version::V3), Some(Version::V5)] {
        framed(&input.bytes, version)?;
        let whole = decoded(&input.bytes, version, input.bytes.len().max(1))?;
        for piece in [1, 7, 1_460] {
            // Byte by byte, large inputs would take their time.
            if input.bytes.len() / piece < 2_000 {
                prop_assert_eq!(&decoded(&input.bytes, version, piece)?, &whole);
            }
        }
        read |= !whole.packets.is_empty() && whole.fault.is_none();
    }
    Ok(Fate::of(read))
}

/// A frame lies within the limit and within the bytes that are there.
fn framed(bytes: &[u8], version: Option<Version>) -> TestCaseResult {
    if let Ok(Some(frame)) = frame::next(bytes, version, LIMIT) {
        prop_assert!(frame.size >= 2 && frame.size <= bytes.len().min(LIMIT as usize));
    }
    Ok(())
}

/// What a codec made of bytes.
#[derive(Debug, Default, PartialEq)]
struct Read {
    packets: Vec<String>,
    fault: Option<Fault>,
    left: usize,
}

fn decoded(bytes: &[u8], version: Option<Version>, piece: usize) -> Result<Read, TestCaseError> {
    let mut codec = match version {
        Some(version) => Codec::for_version(version, LIMIT),
        None => Codec::new(LIMIT),
    };
    let (mut buf, mut read) = (BytesMut::new(), Read::default());
    for piece in bytes.chunks(piece) {
        buf.extend_from_slice(piece);
        loop {
            let before = buf.len();
            match codec.decode(&mut buf) {
                Ok(Some(packet)) => {
                    prop_assert!(buf.len() < before, "a packet of no bytes");
                    read.packets.push(format!("{packet:?}"));
                }
                Ok(None) => break,
                Err(fault) => {
                    // The codec goes on in the version of such a fault, which must be the client's.
                    let other = matches!(fault, Fault::UnsupportedVersion { .. });
                    let begun = version.is_some() || !read.packets.is_empty();
                    prop_assert!(!(begun && other), "{} after a CONNECT", fault);
                    read.fault = Some(fault);
                    return Ok(read);
                }
            }
        }
    }
    read.left = buf.len();
    Ok(read)
}
