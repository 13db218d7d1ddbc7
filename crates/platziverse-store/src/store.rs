//! The pool: connections for questions and small statements, shared by a whole process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use platziverse_config::DatabaseConfig;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::{Client, Error};

use crate::connection::{DEADLINE_MARGIN, Link, address, establish};
use crate::error::StoreError;
use crate::migrations;
use crate::status::{self, DatabaseStatus};

/// The oldest major version of PostgreSQL that is supported.
pub(crate) const SERVER_VERSION_MIN: i32 = 14;

/// A pool of at most `database.pool_size` connections. Each is made when it is needed, and made
/// anew when it was lost. Cloning shares the pool.
#[derive(Clone)]
pub struct Store {
    pool: Arc<Pool>,
}

struct Pool {
    config: DatabaseConfig,
    application_name: String,
    /// One for each connection that may be in use.
    permits: Semaphore,
    /// The connections that are not in use.
    idle: Mutex<Vec<Link>>,
}

impl Store {
    /// Connects, and checks that the server is new enough. The schema is checked by
    /// [`check_schema`](Self::check_schema).
    pub async fn connect(
        config: &DatabaseConfig,
        application_name: &str,
    ) -> Result<Self, StoreError> {
        let first = Link::open(config, application_name).await?;
        check_version(&first).await?;
        let pool = Pool {
            config: config.clone(),
            application_name: application_name.to_owned(),
            permits: Semaphore::new(config.pool_size),
            idle: Mutex::new(vec![first]),
        };
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Whether the database answers.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.run("asking for a sign of life", async |client| client.batch_execute("SELECT 1").await)
            .await
    }

    /// Whether the schema has every migration that this program knows.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let config = &self.pool.config;
        let pending = migrations::pending(config).await?;
        if pending.is_empty() {
            return Ok(());
        }
        Err(StoreError::SchemaBehind { address: address(config), pending })
    }

    /// What an operator wants to know of the database. Asked on a connection of its own.
    pub async fn status(&self) -> Result<DatabaseStatus, StoreError> {
        let Pool { config, application_name, .. } = &*self.pool;
        let mut connection = establish(config, application_name).await?;
        let after = config.statement_timeout + DEADLINE_MARGIN;
        let (what, address) = ("reading the database's status", address(config));
        match timeout(after, status::read(&mut connection)).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(source)) => Err(StoreError::Diesel { what, address, source }),
            Err(_) => Err(StoreError::Timeout { what, address, after }),
        }
    }

    /// Runs a statement on a connection of the pool, once one is free. Takes at most the connect
    /// timeout, twice the statement timeout and 10 s.
    pub(crate) async fn run<T>(
        &self,
        what: &'static str,
        statement: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        let _permit = self.pool.permit(what).await?;
        let link = self.pool.link().await?;
        let result = link.within(what, statement(&link.client)).await;
        match &result {
            Err(StoreError::Timeout { .. }) => link.kill(),
            // PostgreSQL may have said that it ends this connection, and not ended it yet.
            Err(error) if error.is_transient() => drop(link),
            _ => self.pool.idle().push(link),
        }
        result
    }

    /// Runs statements as one transaction, which is rolled back if one fails. Each sees what was
    /// committed before it, as PostgreSQL's `READ COMMITTED` has it. Takes as long as
    /// [`run`](Self::run).
    pub(crate) async fn transaction<T>(
        &self,
        what: &'static str,
        statements: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        let transaction = self.run(what, async |client| {
            client.batch_execute("BEGIN").await?;
            let result = statements(client).await;
            client.batch_execute(if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
            result
        });
        transaction.await
    }

    /// That there was no answer in time.
    pub(crate) fn late(&self, what: &'static str, after: Duration) -> StoreError {
        StoreError::Timeout { what, address: address(&self.pool.config), after }
    }
}

impl Pool {
    /// The right to use a connection.
    async fn permit(&self, what: &'static str) -> Result<SemaphorePermit<'_>, StoreError> {
        let after = self.config.statement_timeout + DEADLINE_MARGIN;
        match timeout(after, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed: it is late.
            Ok(Err(_)) | Err(_) => {
                Err(StoreError::Timeout { what, address: address(&self.config), after })
            }
        }
    }

    /// Taken out, so that a future dropped half-way leaves no connection in doubt behind.
    async fn link(&self) -> Result<Link, StoreError> {
        let found = {
            let mut idle = self.idle();
            idle.retain(|link| !link.client.is_closed());
            idle.pop()
        };
        match found {
            Some(link) => Ok(link),
            None => Link::open(&self.config, &self.application_name).await,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn check_version(link: &Link) -> Result<(), StoreError> {
    let question = "SELECT current_setting('server_version_num')::int4, \
                           current_setting('server_version')";
    let asked = link.client.query_typed_one(question, &[]);
    let row = link.within("asking for the version", asked).await?;
    let number: i32 = row.get(0);
    if number / 10_000 < SERVER_VERSION_MIN {
        return Err(StoreError::ServerTooOld { address: link.address.clone(), found: row.get(1) });
    }
    Ok(())
}
