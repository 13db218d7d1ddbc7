//! A database of a test's own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::{PATIENCE, eventually, name, url};

/// A row, each value as text; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// A database that a test made. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    admin_url: String,
    url: String,
    name: String,
}

impl Database {
    /// A database `name`, not made yet, on the server of `admin_url`.
    pub(crate) fn new(admin_url: &str, name: &str) -> Self {
        let url = url::with_path(admin_url, name);
        Self { admin_url: admin_url.to_owned(), url, name: name.to_owned() }
    }

    /// Its URL, with credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same database through another address, such as that of a [`crate::Proxy`].
    pub fn url_at(&self, address: SocketAddr) -> String {
        url::with_address(&self.url, address)
    }

    /// Where its PostgreSQL listens.
    pub fn address(&self) -> SocketAddr {
        url::address(&self.url)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the database, empty.
    pub async fn create(&self) {
        let statement = format!("CREATE DATABASE {}", self.name);
        // Databases made at the same moment hold up each other's copy of the template.
        eventually("a database for the test is made", PATIENCE, || {
            query(&self.admin_url, &statement)
        })
        .await;
    }

    /// Removes the database; its connections are ended.
    pub async fn remove(&self) {
        // The sweep of a later run removes what stays behind.
        let _ = query(&self.admin_url, &drop_statement(&self.name)).await;
    }

    /// Removes the databases that killed tests left behind.
    pub(crate) async fn sweep(&self) {
        let rows = query(&self.admin_url, "SELECT datname FROM pg_database").await;
        let names = rows.unwrap_or_default().into_iter().flatten().flatten();
        for name in names.filter(|name| name::is_left_behind(name)) {
            let _ = query(&self.admin_url, &drop_statement(&name)).await;
        }
    }

    /// The rows of a query. Fails the test if the query does.
    pub async fn sql(&self, text: &str) -> Vec<Row> {
        self.try_sql(text).await.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The rows of a query, or why there are none.
    pub async fn try_sql(&self, text: &str) -> Result<Vec<Row>, String> {
        query(&self.url, text).await
    }

    /// Runs statements on a connection that stays open until the answer is dropped: what they begin
    /// and lock (`BEGIN; LOCK TABLE …`) lasts as long.
    pub async fn hold(&self, sql: &str) -> Result<Held, String> {
        let work = async {
            let client = connect(&self.url).await?;
            client.batch_execute(sql).await.map_err(|error| explain(&error))?;
            Ok(Held { _client: client })
        };
        limited(work).await
    }

    /// The first value of the first row, as text; empty for NULL or no row.
    pub async fn value(&self, text: &str) -> String {
        first(self.sql(text).await)
    }

    /// Waits until the first value of the first row is `wanted`.
    pub async fn becomes(&self, text: &str, wanted: &str) {
        eventually(&format!("{text} = {wanted}"), PATIENCE, || async {
            let value = first(self.try_sql(text).await?);
            if value == wanted { Ok(()) } else { Err(format!("it is {value:?}")) }
        })
        .await;
    }
}

/// An open connection, and with it its transaction and locks; dropped, they end.
#[derive(Debug)]
pub struct Held {
    _client: Client,
}

fn first(rows: Vec<Row>) -> String {
    rows.into_iter().flatten().next().flatten().unwrap_or_default()
}

fn drop_statement(name: &str) -> String {
    format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")
}

async fn query(url: &str, text: &str) -> Result<Vec<Row>, String> {
    let work = async {
        let client = connect(url).await?;
        let messages = client.simple_query(text).await.map_err(|error| explain(&error))?;
        Ok(messages.into_iter().filter_map(row).collect())
    };
    limited(work).await
}

async fn limited<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let limited = tokio::time::timeout(Duration::from_secs(30), work);
    limited.await.unwrap_or_else(|_| Err("PostgreSQL did not answer within 30 s".into()))
}

fn row(message: SimpleQueryMessage) -> Option<Row> {
    match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        }
        _ => None,
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no drain")]
async fn connect(url: &str) -> Result<Client, String> {
    let connected = tokio_postgres::connect(url, NoTls).await;
    let (client, connection) = connected.map_err(|error| explain(&error))?;
    // Ends with its client.
    tokio::spawn(connection);
    Ok(client)
}

fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => error.to_string(),
        None => format!("{error:?}"),
    }
}
