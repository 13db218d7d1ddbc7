//! How every connection is made: by one deadline, with a name, a statement timeout and TCP
//! keep-alives.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::future::join;
use platziverse_config::DatabaseConfig;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls, Socket};

use crate::error::{StoreError, chain};
use crate::migrations::Failure;

/// How much longer than the server's own timeout the client waits: the network's share.
pub(crate) const DEADLINE_MARGIN: Duration = Duration::from_secs(5);

/// One connection. Dropped, it says goodbye to the server as soon as what runs has ended.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) address: Arc<str>,
    /// The longest that a statement, or one transaction of the writer, may take.
    pub(crate) deadline: Duration,
    driver: AbortHandle,
}

impl Link {
    /// Connects within `database.connect_timeout`.
    pub(crate) async fn open(
        config: &DatabaseConfig,
        application_name: &str,
    ) -> Result<Self, StoreError> {
        Self::open_to(config, application_name, None).await
    }

    /// The same to another database of the server.
    pub(crate) async fn open_to(
        config: &DatabaseConfig,
        application_name: &str,
        database: Option<&str>,
    ) -> Result<Self, StoreError> {
        let address = address(config);
        let mut target = target(config, application_name);
        if let Some(name) = database {
            target.dbname(name);
        }
        let after = config.connect_timeout;
        let opened = timeout(after, open(&target, config.statement_timeout)).await;
        let (client, driver) = opened
            .map_err(|_| StoreError::ConnectTimeout { address: address.clone(), after })?
            .map_err(|source| StoreError::Connect { address: address.clone(), source })?;
        let deadline = config.statement_timeout + DEADLINE_MARGIN;
        Ok(Self { client, address, deadline, driver })
    }

    /// Waits for a statement by the deadline.
    pub(crate) async fn within<T>(
        &self,
        what: &'static str,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        self.within_time(what, self.deadline, statement).await
    }

    /// Waits for a statement by a deadline of its own.
    pub(crate) async fn within_time<T>(
        &self,
        what: &'static str,
        after: Duration,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        match timeout(after, statement).await {
            Ok(result) => result.map_err(|source| self.failed(what, source)),
            Err(_) => Err(self.late(what, after)),
        }
    }

    pub(crate) fn failed(&self, what: &'static str, source: tokio_postgres::Error) -> StoreError {
        StoreError::Query { what, address: self.address.clone(), source }
    }

    pub(crate) fn late(&self, what: &'static str, after: Duration) -> StoreError {
        StoreError::Timeout { what, address: self.address.clone(), after }
    }

    /// Closes the socket at once, whatever is under way: for a peer that does not answer.
    pub(crate) fn kill(self) {
        self.driver.abort();
    }
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
        prepared.await.map_err(|source| StoreError::Diesel { what, address, source })
    });
    opened.await.unwrap_or(Err(StoreError::ConnectTimeout { address: address.clone(), after }))
}

async fn open(
    target: &Config,
    statement_timeout: Duration,
) -> Result<(Client, AbortHandle), tokio_postgres::Error> {
    let (client, connection) = target.connect(NoTls).await?;
    let driver = drive(connection);
    let settings = session_settings(statement_timeout);
    // Both are on their way before the first is answered.
    let watched = client.batch_execute(WATCH_CLIENT);
    let (watched, set) = join(watched, client.batch_execute(&settings)).await;
    set?;
    if let Err(error) = watched {
        go_on_unwatched(&error);
    }
    Ok((client, driver))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the connection's own I/O, which ends with its client: there is nothing to drain"
)]
fn drive(connection: Connection<Socket, NoTlsStream>) -> AbortHandle {
    // What goes wrong here is also the answer to whatever the client waits for.
    tokio::spawn(async { _ = connection.await }).abort_handle()
}

/// Statements that each new connection starts with. Compiling a plan never pays for statements
/// that only feed rows to an index.
///
/// Whoever is gone must not keep locks. The server ends a session whose other machine is gone,
/// noticed within 8 s by keepalives or by data that nobody acknowledges, and one that leaves a
/// transaction idle for 5 s, as a process does that is frozen between two statements of it. One
/// that is frozen while it sends a statement is not idle for the server, which waits for the rest
/// whatever its timeouts: whoever sweeps [ends it](crate::frozen). What a frozen process holds
/// outside of transactions it keeps, unless its connection [expires when
/// idle](crate::locks::open). The TCP settings have no effect on Unix sockets, whose peer cannot
/// be elsewhere.
fn session_settings(statement_timeout: Duration) -> String {
    format!(
        "SET statement_timeout = {}; SET jit = off; \
         SET idle_in_transaction_session_timeout = '5s'; \
         SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 2; \
         SET tcp_keepalives_count = 2; SET tcp_user_timeout = 8000",
        statement_timeout.as_millis()
    )
}

/// Has the server look every 2 s, while a statement runs, whether its client is still there. Sent
/// alone: a server whose system cannot tell refuses it, and runs such a statement to its end.
const WATCH_CLIENT: &str = "SET client_connection_check_interval = '2s'";

/// Tells that [`WATCH_CLIENT`] was refused.
fn go_on_unwatched(error: &dyn Error) {
    tracing::debug!("PostgreSQL does not watch whether its clients are there: {}", chain(error));
}

/// The database's address, without secrets.
pub(crate) fn address(config: &DatabaseConfig) -> Arc<str> {
    config.address().into()
}

/// What to connect to, and how.
fn target(config: &DatabaseConfig, application_name: &str) -> Config {
    let mut target = Config::new();
    target
        .host(&config.host)
        .port(config.port)
        .dbname(&config.name)
        .user(&config.username)
        .application_name(application_name)
        .ssl_mode(SslMode::Disable)
        .connect_timeout(config.connect_timeout)
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(25));
    if let Some(password) = &config.password {
        target.password(password.expose());
    }
    target
}
