//! A database of its own for each test.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use platziverse_config::{DatabaseConfig, Layers, Settings};
use platziverse_store::{admin, migrations};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// Runs a test on a migrated database, and drops it afterwards, whatever happens.
pub(crate) async fn with_database(test: impl AsyncFnOnce(DatabaseConfig)) {
    with_empty_database(async |config| {
        migrations::run(&config).await.unwrap();
        test(config).await;
    })
    .await;
}

/// The same without the schema.
pub(crate) async fn with_empty_database(test: impl AsyncFnOnce(DatabaseConfig)) {
    let env = vec![("PLATZIVERSE_DATABASE__URL".to_owned(), server())];
    let layers = Layers { env, dir: "/nonexistent".into(), ..Layers::default() };
    let mut config = Settings::load(&layers).unwrap().settings.database;
    config.url = None;
    config.name = format!("platziverse_store_{}", Uuid::new_v4().simple());
    assert!(admin::create(&config).await.unwrap());
    let outcome = AssertUnwindSafe(test(config.clone())).catch_unwind().await;
    admin::drop(&config).await.unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[expect(clippy::disallowed_methods, reason = "where the tests' server is")]
fn server() -> String {
    std::env::var("TEST_DATABASE_URL").expect(
        "TEST_DATABASE_URL must name a PostgreSQL server, with a role that may create databases: \
         run the tests by scripts/test",
    )
}

/// A plain connection, to look and to interfere.
#[expect(clippy::disallowed_methods, reason = "the connection's own I/O")]
pub(crate) async fn client(config: &DatabaseConfig) -> Client {
    let (client, connection) = tokio_postgres::connect(config.uri().expose(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The first column of a query's only row.
pub(crate) async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    config: &DatabaseConfig,
    sql: &str,
) -> T {
    client(config).await.query_one(sql, &[]).await.unwrap().get(0)
}
