//! What reaches a connection from the rest of the gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use platziverse_protocol::presence::SessionId;
use tokio::sync::mpsc;

use crate::auth::{Permissions, Refusal};
use crate::codec;
use crate::packet::{Connect, PacketId, QoS, Reason};
use crate::session::{Delivery, Receipt, Ticket};

/// Something for one connection.
#[derive(Debug)]
pub(crate) enum Event {
    /// Credentials have been checked.
    Checked(Box<Checked>),
    /// A publish has its outcome.
    Receipt(Ticket, Receipt),
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

/// Something that a connection has received.
#[derive(Debug)]
pub(crate) enum Received {
    /// An event.
    Event(Event),
    /// A message for its subscriptions.
    Delivery(Box<Delivery>),
}

/// A CONNECT whose credentials have been checked.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) connect: Box<Connect>,
    pub(crate) result: Result<Permissions, Refusal>,
}

/// The most that waits for one subscriber, in bytes; one message may be larger.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a User Property takes beside its text.
const USER_PROPERTY_BYTES: usize = 64;

/// The sending side, shared by all who have something for the connection.
///
/// Deliveries are bounded by number and bytes; events by what the session lets in.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    events: mpsc::UnboundedSender<Event>,
    deliveries: mpsc::UnboundedSender<Box<Delivery>>,
    waiting: Arc<Waiting>,
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct Inbox {
    events: mpsc::UnboundedReceiver<Event>,
    deliveries: mpsc::UnboundedReceiver<Box<Delivery>>,
    waiting: Arc<Waiting>,
}

/// The deliveries that the connection has not taken yet.
#[derive(Debug)]
struct Waiting {
    limit: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
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
    let (events, event_receiver) = mpsc::unbounded_channel();
    let (deliveries, delivery_receiver) = mpsc::unbounded_channel();
    let waiting = Waiting { limit, count: AtomicUsize::new(0), bytes: AtomicUsize::new(0) };
    let waiting = Arc::new(waiting);
    let inbox = Inbox {
        events: event_receiver,
        deliveries: delivery_receiver,
        waiting: Arc::clone(&waiting),
    };
    (Mailbox { events, deliveries, waiting }, inbox)
}

impl Waiting {
    /// Makes room, if there is any.
    fn enter(&self, bytes: usize) -> bool {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before < self.limit && (before == 0 || held + bytes <= WAITING_BYTES_MAX);
        if !fits {
            self.leave(bytes);
        }
        fits
    }

    fn leave(&self, bytes: usize) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What a message holds. Subscribers share it, but each may be the last that does.
fn bytes(delivery: &Delivery) -> usize {
    let message = &delivery.message;
    let properties = message.properties.as_deref().map_or(0, |properties| {
        codec::properties_size(properties) + properties.user.len() * USER_PROPERTY_BYTES
    });
    message.topic.len() + message.payload.len() + properties
}

impl Mailbox {
    /// Sends an event that is bounded elsewhere. To an ended connection it is without effect.
    pub(crate) fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Resolves when the connection has ended.
    pub(crate) async fn closed(&self) {
        self.events.closed().await;
    }

    /// Sends a message for the connection's subscriptions.
    pub(crate) fn deliver(&self, delivery: Delivery) -> Posted {
        if !self.waiting.enter(bytes(&delivery)) {
            if delivery.message.qos.min(delivery.granted) == QoS::AtMostOnce {
                return Posted::Missed;
            }
            self.send(Event::Overflow);
            return Posted::Ended;
        }
        match self.deliveries.send(Box::new(delivery)) {
            Ok(()) => Posted::Taken,
            Err(_) => Posted::Ended,
        }
    }
}

impl Inbox {
    /// The next event. Never ends while the connection holds a mailbox of its own.
    pub(crate) async fn next(&mut self, deliveries: bool) -> Option<Received> {
        tokio::select! {
            event = self.events.recv() => event.map(Received::Event),
            delivery = self.deliveries.recv(), if deliveries => self.taken(delivery),
        }
    }

    /// The next event, if it is here.
    pub(crate) fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// The next delivery, if it is here.
    pub(crate) fn try_delivery(&mut self) -> Option<Box<Delivery>> {
        let delivery = self.deliveries.try_recv().ok()?;
        self.waiting.leave(bytes(&delivery));
        Some(delivery)
    }

    fn taken(&self, delivery: Option<Box<Delivery>>) -> Option<Received> {
        delivery.map(|delivery| {
            self.waiting.leave(bytes(&delivery));
            Received::Delivery(delivery)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Message;

    fn delivery(bytes: usize, qos: QoS) -> Delivery {
        let message = Message {
            topic: "t".into(),
            payload: vec![0; bytes].into(),
            qos,
            expires: None,
            properties: None,
        };
        let message = Arc::new(message);
        Delivery {
            message,
            granted: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: vec![],
            command: None,
        }
    }

    #[test]
    fn bounded_by_number() {
        let (mailbox, mut inbox) = open(2);
        let post = || mailbox.deliver(delivery(1, QoS::AtMostOnce));
        assert_eq!([post(), post(), post()], [Posted::Taken, Posted::Taken, Posted::Missed]);
        assert!(inbox.try_delivery().is_some());
        assert_eq!(post(), Posted::Taken);
        assert_eq!(mailbox.deliver(delivery(1, QoS::AtLeastOnce)), Posted::Ended);
        assert!(matches!(inbox.try_next(), Some(Event::Overflow)));
    }

    #[test]
    fn bounded_by_bytes() {
        let (mailbox, mut inbox) = open(100);
        let post = |bytes| mailbox.deliver(delivery(bytes, QoS::AtMostOnce));
        assert_eq!(post(2 * WAITING_BYTES_MAX), Posted::Taken, "one may be larger");
        assert_eq!(post(1), Posted::Missed);
        assert!(inbox.try_delivery().is_some());
        assert_eq!(post(WAITING_BYTES_MAX - 1), Posted::Taken, "with its topic");
        assert_eq!(post(0), Posted::Missed);
    }

    #[test]
    fn properties_take_room() {
        let (mailbox, _inbox) = open(100);
        let text = |bytes| crate::packet::Text::from("x".repeat(bytes));
        let user = vec![(text(WAITING_BYTES_MAX / 2), text(1))];
        let properties = crate::packet::Properties { user, ..Default::default() };
        let mut large = delivery(0, QoS::AtMostOnce);
        let message =
            Message { properties: Some(Box::new(properties)), ..(*large.message).clone() };
        large.message = Arc::new(message);
        assert_eq!(mailbox.deliver(large.clone()), Posted::Taken);
        assert_eq!(mailbox.deliver(large), Posted::Missed);
    }
}
