//! What can go wrong, and whether trying again can help.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

/// Why an operation on the database failed. No text in it contains a password.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection.
    #[error("connecting to PostgreSQL at {address}{}", hint(source))]
    Connect {
        /// Where, without secrets.
        address: Arc<str>,
        /// What came back.
        source: tokio_postgres::Error,
    },
    /// No connection in time.
    #[error(
        "connecting to PostgreSQL at {address}: no answer within {after:?} (are host and port \
         right, and is nothing in between dropping packets?)"
    )]
    ConnectTimeout {
        /// Where, without secrets.
        address: Arc<str>,
        /// `database.connect_timeout`.
        after: Duration,
    },
    /// A server that is not supported.
    #[error(
        "PostgreSQL at {address} is version {found}; at least {} is needed",
        crate::store::SERVER_VERSION_MIN
    )]
    ServerTooOld {
        /// Where, without secrets.
        address: Arc<str>,
        /// Its version.
        found: String,
    },
    /// The schema is older than this program.
    #[error(
        "the schema at {address} lacks {} migration(s), the first is {:?} (run `platziverse db migrate`)",
        pending.len(),
        pending.first().map_or("", String::as_str)
    )]
    SchemaBehind {
        /// Where, without secrets.
        address: Arc<str>,
        /// The migrations to run, in order.
        pending: Vec<String>,
    },
    /// A statement failed.
    #[error("{what} in PostgreSQL at {address}{}", hint(source))]
    Query {
        /// What was tried.
        what: &'static str,
        /// Where, without secrets.
        address: Arc<str>,
        /// What came back.
        source: tokio_postgres::Error,
    },
    /// No answer in time, or no connection of the pool was free in time. A connection that does not
    /// answer is given up, and what was tried may or may not happen.
    #[error("{what} in PostgreSQL at {address}: no answer within {after:?}")]
    Timeout {
        /// What was tried.
        what: &'static str,
        /// Where, without secrets.
        address: Arc<str>,
        /// The deadline.
        after: Duration,
    },
    /// What a batch needs was changed by others again and again while it was being stored.
    #[error(
        "storing a batch in PostgreSQL at {address}: its agents or partitions keep changing \
         meanwhile"
    )]
    Unsettled {
        /// Where, without secrets.
        address: Arc<str>,
    },
    /// What was asked through Diesel failed.
    #[error("{what} in PostgreSQL at {address}")]
    Diesel {
        /// What was tried.
        what: &'static str,
        /// Where, without secrets.
        address: Arc<str>,
        /// What came back.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another process has been migrating for long.
    #[error(
        "migrating the database at {address}: another process has held the lock of the migrations \
         for {after:?} (`select * from pg_stat_activity where application_name = {:?}` shows it)",
        crate::migrations::APPLICATION_NAME
    )]
    Migrating {
        /// Where, without secrets.
        address: Arc<str>,
        /// How long it was waited for.
        after: Duration,
    },
    /// A migration failed.
    #[error("migrating the database at {address}")]
    Migration {
        /// Where, without secrets.
        address: Arc<str>,
        /// What came back.
        source: Box<dyn Error + Send + Sync>,
    },
    /// What several had asked together failed for all of them.
    #[error(transparent)]
    Shared(Arc<Self>),
}

impl StoreError {
    /// Whether the same input can succeed later. Only what PostgreSQL has against the input itself
    /// (SQLSTATE classes 22, 23, 44 and 54, and what a trigger raises) cannot; everything else is
    /// trouble of the surroundings.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Shared(error) => error.is_transient(),
            Self::Query { source, .. } if may_pass(source) => true,
            _ => !self.sqlstate().is_some_and(|state| is_data_trouble(state.code())),
        }
    }

    /// Whether there was a connection but no answer in time, be it the client or the server that
    /// gave up: a smaller question may be answered.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Shared(error) => error.is_timeout(),
            Self::Timeout { .. } => true,
            _ => self.sqlstate() == Some(&SqlState::QUERY_CANCELED),
        }
    }

    /// PostgreSQL's own code, if it answered with one.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Shared(error) => error.sqlstate(),
            Self::Connect { source, .. } | Self::Query { source, .. } => source.code(),
            Self::ConnectTimeout { .. }
            | Self::ServerTooOld { .. }
            | Self::SchemaBehind { .. }
            | Self::Timeout { .. }
            | Self::Unsettled { .. }
            | Self::Diesel { .. }
            | Self::Migrating { .. }
            | Self::Migration { .. } => None,
        }
    }
}

/// Classes 22 (data exception), 23 (integrity constraint violation), 44 (WITH CHECK OPTION
/// violation), 54 (program limit exceeded), and P0001 (raised by a trigger).
fn is_data_trouble(sqlstate: &str) -> bool {
    matches!(sqlstate.get(..2), Some("22" | "23" | "44" | "54")) || sqlstate == "P0001"
}

/// Whether what looks like trouble with the data may pass when it is written once more.
pub(crate) fn may_pass(error: &tokio_postgres::Error) -> bool {
    is_partition_bound(error) || is_agent_id_taken(error)
}

/// Whether no partition took a row, as when it was on its way to one and its day got another.
/// Unlike a check that somebody put on the table, the bound of a partition has no name.
fn is_partition_bound(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        *error.code() == SqlState::CHECK_VIOLATION && error.constraint().is_none()
    })
}

/// Whether the next number for an agent is in use, as when rows were restored and the sequence was
/// not.
pub(crate) fn is_agent_id_taken(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        *error.code() == SqlState::UNIQUE_VIOLATION && error.constraint() == Some("agents_pkey")
    })
}

/// What a person can do about an error, in brackets.
fn hint(error: &tokio_postgres::Error) -> Hint {
    let Some(state) = error.code() else {
        let refused = error
            .source()
            .and_then(|source| source.downcast_ref::<std::io::Error>())
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused);
        return Hint(if refused { Some("is PostgreSQL running there?") } else { None });
    };
    Hint(match *state {
        SqlState::INVALID_CATALOG_NAME => Some("run `platziverse db create`"),
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            Some("check database.username, database.password and the server's pg_hba.conf")
        }
        SqlState::TOO_MANY_CONNECTIONS => {
            Some("raise the server's max_connections or lower database.pool_size")
        }
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN => {
            Some("run `platziverse db migrate`")
        }
        SqlState::INSUFFICIENT_PRIVILEGE => Some("the role lacks a privilege that it needs"),
        SqlState::DISK_FULL => Some("the server's disk is full"),
        SqlState::CHECK_VIOLATION if is_partition_bound(error) => {
            Some("no partition takes the row: is there one for its day, or the default one?")
        }
        _ => None,
    })
}

struct Hint(Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_trouble_is_told_by_its_code() {
        let check = |state: &SqlState, expected: bool| {
            assert_eq!(is_data_trouble(state.code()), expected, "{state:?}");
        };
        check(&SqlState::CHARACTER_NOT_IN_REPERTOIRE, true);
        check(&SqlState::DATETIME_FIELD_OVERFLOW, true);
        check(&SqlState::UNIQUE_VIOLATION, true);
        check(&SqlState::CHECK_VIOLATION, true);
        check(&SqlState::NOT_NULL_VIOLATION, true);
        check(&SqlState::PROGRAM_LIMIT_EXCEEDED, true);
        check(&SqlState::WITH_CHECK_OPTION_VIOLATION, true);
        check(&SqlState::RAISE_EXCEPTION, true);
        check(&SqlState::PLPGSQL_ERROR, false);
        check(&SqlState::T_R_SERIALIZATION_FAILURE, false);
        check(&SqlState::T_R_DEADLOCK_DETECTED, false);
        check(&SqlState::DISK_FULL, false);
        check(&SqlState::OUT_OF_MEMORY, false);
        check(&SqlState::QUERY_CANCELED, false);
        check(&SqlState::ADMIN_SHUTDOWN, false);
        check(&SqlState::READ_ONLY_SQL_TRANSACTION, false);
        check(&SqlState::UNDEFINED_TABLE, false);
    }
}
