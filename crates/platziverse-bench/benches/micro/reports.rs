//! What agents report, as payloads, records and bodies. The same in each run.

use fastrand::Rng;
use platziverse_protocol::presence::SessionId;
use platziverse_protocol::record::{Payload, Record};
use platziverse_protocol::time::Timestamp;
use platziverse_protocol::topic::AGENT_MESSAGE;
use uuid::{Builder, Uuid};

/// When the first report was received, in milliseconds since 1970.
const RECEIVED_MILLIS: i64 = 1_780_000_000_000;

/// The instance that the reports come from.
pub(crate) const GATEWAY: &str = "gateway-7c9f:1a2b3c4d";

/// The moment at which reports are received.
pub(crate) fn received() -> Timestamp {
    Timestamp::from_millis(RECEIVED_MILLIS).expect("a time of this century")
}

/// Makes the reports of a fleet.
pub(crate) struct Fleet {
    random: Rng,
    metrics: usize,
    received: Timestamp,
}

/// One report on its way.
pub(crate) struct Report {
    id: Uuid,
    session: SessionId,
    client: String,
    received: Timestamp,
    payload: String,
}

impl Fleet {
    /// A fleet whose agents send `metrics` metrics at a time.
    pub(crate) fn new(metrics: usize) -> Self {
        Self { random: Rng::with_seed(1), metrics, received: received() }
    }

    /// The payload of another agent; with two metrics, about 200 bytes.
    pub(crate) fn payload(&mut self) -> String {
        let agent = Uuid::from_u128(self.random.u128(..));
        payload(agent, self.random.u32(2..32_768), self.metrics)
    }

    /// The report of another agent, a millisecond after the one before.
    pub(crate) fn report(&mut self) -> Report {
        let payload = self.payload();
        self.received = self.received.plus_millis(1);
        let client = format!("agent-{:08x}", self.random.u32(..));
        let (id, session) = (self.uuid_v7(), SessionId::from_uuid(self.uuid_v7()));
        Report { id, session, client, received: self.received, payload }
    }

    /// An id of this moment.
    fn uuid_v7(&mut self) -> Uuid {
        let millis = u64::try_from(self.received.as_millis()).expect("a time after 1970");
        let mut random = [0; 10];
        self.random.fill(&mut random);
        Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// The body of an AMQP message with `lines` reports.
    pub(crate) fn body(&mut self, lines: usize) -> Vec<u8> {
        let mut body = Vec::new();
        for _ in 0..lines {
            self.report().record().encode_line(&mut body);
        }
        body
    }
}

impl Report {
    /// The record that a gateway makes of it, once it has seen that the payload is JSON.
    pub(crate) fn record(&self) -> Record<'_> {
        Record {
            id: self.id,
            topic: AGENT_MESSAGE.into(),
            client: self.client.as_str().into(),
            session: self.session,
            received: self.received,
            qos: 1,
            properties: None,
            payload: Payload::of_json(&self.payload),
        }
    }
}

/// A payload of `agent/message`. Every other value is a text, as in the manual's example.
fn payload(agent: Uuid, pid: u32, metrics: usize) -> String {
    const KINDS: [&str; 5] = ["memory", "temp", "cpu", "disk", "load"];
    let metrics: Vec<String> = (0..metrics)
        .map(|number| {
            let kind = KINDS[number % KINDS.len()];
            match number % 2 {
                0 => format!(r#"{{"type":"{kind}","value":"{}"}}"#, 1_001 + number),
                _ => format!(r#"{{"type":"{kind}","value":{}.5}}"#, 33 + number),
            }
        })
        .collect();
    format!(
        r#"{{"agent":{{"uuid":"{agent}","username":"platzi","name":"platzi","hostname":"platzibogota","pid":{pid}}},"metrics":[{}]}}"#,
        metrics.join(",")
    )
}
