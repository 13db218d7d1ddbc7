//! Creating and dropping the database itself.

use platziverse_config::DatabaseConfig;
use tokio_postgres::error::SqlState;

use crate::connection::Link;
use crate::error::StoreError;

/// The database that exists on every server; connected to while ours does not exist.
const MAINTENANCE_DATABASE: &str = "postgres";
const APPLICATION_NAME: &str = "platziverse-admin";
const DROPPING: &str = "dropping the database";

/// Creates the database if it is missing, and answers whether it was.
pub async fn create(config: &DatabaseConfig) -> Result<bool, StoreError> {
    let link = Link::open_to(config, APPLICATION_NAME, Some(MAINTENANCE_DATABASE)).await?;
    let sql = format!("CREATE DATABASE {}", quote(&config.name));
    match link.within("creating the database", link.client.batch_execute(&sql)).await {
        Ok(()) => Ok(true),
        Err(error) if already_there(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Drops the database with everything in it, its connections included. Answers whether it was
/// there.
pub async fn drop(config: &DatabaseConfig) -> Result<bool, StoreError> {
    let link = Link::open_to(config, APPLICATION_NAME, Some(MAINTENANCE_DATABASE)).await?;
    let mut sql = format!("DROP DATABASE {} WITH (FORCE)", quote(&config.name));
    let mut dropped = link.within(DROPPING, link.client.batch_execute(&sql)).await;
    // An owner may not force an autovacuum worker out; without force the server does it itself.
    if sqlstate(&dropped) == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        sql = format!("DROP DATABASE {}", quote(&config.name));
        dropped = link.within(DROPPING, link.client.batch_execute(&sql)).await;
    }
    match dropped {
        Ok(()) => Ok(true),
        Err(error) if error.sqlstate() == Some(&SqlState::INVALID_CATALOG_NAME) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Two that create it at once may also collide in the catalogue's own index.
fn already_there(error: &StoreError) -> bool {
    matches!(error.sqlstate(), Some(&SqlState::DUPLICATE_DATABASE | &SqlState::UNIQUE_VIOLATION))
}

fn sqlstate<T>(result: &Result<T, StoreError>) -> Option<&SqlState> {
    result.as_ref().err().and_then(StoreError::sqlstate)
}

/// An SQL identifier, whatever the name contains.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote("platziverse"), "\"platziverse\"");
        assert_eq!(quote("a\"; DROP"), "\"a\"\"; DROP\"");
    }
}
