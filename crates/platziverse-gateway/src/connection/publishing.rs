//! From a client's publish to RabbitMQ.

use std::sync::Arc;

use bytes::Bytes;
use platziverse_broker::{DeadLetter, LINE_BYTES_MAX, Lane, Outgoing};
use platziverse_protocol::dead::{self, Stage};
use platziverse_protocol::presence::SessionId;
use platziverse_protocol::record::{Payload, Properties, Record};
use platziverse_protocol::time::Timestamp;
use platziverse_protocol::topic::{AGENT_MESSAGE, routing_key};
use platziverse_service::clock;
use uuid::Uuid;

use super::Connection;
use crate::frame::Fault;
use crate::hub::Way;
use crate::judge::{Judgement, Refused, judge};
use crate::mailbox::Mailbox;
use crate::packet::{self, Publish, QoS, Reason, Text};
use crate::reporter::{AGENTS_MAX, Binding, Reporter};
use crate::session::Ticket;
use crate::settlement::{ClientPublish, Settlement};

/// How much of a packet that is too large is kept in its dead letter, in bytes.
const OVERSIZED_KEPT: usize = 1_024;

impl Connection {
    /// Takes a publish; its receipt comes to the mailbox.
    pub(super) fn publish(&mut self, ticket: Ticket, publish: &Publish) {
        self.take(publish, Some(ticket), None);
    }

    /// Publishes a will as if its client had, or keeps a publish that ended its connection.
    pub(super) fn take(
        &mut self,
        publish: &Publish,
        ticket: Option<Ticket>,
        refusal: Option<Refused>,
    ) {
        let Some(accepted) = &mut self.accepted else { return };
        self.hub.metrics.publishes.enter(1);
        let received = clock::now();
        let reporter = &mut accepted.reporter;
        let judgement = match refusal {
            Some(refused) => Judgement::Refuse(refused),
            None => judge(publish, &reporter.permissions, received),
        };
        let mut announced = None;
        let is_json = matches!(judgement, Judgement::Store { .. });
        let (lane, id, refused) = match judgement {
            Judgement::Deliver => {
                let lane = Lane::live(&routing_key(&publish.topic));
                (Some((Way::Listeners, lane)), None, None)
            }
            Judgement::Store { agent, id } => match reporter.bind(&agent) {
                Binding::Full => (None, id, Some(too_many_agents())),
                binding => {
                    if binding == Binding::New {
                        announced = Some(reporter.connected(&agent, received));
                    }
                    let lane = self.hub.lanes.lane(AGENT_MESSAGE, agent.uuid.as_str());
                    (lane.map(|lane| (Way::Storage, lane)), id, None)
                }
            },
            Judgement::Refuse(refused) => (None, None, Some(refused)),
        };
        let id = id.unwrap_or_else(Uuid::now_v7);
        let payload = payload(&publish.payload, is_json);
        let line = line(id, reporter, publish, payload, received);
        if line.len() > LINE_BYTES_MAX {
            return self.refuse_too_long(publish);
        }
        if let Some(outgoing) = announced.and_then(|line| self.hub.telemetry(line)) {
            self.outbox.hand_over(Way::Storage, outgoing);
        }
        let answer = ticket.map(|ticket| (self.mailbox.clone(), ticket));
        match (lane, refused) {
            (Some((way, lane)), None) => {
                let receipt = self.settlement(publish.qos, answer, None);
                self.outbox.hand_over(way, Outgoing { lane, id, line, receipt });
            }
            (_, refused) => {
                let refused = refused.unwrap_or_else(unroutable);
                self.bury(id, line, publish, refused, answer);
            }
        }
    }

    fn settlement(
        &self,
        qos: QoS,
        answer: Option<(Mailbox, Ticket)>,
        refused: Option<packet::Told>,
    ) -> Settlement {
        let metrics = Arc::clone(&self.hub.metrics);
        let publish = ClientPublish { metrics, qos, answer, refused, settled: false };
        Settlement::Client(Box::new(publish))
    }

    /// Keeps a refused publish as a dead letter; the client is answered once it is kept.
    fn bury(
        &mut self,
        id: Uuid,
        line: Bytes,
        publish: &Publish,
        refused: Refused,
        answer: Option<(Mailbox, Ticket)>,
    ) {
        let topic = &*publish.topic;
        let error = refused.told.text.as_deref().unwrap_or_default().to_owned();
        self.hub.metrics.refusal(refused.reason);
        // Whoever may publish could fill a disk with what is logged of it.
        tracing::debug!(
            peer = %self.peer, reason = refused.reason.as_str(), topic,
            "a publish is refused and kept as a dead letter: {error:.300}"
        );
        let (exchange, key) = self.hub.lanes.origin(topic);
        let letter = DeadLetter {
            reason: refused.reason,
            stage: Stage::Gateway,
            error: &error,
            origin_exchange: exchange,
            origin_key: &key,
        };
        let lane = Lane::dead(&letter);
        let receipt = self.settlement(publish.qos, answer, Some(refused.told));
        self.outbox.hand_over(Way::Graveyard, Outgoing { lane, id, line, receipt });
    }

    /// Keeps the start of a packet that is larger than what is read.
    pub(super) fn refuse_oversized(&mut self, fault: &Fault) {
        if self.accepted.is_none() {
            return;
        }
        let packet = &self.transport.inbound;
        let (topic, qos, body) = start_of_publish(packet).unwrap_or(("", QoS::AtMostOnce, packet));
        let publish = start(Text::from(topic), qos, body);
        self.hub.metrics.publishes.enter(1);
        self.bury_start(&publish, fault);
    }

    /// Keeps the start of a publish whose line is larger than what RabbitMQ takes, and ends the
    /// connection as if its packet had been too large: properties with many control characters take
    /// more room in a line than in a packet.
    fn refuse_too_long(&mut self, publish: &Publish) {
        let (reason, text) =
            (Reason::PACKET_TOO_LARGE, "a publish that is too large to be passed on");
        let fault = Fault::Invalid { reason, text };
        let kept = start(publish.topic.clone(), publish.qos, &publish.payload);
        self.bury_start(&kept, &fault);
        self.session.fault(&fault, self.codec.version(), &mut self.actions);
    }

    fn bury_start(&mut self, publish: &Publish, fault: &Fault) {
        let Some(accepted) = &self.accepted else { return };
        let id = Uuid::now_v7();
        let payload = Payload::of(&publish.payload);
        let line = line(id, &accepted.reporter, publish, payload, clock::now());
        let text = format!("{fault}; the first {} bytes are kept", publish.payload.len());
        let reason = dead::Reason::PacketTooLarge;
        let refused = Refused::new(reason, Reason::PACKET_TOO_LARGE, text);
        self.bury(id, line, publish, refused, None);
    }

    /// Gives the session another id where the sweep has, or may have, ended it.
    pub(super) fn renew(&mut self, session: Option<SessionId>) {
        let Some(accepted) = &mut self.accepted else { return };
        let reporter = &mut accepted.reporter;
        let another = session.is_some_and(|session| session != reporter.session);
        if another || self.session.is_closed() || !reporter.is_bound() {
            return;
        }
        reporter.session = reporter.session.successor();
        self.hub.registry().renew(accepted.id, reporter.session);
        self.outbox.supersede();
        for line in accepted.reporter.all_connected(clock::now()) {
            if let Some(outgoing) = self.hub.telemetry(line) {
                self.outbox.hand_over(Way::Storage, outgoing);
            }
        }
    }
}

fn too_many_agents() -> Refused {
    let text = format!("this connection reports for {AGENTS_MAX} agents, the most that it may");
    Refused::new(dead::Reason::QuotaExceeded, Reason::QUOTA_EXCEEDED, text)
}

fn unroutable() -> Refused {
    let text = "this topic is not stored";
    Refused::new(dead::Reason::UnknownTopic, Reason::TOPIC_NAME_INVALID, text)
}

/// A publish of which only the start of the payload is kept.
fn start(topic: Text, qos: QoS, payload: &[u8]) -> Publish {
    Publish {
        topic,
        alias: None,
        payload: packet::Bytes::copy_from_slice(&payload[..payload.len().min(OVERSIZED_KEPT)]),
        qos,
        packet_id: None,
        dup: false,
        retain: false,
        properties: None,
    }
}

/// The topic and level of a PUBLISH that is only here in part, and what follows its topic.
fn start_of_publish(packet: &[u8]) -> Option<(&str, QoS, &[u8])> {
    let header = 1 + packet.get(1..5)?.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let length = packet.get(header..header + 2)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let topic = packet.get(header + 2..header + 2 + length)?;
    (packet[0] >> 4 == 3).then_some(())?;
    let qos = match packet[0] >> 1 & 3 {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    Some((std::str::from_utf8(topic).ok()?, qos, &packet[header + 2 + length..]))
}

/// A payload that has been parsed need not be parsed again to see that it is JSON.
fn payload(bytes: &[u8], is_json: bool) -> Payload<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_json => Payload::of_json(text),
        _ => Payload::of(bytes),
    }
}

fn line(
    id: Uuid,
    reporter: &Reporter,
    publish: &Publish,
    payload: Payload<'_>,
    received: Timestamp,
) -> Bytes {
    let mut line = Vec::new();
    Record {
        id,
        topic: (&*publish.topic).into(),
        client: (&*reporter.client).into(),
        session: reporter.session,
        received,
        qos: publish.qos.level(),
        properties: publish.properties.as_deref().map(|given| Box::new(properties(given))),
        payload,
    }
    .encode_line(&mut line);
    Bytes::from(line)
}

fn properties(given: &packet::Properties) -> Properties {
    let mut properties = Properties {
        utf8: given.utf8_payload,
        expiry_seconds: given.expiry.map(std::num::NonZeroU32::get),
        content_type: given.content_type.as_ref().map(ToString::to_string),
        response_topic: given.response_topic.as_ref().map(ToString::to_string),
        correlation_data: None,
        user: (given.user.iter())
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
    };
    if let Some(bytes) = &given.correlation_data {
        properties.set_correlation_data(bytes);
    }
    properties
}
