//! What the connections of a gateway share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use platziverse_broker::{Lane, LiveHandle, Outgoing, Publisher, TelemetryLanes};
use platziverse_protocol::command::{LISTENING, Report};
use platziverse_protocol::presence::{Moment, SessionClock, SessionId};
use platziverse_protocol::record::{Payload, Record};
use platziverse_protocol::topic::routing_key;
use platziverse_service::{Drain, clock};
use tokio::sync::Semaphore;
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

/// The topic on which a gateway tells the others that a client id has a session that may be newer
/// than theirs. Clients can neither publish nor hear it.
pub(crate) const TAKEOVER: &str = "$platziverse/takeover";
/// The topic on which a gateway asks the others whether they have a newer session of a client id.
pub(crate) const ROLL: &str = "$platziverse/roll";

/// How much wills and last dead letters may hold while there is no room for them, in bytes.
pub(crate) const LAST_WORDS_BYTES: usize = 16 * 1024 * 1024;

/// Which publisher a client's line goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is stored.
    Storage,
    /// It goes to subscribers, and to the queues of configured routes.
    Listeners,
    /// It is a dead letter.
    Graveyard,
}

impl Way {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 3] = [Self::Storage, Self::Listeners, Self::Graveyard];
}

/// The shared state. No lock in it is held across an await.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) limits: Arc<Limits>,
    pub(crate) connections_max: usize,
    pub(crate) auth: Authenticator,
    pub(crate) metrics: Arc<GatewayMetrics>,
    pub(crate) drain: Drain,
    /// For what is stored.
    pub(crate) storage: Publisher<Settlement>,
    /// For what goes to subscribers and to the queues of routes: one of those that is full must not
    /// hold up what is stored.
    pub(crate) listeners: Publisher<Settlement>,
    /// For dead letters: nor must they.
    pub(crate) graveyard: Publisher<Settlement>,
    /// For what gateways tell each other: neither must hold it up.
    pub(crate) signals: Publisher<Settlement>,
    pub(crate) lanes: TelemetryLanes,
    pub(crate) live: LiveHandle,
    pub(crate) audience: Audience,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) clock: Mutex<SessionClock>,
    /// Since when the steady clock of the sessions runs.
    pub(crate) begun: Instant,
    pub(crate) open: AtomicUsize,
    /// What of [`LAST_WORDS_BYTES`] is free.
    pub(crate) last_words: Arc<Semaphore>,
    /// Whether something of what the roll tells anew found no room since it was last called.
    pub(crate) roll_is_due: AtomicBool,
}

impl Hub {
    /// Lets a client in: it gets a session, and whoever had its client id is taken over, here at
    /// once and on other gateways as soon as they hear of it.
    pub(crate) fn enter(&self, client: &Text, mailbox: Mailbox) -> (ConnectionId, SessionId) {
        let random = Uuid::new_v4().as_u64_pair().1;
        let (connection, session, older) = {
            // The session starts under the lock, so that of two clients with one id the one that
            // enters later has the later session.
            let mut registry = self.registry();
            let session = self.clock().start(self.now(), random);
            let (connection, older) = registry.enter(client, session, mailbox);
            (connection, session, older)
        };
        if let Some(older) = older {
            older.send(Event::TakenOver);
        }
        self.announce(client, session);
        (connection, session)
    }

    /// Asks for every client of this gateway, after announcements of others may have been missed:
    /// who has a newer session of one of them answers, and who has an older one ends it. Commands may
    /// have been missed, too.
    pub(crate) async fn call_the_roll(&self) {
        for agent in self.audience.agents() {
            // Closed only at the end of the process.
            let _ = self.signals.publish(listening(&agent)).await;
        }
        let roll = self.registry().roll();
        for (client, session) in roll {
            // Closed only at the end of the process.
            let _ = self.signals.publish(signal(ROLL, &client, session)).await;
        }
    }

    /// Says that an agent listens for its commands from now on, so that what it has missed is sent to
    /// it. Without room for that it is said when the roll is called.
    pub(crate) fn say_that_it_listens(&self, agent: &str) {
        if self.signals.try_publish(listening(agent)).is_err() {
            self.roll_is_due.store(true, Ordering::Relaxed);
        }
    }

    /// Tells all gateways that a client id has a session. Without room for that the roll is called
    /// later, so that an older connection elsewhere does not stay.
    fn announce(&self, client: &str, session: SessionId) {
        if self.signals.try_publish(signal(TAKEOVER, client, session)).is_err() {
            self.roll_is_due.store(true, Ordering::Relaxed);
        }
    }

    /// Hears that a client has a session somewhere. One that is older than its session here has been
    /// told of that already, and may only be late to say so: an answer to each would be answered in
    /// its turn, where a client moves faster than signals do.
    pub(crate) fn hear_takeover(&self, client: &str, session: SessionId) {
        match self.registry().session_of(client) {
            Some((mailbox, own)) if own < session => mailbox.send(Event::TakenOver),
            _ => {}
        }
    }

    /// Hears a gateway ask for a client that has a session there.
    pub(crate) fn hear_roll(&self, client: &str, session: SessionId) {
        let own = self.registry().session_of(client).map(|(_, own)| own);
        match own {
            Some(own) if own > session => self.announce(client, own),
            _ => self.hear_takeover(client, session),
        }
    }

    pub(crate) fn publisher(&self, way: Way) -> &Publisher<Settlement> {
        match way {
            Way::Storage => &self.storage,
            Way::Listeners => &self.listeners,
            Way::Graveyard => &self.graveyard,
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

    /// This moment, for the clock of the sessions.
    pub(crate) fn now(&self) -> Moment {
        Moment { wall: clock::now(), steady: self.begun.elapsed() }
    }

    /// Whether there are more open connections than are let in.
    pub(crate) fn is_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) > self.connections_max
    }
}

/// Tells all gateways that a client id has a session.
fn signal(topic: &'static str, client: &str, session: SessionId) -> Outgoing<Settlement> {
    own_words(topic, client, session, "{}")
}

fn listening(agent: &str) -> Outgoing<Settlement> {
    report(LISTENING, &Report { agent: agent.into(), id: None })
}

/// Tells the workers something about an agent and its commands.
pub(crate) fn report(topic: &'static str, report: &Report<'_>) -> Outgoing<Settlement> {
    let nobody = SessionId::from_uuid(Uuid::nil());
    own_words(topic, "", nobody, &serde_json::json!(report).to_string())
}

fn own_words(
    topic: &'static str,
    client: &str,
    session: SessionId,
    payload: &str,
) -> Outgoing<Settlement> {
    let mut line = Vec::new();
    let record = Record {
        id: Uuid::now_v7(),
        topic: topic.into(),
        client: client.into(),
        session,
        received: clock::now(),
        qos: 0,
        properties: None,
        payload: Payload::of_json(payload),
    };
    record.encode_line(&mut line);
    let (lane, line) = (Lane::live(&routing_key(topic)), Bytes::from(line));
    Outgoing { lane, id: record.id, line, receipt: Settlement::Own }
}
