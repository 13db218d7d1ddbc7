//! AMQP messages as workers get them: every line meets exactly one fate. The first line of an input
//! is the app-id, the others are the body.

use platziverse_broker::topology;
use platziverse_fuzz::{Fate, Input, Target};
use platziverse_protocol::heartbeat::Heartbeat;
use platziverse_worker::judge::{self, Verdict};
use proptest::test_runner::{TestCaseError, TestCaseResult};
use proptest::{prop_assert, prop_assert_eq};

use crate::limits;

/// Larger ones would only be fewer.
const BYTES_MAX: usize = 64 << 10;

const WORDS: &[&str] = &[
    "platziverse-gateway@",
    "platziverse-worker@",
    "\n",
    "\n\n",
    "\r\n",
    "agent/message",
    "agent/connected",
    "agent/disconnected",
    "agent/other",
    "\"topic\":",
    "\"payload\":",
    "\"payload_base64\":",
    "\"agent\"",
    "\"uuid\"",
    "\"metrics\"",
    "{}",
    "null",
    "eyJhIjoxfQ==",
    "\\u0000",
    "\\\\u0000",
    "253402300799999",
    "-62167219200000",
    "9223372036854775807",
    "\"timestamp\":",
    "\"received\":",
    "\"id\":",
];

#[test]
fn envelope() {
    Target::new("envelope", WORDS, BYTES_MAX).run(check);
}

fn check(input: &Input) -> Result<Fate, TestCaseError> {
    let mut parts = input.bytes.splitn(2, |byte| *byte == b'\n');
    let app_id = parts.next().map(String::from_utf8_lossy);
    let body = parts.next().unwrap_or_default();
    let gateway = judge::gateway_of(app_id.as_deref());
    let named = app_id.as_deref().and_then(|app| app.strip_prefix("platziverse-gateway@"));
    prop_assert_eq!(gateway, named.unwrap_or_default());
    heartbeat(body)?;

    let decoded = judge::decode(body);
    let filled = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    prop_assert!(decoded.iter().map(|(line, _)| *line).eq(filled), "not the lines of the body");
    let mut stored = false;
    for (line, record) in &decoded {
        let verdict = judge::judge(line, record, gateway);
        stored |= matches!(verdict, Verdict::Store(_));
        let id = record.as_ref().ok().map(|record| record.id);
        let received = record.as_ref().ok().map(|record| record.received);
        match verdict {
            Verdict::Store(sighting) => {
                prop_assert_eq!((Some(sighting.id), Some(sighting.received)), (id, received));
                prop_assert_eq!(sighting.gateway, gateway);
                limits::event(&sighting.event)?;
                shard(sighting.event.uuid().as_str())?;
            }
            Verdict::Reject(rejection) => {
                prop_assert_eq!((rejection.line, rejection.id), (*line, id));
                prop_assert!(!rejection.error.is_empty());
            }
        }
    }
    Ok(Fate::of(stored))
}

/// Every agent has a queue, whatever it is called.
fn shard(uuid: &str) -> TestCaseResult {
    for shards in [0, 1, 2, 7, u16::MAX] {
        prop_assert!(topology::shard_of(uuid, shards) < shards.max(1));
    }
    Ok(())
}

fn heartbeat(body: &[u8]) -> TestCaseResult {
    let Ok(beat) = Heartbeat::decode(body) else { return Ok(()) };
    limits::time(beat.time)?;
    prop_assert_eq!(Heartbeat::decode(&beat.encode()).ok(), Some(beat));
    Ok(())
}
