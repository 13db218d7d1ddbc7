//! Messages to the subscriber: the window of unacknowledged ones, and those that wait.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Instant;

use super::{Action, Commanded, Delivery, Dropped, Phase, Session};
use crate::codec;
use crate::packet::{Delivered, Outgoing, PacketId, QoS, Reason, Told, Version};

/// Room that is kept for a subscriber between deliveries, in messages.
const KEPT: usize = 8;

/// The deliveries of one subscriber.
#[derive(Debug)]
pub(super) struct Outbound {
    queue: VecDeque<Delivery>,
    /// The QoS 1 deliveries without a PUBACK.
    unacked: Vec<Unacked>,
    last_id: u16,
    /// How many may be in `unacked`.
    window: PacketId,
    max_packet_size: Option<NonZeroU32>,
    /// Whether the transport is full.
    blocked: bool,
}

#[derive(Debug)]
struct Unacked {
    id: PacketId,
    command: Option<Box<Commanded>>,
}

impl Outbound {
    pub(super) fn new(window: PacketId) -> Self {
        Self {
            queue: VecDeque::new(),
            unacked: Vec::new(),
            last_id: 0,
            window,
            max_packet_size: None,
            blocked: false,
        }
    }

    /// What the client takes: at most its Receive Maximum unacknowledged (MQTT-3.3.4-9), nothing
    /// larger than its Maximum Packet Size (MQTT-3.1.2-24).
    pub(super) fn limit(&mut self, window: PacketId, max_packet_size: Option<NonZeroU32>) {
        self.window = window;
        self.max_packet_size = max_packet_size;
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    fn may_send(&self, qos: QoS) -> bool {
        let window = usize::from(self.window.get());
        !self.blocked && (qos == QoS::AtMostOnce || self.unacked.len() < window)
    }

    /// An identifier that is not in use; there is one, the window being smaller than their number.
    fn next_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            match PacketId::new(self.last_id) {
                Some(id) if self.unacked.iter().all(|one| one.id != id) => return id,
                _ => {}
            }
        }
    }

    /// The packet for a delivery, or why there is none.
    fn packet(
        &mut self,
        delivery: Delivery,
        version: Version,
        now: Instant,
    ) -> Result<Delivered, Dropped> {
        let qos = qos(&delivery);
        let Delivery { message, retain, subscription_ids, command, .. } = delivery;
        let expiry = remaining(message.expires, now)?;
        let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
        let mut packet = Delivered { message, qos, packet_id, retain, expiry, subscription_ids };
        let max = self.max_packet_size.map_or(u32::MAX, NonZeroU32::get);
        if codec::publish_size(&packet, version) > max as usize {
            return Err(Dropped::TooLarge);
        }
        if packet_id.is_some() {
            let id = self.next_id();
            self.unacked.push(Unacked { id, command });
            packet.packet_id = Some(id);
        }
        Ok(packet)
    }
}

/// The level of a delivery: that of the message or of the subscription, whichever is less
/// (MQTT-3.8.4-8), and at most 1, the most that is granted.
fn qos(delivery: &Delivery) -> QoS {
    delivery.message.qos.min(delivery.granted).min(QoS::AtLeastOnce)
}

/// The seconds that a message has left, rounded up; an error when it has none (MQTT-3.3.2-5, -6).
fn remaining(expires: Option<Instant>, now: Instant) -> Result<Option<NonZeroU32>, Dropped> {
    let Some(expires) = expires else { return Ok(None) };
    let left = expires.checked_duration_since(now).ok_or(Dropped::Expired)?;
    let seconds = u32::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
    NonZeroU32::new(seconds).map(Some).ok_or(Dropped::Expired)
}

impl Session {
    /// Takes a message for this subscriber. It is sent, or waits for the window or the transport.
    ///
    /// At most `outbound_queue` messages wait: beyond, QoS 0 is dropped, and at QoS 1, of which
    /// nothing may be lost while the connection lasts, the connection ends.
    pub fn deliver(&mut self, delivery: Delivery, now: Instant, out: &mut Vec<Action>) {
        if self.phase != Phase::Open {
            out.push(Action::Dropped { why: Dropped::Closed, count: 1 });
            return;
        }
        let qos = qos(&delivery);
        if self.outbound.queue.is_empty() && self.outbound.may_send(qos) {
            return self.send(delivery, now, out);
        }
        if self.outbound.queue.len() < self.limits.outbound_queue {
            return self.outbound.queue.push_back(delivery);
        }
        out.push(Action::Dropped { why: Dropped::QueueFull, count: 1 });
        if qos != QoS::AtMostOnce {
            let text = "the subscriber is too slow";
            self.end(Told::new(Reason::QUOTA_EXCEEDED, text), None, out);
        }
    }

    /// Says whether the transport takes more; while it does not, messages wait here.
    pub fn set_writable(&mut self, writable: bool, now: Instant, out: &mut Vec<Action>) {
        self.outbound.blocked = !writable;
        self.pump(now, out);
    }

    /// MQTT-3.3.4-9: PUBACK makes room in the window. One that answers nothing is ignored. An agent
    /// that answers a command with an error (section 3.4.2.1) does not have it.
    pub(super) fn puback(
        &mut self,
        packet_id: PacketId,
        reason: Reason,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let unacked = &mut self.outbound.unacked;
        if let Some(index) = unacked.iter().position(|one| one.id == packet_id) {
            let acknowledged = unacked.swap_remove(index).command;
            let command = acknowledged.filter(|_| !reason.is_failure());
            out.extend(command.map(Action::Acknowledged));
            self.pump(now, out);
        }
    }

    /// Nothing is sent at QoS 2, so a PUBREC answers nothing, which MQTT 5 can say (section 3.6.2.1).
    pub(super) fn unexpected_pubrec(&mut self, packet_id: PacketId, out: &mut Vec<Action>) {
        if self.version == Version::V5 {
            let ack = Self::ack(packet_id, Reason::PACKET_IDENTIFIER_NOT_FOUND);
            out.push(Action::Send(Outgoing::Pubrel(ack)));
        }
    }

    fn pump(&mut self, now: Instant, out: &mut Vec<Action>) {
        while let Some(delivery) = self.outbound.queue.front() {
            if !self.outbound.may_send(qos(delivery)) {
                return;
            }
            if let Some(delivery) = self.outbound.queue.pop_front() {
                self.send(delivery, now, out);
            }
        }
        self.outbound.queue.shrink_to(KEPT);
    }

    fn send(&mut self, delivery: Delivery, now: Instant, out: &mut Vec<Action>) {
        out.push(match self.outbound.packet(delivery, self.version, now) {
            Ok(packet) => Action::Send(Outgoing::Publish(packet)),
            Err(why) => Action::Dropped { why, count: 1 },
        });
    }
}
