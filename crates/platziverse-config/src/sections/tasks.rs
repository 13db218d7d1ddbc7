//! `tasks`: events and commands.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::HostPattern;
use crate::problem::Problems;
use crate::schema::{self, Key, Kind};
use crate::spans;

/// Events and commands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TasksConfig {
    /// Queues that tasks are taken from.
    pub queues: Vec<String>,
    /// Tasks of each queue handled at a time; with 1, one after the other, whatever their queue.
    pub prefetch: u16,
    /// Names of events to drop.
    pub omit: Vec<String>,
    /// Attempts at one task before it is dead-lettered.
    pub max_attempts: u32,
    /// How long a task waits after each failed attempt, in order; after those beyond the list, as
    /// long as after the last in it.
    #[serde(with = "spans")]
    pub retry_delays: Vec<Duration>,
    /// How long one attempt may take.
    #[serde(with = "humantime_serde")]
    pub handler_timeout: Duration,
    /// How long a command to an agent waits for the answer, unless it says when it expires.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// Hosts that the handler `http.request` may call; none if it is empty.
    pub http_allow: Vec<HostPattern>,
    /// Whether it may call hosts of the allowed ones whose addresses are private, loopback or
    /// link-local.
    pub http_allow_private: bool,
    /// How long it waits for a whole response.
    #[serde(with = "humantime_serde")]
    pub http_timeout: Duration,
    /// Bytes that it reads of a response's body.
    pub http_response_bytes_max: usize,
}

const EVENTS: &str = "platziverse.events";
const COMMANDS: &str = "platziverse.commands";
/// The queues of tasks that Platziverse declares itself.
const OURS: [&str; 2] = [EVENTS, COMMANDS];

impl Default for TasksConfig {
    fn default() -> Self {
        Self {
            queues: OURS.map(str::to_owned).to_vec(),
            prefetch: 100,
            omit: Vec::new(),
            max_attempts: 5,
            retry_delays: [1, 10, 60, 600].map(Duration::from_secs).to_vec(),
            handler_timeout: Duration::from_secs(30),
            command_timeout: Duration::from_secs(86_400),
            http_allow: Vec::new(),
            http_allow_private: false,
            http_timeout: Duration::from_secs(10),
            http_response_bytes_max: 65_536,
        }
    }
}

pub(crate) const NAME: &str = "tasks";

const RETRY_DELAY: Kind =
    Kind::Span { min: Duration::from_millis(100), max: Duration::from_secs(86_400) };

pub(crate) const KEYS: &[Key] = &[
    Key::new("queues", Kind::List { min: 1, item: &Kind::Queue { max: 255, ours: &OURS } }),
    Key::new("prefetch", Kind::Whole { min: 1, max: 65_535 }),
    Key::new("omit", Kind::List { min: 0, item: &Kind::Text { min: 1, max: 255 } }),
    Key::new("max_attempts", Kind::Whole { min: 1, max: 1_000 }),
    Key::new("retry_delays", Kind::List { min: 1, item: &RETRY_DELAY }),
    // RabbitMQ closes the channel of a consumer that holds a delivery for longer than its
    // `consumer_timeout`, 30 minutes by default.
    Key::new(
        "handler_timeout",
        Kind::Span { min: Duration::from_millis(100), max: Duration::from_secs(600) },
    ),
    Key::new(
        "command_timeout",
        Kind::Span { min: Duration::from_secs(1), max: Duration::from_secs(365 * 86_400) },
    ),
    Key::new("http_allow", Kind::List { min: 0, item: &Kind::HostPattern }),
    Key::new("http_allow_private", Kind::Flag),
    Key::new(
        "http_timeout",
        Kind::Span { min: Duration::from_millis(100), max: Duration::from_secs(600) },
    ),
    Key::new("http_response_bytes_max", Kind::Whole { min: 1_024, max: 1_048_576 }),
];

impl TasksConfig {
    /// The queue for tasks of a kind, `event` or `command`: Platziverse's own if it is among
    /// [`TasksConfig::queues`], else the first of them.
    pub fn queue_of(&self, kind: &str) -> Option<&str> {
        let own = match kind {
            "event" => EVENTS,
            _ => COMMANDS,
        };
        let found = self.queues.iter().find(|queue| *queue == own);
        found.or(self.queues.first()).map(String::as_str)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_tasks_go() {
        let check = |queues: &[&str], kind: &str, want: Option<&str>| {
            let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
            let config = TasksConfig { queues, ..TasksConfig::default() };
            assert_eq!(config.queue_of(kind), want, "{kind}");
        };
        let all = ["other", COMMANDS, EVENTS];
        check(&all, "event", Some(EVENTS));
        check(&all, "command", Some(COMMANDS));
        check(&["other", COMMANDS], "event", Some("other"));
        check(&[], "event", None);
    }
}
