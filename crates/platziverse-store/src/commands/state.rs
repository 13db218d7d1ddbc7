//! How far a command has come.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use tokio_postgres::types::{FromSql, Type, accepts};

/// How far a command has come. It only moves forward: queued, sent, delivered, and then one of the
/// ends. Only one that failed before it was sent may be queued again, by a new attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// A worker has it.
    Queued,
    /// It is on its way to its target.
    Sent,
    /// The target has it.
    Delivered,
    /// The target has done it.
    Succeeded,
    /// It was not done.
    Failed,
    /// Nobody said in time what became of it.
    TimedOut,
}

/// A name that is no [`CommandState`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no state of a command; there are {names}",
    names = CommandState::ALL.map(CommandState::as_str).join(", ")
)]
pub struct UnknownState(String);

impl CommandState {
    /// Every state, in the order in which a command comes to them.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Sent, Self::Delivered, Self::Succeeded, Self::Failed, Self::TimedOut];

    /// The name in the database, in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }

    /// Whether nothing comes after it.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::TimedOut)
    }

    /// The names of the states from which a command can come to this one.
    pub(super) fn earlier(self) -> Vec<&'static str> {
        let earlier = Self::ALL.into_iter().filter(|state| state.rank() < self.rank());
        earlier.map(Self::as_str).collect()
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Queued => 0,
            Self::Sent => 1,
            Self::Delivered => 2,
            Self::Succeeded | Self::Failed | Self::TimedOut => 3,
        }
    }
}

impl FromStr for CommandState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == name);
        found.ok_or_else(|| UnknownState(name.to_owned()))
    }
}

impl fmt::Display for CommandState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'a> FromSql<'a> for CommandState {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(std::str::from_utf8(raw)?.parse()?)
    }

    accepts!(TEXT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_back() {
        for state in CommandState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        let error = "done".parse::<CommandState>().unwrap_err().to_string();
        assert!(error.contains("\"done\"") && error.contains("queued, sent"), "{error}");
    }

    #[test]
    fn a_command_comes_to_each_state_from_the_earlier_ones() {
        assert_eq!(CommandState::Queued.earlier(), [""; 0]);
        assert_eq!(CommandState::Delivered.earlier(), ["queued", "sent"]);
        for end in CommandState::ALL.into_iter().filter(|state| state.is_ended()) {
            assert_eq!(end.earlier(), ["queued", "sent", "delivered"]);
        }
    }
}
