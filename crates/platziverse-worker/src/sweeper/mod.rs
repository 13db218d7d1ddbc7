//! One worker at a time looks after what no gateway can: the agents of gateways that died. It also
//! ends what frozen workers hold in the database.

mod frozen;
mod listener;
mod seat;

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use platziverse_broker::{
    BrokerError, Context, Lane, LiveOptions, LiveQueue, Outcome, Publisher, PublisherOptions,
    UnsentReason,
};
use platziverse_protocol::event::disconnected_payload;
use platziverse_protocol::record::{Payload, Record};
use platziverse_protocol::topic::{AGENT_DISCONNECTED, routing_key};
use platziverse_service::{Service, chain, clock};
use platziverse_store::StoreError;
use platziverse_store::sweep::{Candidate, Election, LOST_MAX, Leader, Lost};
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, timeout};
use uuid::Uuid;

use self::frozen::FrozenWatch;
use self::listener::{Ear, Listener};
use self::seat::Seat;
use crate::books::WorkerMetrics;

/// How often leases are looked at, and the lock is tried for. With a lease of 10 s, a dead gateway's
/// agents are marked within 13 s of its last heartbeat.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// How long RabbitMQ may take for the announcements of one look. PostgreSQL takes the lock from a
/// leader that asks nothing for 10 s.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest and the longest wait after a failure, without jitter.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);

type Answered = oneshot::Sender<Outcome>;

struct Sweeper {
    service: Service,
    metrics: Arc<WorkerMetrics>,
    publisher: Publisher<Answered>,
    ear: Ear,
    frozen: FrozenWatch,
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
        window: 16,
        buffer_bytes: 16 * 1024 * 1024,
    };
    let publisher = Publisher::start(context, options).await?;
    let (service, metrics) = (service.clone(), Arc::clone(metrics));
    let drain = service.drain.clone();
    let own = service.instance.to_string();
    let (queue, messages) = LiveQueue::start(context, LiveOptions::heartbeat(&own)).await?;
    let (listener, ear) = Listener::new(service.clone(), publisher.clone(), queue);
    let frozen = FrozenWatch::default();
    let sweeper = Sweeper { service, metrics, publisher, ear, frozen };
    drain.spawn("sweeper", async move {
        // What is cut short when the process ends, the next sweeper does.
        tokio::select! {
            () = listener.run(messages) => {}
            () = sweeper.run() => {}
        }
    });
    Ok(())
}

impl Sweeper {
    /// Tries to be the one who sweeps, and sweeps, while it hears.
    async fn run(mut self) {
        let mut tick = every(SWEEP_EVERY);
        let mut seat = Seat::Away;
        let mut trouble = Trouble::default();
        loop {
            tick.tick().await;
            let alive = self.ear.alive().await;
            if alive.is_none() && seat.leads() {
                tracing::warn!("heartbeats do not come back: another worker may look after leases");
            }
            seat = seat.kept_if(alive.is_some());
            if let Some(alive) = alive {
                match self.look(seat, &alive).await {
                    Ok(looked) => {
                        seat = looked.seat;
                        trouble = Trouble::default();
                        if looked.is_unfinished {
                            tick.reset_immediately();
                        }
                    }
                    Err(error) => {
                        seat = Seat::Away;
                        tick.reset_after(trouble.delay_after(&error));
                    }
                }
            }
            self.metrics.sweep_leader.set(i64::from(seat.leads()));
        }
    }

    /// One look at the leases from wherever this worker stands. Who has just become the leader
    /// looks again at once: what it knew of the gateways may be old.
    async fn look(&mut self, seat: Seat, alive: &[String]) -> Result<Looked, SweepError> {
        let candidate = match seat {
            Seat::Leading(leader) => {
                // Before the sweep, which may have to wait for what they hold.
                self.frozen.look(&leader).await?;
                let is_unfinished = self.sweep(&leader, alive).await?;
                return Ok(Looked { seat: Seat::Leading(leader), is_unfinished });
            }
            Seat::Standing(candidate) => candidate,
            Seat::Away => {
                let name = self.service.connection_name();
                Candidate::connect(&self.service.settings.database, &name).await?
            }
        };
        Ok(match candidate.stand().await? {
            Election::Won(leader) => {
                tracing::info!("this worker looks after the gateways' leases");
                Looked { seat: Seat::Leading(leader), is_unfinished: true }
            }
            Election::Lost(candidate) => {
                Looked { seat: Seat::Standing(candidate), is_unfinished: false }
            }
        })
    }

    /// Ends a part of the agents whose gateways are not `alive`, and says whether there may be
    /// more. Everyone who listens is told first: whoever dies in between has told twice, not never.
    async fn sweep(&self, leader: &Leader, alive: &[String]) -> Result<bool, SweepError> {
        let mut lost = leader.lost(alive).await?;
        if lost.is_empty() {
            return Ok(false);
        }
        let may_be_more = lost.len() == LOST_MAX;
        // A gateway may have come, with agents, while PostgreSQL was answering.
        let Some(alive) = self.ear.alive().await else { return Ok(false) };
        lost.retain(|one| !alive.contains(&one.gateway));
        let announced = self.publisher.publish_all(lost.iter().map(announcement).collect());
        timeout(ANNOUNCE_TIMEOUT, announced).await.map_err(|_| SweepError::Late)??;
        let ended = leader.end(&lost).await?;
        if ended > 0 {
            tracing::warn!(agents = ended, "agents of silent gateways are disconnected");
            self.metrics.swept.inc_by(ended);
        }
        Ok(may_be_more && ended > 0)
    }
}

/// What came of a look.
struct Looked {
    seat: Seat,
    /// Whether the next look should follow at once.
    is_unfinished: bool,
}

/// Why a look is given up; the next one begins anew.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("announcing the ends of sessions")]
    Announce(#[from] UnsentReason),
    #[error("RabbitMQ did not confirm the announcements within {ANNOUNCE_TIMEOUT:?}")]
    Late,
}

/// Failures in a row.
#[derive(Default)]
struct Trouble(Option<ExponentialBackoff>);

impl Trouble {
    /// Tells of a failure, of the first one loudly, and answers how long to wait after it.
    fn delay_after(&mut self, error: &SweepError) -> Duration {
        let text = chain(error);
        if self.0.is_none() {
            tracing::warn!("the gateways' leases cannot be looked after: {text}");
        } else {
            tracing::debug!("the gateways' leases still cannot be looked after: {text}");
        }
        let delays = self.0.get_or_insert_with(|| {
            let delays = ExponentialBuilder::default().with_jitter().without_max_times();
            delays.with_min_delay(RETRY_MIN).with_max_delay(RETRY_MAX).build()
        });
        delays.next().unwrap_or(RETRY_MAX)
    }
}

/// `agent/disconnected` for everyone who listens. The row is ended here, so it is not sent through
/// the ingest queue.
fn announcement(agent: &Lost) -> (Lane, Uuid, Bytes) {
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

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
