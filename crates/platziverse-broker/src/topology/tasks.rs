//! What events and commands need in RabbitMQ.

use std::time::Duration;

use platziverse_config::{IngestConfig, TasksConfig};
use platziverse_protocol::command::{DELIVERED, LISTENING, RESPONSES};
use platziverse_protocol::task::TaskKind;
use platziverse_protocol::topic::{cut_binding_key, routing_key};

use super::{DEAD, Destination, Exchange, Kind, LIVE, LOOKS_MAX, Queue, Topology, Value};

/// Events and commands: an exchange whose keys are the names of queues.
pub const TASKS: &str = "platziverse.tasks";
/// Platziverse's own queue of events; it has the key `event` too.
pub const EVENTS: &str = "platziverse.events";
/// Platziverse's own queue of commands; it has the key `command` too.
pub const COMMANDS: &str = "platziverse.commands";
/// What becomes of commands to agents, as gateways and agents say: a queue, and an exchange before it
/// as before that of a route.
pub const REPORTS: &str = "platziverse.reports";
/// The start of the names of the exchanges and queues in which tasks wait before they are tried
/// again.
pub(super) const RETRY: &str = "platziverse.retry";

impl Topology {
    /// The path of events and commands to their workers, with the delays before they are tried again
    /// and dead letters, and the live exchange, over which commands reach agents and answers come
    /// back. The limits of queues are those of `limits`.
    ///
    /// A queue that is none of Platziverse's own is used as it is if it exists. What is published to
    /// [`TASKS`] under a key that no queue has becomes a dead letter.
    ///
    /// The queue of a delay that the settings name no longer stays, and what waits in it still comes
    /// back.
    pub fn for_tasks(tasks: &TasksConfig, limits: &IngestConfig) -> Self {
        let exchanges = vec![
            Exchange::new(DEAD, Kind::Topic, None),
            Exchange::new(TASKS, Kind::Direct, Some(DEAD)),
            Exchange::new(LIVE, Kind::Topic, None),
            Exchange::new(REPORTS, Kind::Topic, Some(DEAD)),
        ];
        let mut topology = Self { exchanges, ..Self::default() };
        topology.add(Queue::dead(limits), DEAD, "#");
        topology.add(Queue::work(REPORTS, limits), REPORTS, "#");
        for key in report_keys() {
            topology.bind(LIVE, &key, Destination::Exchange(REPORTS.to_owned()));
        }
        for name in &tasks.queues {
            let if_missing = ![EVENTS, COMMANDS].contains(&name.as_str());
            topology.add(Queue { if_missing, ..Queue::work(name, limits) }, TASKS, name);
        }
        for (queue, kind) in [(EVENTS, TaskKind::Event), (COMMANDS, TaskKind::Command)] {
            let has = |name: &str| tasks.queues.iter().any(|queue| queue == name);
            // A queue that is called so itself has the key already.
            if has(queue) && !has(kind.as_str()) {
                topology.bind(TASKS, kind.as_str(), Destination::Queue(queue.to_owned()));
            }
        }
        for delay in &tasks.retry_delays {
            topology.retry(*delay, limits);
        }
        topology
    }

    /// What waits for a delay goes back to the queue whose name is its key: RabbitMQ keeps the key of
    /// what expires, and a fanout exchange asks for none.
    fn retry(&mut self, delay: Duration, limits: &IngestConfig) {
        let name = retry_name(delay);
        if !self.exchanges.iter().any(|exchange| exchange.name == name) {
            self.exchanges.push(Exchange::new(&name, Kind::Fanout, Some(DEAD)));
            self.add(Queue::retry(&name, delay, limits), &name, "");
        }
    }
}

/// Under which keys of the live exchange the reports come. Topics that are too long for a key have
/// one in common, so there is more than them.
fn report_keys() -> [String; 4] {
    let responses = RESPONSES.replace('/', ".").replace('+', "*");
    [routing_key(LISTENING), routing_key(DELIVERED), responses, cut_binding_key()]
}

impl Queue {
    fn retry(name: &str, delay: Duration, limits: &IngestConfig) -> Self {
        let milliseconds = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let [length, bytes] = Self::work_limits(limits);
        Self::quorum(
            name,
            [
                length,
                bytes,
                // Nobody consumes it; whoever looks into it must not push anything out.
                ("x-delivery-limit", Value::Number(LOOKS_MAX)),
                ("x-message-ttl", Value::Number(milliseconds)),
                ("x-dead-letter-exchange", Value::Word(TASKS)),
                ("x-dead-letter-strategy", Value::Word("at-least-once")),
            ],
        )
    }
}

/// The exchange and the queue of a delay, `platziverse.retry.10s`: in the largest of hours, minutes,
/// seconds and milliseconds in which it is a whole number.
pub(crate) fn retry_name(delay: Duration) -> String {
    const UNITS: [(u128, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let milliseconds = delay.as_millis();
    let whole = UNITS.into_iter().find(|(unit, _)| milliseconds.is_multiple_of(*unit));
    let (unit, name) = whole.unwrap_or((1, "ms"));
    format!("{RETRY}.{}{name}", milliseconds / unit)
}
