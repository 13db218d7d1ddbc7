//! What remains to be done when a connection is over.

use platziverse_protocol::dead;
use platziverse_service::clock;

use super::Connection;
use crate::hub::Way;
use crate::judge::Refused;
use crate::packet::{Publish, Reason, Will};
use crate::session::{By, Close};
use crate::settlement::Settlement;

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
        if self.reported {
            for line in accepted.reporter.all_disconnected(clock::now()) {
                if let Some(outgoing) = self.hub.telemetry(line) {
                    self.hand_over(Way::Storage, outgoing);
                }
            }
        }
        let rebinding = self.hub.audience.leave(accepted.id);
        // Enqueued by the call; when RabbitMQ has it does not matter here.
        drop(rebinding.carry_out(&self.hub.live));
    }

    /// Lets go of the client, then waits until what the gateway itself has to say is handed over.
    pub(super) async fn end(mut self) {
        // The process was told to stop at once, so that the session did not end by itself.
        self.leave();
        let Self { transport, mut held, sending, hub, .. } = self;
        transport.finish().await;
        // Nobody waits for the client's own publishes any more: it sends them again. What they
        // held is given back, so that clients which come and go while RabbitMQ is away cost
        // nothing.
        drop(sending);
        held.retain(|(_, outgoing)| matches!(outgoing.receipt, Settlement::Own));
        let handing_over = async {
            for (way, outgoing) in held {
                // Closed only at the end of the process.
                let _ = hub.publisher(way).publish(outgoing).await;
            }
        };
        tokio::select! {
            () = handing_over => {}
            () = hub.drain.forced() => {}
        }
    }
}
