//! What happens when RabbitMQ has confirmed, or can no longer be asked to.

use std::sync::Arc;

use platziverse_broker::{Outcome, Receipt};
use tokio::sync::oneshot;

use crate::books::{GatewayMetrics, PublishFate};
use crate::mailbox::{Event, Mailbox};
use crate::packet::Told;
use crate::session::{self, Ticket};

/// The receipt of one message that the gateway has published.
#[derive(Debug)]
pub(crate) enum Settlement {
    /// A client's publish: the books are kept and the client is answered.
    Client(Box<ClientPublish>),
    /// The gateway's own message; nobody waits for it.
    Own,
    /// The gateway's own message, with somebody who waits.
    Awaited(oneshot::Sender<Outcome>),
}

/// Whom to answer, and what.
#[derive(Debug)]
pub(crate) struct ClientPublish {
    pub(crate) metrics: Arc<GatewayMetrics>,
    /// Nobody, for a will.
    pub(crate) answer: Option<(Mailbox, Ticket)>,
    /// What the client is told once the dead letter is confirmed.
    pub(crate) refused: Option<Told>,
    /// Whether the books have it.
    pub(crate) settled: bool,
}

impl Receipt for Settlement {
    fn resolve(self, outcome: Outcome) {
        match self {
            Self::Client(publish) => publish.settle(outcome),
            Self::Own => {}
            Self::Awaited(sender) => drop(sender.send(outcome)),
        }
    }
}

impl ClientPublish {
    fn settle(mut self, outcome: Outcome) {
        self.settled = true;
        let (fate, receipt) = match (outcome, self.refused.take()) {
            (Outcome::Confirmed, None) => (PublishFate::Confirmed, session::Receipt::Confirmed),
            (Outcome::Confirmed, Some(told)) => {
                (PublishFate::Refused, session::Receipt::Refused(told))
            }
            (Outcome::Abandoned, _) => (PublishFate::Dropped, session::Receipt::Failed),
        };
        self.metrics.publishes.settle(fate, 1);
        if let Some((mailbox, ticket)) = self.answer.take() {
            mailbox.send(Event::Receipt(ticket, receipt));
        }
    }
}

/// A publish that was never handed to RabbitMQ because its connection ended first: its client has
/// no answer, and sends it again if it must not be missed.
impl Drop for ClientPublish {
    fn drop(&mut self) {
        if !self.settled {
            self.metrics.publishes.settle(PublishFate::Dropped, 1);
        }
    }
}
