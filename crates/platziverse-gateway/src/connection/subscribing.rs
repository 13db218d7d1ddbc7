//! A client's subscriptions, and what agents among them hear of commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use platziverse_broker::Bound;
use platziverse_protocol::command::{DELIVERED, Report, commanded_agent};
use platziverse_protocol::topic::TopicFilter;

use super::Connection;
use crate::hub::{self, Way};
use crate::mailbox::Event;
use crate::packet::{PacketId, Reason, Text};
use crate::session::{Commanded, Wanted};

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
        let agents: Vec<Text> =
            allowed.iter().filter_map(|one| commanded_agent(&one.filter).map(Text::from)).collect();
        let rebinding = self.hub.audience.subscribe(accepted.id, &allowed);
        if rebinding.is_empty() {
            self.mailbox.send(Event::Subscribed(packet_id, reasons));
            return;
        }
        let (bound, mailbox) = (rebinding.carry_out(&self.hub.live), self.mailbox.clone());
        let hub = Arc::clone(&self.hub);
        self.hub.drain.spawn_isolated(async move {
            if bound.await == Bound::Later {
                hub.roll_is_due.store(true, Ordering::Relaxed);
            }
            mailbox.send(Event::Subscribed(packet_id, reasons));
            agents.iter().for_each(|agent| hub.say_that_it_listens(agent));
        });
    }

    /// Says that the agent has a command.
    pub(super) fn acknowledged(&mut self, command: &Commanded) {
        let report = Report { agent: (&*command.agent).into(), id: Some(command.id) };
        self.outbox.hand_over(Way::Listeners, hub::report(DELIVERED, &report));
    }

    /// Ends subscriptions.
    pub(super) fn unsubscribe(&mut self, packet_id: PacketId, filters: &[TopicFilter]) {
        let Some(accepted) = &self.accepted else { return };
        let (reasons, rebinding) = self.hub.audience.unsubscribe(accepted.id, filters);
        self.mailbox.send(Event::Unsubscribed(packet_id, reasons));
        drop(rebinding.carry_out(&self.hub.live));
    }
}
