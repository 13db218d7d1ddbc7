//! A client's subscriptions.

use platziverse_protocol::topic::TopicFilter;

use super::Connection;
use crate::mailbox::Event;
use crate::packet::{PacketId, Reason};
use crate::session::Wanted;

impl Connection {
    /// Makes subscriptions. The answer comes once RabbitMQ sends this gateway what they ask for,
    /// so that a client that has its SUBACK misses nothing from then on.
    pub(super) fn subscribe(&mut self, packet_id: PacketId, wanted: Vec<Wanted>) {
        let Some(accepted) = &self.accepted else { return };
        let permissions = &accepted.reporter.permissions;
        let mut reasons = Vec::with_capacity(wanted.len());
        let mut allowed = Vec::with_capacity(wanted.len());
        for one in wanted {
            if permissions.may_subscribe(&one.filter) {
                reasons.push(Reason::SUCCESS);
                allowed.push(one);
            } else {
                reasons.push(Reason::NOT_AUTHORIZED);
            }
        }
        let rebinding = self.hub.audience.subscribe(accepted.id, &allowed);
        if rebinding.is_empty() {
            self.mailbox.send(Event::Subscribed(packet_id, reasons));
            return;
        }
        let (bound, mailbox) = (rebinding.carry_out(&self.hub.live), self.mailbox.clone());
        self.hub.drain.spawn_isolated(async move {
            bound.await;
            mailbox.send(Event::Subscribed(packet_id, reasons));
        });
    }

    /// Ends subscriptions.
    pub(super) fn unsubscribe(&mut self, packet_id: PacketId, filters: &[TopicFilter]) {
        let Some(accepted) = &self.accepted else { return };
        let (reasons, rebinding) = self.hub.audience.unsubscribe(accepted.id, filters);
        self.mailbox.send(Event::Unsubscribed(packet_id, reasons));
        drop(rebinding.carry_out(&self.hub.live));
    }
}
