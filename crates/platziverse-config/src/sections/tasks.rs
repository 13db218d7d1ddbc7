//! `tasks`: events and commands.

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};

/// Events and commands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TasksConfig {
    /// Queues that tasks are taken from.
    pub queues: Vec<String>,
    /// Tasks handled at a time.
    pub prefetch: u16,
    /// Names of events to drop.
    pub omit: Vec<String>,
    /// Attempts at one task before it is dead-lettered.
    pub max_attempts: u32,
}

/// The queues of tasks that Platziverse declares itself.
const OURS: [&str; 2] = ["platziverse.events", "platziverse.commands"];

impl Default for TasksConfig {
    fn default() -> Self {
        Self {
            queues: OURS.map(str::to_owned).to_vec(),
            prefetch: 100,
            omit: Vec::new(),
            max_attempts: 5,
        }
    }
}

pub(crate) const NAME: &str = "tasks";

pub(crate) const KEYS: &[Key] = &[
    Key::new("queues", Kind::List { min: 1, item: &Kind::Queue { max: 255, ours: &OURS } }),
    Key::new("prefetch", Kind::Whole { min: 1, max: 65_535 }),
    Key::new("omit", Kind::List { min: 0, item: &Kind::Text { min: 1, max: 255 } }),
    Key::new("max_attempts", Kind::Whole { min: 1, max: 1_000 }),
];

impl TasksConfig {
    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        schema::check_section(NAME, KEYS, self, problems);
        for (index, queue) in self.queues.iter().enumerate() {
            if self.queues[..index].contains(queue) {
                problems.wrong(
                    format!("tasks.queues[{index}]"),
                    format!("{queue:?}"),
                    "each queue once",
                );
            }
        }
    }
}
