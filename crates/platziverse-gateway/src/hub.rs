//! What the connections of a gateway share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use platziverse_broker::{Lane, LiveHandle, Outgoing, Publisher, TelemetryLanes};
use platziverse_protocol::presence::{SessionClock, SessionId};
use platziverse_protocol::record::{Payload, Record};
use platziverse_protocol::topic::routing_key;
use platziverse_service::{Drain, clock};
use uuid::Uuid;

use crate::audience::Audience;
use crate::auth::Authenticator;
use crate::books::GatewayMetrics;
use crate::mailbox::{Event, Mailbox};
use crate::packet::Text;
use crate::registry::{ConnectionId, Registry};
use crate::reporter::Line;
use crate::session::Limits;
use crate::settlement::Settlement;

/// The topic on which gateways tell each other of a client id's newest session. Clients can
/// neither publish nor hear it.
pub(crate) const TAKEOVER: &str = "$platziverse/takeover";

/// The shared state. No lock in it is held across an await.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) limits: Arc<Limits>,
    pub(crate) connections_max: usize,
    pub(crate) auth: Authenticator,
    pub(crate) metrics: Arc<GatewayMetrics>,
    pub(crate) drain: Drain,
    /// For what is stored and what goes to subscribers.
    pub(crate) publisher: Publisher<Settlement>,
    /// For dead letters and what gateways tell each other: they must not wait behind the former.
    pub(crate) control: Publisher<Settlement>,
    pub(crate) lanes: TelemetryLanes,
    pub(crate) live: LiveHandle,
    pub(crate) audience: Audience,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) clock: Mutex<SessionClock>,
    pub(crate) open: AtomicUsize,
}

impl Hub {
    /// Lets a client in: it gets a session, and whoever had its client id is taken over, here at
    /// once and on other gateways as soon as they hear of it.
    pub(crate) fn enter(&self, client: &Text, mailbox: Mailbox) -> (ConnectionId, SessionId) {
        let session = self.new_session();
        let (connection, older) = self.registry().enter(client, session, mailbox);
        if let Some(older) = older {
            older.send(Event::TakenOver);
        }
        self.announce(client, session);
        (connection, session)
    }

    /// The id of a session that starts now.
    pub(crate) fn new_session(&self) -> SessionId {
        let random = Uuid::new_v4().as_u64_pair().1;
        self.clock().start(clock::now(), random)
    }

    fn announce(&self, client: &Text, session: SessionId) {
        let mut line = Vec::new();
        let record = Record {
            id: Uuid::now_v7(),
            topic: TAKEOVER.into(),
            client: (&**client).into(),
            session,
            received: clock::now(),
            qos: 0,
            properties: None,
            payload: Payload::of_json("{}"),
        };
        record.encode_line(&mut line);
        let (lane, line) = (Lane::live(&routing_key(TAKEOVER)), Bytes::from(line));
        let outgoing = Outgoing { lane, id: record.id, line, receipt: Settlement::Own };
        if self.control.try_publish(outgoing).is_err() {
            tracing::warn!(
                "no room to announce a takeover: an older connection of the same client id on another gateway stays open"
            );
        }
    }

    /// How a line about an agent is published for storage and for listeners.
    pub(crate) fn telemetry(&self, line: Line) -> Option<Outgoing<Settlement>> {
        let lane = self.lanes.lane(line.topic, line.uuid.as_str())?;
        Some(Outgoing { lane, id: line.id, line: line.line, receipt: Settlement::Own })
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clock(&self) -> MutexGuard<'_, SessionClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are more open connections than are let in.
    pub(crate) fn is_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) > self.connections_max
    }
}
