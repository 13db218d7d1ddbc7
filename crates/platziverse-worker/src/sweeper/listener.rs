//! Who is heard. It beats as well, to know whether it hears at all, and never waits for PostgreSQL.

use std::time::{Duration, Instant};

use platziverse_broker::{LiveHandle, LiveMessages, Message, Publisher, heartbeat};
use platziverse_protocol::heartbeat::Heartbeat;
use platziverse_protocol::time::Timestamp;
use platziverse_service::{Service, clock};
use tokio::sync::{mpsc, oneshot};

use super::{Answered, every};
use crate::leases::Leases;

/// How often it beats.
const BEAT_EVERY: Duration = Duration::from_secs(2);

/// Asks who is alive: the instances that hold their lease, or none if that is not known.
#[derive(Clone)]
pub(super) struct Ear(mpsc::Sender<oneshot::Sender<Option<Vec<String>>>>);

impl Ear {
    /// The answer takes in every heartbeat that is here by now.
    pub(super) async fn alive(&self) -> Option<Vec<String>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()?
    }
}

/// Hears heartbeats and answers [`Ear`]s.
pub(super) struct Listener {
    service: Service,
    publisher: Publisher<Answered>,
    questions: mpsc::Receiver<oneshot::Sender<Option<Vec<String>>>>,
    queue: LiveHandle,
    /// Leases are measured from here, by a clock that nobody sets.
    begun: Instant,
    leases: Leases,
}

impl Listener {
    /// `queue` is where the messages come from.
    pub(super) fn new(
        service: Service,
        publisher: Publisher<Answered>,
        queue: LiveHandle,
    ) -> (Self, Ear) {
        let (ask, questions) = mpsc::channel(1);
        let leases = Leases::new(service.instance.to_string(), Timestamp::EPOCH);
        let begun = Instant::now();
        (Self { service, publisher, questions, queue, begun, leases }, Ear(ask))
    }

    /// Until the process is to end.
    pub(super) async fn run(mut self, mut messages: LiveMessages) {
        let mut tick = every(BEAT_EVERY);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.hear(&message),
                    None => return,
                },
                _ = tick.tick() => self.beat(),
                Some(answer) = self.questions.recv() => {
                    while let Some(message) = messages.try_next() {
                        self.hear(&message);
                    }
                    let alive = self.leases.alive(self.connected_since(), self.now());
                    // Whoever stopped waiting needs no answer.
                    let _ = answer.send(alive);
                }
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// Since when it has been connected, at the earliest since it began.
    fn connected_since(&self) -> Option<Timestamp> {
        self.queue.listening_since().map(|since| self.at(since.into_std()))
    }

    fn at(&self, time: Instant) -> Timestamp {
        let since = time.saturating_duration_since(self.begun);
        Timestamp::EPOCH.plus_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn hear(&mut self, message: &Message) {
        match heartbeat::read(message) {
            Ok(beat) => self.leases.hear(&beat.instance, self.now()),
            Err(error) => tracing::warn!("something that is no heartbeat was heard: {error}"),
        }
    }

    /// Sends a heartbeat of this listener's own.
    fn beat(&self) {
        let beat = Heartbeat {
            instance: self.service.instance.to_string(),
            service: self.service.name.to_owned(),
            time: clock::now(),
        };
        // Full or closed means that RabbitMQ is away: then nothing is heard, and nobody is ended.
        let _ = self.publisher.try_publish(heartbeat::outgoing(&beat, oneshot::channel().0));
    }
}
