//! SUBSCRIBE and UNSUBSCRIBE: which filters are asked for, and the answers.

use platziverse_protocol::topic::TopicFilter;

use super::{Action, Phase, Session, Wanted};
use crate::packet::{
    Options, Outgoing, PacketId, QoS, Reason, Suback, Subscribe, Told, Unsuback, Unsubscribe,
    Version,
};

/// A SUBSCRIBE or UNSUBSCRIBE whose answer is to come.
#[derive(Debug)]
pub(super) struct Pending {
    kind: Kind,
    packet_id: PacketId,
    answers: Vec<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Subscribe,
    Unsubscribe,
}

/// The answer to one filter.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Settled(Reason),
    /// The connection decides; on success the answer is this.
    Asked(Reason),
}

impl Pending {
    /// Fills in the answers of the connection, in the order of what it was asked. A missing one
    /// is a refusal.
    fn settle(self, decided: impl IntoIterator<Item = Reason>) -> Outgoing {
        let mut decided = decided.into_iter();
        let reasons = self.answers.into_iter().map(|answer| match answer {
            Answer::Settled(reason) => reason,
            Answer::Asked(success) => match decided.next().unwrap_or(Reason::UNSPECIFIED_ERROR) {
                Reason::SUCCESS => success,
                reason => reason,
            },
        });
        let (packet_id, reasons) = (self.packet_id, reasons.collect());
        match self.kind {
            Kind::Subscribe => Outgoing::Suback(Suback { packet_id, reasons }),
            Kind::Unsubscribe => Outgoing::Unsuback(Unsuback { packet_id, reasons }),
        }
    }
}

impl Session {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, out: &mut Vec<Action>) {
        let Subscribe { packet_id, id, filters } = subscribe;
        // MQTT-3.8.3-4: a shared subscription cannot leave its own messages out.
        if filters.iter().any(|(filter, options)| is_shared(filter) && options.no_local) {
            return self.protocol_error("a shared subscription with No Local", out);
        }
        if self.identifier_in_use(Kind::Subscribe, packet_id, filters.len(), out) {
            return;
        }
        let mut wanted = Vec::new();
        let answers = filters.iter().map(|(text, options)| match judge(text) {
            Ok(filter) => {
                // The most that is granted is 1; less than asked for is allowed (MQTT-3.8.4-7).
                let options = Options { qos: options.qos.min(QoS::AtLeastOnce), ..*options };
                wanted.push(Wanted { filter, options, id });
                Answer::Asked(Reason::from_code(options.qos.level()))
            }
            Err(reason) => Answer::Settled(reason),
        });
        let answers = answers.collect();
        let pending = Pending { kind: Kind::Subscribe, packet_id, answers };
        if wanted.is_empty() {
            return out.push(Action::Send(pending.settle([])));
        }
        self.pending.push(pending);
        out.push(Action::Subscribe { packet_id, wanted });
    }

    /// Takes the answer to [`Action::Subscribe`]: for each filter, in order, `SUCCESS` (its QoS is
    /// granted) or why not. SUBACK goes at once (MQTT-3.8.4-1).
    pub fn subscribed(&mut self, packet_id: PacketId, reasons: &[Reason], out: &mut Vec<Action>) {
        self.settle(Kind::Subscribe, packet_id, reasons, out);
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: Unsubscribe, out: &mut Vec<Action>) {
        let Unsubscribe { packet_id, filters: texts } = unsubscribe;
        if self.identifier_in_use(Kind::Unsubscribe, packet_id, texts.len(), out) {
            return;
        }
        let mut filters = Vec::new();
        let answers = texts.iter().map(|text| match judge(text) {
            Ok(filter) => {
                filters.push(filter);
                Answer::Asked(Reason::SUCCESS)
            }
            Err(Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED) => {
                Answer::Settled(Reason::NO_SUBSCRIPTION_EXISTED)
            }
            Err(reason) => Answer::Settled(reason),
        });
        let answers = answers.collect();
        let pending = Pending { kind: Kind::Unsubscribe, packet_id, answers };
        if filters.is_empty() {
            return out.push(Action::Send(pending.settle([])));
        }
        self.pending.push(pending);
        out.push(Action::Unsubscribe { packet_id, filters });
    }

    /// Takes the answer to [`Action::Unsubscribe`]: for each filter, in order, `SUCCESS` or
    /// `NO_SUBSCRIPTION_EXISTED`. UNSUBACK goes at once (MQTT-3.10.4-4).
    pub fn unsubscribed(&mut self, packet_id: PacketId, reasons: &[Reason], out: &mut Vec<Action>) {
        self.settle(Kind::Unsubscribe, packet_id, reasons, out);
    }

    fn settle(
        &mut self,
        kind: Kind,
        packet_id: PacketId,
        reasons: &[Reason],
        out: &mut Vec<Action>,
    ) {
        let pending = &mut self.pending;
        let asked = pending.iter().position(|p| p.kind == kind && p.packet_id == packet_id);
        if let (Phase::Open, Some(index)) = (self.phase, asked) {
            let pending = pending.remove(index);
            out.push(Action::Send(pending.settle(reasons.iter().copied())));
        }
    }

    /// MQTT-2.2.1-3: an identifier is used once at a time. MQTT 5 can say so; in 3.1.1 the
    /// connection is closed.
    fn identifier_in_use(
        &mut self,
        kind: Kind,
        packet_id: PacketId,
        filters: usize,
        out: &mut Vec<Action>,
    ) -> bool {
        if !self.pending.iter().any(|pending| pending.packet_id == packet_id) {
            return false;
        }
        if self.version == Version::V3 {
            self.end(Told::from(Reason::PROTOCOL_ERROR), None, out);
        } else {
            let answers = vec![Answer::Settled(Reason::PACKET_IDENTIFIER_IN_USE); filters];
            let refusal = Pending { kind, packet_id, answers };
            out.push(Action::Send(refusal.settle([])));
        }
        true
    }
}

/// The most levels of a filter: each costs memory in the tree of subscriptions.
const LEVELS_MAX: usize = 128;

/// The filter, or why there can be no subscription to it (sections 4.7 and 4.8.2).
fn judge(text: &str) -> Result<TopicFilter, Reason> {
    if is_shared(text) {
        return Err(Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
    }
    if text.split('/').nth(LEVELS_MAX).is_some() {
        return Err(Reason::IMPLEMENTATION_SPECIFIC_ERROR);
    }
    TopicFilter::parse(text).map_err(|_| Reason::TOPIC_FILTER_INVALID)
}

/// Section 4.8.2; in 3.1.1 too, as no client means a topic that starts so.
fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}
