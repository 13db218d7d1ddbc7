//! One worker at a time looks after what no gateway can: the agents of gateways that died, and
//! the partitions of the table `metrics`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use platziverse_broker::{
    BrokerError, Context, Lane, LiveMessages, LiveOptions, LiveQueue, Outcome, Publisher,
    PublisherOptions, UnsentReason, heartbeat,
};
use platziverse_protocol::event::disconnected_payload;
use platziverse_protocol::heartbeat::Heartbeat;
use platziverse_protocol::record::{Payload, Record};
use platziverse_protocol::time::Timestamp;
use platziverse_protocol::topic::{AGENT_DISCONNECTED, routing_key};
use platziverse_service::{Service, chain, clock};
use platziverse_store::StoreError;
use platziverse_store::partitions::{self, Policy};
use platziverse_store::sweep::{ENDED_MAX, Ended, Leader};
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior};
use uuid::Uuid;

use crate::books::WorkerMetrics;
use crate::leases::Leases;

/// How often leases are looked at, and the lock is tried for. With a lease of 10 s, a dead gateway's
/// agents are marked within 13 s of its last heartbeat.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// How long RabbitMQ may take for the announcements of one sweep. PostgreSQL ends a transaction that
/// waits for 5 s.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often partitions are looked after.
const MAINTAIN_EVERY: Duration = Duration::from_secs(3600);

struct Sweeper {
    service: Service,
    metrics: Arc<WorkerMetrics>,
    publisher: Publisher<oneshot::Sender<Outcome>>,
}

/// Starts the task that becomes the sweeper when no other worker is.
pub(crate) async fn start(
    service: &Service,
    context: &Context,
    metrics: &Arc<WorkerMetrics>,
) -> Result<(), BrokerError> {
    let options = PublisherOptions {
        role: "sweeper",
        batch_records: 256,
        batch_bytes: 128 * 1024,
        window: 4,
        buffer_bytes: 16 * 1024 * 1024,
    };
    let publisher = Publisher::start(context, options).await?;
    let (service, metrics) = (service.clone(), Arc::clone(metrics));
    let drain = service.drain.clone();
    let own = service.instance.to_string();
    let (handle, messages) = LiveQueue::start(context, LiveOptions::heartbeat(&own)).await?;
    let sweeper = Sweeper { service, metrics, publisher };
    drain.spawn("sweeper", async move {
        sweeper.run(messages).await;
        // The queue lives as long as its handle.
        drop(handle);
    });
    Ok(())
}

impl Sweeper {
    /// Listens all the time, so that it can take over at once, and sweeps while it holds the lock.
    async fn run(self, mut messages: LiveMessages) {
        let drain = self.service.drain.clone();
        let begun = Instant::now();
        // Leases are measured by a clock that nobody sets.
        let now = || Timestamp::EPOCH.plus_millis(millis(begun.elapsed()));
        let mut leases = Leases::new(self.service.instance.to_string(), now());
        let mut tick = every(SWEEP_EVERY);
        let mut leader = None;
        loop {
            tokio::select! {
                heard = hear(&mut messages) => match heard {
                    Some(instance) => leases.hear(&instance, now()),
                    None => return,
                },
                _ = tick.tick() => {
                    self.beat();
                    leader = self.lead(leader).await;
                    if let (Some(held), Some(alive)) = (&leader, leases.alive(now()))
                        && let Err(error) = self.sweep(held, &alive).await
                    {
                        tracing::warn!("sweeping stops: {}", chain(&error));
                        leader = None;
                    }
                }
                () = drain.requested() => return,
            }
        }
    }

    /// Keeps the lock, or tries to get it.
    async fn lead(&self, leader: Option<Leader>) -> Option<Leader> {
        if let Some(leader) = leader.filter(|leader| !leader.is_lost()) {
            return Some(leader);
        }
        let database = &self.service.settings.database;
        match Leader::acquire(database, &self.service.connection_name()).await {
            Ok(Some(leader)) => {
                tracing::info!("this worker looks after the gateways' leases");
                Some(leader)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::debug!("the lock of the sweep cannot be had: {}", chain(&error));
                None
            }
        }
    }

    /// Sends a heartbeat of this listener's own, to know whether it hears.
    fn beat(&self) {
        let beat = Heartbeat {
            instance: self.service.instance.to_string(),
            service: self.service.name.to_owned(),
            time: clock::now(),
        };
        // Full or closed means that RabbitMQ is away: then nothing is heard, and nobody is ended.
        let _ = self.publisher.try_publish(heartbeat::outgoing(&beat, oneshot::channel().0));
    }

    async fn sweep(&self, leader: &Leader, alive: &[String]) -> Result<(), SweepError> {
        loop {
            let ending = leader.end_gateways_except(alive, clock::now()).await?;
            // Everyone who listens is told first.
            let lines = ending.agents().iter().map(announcement).collect();
            let announced = self.publisher.publish_all(lines);
            let told = tokio::time::timeout(ANNOUNCE_TIMEOUT, announced).await;
            told.map_err(|_| SweepError::Late)??;
            let ended = ending.commit().await?.len();
            if ended > 0 {
                tracing::warn!(agents = ended, "agents of silent gateways are disconnected");
                self.metrics.swept.inc_by(ended as u64);
            }
            if ended < ENDED_MAX {
                return Ok(());
            }
        }
    }
}

/// Why a sweep is given up; the next one begins anew.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("announcing the ends of sessions")]
    Announce(#[from] UnsentReason),
    #[error("RabbitMQ did not confirm the announcements within {ANNOUNCE_TIMEOUT:?}")]
    Late,
}

/// Looks after the partitions from time to time.
pub(crate) async fn upkeep(service: Service) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(MAINTAIN_EVERY) => maintain(&service).await,
            () = service.drain.requested() => return,
        }
    }
}

/// Makes the partitions of the days to come, and drops those that are too old.
pub(crate) async fn maintain(service: &Service) {
    let settings = &service.settings;
    let policy = Policy {
        ahead_days: settings.ingest.partitions_ahead_days,
        retention_days: settings.ingest.retention_days,
    };
    let name = service.connection_name();
    match partitions::maintain(&settings.database, &name, clock::now(), policy).await {
        Ok(Some(done)) => tracing::info!(
            made = done.made.len(),
            dropped = done.dropped.len(),
            moved = done.moved,
            deleted = done.deleted,
            "the partitions of metrics are in order"
        ),
        Ok(None) => tracing::debug!("another worker looks after the partitions"),
        Err(error) => tracing::error!("partitions could not be looked after: {}", chain(&error)),
    }
}

/// `agent/disconnected` for everyone who listens. The row is ended here, so it is not sent through
/// the ingest queue.
fn announcement(agent: &Ended) -> (Lane, Uuid, Bytes) {
    let payload = disconnected_payload(&agent.uuid, agent.session);
    let record = Record {
        id: Uuid::now_v7(),
        topic: AGENT_DISCONNECTED.into(),
        client: "".into(),
        session: agent.session,
        received: clock::now(),
        qos: 1,
        properties: None,
        payload: Payload::of_json(&payload),
    };
    let mut line = Vec::new();
    record.encode_line(&mut line);
    (Lane::live(&routing_key(AGENT_DISCONNECTED)), record.id, Bytes::from(line))
}

/// The next heartbeat's sender; what is no heartbeat is passed over.
async fn hear(messages: &mut LiveMessages) -> Option<String> {
    loop {
        let message = messages.next().await?;
        match heartbeat::read(&message) {
            Ok(beat) => return Some(beat.instance),
            Err(error) => tracing::warn!("something that is no heartbeat was heard: {error}"),
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
