//! What happens when RabbitMQ has confirmed, or can no longer be asked to.

use std::sync::Arc;

use platziverse_broker::{Outcome, Receipt};
use tokio::sync::oneshot;

use crate::books::{GatewayMetrics, PublishFate};
use crate::mailbox::{Event, Mailbox};
use crate::packet::{QoS, Told};
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
    pub(crate) qos: QoS,
    /// Nobody, for a last word.
    pub(crate) answer: Option<(Mailbox, Ticket)>,
    /// What the client is told once the dead letter is confirmed.
    pub(crate) refused: Option<Told>,
    /// Whether the books have it.
    pub(crate) settled: bool,
}

impl Settlement {
    /// Whether it is of a client's publish that nobody is answered for and nobody sends again: a
    /// will, or what ended its connection.
    pub(crate) fn is_last_word(&self) -> bool {
        matches!(self, Self::Client(publish) if publish.answer.is_none())
    }
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
            (Outcome::Abandoned, _) => (self.given_up(), session::Receipt::Failed),
        };
        self.metrics.publishes.settle(fate, 1);
        if let Some((mailbox, ticket)) = self.answer.take() {
            mailbox.send(Event::Receipt(ticket, receipt));
        }
    }

    /// What became of a publish that was given up. With QoS 0 it may be dropped; otherwise it was
    /// not taken, which the client sees from the missing answer.
    fn given_up(&self) -> PublishFate {
        match self.qos {
            QoS::AtMostOnce => PublishFate::Dropped,
            QoS::AtLeastOnce | QoS::ExactlyOnce => PublishFate::Refused,
        }
    }
}

/// A publish that was never handed to RabbitMQ because its connection ended first: its client has
/// no answer, and sends it again if it must not be missed. Or a last word that found no room.
impl Drop for ClientPublish {
    fn drop(&mut self) {
        if !self.settled {
            self.metrics.publishes.settle(self.given_up(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use platziverse_service::Metrics;

    use super::*;
    use crate::packet::Reason;

    #[test]
    fn only_qos_0_is_dropped() {
        let check = |qos: QoS, outcome: Option<Outcome>, refused: bool, want: &str| {
            let shown = Metrics::default();
            let metrics = GatewayMetrics::new(&shown);
            metrics.publishes.enter(1);
            let refused = refused.then(|| Told::from(Reason::NOT_AUTHORIZED));
            let publish = ClientPublish { metrics, qos, answer: None, refused, settled: false };
            match outcome {
                Some(outcome) => Settlement::Client(Box::new(publish)).resolve(outcome),
                None => drop(publish),
            }
            let text = shown.encode();
            for fate in ["confirmed", "refused", "dropped"] {
                let count = u8::from(fate == want);
                let line = format!("platziverse_gateway_publishes_{fate}_total {count}\n");
                assert!(text.contains(&line), "{line} is not in {text}");
            }
            assert!(text.contains("platziverse_gateway_publishes_in_flight 0\n"), "{text}");
        };
        let (confirmed, abandoned) = (Some(Outcome::Confirmed), Some(Outcome::Abandoned));
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            check(qos, confirmed, false, "confirmed");
            check(qos, confirmed, true, "refused");
        }
        for given_up in [abandoned, None] {
            for refused in [false, true] {
                check(QoS::AtMostOnce, given_up, refused, "dropped");
                check(QoS::AtLeastOnce, given_up, refused, "refused");
                check(QoS::ExactlyOnce, given_up, refused, "refused");
            }
        }
    }
}
