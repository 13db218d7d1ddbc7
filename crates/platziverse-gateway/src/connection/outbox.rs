//! What a connection has to publish: it goes to a publisher at once, or waits here for room.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::future::join_all;
use platziverse_broker::{Outcome, Outgoing, Receipt, Unsent, UnsentReason};
use tokio::sync::OwnedSemaphorePermit;

use crate::hub::{Hub, Way};
use crate::settlement::Settlement;

type Sending = Pin<Box<dyn Future<Output = Result<(), Unsent<Settlement>>> + Send>>;

/// The lines of one connection that found no room. Each way has its own, so that one that is full
/// does not hold up the others.
pub(crate) struct Outbox {
    hub: Arc<Hub>,
    waiting: [Waiting; Way::ALL.len()],
    /// Whether anything of the session was handed over for storage.
    reported: bool,
}

/// What waits on one way, in order.
#[derive(Default)]
struct Waiting {
    first: Option<First>,
    rest: VecDeque<Held>,
}

/// Waits for room in the publisher.
struct First {
    is_last_word: bool,
    sending: Sending,
}

struct Held {
    outgoing: Outgoing<Settlement>,
    /// Its part of what all last words together may hold.
    room: Option<OwnedSemaphorePermit>,
}

impl Outbox {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, waiting: Default::default(), reported: false }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.iter().all(Waiting::is_empty)
    }

    /// Whether the session is known to storage, or will be.
    pub(super) fn has_reported(&self) -> bool {
        self.reported || !self.waiting[Way::Storage as usize].is_empty()
    }

    /// Gives a line to a publisher, or holds it until there is room.
    pub(super) fn hand_over(&mut self, way: Way, outgoing: Outgoing<Settlement>) {
        if !self.waiting[way as usize].is_empty() {
            return self.hold(way, outgoing);
        }
        match self.hub.publisher(way).try_publish(outgoing) {
            Ok(()) => self.reported |= way == Way::Storage,
            Err(Unsent { outgoing, why: UnsentReason::Full }) => self.hold(way, outgoing),
            Err(unsent) => abandon(unsent),
        }
    }

    /// A client that awaits an answer sends nothing more meanwhile, so that what is held for it is
    /// little. Nobody slows down for a last word: those of all connections share one bound.
    fn hold(&mut self, way: Way, outgoing: Outgoing<Settlement>) {
        let mut room = None;
        if outgoing.receipt.is_last_word() {
            let bytes = u32::try_from(outgoing.line.len()).unwrap_or(u32::MAX);
            match Arc::clone(&self.hub.last_words).try_acquire_many_owned(bytes) {
                Ok(permit) => room = Some(permit),
                Err(_) => return tracing::debug!("a will or a last dead letter finds no room"),
            }
        }
        let waiting = &mut self.waiting[way as usize];
        waiting.rest.push_back(Held { outgoing, room });
        waiting.send_next(&self.hub, way);
    }

    /// Resolves when something that waited has been handed over; never, if nothing waits.
    pub(super) async fn advance(&mut self) {
        let (way, result) = std::future::poll_fn(|cx| {
            for way in Way::ALL {
                if let Some(first) = &mut self.waiting[way as usize].first
                    && let Poll::Ready(result) = first.sending.as_mut().poll(cx)
                {
                    return Poll::Ready((way, result));
                }
            }
            Poll::Pending
        })
        .await;
        let waiting = &mut self.waiting[way as usize];
        waiting.first = None;
        waiting.send_next(&self.hub, way);
        match result {
            Ok(()) => self.reported |= way == Way::Storage,
            Err(unsent) => abandon(unsent),
        }
    }

    /// Takes back what the gateway itself has to say and newer words replace.
    pub(super) fn supersede(&mut self) {
        let waiting = &mut self.waiting[Way::Storage as usize];
        waiting.rest.retain(|held| !matches!(held.outgoing.receipt, Settlement::Own));
    }

    /// The client is gone. It sends again what it has no answer for, and nobody need hear any more
    /// that its agents had come; so clients that come and go while RabbitMQ is away cost nothing.
    pub(super) fn give_back(&mut self) {
        for way in Way::ALL {
            let waiting = &mut self.waiting[way as usize];
            waiting.rest.retain(|held| held.outgoing.receipt.is_last_word());
            waiting.first.take_if(|first| !first.is_last_word);
            waiting.send_next(&self.hub, way);
        }
    }

    /// Waits until everything is handed over, or the process is told to stop at once.
    pub(crate) async fn finish(self) {
        let Self { hub, waiting, .. } = self;
        let ways = Way::ALL.into_iter().zip(waiting);
        let handing_over = join_all(ways.map(|(way, waiting)| waiting.finish(&hub, way)));
        tokio::select! {
            _ = handing_over => {}
            () = hub.drain.forced() => {}
        }
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty()
    }

    /// Begins to wait for room for the first of what is held.
    fn send_next(&mut self, hub: &Hub, way: Way) {
        if self.first.is_some() {
            return;
        }
        let Some(Held { outgoing, room }) = self.rest.pop_front() else { return };
        let is_last_word = outgoing.receipt.is_last_word();
        let publisher = hub.publisher(way).clone();
        let sending = Box::pin(async move {
            let result = publisher.publish(outgoing).await;
            drop(room);
            result
        });
        self.first = Some(First { is_last_word, sending });
    }

    async fn finish(mut self, hub: &Hub, way: Way) {
        while let Some(first) = self.first.take() {
            // Closed only at the end of the process.
            let _ = first.sending.await;
            self.send_next(hub, way);
        }
    }
}

/// What cannot be sent any more because the publisher has ended: nobody is told that it is stored.
fn abandon(unsent: Unsent<Settlement>) {
    unsent.outgoing.receipt.resolve(Outcome::Abandoned);
}
