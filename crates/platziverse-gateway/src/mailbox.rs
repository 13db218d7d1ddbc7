//! What reaches a connection from the rest of the gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use platziverse_protocol::presence::SessionId;
use tokio::sync::mpsc;

use crate::auth::{Permissions, Refusal};
use crate::packet::{Connect, PacketId, QoS, Reason};
use crate::session::{Delivery, Receipt, Ticket};

/// Something for one connection.
#[derive(Debug)]
pub(crate) enum Event {
    /// Credentials have been checked.
    Checked(Box<Checked>),
    /// A publish has its outcome.
    Receipt(Ticket, Receipt),
    /// A message for its subscriptions.
    Deliver(Box<Delivery>),
    /// Subscriptions are in force.
    Subscribed(PacketId, Vec<Reason>),
    /// Subscriptions have ended.
    Unsubscribed(PacketId, Vec<Reason>),
    /// A newer connection has the same client id.
    TakenOver,
    /// The session, if it still is this one, has been ended by the sweep: it begins anew. Without
    /// one: whichever it is may have been.
    Renew(Option<SessionId>),
    /// A message that must not be missed did not fit.
    Overflow,
}

/// A CONNECT whose credentials have been checked.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) connect: Box<Connect>,
    pub(crate) result: Result<Permissions, Refusal>,
}

/// The sending side, shared by all who have something for the connection.
///
/// Deliveries are bounded by `limit`; receipts and answers by what the session lets in.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    sender: mpsc::UnboundedSender<Event>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: mpsc::UnboundedReceiver<Event>,
    waiting: Arc<AtomicUsize>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    /// The connection gets it.
    Taken,
    /// QoS 0, and the connection is too slow: it misses it.
    Missed,
    /// The connection is too slow for a message that it must not miss, and is ended; or it has
    /// ended already.
    Ended,
}

/// A mailbox that holds at most `limit` deliveries.
pub(crate) fn open(limit: usize) -> (Mailbox, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Mailbox { sender, waiting: Arc::clone(&waiting), limit }, Inbox { receiver, waiting })
}

impl Mailbox {
    /// Sends an event that is bounded elsewhere. To an ended connection it is without effect.
    pub(crate) fn send(&self, event: Event) {
        let _ = self.sender.send(event);
    }

    /// Resolves when the connection has ended.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Sends a message for the connection's subscriptions.
    pub(crate) fn deliver(&self, delivery: Delivery) -> Posted {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            if delivery.message.qos.min(delivery.granted) == QoS::AtMostOnce {
                return Posted::Missed;
            }
            self.send(Event::Overflow);
            return Posted::Ended;
        }
        match self.sender.send(Event::Deliver(Box::new(delivery))) {
            Ok(()) => Posted::Taken,
            Err(_) => Posted::Ended,
        }
    }
}

impl Inbox {
    /// The next event. Never ends while the connection holds a mailbox of its own.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await;
        self.note(event)
    }

    /// The next event, if it is here.
    pub(crate) fn try_next(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok();
        self.note(event)
    }

    fn note(&self, event: Option<Event>) -> Option<Event> {
        if matches!(event, Some(Event::Deliver(_))) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        event
    }
}
