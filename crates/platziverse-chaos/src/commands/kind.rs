//! What an agent is like, by its number, and what must become of a command, by its own. Pure.

use std::time::Duration;

use platziverse_broker::Lane;
use platziverse_protocol::task::TaskKind;
use platziverse_testkit::Version;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::sender::Parcel;

/// Agents that commands are for.
pub const AGENTS: u64 = 50;
/// What the agents are told to do.
pub const NAME: &str = "count";
/// When a command expires that has no answer. One that has does not expire here.
const SHORT: Duration = Duration::from_secs(4);

/// What an agent is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Temper {
    /// It does what it is told, once, and answers, sooner or later.
    Answers,
    /// It acknowledges and never answers.
    Silent,
    /// It hears, and neither acknowledges nor answers.
    Deaf,
    /// It never comes.
    Absent,
}

impl Temper {
    /// The temper of the agent with this number.
    pub fn of(agent: u64) -> Self {
        match agent % 10 {
            0 => Self::Absent,
            1 => Self::Silent,
            2 => Self::Deaf,
            _ => Self::Answers,
        }
    }
}

/// The version of MQTT that an agent speaks: those of each temper speak both.
pub fn version(agent: u64) -> Version {
    if (agent + agent / 10).is_multiple_of(2) { Version::V3 } else { Version::V5 }
}

/// What must become of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Its agent has done it.
    Succeeded,
    /// Its agent has said that it cannot.
    Failed,
    /// Its agent has said nothing.
    TimedOut,
}

impl End {
    /// The end of the command with this number.
    pub fn of(number: u64) -> Self {
        match Temper::of(target(number)) {
            Temper::Answers if number / AGENTS % 5 == 4 => Self::Failed,
            Temper::Answers => Self::Succeeded,
            Temper::Silent | Temper::Deaf | Temper::Absent => Self::TimedOut,
        }
    }

    /// The state in the command's row.
    pub fn state(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// The number of the agent that the command with this number is for.
pub fn target(number: u64) -> u64 {
    number % AGENTS
}

/// The command with this number and id, to the agent of this uuid, published at `now`, in
/// milliseconds since 1970.
pub fn parcel(number: u64, id: Uuid, agent: &str, now: i64) -> Parcel {
    let payload = json!({"name": NAME, "payload": {"number": number}});
    let mut task = json!({
        "kind": "command", "name": "agent.command", "target": agent, "id": id, "payload": payload,
    });
    if End::of(number) == End::TimedOut {
        let short = i64::try_from(SHORT.as_millis()).unwrap_or(i64::MAX);
        task["expires"] = json!(now.saturating_add(short));
    }
    let lane = Lane::task(TaskKind::Command.as_str(), TaskKind::Command);
    Parcel { lane, body: task.to_string(), again: number % 20 == 7 }
}

/// What an agent answers to the command with this number and id.
pub fn answer(number: u64, id: Uuid, agent: &str) -> Value {
    match End::of(number) {
        End::Failed => json!({"id": id, "error": error(number, agent)}),
        End::Succeeded | End::TimedOut => {
            json!({"id": id, "result": {"number": number, "agent": agent}})
        }
    }
}

/// Why an agent cannot do a command.
pub fn error(number: u64, agent: &str) -> String {
    format!("{agent} cannot do {number}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn agents_of_each_temper_speak_both_versions() {
        let traits = |agent| (Temper::of(agent), version(agent) == Version::V5);
        assert_eq!((0..AGENTS).map(traits).collect::<BTreeSet<_>>().len(), 8);
    }

    #[test]
    fn every_end_occurs_and_each_agent_that_answers_has_two() {
        let ends = |agent: u64| -> BTreeSet<End> {
            (0..5).map(|turn| End::of(turn * AGENTS + agent)).collect()
        };
        for agent in 0..AGENTS {
            match Temper::of(agent) {
                Temper::Answers => assert_eq!(ends(agent), [End::Succeeded, End::Failed].into()),
                _ => assert_eq!(ends(agent), [End::TimedOut].into()),
            }
        }
    }

    #[test]
    fn only_what_has_no_answer_expires_soon() {
        let expires = |number: u64| {
            let body = parcel(number, Uuid::now_v7(), "a", 1_000).body;
            serde_json::from_str::<Value>(&body).unwrap()["expires"].as_i64()
        };
        assert_eq!((expires(0), expires(3)), (Some(5_000), None));
    }
}
