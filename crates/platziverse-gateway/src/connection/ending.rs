//! What remains to be done when a connection is over.

use platziverse_broker::{Outcome, Receipt};
use platziverse_protocol::dead;
use platziverse_service::clock;

use super::{Connection, Way};
use crate::judge::Refused;
use crate::packet::{Publish, Reason};
use crate::session::By;

impl Connection {
    /// Publishes the will, keeps what ended the connection, and says that its agents are gone.
    pub(super) async fn end(mut self) {
        self.transport.shutdown().await;
        let close = self.close.take();
        if let Some(close) = &close {
            let why = close.told.text.as_deref().unwrap_or_else(|| close.reason().name());
            if close.by == By::Gateway {
                tracing::info!(peer = %self.peer, "a connection is ended: {why}");
            } else {
                tracing::debug!(peer = %self.peer, "a connection has ended: {why}");
            }
            self.last_publishes(close.refused.as_deref(), close.will.as_deref());
        }
        let drain = self.hub.drain.clone();
        tokio::select! {
            () = self.leave() => {}
            () = drain.forced() => {}
        }
        for (_, outgoing) in self.held {
            outgoing.receipt.resolve(Outcome::Abandoned);
        }
    }

    fn last_publishes(&mut self, refused: Option<&Publish>, will: Option<&crate::packet::Will>) {
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

    /// Leaves the registry and the subscriptions, then waits until everything is handed over.
    async fn leave(&mut self) {
        if let Some(accepted) = self.accepted.take() {
            // Before the announcement: it would look like one of the sweep's otherwise.
            self.hub.registry().leave(accepted.id);
            for line in accepted.reporter.all_disconnected(clock::now()) {
                if let Some(outgoing) = self.hub.telemetry(line) {
                    self.hand_over(Way::Main, outgoing);
                }
            }
            let rebinding = self.hub.audience.leave(accepted.id);
            rebinding.carry_out(&self.hub.live).await;
        }
        while let Some(sending) = &mut self.sending {
            let result = sending.await;
            self.sent(result);
        }
    }
}
