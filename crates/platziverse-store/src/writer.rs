//! The batch writer: one transaction for everything that a worker has gathered.
//!
//! Agents are raised by one upsert, metrics are added by one COPY, or, when that meets a duplicate,
//! by one INSERT that skips duplicates. Agents come last if their ids are known already: their
//! rows are locked from then until the commit, and other writers want the same rows.

use std::future::Future;

use futures_util::future::{join, try_join, try_join5};
use platziverse_config::DatabaseConfig;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row, Statement};

use crate::agents::{self, AgentIds, AgentRow};
use crate::connection::{DEADLINE_MARGIN, Link};
use crate::error::{StoreError, is_partition_bound};
use crate::metrics::{self, Inserted, Measured};
use crate::sighting::{Sighting, Written};

/// A connection that stores batches, one at a time. It connects again by itself.
pub struct Writer {
    config: DatabaseConfig,
    application_name: String,
    session: Option<Session>,
    ids: AgentIds,
}

impl Writer {
    /// Connects and prepares. `application_name` is what `pg_stat_activity` shows.
    pub async fn connect(
        config: &DatabaseConfig,
        application_name: &str,
    ) -> Result<Self, StoreError> {
        let session = Session::open(config, application_name).await?;
        Ok(Self {
            config: config.clone(),
            application_name: application_name.to_owned(),
            session: Some(session),
            ids: AgentIds::default(),
        })
    }

    /// Whether the next [`write`](Self::write) has to connect first.
    pub fn is_broken(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.link.client.is_closed())
    }

    /// Stores all of them or none. Storing one again, at any time and by any writer, changes
    /// nothing.
    ///
    /// After an error the writer is usable: it has rolled back, or it will connect again. An error
    /// that [is transient](StoreError::is_transient) says nothing against the sightings; whether
    /// the transaction was committed may be unknown, so the same sightings must be written again.
    /// Takes at most twice the connect timeout, the statement timeout and 10 s. Dropping the
    /// future gives the transaction up.
    pub async fn write(&mut self, sightings: &[Sighting<'_>]) -> Result<Written, StoreError> {
        if sightings.is_empty() {
            return Ok(Written::default());
        }
        // Taken out, so that a future dropped half-way leaves no half-done transaction behind.
        let session = match self.session.take().filter(|s| !s.link.client.is_closed()) {
            Some(session) => session,
            None => Session::open(&self.config, &self.application_name).await?,
        };
        let after = session.link.deadline;
        let written = timeout(after, session.write(sightings, &mut self.ids)).await;
        let Ok(result) = written else {
            let error = session.link.late(STORING, after);
            session.link.kill();
            self.ids.forget();
            return Err(error);
        };
        if result.is_err() {
            self.ids.forget();
        }
        if result.is_ok() || session.rollback().await.is_ok() {
            self.session = Some(session);
        }
        result
    }
}

const STORING: &str = "storing a batch";

/// What a batch comes down to.
struct Batch<'a> {
    sightings: u64,
    agents: Vec<AgentRow<'a>>,
    /// Sightings that bring metrics, before any were left out of `messages`.
    measured: u64,
    messages: Vec<Measured<'a>>,
}

impl<'a> Batch<'a> {
    fn of(sightings: &'a [Sighting<'a>]) -> Self {
        Self {
            sightings: sightings.len() as u64,
            agents: agents::reduce(sightings),
            measured: metrics::count(sightings),
            messages: metrics::measured(sightings),
        }
    }

    fn written(&self, inserted: &Inserted) -> Written {
        let duplicate = self.measured.saturating_sub(inserted.messages);
        Written { stored: self.sightings - duplicate, duplicate, rows: inserted.rows }
    }
}

/// How metrics are added.
#[derive(Clone, Copy)]
enum Adding {
    /// Fast, and fails as a whole on a duplicate.
    Copy,
    SkippingDuplicates,
}

/// Tries for one batch: it may meet a duplicate, a deleted agent, and several new partitions.
const TRIES: usize = 8;

/// A connection with everything prepared.
struct Session {
    link: Link,
    upsert: Statement,
    copy: Statement,
    insert: Statement,
    lock_ids: Statement,
    stored_ids: Statement,
}

impl Session {
    async fn open(config: &DatabaseConfig, application_name: &str) -> Result<Self, StoreError> {
        let link = Link::open(config, application_name).await?;
        let settings = link.client.batch_execute(metrics::PROBES_ONLY);
        link.within("preparing to store", settings).await?;
        let prepared = try_join5(
            link.client.prepare(agents::UPSERT),
            link.client.prepare(metrics::COPY),
            link.client.prepare(metrics::INSERT),
            link.client.prepare(metrics::LOCK_IDS),
            link.client.prepare(metrics::STORED_IDS),
        );
        let (upsert, copy, insert, lock_ids, stored_ids) =
            link.within_time("preparing to store", config.connect_timeout, prepared).await?;
        Ok(Self { link, upsert, copy, insert, lock_ids, stored_ids })
    }

    /// Leaves its transaction open if it fails.
    async fn write(
        &self,
        sightings: &[Sighting<'_>],
        ids: &mut AgentIds,
    ) -> Result<Written, StoreError> {
        let failed = |error| self.link.failed(STORING, error);
        let mut batch = Batch::of(sightings);
        let mut adding = Adding::Copy;
        for _ in 0..TRIES {
            match self.attempt(&mut batch, ids, adding).await {
                Ok(Some(inserted)) => return Ok(batch.written(&inserted)),
                Ok(None) => {}
                Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                    adding = Adding::SkippingDuplicates;
                }
                Err(error) if is_partition_bound(&error) => {}
                Err(error) => return Err(failed(error)),
            }
            ids.forget();
            self.rollback().await?;
        }
        Err(StoreError::Unsettled { address: self.link.address.clone() })
    }

    /// One transaction. Answers nothing, and leaves it open, if an agent's id turned out wrong.
    async fn attempt(
        &self,
        batch: &mut Batch<'_>,
        ids: &mut AgentIds,
        adding: Adding,
    ) -> Result<Option<Inserted>, Error> {
        let mut transaction = Transaction { client: &self.link.client, begun: false };
        self.leave_out_stored(&mut transaction, &mut batch.messages).await?;
        let known = !batch.messages.is_empty() && ids.knows_all(&batch.agents);
        if !known {
            let rows = transaction.run(self.upsert(&batch.agents)).await?;
            ids.remember(&rows);
        }
        if !metrics::assign(&mut batch.messages, |uuid| ids.get(uuid)) {
            return Ok(None);
        }
        let inserted = self.add(&mut transaction, &batch.messages, adding).await?;
        if known {
            let rows = transaction.run(self.upsert(&batch.agents)).await?;
            if !ids.confirmed_by(&rows) {
                return Ok(None);
            }
        }
        transaction.commit().await?;
        Ok(Some(inserted))
    }

    fn upsert(&self, rows: &[AgentRow<'_>]) -> impl Future<Output = Result<Vec<Row>, Error>> {
        agents::upsert(&self.link.client, &self.upsert, rows)
    }

    /// The primary key cannot tell an untimed message that is sent again from another one, so
    /// their ids are looked up, with other writers kept out.
    async fn leave_out_stored(
        &self,
        transaction: &mut Transaction<'_>,
        messages: &mut Vec<Measured<'_>>,
    ) -> Result<(), Error> {
        let ids = metrics::untimed_ids(messages);
        if ids.is_empty() {
            return Ok(());
        }
        let client = &self.link.client;
        // Two statements: the second must see what was committed while the first waited.
        let lock = metrics::lock_ids(client, &self.lock_ids, &ids);
        let look = metrics::stored_ids(client, &self.stored_ids, &ids);
        let (_, stored) = transaction.run(try_join(lock, look)).await?;
        metrics::leave_out(messages, &stored);
        Ok(())
    }

    async fn add(
        &self,
        transaction: &mut Transaction<'_>,
        messages: &[Measured<'_>],
        adding: Adding,
    ) -> Result<Inserted, Error> {
        let client = &self.link.client;
        if messages.is_empty() {
            return Ok(Inserted { rows: 0, messages: 0 });
        }
        match adding {
            Adding::Copy => {
                let sink = transaction.run(client.copy_in(&self.copy)).await?;
                let rows = metrics::copy(sink, messages).await?;
                Ok(Inserted { rows, messages: messages.len() as u64 })
            }
            Adding::SkippingDuplicates => {
                transaction.run(metrics::insert(client, &self.insert, messages)).await
            }
        }
    }

    async fn rollback(&self) -> Result<(), StoreError> {
        let rollback = self.link.client.batch_execute("ROLLBACK");
        self.link.within_time("rolling back", DEADLINE_MARGIN, rollback).await
    }
}

/// Begins with its first statement, in the same round trip.
struct Transaction<'a> {
    client: &'a Client,
    begun: bool,
}

impl Transaction<'_> {
    async fn run<T>(
        &mut self,
        statement: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if self.begun {
            return statement.await;
        }
        self.begun = true;
        // `join` polls, thus sends, in this order.
        let (begun, result) = join(self.client.batch_execute("BEGIN"), statement).await;
        begun?;
        result
    }

    async fn commit(self) -> Result<(), Error> {
        self.client.batch_execute("COMMIT").await
    }
}
