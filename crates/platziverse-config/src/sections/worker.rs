//! `worker`: what a worker does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};

/// A part of a worker's work, which a worker has or leaves to others.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Storing what agents send.
    Ingest,
    /// Handling events and commands.
    Tasks,
}

/// What a worker does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// The roles that it has; at least one, each once.
    pub roles: Vec<Role>,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self { roles: vec![Role::Ingest, Role::Tasks] }
    }
}

impl fmt::Display for Role {
    /// The name in settings and logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingest => "ingest",
            Self::Tasks => "tasks",
        })
    }
}

pub(crate) const NAME: &str = "worker";

pub(crate) const KEYS: &[Key] =
    &[Key::new("roles", Kind::List { min: 1, item: &Kind::Choice(&["ingest", "tasks"]) })];

impl WorkerConfig {
    /// Whether it has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        schema::check_section(NAME, KEYS, self, problems);
        for (index, role) in self.roles.iter().enumerate() {
            if self.roles[..index].contains(role) {
                let at = format!("worker.roles[{index}]");
                problems.wrong(at, format!("\"{role}\""), "each role once");
            }
        }
    }
}
