//! Records: one line each, and nothing is lost or added on the way.

use std::borrow::Cow;

use platziverse_fuzz::{Fate, Input, Target};
use platziverse_protocol::presence::SessionId;
use platziverse_protocol::record::{Payload, Properties, Record, lines};
use platziverse_protocol::time::Timestamp;
use proptest::test_runner::{TestCaseError, TestCaseResult};
use proptest::{prop_assert, prop_assert_eq};
use uuid::Uuid;

use crate::limits;

/// Larger ones would only be fewer.
const BYTES_MAX: usize = 32 << 10;

const WORDS: &[&str] = &[
    "\"id\":",
    "\"topic\":",
    "\"client\":",
    "\"session\":",
    "\"received\":",
    "\"qos\":",
    "\"properties\":",
    "\"payload\":",
    "\"payload_base64\":",
    "null",
    "{}",
    "[]",
    "\\n",
    "\\u000a",
    "\\r\\n",
    "\\u0000",
    "\\ud800",
    " ",
    "\r",
    "\t",
    "AA==",
    "A===",
    "_-",
    "1e999",
    "9e18",
    "[[[[[[[[",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    ",",
    ":",
    "00000000-0000-0000-0000-000000000002",
    "{\"utf8\":true,\"user\":[[\"a\",\"b\"]]}",
];

#[test]
fn record() {
    Target::new("record", WORDS, BYTES_MAX).run(check);
}

fn check(input: &Input) -> Result<Fate, TestCaseError> {
    let mut read = false;
    for line in lines(&input.bytes) {
        if let Ok(record) = Record::decode_line(line) {
            limits::time(record.received)?;
            same_again(&record)?;
            read = true;
        }
    }
    carried(input)?;
    Ok(Fate::of(read))
}

/// Writes the record as a line and reads it: it is one line and the same record.
fn same_again(record: &Record<'_>) -> TestCaseResult {
    let mut out = b"what was there\n".to_vec();
    let before = out.len();
    record.encode_line(&mut out);
    let line = &out[before..];
    prop_assert_eq!(line.last(), Some(&b'\n'));
    let breaks = line.iter().filter(|byte| b"\r\n".contains(byte)).count();
    // Between the parts of a payload, white space is as it was sent, and that may be a `\r`: it
    // ends no line.
    let kept = record.payload.bytes().iter().filter(|byte| **byte == b'\r').count();
    prop_assert!(breaks <= 1 + kept, "{} line breaks", breaks);
    prop_assert_eq!(lines(line).count(), 1);
    let read = lines(line).next().map(Record::decode_line).transpose();
    let read = read.map_err(|error| TestCaseError::fail(format!("not read back: {error}")))?;
    prop_assert_eq!(read.as_ref(), Some(record));
    Ok(())
}

/// Anything is a payload, and any text a topic and a client id: all of it arrives byte for byte.
fn carried(input: &Input) -> TestCaseResult {
    let text = input.text();
    let short = &text[..text.floor_char_boundary(100)];
    let mut properties = Properties {
        content_type: Some(short.to_owned()),
        user: vec![(short.to_owned(), String::new())],
        ..Properties::default()
    };
    properties.set_correlation_data(&input.bytes);
    let record = Record {
        id: Uuid::from_u128(1),
        topic: Cow::Borrowed(short),
        client: Cow::Borrowed(&text),
        session: SessionId::from_uuid(Uuid::from_u128(2)),
        received: Timestamp::EPOCH,
        qos: 1,
        properties: Some(Box::new(properties)),
        payload: Payload::of(&input.bytes),
    };
    prop_assert_eq!(record.payload.bytes(), &*input.bytes);
    let data = record.properties.as_ref().and_then(|properties| properties.correlation_bytes());
    prop_assert_eq!(data.as_ref(), Some(&input.bytes));
    same_again(&record)
}
