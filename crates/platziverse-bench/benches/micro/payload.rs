//! What an agent sends, parsed and checked: by the gateway, which decides, and by the worker, which
//! stores.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box, black_box_drop};
use futures_util::FutureExt;
use platziverse_config::GatewayConfig;
use platziverse_gateway::auth::{Authenticator, Permissions};
use platziverse_gateway::judge::{Judgement, judge};
use platziverse_gateway::packet::{Bytes, PacketId, Publish, QoS};
use platziverse_protocol::agent::PayloadError;
use platziverse_protocol::event::AgentEvent;
use platziverse_protocol::topic::AGENT_MESSAGE;

use crate::reports::{Fleet, received};

/// A payload.
#[derive(Clone, Copy)]
enum Sent {
    Metrics(usize),
    /// Nothing is wrong but one field, after all the others.
    PidOutOfRange,
    /// The last bracket is missing.
    CutOff,
}

const SENT: [Sent; 4] = [Sent::Metrics(2), Sent::Metrics(10), Sent::PidOutOfRange, Sent::CutOff];

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metrics(count) => write!(f, "{count} metrics"),
            Self::PidOutOfRange => f.write_str("refused: pid"),
            Self::CutOff => f.write_str("refused: JSON"),
        }
    }
}

impl Sent {
    fn payload(self) -> String {
        match self {
            Self::Metrics(count) => Fleet::new(count).payload(),
            Self::PidOutOfRange => Fleet::new(2).payload().replace(r#""pid":"#, r#""pid":-"#),
            Self::CutOff => Fleet::new(2).payload().trim_end_matches('}').to_owned(),
        }
    }

    fn is_refused(self) -> bool {
        !matches!(self, Self::Metrics(_))
    }
}

/// The gateway: may the client, and is it a message that can be stored?
#[divan::bench(args = SENT)]
fn gateway_judges(bencher: Bencher<'_, '_>, sent: Sent) {
    let payload = sent.payload();
    let publish = Publish {
        topic: AGENT_MESSAGE.into(),
        alias: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtLeastOnce,
        packet_id: PacketId::new(1),
        dup: false,
        retain: false,
        properties: None,
    };
    let (permissions, received) = (permissions(), received());
    let is_refused =
        |judgement: Judgement<'_>| matches!(judgement, Judgement::Refuse(_)) == sent.is_refused();
    assert!(is_refused(judge(&publish, &permissions, received)), "{payload}");
    counted(bencher, &payload)
        .bench(|| black_box_drop(judge(black_box(&publish), black_box(&permissions), received)));
}

/// The worker: what happened to which agent?
#[divan::bench(args = SENT)]
fn worker_parses(bencher: Bencher<'_, '_>, sent: Sent) {
    let (payload, received) = (sent.payload(), received());
    let parse = |payload| -> Result<AgentEvent<'_>, PayloadError> {
        let event = AgentEvent::parse(black_box(AGENT_MESSAGE), payload)?;
        if let AgentEvent::Message(message) = &event {
            message.check_time(received)?;
        }
        Ok(event)
    };
    assert_eq!(parse(payload.as_bytes()).is_err(), sent.is_refused(), "{payload}");
    counted(bencher, &payload).bench(|| black_box_drop(parse(black_box(payload.as_bytes()))));
}

fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, payload: &str) -> Bencher<'a, 'b> {
    bencher.counter(ItemsCount::new(1u32)).counter(BytesCount::of_str(payload))
}

/// Those of a client without a name, as they are unless settings say otherwise.
fn permissions() -> Permissions {
    let authenticator = Authenticator::new(&GatewayConfig::default());
    let check = authenticator.check(None, None, IpAddr::V4(Ipv4Addr::LOCALHOST));
    check.now_or_never().and_then(Result::ok).expect("anonymous clients are let in on loopback")
}
