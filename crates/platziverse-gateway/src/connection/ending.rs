//! What remains to be done when a connection is over.

use platziverse_protocol::dead;
use platziverse_service::clock;

use super::Connection;
use super::outbox::Outbox;
use crate::hub::Way;
use crate::judge::Refused;
use crate::packet::{Publish, Reason, Will};
use crate::session::{By, Close};
use crate::transport::Transport;

impl Connection {
    /// The session is over: publishes the will, keeps what ended it, and says that its agents are
    /// gone.
    pub(super) fn depart(&mut self, close: &Close) {
        let why = close.told.text.as_deref().unwrap_or_else(|| close.reason().name());
        if close.by == By::Gateway {
            tracing::info!(peer = %self.peer, "a connection is ended: {why}");
        } else {
            tracing::debug!(peer = %self.peer, "a connection has ended: {why}");
        }
        self.outbox.give_back();
        self.last_publishes(close.refused.as_deref(), close.will.as_deref());
        self.leave();
    }

    fn last_publishes(&mut self, refused: Option<&Publish>, will: Option<&Will>) {
        if let Some(publish) = refused {
            let (reason, code) = (dead::Reason::RetainUnsupported, Reason::RETAIN_NOT_SUPPORTED);
            let text = "retained messages are not supported";
            self.take(publish, None, Some(Refused::new(reason, code, text)));
        }
        if let Some(will) = will {
            let publish = Publish {
                topic: will.topic.clone(),
                alias: None,
                payload: will.payload.clone(),
                qos: will.qos,
                packet_id: None,
                dup: false,
                retain: false,
                properties: will.properties.clone(),
            };
            self.take(&publish, None, None);
        }
    }

    fn leave(&mut self) {
        let Some(accepted) = self.accepted.take() else { return };
        // Before the announcement, which would look like one of the sweep's otherwise.
        self.hub.registry().leave(accepted.id);
        if self.hub.drain.is_forced() {
            return;
        }
        // A session of which nothing was sent on is known to nobody.
        if self.outbox.has_reported() {
            for line in accepted.reporter.all_disconnected(clock::now()) {
                if let Some(outgoing) = self.hub.telemetry(line) {
                    self.outbox.hand_over(Way::Storage, outgoing);
                }
            }
        }
        let rebinding = self.hub.audience.leave(accepted.id);
        // Enqueued by the call; when RabbitMQ has it does not matter here.
        drop(rebinding.carry_out(&self.hub.live));
    }

    /// Lets go of the client. Answers with what is still to be handed over.
    pub(super) async fn end(mut self) -> Outbox {
        // The process was told to stop at once, so that the session did not end by itself.
        self.leave();
        let (transport, outbox) = self.into_rest();
        transport.finish().await;
        outbox
    }

    /// Whatever else it holds, deliveries that nobody takes any more, is not to wait for RabbitMQ.
    fn into_rest(self) -> (Transport, Outbox) {
        (self.transport, self.outbox)
    }
}
