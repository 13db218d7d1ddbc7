//! Deliveries to transactions: while one commits, deliveries gather; the next takes them all.
//! A delivery is acknowledged only when each of its records is stored or kept as a dead letter.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use platziverse_broker::{
    BrokerError, Consumer, ConsumerOptions, Context, Deliveries, Delivery, Lane, Outcome, Publisher,
};
use platziverse_config::IngestConfig;
use platziverse_protocol::dead::Reason;
use platziverse_protocol::event::AgentEvent;
use platziverse_service::Service;
use platziverse_store::{Sighting, writer};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::books::{RecordFate, WorkerMetrics};
use crate::judge::{self, Rejection, Verdict};
use crate::letters::{self, GivenUp};
use crate::patience::Abandoned;
use crate::storing::Storing;

/// How often the database is looked at while nothing is to be stored.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// One writer: a consumer and a database connection of its own.
pub(crate) struct Writer {
    settings: IngestConfig,
    storing: Storing,
    publisher: Publisher<oneshot::Sender<Outcome>>,
    metrics: Arc<WorkerMetrics>,
}

impl Writer {
    pub(crate) fn new(
        service: &Service,
        publisher: &Publisher<oneshot::Sender<Outcome>>,
        metrics: &Arc<WorkerMetrics>,
        name: &str,
    ) -> Self {
        let database = &service.settings.database;
        Self {
            settings: service.settings.ingest.clone(),
            storing: Storing {
                writer: writer::Writer::new(database, &service.connection_name()),
                latch: service.readiness.latch(format!("postgresql, {name}")),
                drain: service.drain.clone(),
            },
            publisher: publisher.clone(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Starts to consume `queue`.
    pub(crate) async fn start(self, context: &Context, queue: &str) -> Result<(), BrokerError> {
        let options = ConsumerOptions {
            role: "ingest",
            queue: queue.to_owned(),
            prefetch: self.settings.prefetch,
        };
        let deliveries = Consumer::start(context, options).await?;
        let drain = self.storing.drain.clone();
        drain.spawn("writer", self.run(deliveries));
        Ok(())
    }

    async fn run(mut self, mut deliveries: Deliveries) {
        let mut idle = interval(CHECK_EVERY);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                biased;
                first = deliveries.next() => first,
                _ = idle.tick() => {
                    self.storing.check().await;
                    continue;
                }
            };
            let Some(first) = first else { return };
            let batch = gather(first, &mut deliveries, self.settings.batch_rows);
            if self.settle(&batch).await.is_err() {
                break;
            }
            idle.reset();
        }
        if !self.storing.drain.is_requested() {
            tracing::error!("a writer gave up although nobody asked it to: the process ends");
            self.storing.drain.force();
        }
    }

    /// Stores a batch, sets apart what cannot be stored, and acknowledges.
    async fn settle(&mut self, batch: &Batch) -> Result<(), Abandoned> {
        let (deliveries, records) = (&batch.deliveries, batch.records);
        let books = self.metrics.records.clone();
        books.enter(records);
        match self.store(deliveries).await {
            Ok(stored) => {
                books.settle(RecordFate::Stored, stored.stored);
                books.settle(RecordFate::Duplicate, stored.duplicate);
                books.settle(RecordFate::DeadLettered, stored.dead);
                self.metrics.rows.inc_by(stored.rows);
                if let Some(last) = deliveries.last() {
                    last.ack_multiple().await;
                }
                Ok(())
            }
            Err(Abandoned) => {
                books.settle(RecordFate::Requeued, records);
                Err(Abandoned)
            }
        }
    }

    async fn store(&mut self, batch: &[Delivery]) -> Result<Tally, Abandoned> {
        let decoded: Vec<_> = batch
            .iter()
            .map(|delivery| (judge::gateway_of(delivery.app_id()), judge::decode(&delivery.body)))
            .collect();
        let (mut sightings, mut lines, mut rejections) = (Vec::new(), Vec::new(), Vec::new());
        for ((gateway, records), delivery) in decoded.iter().zip(batch) {
            for (line, record) in records {
                match judge::judge(line, record, gateway) {
                    Verdict::Store(sighting) => {
                        sightings.push(sighting);
                        lines.push((*line, delivery));
                    }
                    Verdict::Reject(rejection) => rejections.push((rejection, delivery)),
                }
            }
        }
        let mut tally = Tally::default();
        let mut begin = 0;
        for chunk in chunks(&sightings, self.settings.batch_rows) {
            let stored = self.storing.store(chunk, &self.metrics).await?;
            tally.stored += stored.written.stored;
            tally.duplicate += stored.written.duplicate;
            tally.rows += stored.written.rows;
            for (place, error) in stored.refused {
                let (line, delivery) = lines[begin + place];
                let (id, reason) = (Some(chunk[place].id), Reason::DatabaseRefused);
                rejections.push((Rejection { line, id, reason, error }, delivery));
            }
            begin += chunk.len();
        }
        tally.dead = rejections.len() as u64;
        self.bury(&rejections).await?;
        Ok(tally)
    }

    /// Sends dead letters, and waits until RabbitMQ has them.
    async fn bury(&self, rejections: &[(Rejection<'_>, &Delivery)]) -> Result<(), Abandoned> {
        let letters = rejections.iter().map(|(one, delivery)| letter(one, delivery)).collect();
        self.publisher.publish_all(letters).await.map_err(|_| Abandoned)
    }
}

/// A rejected record as a dead letter.
fn letter(rejection: &Rejection<'_>, delivery: &Delivery) -> (Lane, Uuid, Bytes) {
    letters::letter(&GivenUp {
        line: rejection.line,
        id: rejection.id,
        reason: rejection.reason,
        error: &rejection.error,
        exchange: &delivery.exchange,
        key: &delivery.routing_key,
        app_id: delivery.app_id(),
    })
}

/// Deliveries that are stored together.
struct Batch {
    deliveries: Vec<Delivery>,
    records: u64,
}

#[derive(Debug, Default)]
struct Tally {
    stored: u64,
    duplicate: u64,
    dead: u64,
    rows: u64,
}

/// How many lines a delivery has. The header is not asked: it may be missing or wrong.
fn count(delivery: &Delivery) -> u64 {
    platziverse_protocol::record::lines(&delivery.body).count() as u64
}

/// The deliveries that are here already, up to `rows_max` records.
fn gather(first: Delivery, deliveries: &mut Deliveries, rows_max: usize) -> Batch {
    let mut batch = Batch { records: count(&first), deliveries: vec![first] };
    while batch.records < rows_max as u64 {
        let Some(delivery) = deliveries.try_next() else { break };
        batch.records += count(&delivery);
        batch.deliveries.push(delivery);
    }
    batch
}

/// Consecutive parts of at most `rows_max` metrics each, or of one sighting that has more.
fn chunks<'s, 'a>(sightings: &'s [Sighting<'a>], rows_max: usize) -> Vec<&'s [Sighting<'a>]> {
    let (mut parts, mut begin, mut rows) = (Vec::new(), 0, 0);
    for (index, sighting) in sightings.iter().enumerate() {
        let more = 1 + match &sighting.event {
            AgentEvent::Message(message) => message.metrics.len(),
            AgentEvent::Connected(_) | AgentEvent::Disconnected(_) => 0,
        };
        if rows + more > rows_max && index > begin {
            parts.push(&sightings[begin..index]);
            (begin, rows) = (index, 0);
        }
        rows += more;
    }
    if begin < sightings.len() {
        parts.push(&sightings[begin..]);
    }
    parts
}
