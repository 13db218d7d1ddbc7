//! Creating and dropping the database itself.

use platziverse_config::DatabaseConfig;
use tokio_postgres::error::SqlState;

use crate::connection::Link;
use crate::error::StoreError;

/// The database that exists on every server; connected to while ours does not exist.
const MAINTENANCE_DATABASE: &str = "postgres";
const APPLICATION_NAME: &str = "platziverse-admin";

/// Creates the database if it is missing, and answers whether it was.
pub async fn create(config: &DatabaseConfig) -> Result<bool, StoreError> {
    let link = Link::open_to(config, APPLICATION_NAME, Some(MAINTENANCE_DATABASE)).await?;
    let sql = format!("CREATE DATABASE {}", quote(&config.name));
    match link.client.batch_execute(&sql).await {
        Ok(()) => Ok(true),
        Err(error) if already_there(&error) => Ok(false),
        Err(error) => Err(link.failed("creating the database", error)),
    }
}

/// Drops the database with everything in it, its connections included. Answers whether it was
/// there.
pub async fn drop(config: &DatabaseConfig) -> Result<bool, StoreError> {
    let link = Link::open_to(config, APPLICATION_NAME, Some(MAINTENANCE_DATABASE)).await?;
    let sql = format!("DROP DATABASE {} WITH (FORCE)", quote(&config.name));
    match link.client.batch_execute(&sql).await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => Ok(false),
        Err(error) => Err(link.failed("dropping the database", error)),
    }
}

/// Two that create it at once may also collide in the catalogue's own index.
fn already_there(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::DUPLICATE_DATABASE | &SqlState::UNIQUE_VIOLATION))
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
