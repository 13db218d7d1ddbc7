use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Publish { level: u8, number: u16, dup: bool, bad: bool },
    Pubrel(u16),
    Puback(u16),
    Pubrec(u16),
    Subscribe(u16),
    Unsubscribe(u16),
    Pingreq,
    Connect,
    Auth,
    Receipt { nth: usize, outcome: u8 },
    Settle(u16),
    Deliver(u8),
    Writable(bool),
    Reading(bool),
    Pass(u64),
    Drain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = || 1..6_u16;
    let rare = prop_oneof![Just(Step::Connect), Just(Step::Auth), Just(Step::Drain)];
    let step = prop_oneof![
        60 => (0..3_u8, number(), any::<bool>(), prop::bool::weighted(0.01))
            .prop_map(|(level, number, dup, bad)| Step::Publish { level, number, dup, bad }),
        60 => (0..8_usize, 0..20_u8).prop_map(|(nth, outcome)| Step::Receipt { nth, outcome }),
        20 => number().prop_map(Step::Pubrel),
        10 => number().prop_map(Step::Puback),
        2 => number().prop_map(Step::Pubrec),
        5 => number().prop_map(Step::Subscribe),
        3 => number().prop_map(Step::Unsubscribe),
        6 => number().prop_map(Step::Settle),
        5 => Just(Step::Pingreq),
        10 => (0..3_u8).prop_map(Step::Deliver),
        4 => any::<bool>().prop_map(Step::Writable),
        4 => any::<bool>().prop_map(Step::Reading),
        4 => (0..30_000_u64).prop_map(Step::Pass),
        1 => rare,
    ];
    prop::collection::vec(step, 0..120)
}

/// What an observer of both sides knows.
#[derive(Default)]
struct Model {
    /// QoS 1 and 2 publishes handed over and not answered, in order.
    unanswered: VecDeque<(PacketId, QoS)>,
    /// Tickets without a receipt.
    tickets: Vec<Ticket>,
    /// QoS 2 identifiers taken and not released.
    taken: HashSet<PacketId>,
    refused: HashMap<PacketId, usize>,
    unacked: HashSet<PacketId>,
    closed: bool,
}

impl Model {
    fn see(&mut self, action: Action, v5: bool) -> Result<(), TestCaseError> {
        let late = matches!(action, Action::Dropped { why: Dropped::Closed, .. });
        prop_assert!(late || !self.closed, "after the end");
        match action {
            Action::Publish { ticket, publish } => {
                self.tickets.push(ticket);
                if let Some(packet_id) = publish.packet_id {
                    self.unanswered.push_back((packet_id, publish.qos));
                    if publish.qos == QoS::ExactlyOnce {
                        prop_assert!(self.taken.insert(packet_id), "taken twice");
                    }
                }
            }
            Action::Send(Outgoing::Puback(ack)) => self.answered(&ack, QoS::AtLeastOnce, v5)?,
            Action::Send(Outgoing::Pubrec(ack)) => self.answered(&ack, QoS::ExactlyOnce, v5)?,
            Action::Send(Outgoing::Publish(packet)) => {
                if let Some(packet_id) = packet.packet_id {
                    prop_assert!(self.unacked.insert(packet_id), "identifier in use");
                }
                prop_assert!(self.unacked.len() <= 2);
            }
            Action::Close(_) => self.closed = true,
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, ack: &Ack, qos: QoS, v5: bool) -> Result<(), TestCaseError> {
        if ack.told.reason == Reason::PACKET_IDENTIFIER_IN_USE {
            *self.refused.entry(ack.packet_id).or_default() += 1;
            return Ok(());
        }
        if self.unanswered.front() == Some(&(ack.packet_id, qos)) {
            self.unanswered.pop_front();
            if v5 && ack.told.reason.is_failure() {
                self.taken.remove(&ack.packet_id);
            }
        } else {
            // The only other answer: PUBREC again, for what is taken and not released.
            prop_assert!(qos == QoS::ExactlyOnce && self.taken.contains(&ack.packet_id));
            prop_assert!(!self.unanswered.contains(&(ack.packet_id, qos)), "out of order");
        }
        Ok(())
    }
}

/// Carries out one step as a connection would, which asks before it reads.
fn carry_out(world: &mut World, model: &mut Model, step: Step, version: Version) -> Vec<Action> {
    let mut out = Vec::new();
    let (session, now) = (&mut world.session, world.now);
    let packet = match step {
        Step::Publish { level, number, dup, bad } => {
            let topic = if bad { "a/#" } else { "a" };
            let number = if level == 0 { 0 } else { number };
            Packet::Publish(Publish { dup: dup && level > 0, ..publish(topic, level, number) })
        }
        Step::Pubrel(number) => {
            if session.may_read() {
                model.taken.remove(&id(number));
            }
            Packet::Pubrel(id(number), Reason::SUCCESS)
        }
        Step::Puback(number) => {
            if session.may_read() {
                model.unacked.remove(&id(number));
            }
            Packet::Puback(id(number), Reason::SUCCESS)
        }
        Step::Pubrec(number) => Packet::Pubrec(id(number), Reason::SUCCESS),
        Step::Subscribe(number) => {
            subscribe(number, &[("a", QoS::ExactlyOnce), ("$share/x/y", QoS::AtMostOnce)])
        }
        Step::Unsubscribe(number) => unsubscribe(number, &["a"]),
        Step::Pingreq => Packet::Pingreq,
        Step::Connect => Packet::Connect(Box::new(connect(version))),
        Step::Auth => Packet::Auth,
        Step::Receipt { nth, outcome } => {
            if nth < model.tickets.len() {
                let receipt = match outcome {
                    0..16 => Receipt::Confirmed,
                    16..19 => Receipt::Refused(Reason::NOT_AUTHORIZED.into()),
                    _ => Receipt::Failed,
                };
                session.receipt(model.tickets.remove(nth), receipt, &mut out);
            }
            return out;
        }
        Step::Settle(number) => {
            session.subscribed(id(number), &[Reason::SUCCESS], &mut out);
            session.unsubscribed(id(number), &[Reason::SUCCESS], &mut out);
            return out;
        }
        Step::Deliver(level) => {
            session.deliver(delivery(message(level), QoS::AtLeastOnce), now, &mut out);
            return out;
        }
        Step::Writable(writable) => {
            session.set_writable(writable, now, &mut out);
            return out;
        }
        Step::Reading(reading) => {
            session.set_reading(reading, now);
            return out;
        }
        Step::Pass(milliseconds) => {
            world.now += Duration::from_millis(milliseconds);
            session.tick(world.now, &mut out);
            return out;
        }
        Step::Drain => {
            session.drain(&mut out);
            return out;
        }
    };
    if session.may_read() {
        session.packet(packet, now, &mut out);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn each_publish_has_one_answer_in_order_and_bounds_hold(v5: bool, steps in steps()) {
        let version = if v5 { Version::V5 } else { Version::V3 };
        let mut world = World::open(Connect { will: will(), ..connect(version) });
        let mut model = Model::default();
        for step in steps {
            for action in carry_out(&mut world, &mut model, step, version) {
                model.see(action, v5)?;
            }
            prop_assert_eq!(model.closed, world.session.is_closed());
            let max = usize::from(limits().receive_maximum.get());
            prop_assert!(world.session.in_flight() <= 2 * max);
            prop_assert!(v5 || world.session.in_flight() <= max);
            prop_assert!(world.session.queued() <= limits().outbound_queue);
        }
        // Once everything is confirmed, everything has been answered.
        for ticket in std::mem::take(&mut model.tickets) {
            let mut out = Vec::new();
            world.session.receipt(ticket, Receipt::Confirmed, &mut out);
            for action in out {
                model.see(action, v5)?;
            }
        }
        prop_assert!(model.closed || model.unanswered.is_empty());
        prop_assert_eq!(world.session.in_flight(), 0);
    }
}
