//! The pool, for questions: is the database there, and is its schema ours?

use std::sync::Arc;
use std::time::Duration;

use diesel::sql_types::{Integer, Text};
use diesel::{ConnectionError, QueryableByName};
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::FutureExt;
use platziverse_config::DatabaseConfig;
use tokio::time::timeout;
use tokio_postgres::NoTls;

use crate::connection::{
    DEADLINE_MARGIN, WATCH_CLIENT, address, go_on_unwatched, session_settings, target,
};
use crate::error::StoreError;
use crate::migrations::{self, Failure};
use crate::status::{self, DatabaseStatus};

/// The oldest major version of PostgreSQL that is supported.
pub(crate) const SERVER_VERSION_MIN: i32 = 14;

/// A pool of at most `database.pool_size` connections. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    pool: Pool<AsyncPgConnection>,
    address: Arc<str>,
    /// The longest that a question may take, waiting for a connection included.
    deadline: Duration,
}

#[derive(QueryableByName)]
struct ServerVersion {
    #[diesel(sql_type = Integer)]
    number: i32,
    #[diesel(sql_type = Text)]
    text: String,
}

impl Store {
    /// Connects, and checks that the server is new enough. The schema is checked by
    /// [`check_schema`](Self::check_schema).
    pub async fn connect(
        config: &DatabaseConfig,
        application_name: &str,
    ) -> Result<Self, StoreError> {
        let mut first = establish(config, application_name).await?;
        check_version(&mut first, config).await?;
        let (settings, name) = (config.clone(), application_name.to_owned());
        let mut manager = ManagerConfig::<AsyncPgConnection>::default();
        manager.custom_setup =
            Box::new(move |_| establish_pooled(settings.clone(), name.clone()).boxed());
        // The manager hands its URL to the setup, which has the settings already.
        let manager = AsyncDieselConnectionManager::new_with_config(String::new(), manager);
        let pool = Pool::builder(manager).max_size(config.pool_size).build();
        let pool = pool.map_err(|error| StoreError::Pool {
            what: "making the connection pool",
            address: address(config),
            source: error.into(),
        })?;
        let deadline = config.connect_timeout + config.statement_timeout + DEADLINE_MARGIN;
        Ok(Self { pool, address: address(config), deadline })
    }

    /// Whether the database answers.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.ask("asking for a sign of life", async |connection| {
            Ok(connection.batch_execute("SELECT 1").await?)
        })
        .await
    }

    /// Whether the schema has every migration that this program knows.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let all = self.ask("reading the schema's version", migrations::status_of).await?;
        let pending = migrations::names_pending(all);
        if pending.is_empty() {
            return Ok(());
        }
        Err(StoreError::SchemaBehind { address: self.address.clone(), pending })
    }

    /// What an operator wants to know of the database.
    pub async fn status(&self) -> Result<DatabaseStatus, StoreError> {
        self.ask("reading the database's status", status::read).await
    }

    async fn ask<T>(
        &self,
        what: &'static str,
        question: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let asked = async {
            let mut connection: Object<AsyncPgConnection> = self.pool.get().await?;
            question(&mut connection).await
        };
        let address = || self.address.clone();
        match timeout(self.deadline, asked).await {
            Ok(answer) => {
                answer.map_err(|source| StoreError::Pool { what, address: address(), source })
            }
            Err(_) => Err(StoreError::Timeout { what, address: address(), after: self.deadline }),
        }
    }
}

async fn check_version(
    connection: &mut AsyncPgConnection,
    config: &DatabaseConfig,
) -> Result<(), StoreError> {
    let (what, address) = ("asking for the version", address(config));
    let after = config.statement_timeout + DEADLINE_MARGIN;
    let question = diesel::sql_query(
        "SELECT current_setting('server_version_num')::int4 AS number, \
                current_setting('server_version') AS text",
    );
    let version: ServerVersion = match timeout(after, question.get_result(connection)).await {
        Ok(Ok(version)) => version,
        Ok(Err(error)) => {
            return Err(StoreError::Pool { what, address, source: error.into() });
        }
        Err(_) => return Err(StoreError::Timeout { what, address, after }),
    };
    if version.number / 10_000 < SERVER_VERSION_MIN {
        return Err(StoreError::ServerTooOld { address, found: version.text });
    }
    Ok(())
}

/// A connection for Diesel.
pub(crate) async fn establish(
    config: &DatabaseConfig,
    application_name: &str,
) -> Result<AsyncPgConnection, StoreError> {
    let address = address(config);
    let target = target(config, application_name);
    let after = config.connect_timeout;
    let opened = timeout(after, async {
        let (client, connection) = target
            .connect(NoTls)
            .await
            .map_err(|source| StoreError::Connect { address: address.clone(), source })?;
        let prepared = async {
            let mut diesel = AsyncPgConnection::try_from_client_and_connection(client, connection)
                .await
                .map_err(Failure::from)?;
            if let Err(error) = diesel.batch_execute(WATCH_CLIENT).await {
                go_on_unwatched(&error);
            }
            diesel.batch_execute(&session_settings(config.statement_timeout)).await?;
            Ok(diesel)
        };
        let (what, address) = ("preparing a connection", address.clone());
        prepared.await.map_err(|source| StoreError::Pool { what, address, source })
    });
    opened.await.unwrap_or(Err(StoreError::ConnectTimeout { address: address.clone(), after }))
}

async fn establish_pooled(
    config: DatabaseConfig,
    application_name: String,
) -> diesel::ConnectionResult<AsyncPgConnection> {
    let established = establish(&config, &application_name).await;
    established.map_err(|error| ConnectionError::BadConnection(crate::error::chain(&error)))
}
