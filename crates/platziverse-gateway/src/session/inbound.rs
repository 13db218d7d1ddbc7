//! Publishes from the client: what is in flight, and the answers in order.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};

use platziverse_protocol::topic;

use super::{Action, Phase, Receipt, Session, Ticket};
use crate::packet::{Outgoing, PacketId, Publish, QoS, Reason, Text, Told, Version};

/// Room that is kept for a client between its publishes, in entries.
const KEPT: usize = 8;

/// The publishes of one client.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// QoS 1 and 2 publishes without an answer, oldest first.
    queue: VecDeque<Entry>,
    /// How many have left the front of `queue`: the number of its first entry.
    head: u64,
    /// The packet identifiers being used, which is what Receive Maximum counts.
    stages: HashMap<PacketId, Stage>,
    /// QoS 0 publishes without a receipt.
    qos_0: usize,
    /// Topic aliases, by number less one (section 3.3.2.3.4).
    aliases: Vec<Text>,
}

#[derive(Debug)]
struct Entry {
    packet_id: PacketId,
    qos: QoS,
    /// Whether `packet_id` is its own; not so when it is refused because another has it.
    own: bool,
    answer: Option<Told>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It awaits its receipt, or the answers before its own.
    Unanswered(QoS),
    /// PUBREC is sent, PUBREL has not come.
    Received,
}

/// The ticket of every QoS 0 publish. The others have odd ones.
const QOS_0: Ticket = Ticket(0);

impl Inbound {
    pub(super) fn in_flight(&self) -> usize {
        self.queue.len() + self.qos_0
    }

    pub(super) fn unconfirmed_qos_0(&self) -> usize {
        self.qos_0
    }

    fn push(&mut self, packet_id: PacketId, qos: QoS) -> Ticket {
        let ticket = Ticket((self.head + self.queue.len() as u64) * 2 + 1);
        self.stages.insert(packet_id, Stage::Unanswered(qos));
        self.queue.push_back(Entry { packet_id, qos, own: true, answer: None });
        ticket
    }

    fn entry(&mut self, ticket: Ticket) -> Option<&mut Entry> {
        let index = (ticket.0 / 2).checked_sub(self.head)?;
        self.queue.get_mut(usize::try_from(index).ok()?)
    }

    /// The next answer that no earlier one holds back.
    fn pop(&mut self) -> Option<(Entry, Told)> {
        let answer = self.queue.front_mut()?.answer.take()?;
        let entry = self.queue.pop_front()?;
        self.head += 1;
        if self.queue.is_empty() {
            self.queue.shrink_to(KEPT);
        }
        Some((entry, answer))
    }

    fn finish(&mut self, packet_id: PacketId) {
        self.stages.remove(&packet_id);
        if self.stages.is_empty() && self.stages.capacity() > 2 * KEPT {
            self.stages.shrink_to(KEPT);
        }
    }

    /// Keeps, or looks up, what an alias stands for.
    fn resolve(&mut self, publish: &mut Publish, max: u16) -> Result<(), Told> {
        let Some(alias) = publish.alias.take() else { return Ok(()) };
        // MQTT-3.3.2-9: an alias is at most the Topic Alias Maximum.
        if alias.get() > max {
            return Err(Told::new(Reason::TOPIC_ALIAS_INVALID, format!("at most {max} aliases")));
        }
        let index = usize::from(alias.get() - 1);
        if publish.topic.is_empty() {
            let topic = self.aliases.get(index).filter(|topic| !topic.is_empty());
            publish.topic = topic.cloned().ok_or_else(|| {
                Told::new(Reason::PROTOCOL_ERROR, format!("topic alias {alias} stands for nothing"))
            })?;
        } else {
            if self.aliases.len() <= index {
                self.aliases.resize(index + 1, Text::new());
            }
            // A copy, or the alias would keep a whole read buffer alive.
            self.aliases[index] = Text::from(publish.topic.as_str());
        }
        Ok(())
    }
}

impl Session {
    pub(super) fn publish(&mut self, mut publish: Publish, out: &mut Vec<Action>) {
        let resolved = self.inbound.resolve(&mut publish, self.limits.topic_alias_max);
        if let Err(told) = resolved.and_then(|()| check(&publish)) {
            // A retained message is one the client meant to keep; the others are broken.
            let refused = (told.reason == Reason::RETAIN_NOT_SUPPORTED).then(|| Box::new(publish));
            return self.end(told, refused, out);
        }
        let ticket = match publish.packet_id {
            None => {
                self.inbound.qos_0 += 1;
                QOS_0
            }
            Some(packet_id) => match self.admit(packet_id, &publish, out) {
                Some(ticket) => ticket,
                None => return,
            },
        };
        out.push(Action::Publish { ticket, publish });
    }

    /// The ticket of a QoS 1 or 2 publish, unless it is not to be passed on.
    fn admit(
        &mut self,
        packet_id: PacketId,
        publish: &Publish,
        out: &mut Vec<Action>,
    ) -> Option<Ticket> {
        let stage = self.inbound.stages.get(&packet_id).copied();
        match (stage, publish.qos) {
            (None, qos) => {
                if self.receive_maximum_exceeded(out) {
                    return None;
                }
                return Some(self.inbound.push(packet_id, qos));
            }
            // MQTT-4.3.3-10: until PUBREL, the same identifier is the same message.
            (Some(Stage::Received), QoS::ExactlyOnce) => {
                let ack = Self::ack(packet_id, Reason::SUCCESS);
                out.push(Action::Send(Outgoing::Pubrec(ack)));
            }
            // It is on its way already, and the answer to come serves both.
            (Some(Stage::Unanswered(QoS::ExactlyOnce)), QoS::ExactlyOnce) => {}
            (Some(Stage::Unanswered(QoS::AtLeastOnce)), QoS::AtLeastOnce) if publish.dup => {}
            (Some(_), qos) => self.refuse_identifier(packet_id, qos, out),
        }
        None
    }

    /// MQTT-3.3.4-7: a client never has more publishes in flight than the Receive Maximum. In
    /// 3.1.1 the transport holds them back instead.
    fn receive_maximum_exceeded(&mut self, out: &mut Vec<Action>) -> bool {
        let max = usize::from(self.limits.receive_maximum.get());
        let used = self.inbound.stages.len().max(self.inbound.queue.len());
        if self.version == Version::V3 || used < max {
            return false;
        }
        let text = format!("more than {max} publishes in flight");
        self.end(Told::new(Reason::RECEIVE_MAXIMUM_EXCEEDED, text), None, out);
        true
    }

    /// MQTT-2.2.1-3: an identifier is used once at a time. MQTT 5 can say so in turn; in 3.1.1
    /// the connection is closed.
    fn refuse_identifier(&mut self, packet_id: PacketId, qos: QoS, out: &mut Vec<Action>) {
        if self.version == Version::V3 {
            return self.protocol_error("a packet identifier that is in use", out);
        }
        if self.receive_maximum_exceeded(out) {
            return;
        }
        let answer = Some(Reason::PACKET_IDENTIFIER_IN_USE.into());
        self.inbound.queue.push_back(Entry { packet_id, qos, own: false, answer });
        self.answer(out);
    }

    /// Takes what became of a publish.
    pub fn receipt(&mut self, ticket: Ticket, receipt: Receipt, out: &mut Vec<Action>) {
        if self.phase != Phase::Open {
            return;
        }
        if ticket == QOS_0 {
            self.inbound.qos_0 = self.inbound.qos_0.saturating_sub(1);
        } else {
            let told = match receipt {
                Receipt::Confirmed => Reason::SUCCESS.into(),
                Receipt::Refused(told) => told,
                // Neither an acknowledgement nor a refusal would be true.
                Receipt::Failed => return self.end(self.failure(), None, out),
            };
            if let Some(entry) = self.inbound.entry(ticket) {
                entry.answer.get_or_insert(told);
            }
            self.answer(out);
        }
        self.finish_drain(out);
    }

    fn failure(&self) -> Told {
        match self.draining {
            true => Reason::SERVER_SHUTTING_DOWN.into(),
            false => Told::new(Reason::UNSPECIFIED_ERROR, "a publish could not be stored"),
        }
    }

    /// Sends the answers that are due, in the order of the publishes (MQTT-4.6.0-2, -3).
    fn answer(&mut self, out: &mut Vec<Action>) {
        while let Some((entry, told)) = self.inbound.pop() {
            // A PUBREC that refuses ends the exchange (MQTT-4.3.3-9); 3.1.1 has none.
            let goes_on = entry.qos == QoS::ExactlyOnce
                && (self.version == Version::V3 || !told.reason.is_failure());
            match (entry.own, goes_on) {
                (true, true) => {
                    self.inbound.stages.insert(entry.packet_id, Stage::Received);
                }
                (true, false) => self.inbound.finish(entry.packet_id),
                (false, _) => {}
            }
            let ack = Self::ack(entry.packet_id, told);
            out.push(Action::Send(match entry.qos {
                QoS::ExactlyOnce => Outgoing::Pubrec(ack),
                _ => Outgoing::Puback(ack),
            }));
        }
    }

    /// MQTT-4.3.3-11: PUBREL is answered by PUBCOMP. An identifier that is not known belongs to a
    /// session from before, which in MQTT 5 is said.
    pub(super) fn pubrel(&mut self, packet_id: PacketId, out: &mut Vec<Action>) {
        let reason = match self.inbound.stages.entry(packet_id) {
            Slot::Occupied(slot) if *slot.get() == Stage::Received => {
                self.inbound.finish(packet_id);
                Reason::SUCCESS
            }
            Slot::Occupied(_) => return self.protocol_error("PUBREL before PUBREC", out),
            Slot::Vacant(_) => Reason::PACKET_IDENTIFIER_NOT_FOUND,
        };
        out.push(Action::Send(Outgoing::Pubcomp(Self::ack(packet_id, reason))));
    }
}

/// What makes a publish a reason to end the connection.
fn check(publish: &Publish) -> Result<(), Told> {
    // Section 3.3.2.1: a topic, or an alias that stands for one.
    if publish.topic.is_empty() {
        return Err(Told::new(Reason::PROTOCOL_ERROR, "a PUBLISH without a topic"));
    }
    // MQTT-3.3.2-2.
    if let Err(error) = topic::check_name(&publish.topic) {
        return Err(Told::new(Reason::TOPIC_NAME_INVALID, error.to_string()));
    }
    // MQTT-3.3.2-14.
    let response = publish.properties.as_ref().and_then(|p| p.response_topic.as_ref());
    if let Some(Err(error)) = response.map(|topic| topic::check_name(topic)) {
        return Err(Told::new(Reason::PROTOCOL_ERROR, format!("the response topic: {error}")));
    }
    // MQTT-3.2.2-14: Retain Available is announced as 0.
    if publish.retain {
        let text = "retained messages are not supported";
        return Err(Told::new(Reason::RETAIN_NOT_SUPPORTED, text));
    }
    Ok(())
}
