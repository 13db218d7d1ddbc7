//! What a task is, by its number, and what must become of it. Pure.

use std::net::SocketAddr;

use platziverse_broker::Lane;
use platziverse_protocol::task::TaskKind;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::sender::Parcel;

/// The name of events that `tasks.omit` drops.
pub const OMITTED: &str = "noise";
/// `tasks.max_attempts`.
pub const ATTEMPTS_MAX: u64 = 6;
/// `tasks.retry_delays`. What fails at every attempt is given up after more than 3 s.
pub const RETRY_DELAYS: &str = "100ms,300ms,1s";
/// The start of what is no JSON; its number follows.
const GARBAGE: &str = "no JSON: ";

/// What a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An event.
    Event,
    /// An event that is published twice under its id.
    EventTwice,
    /// An event whose id is the message's alone.
    EventOfMessage,
    /// An event to be dropped.
    Omitted,
    /// A line for the log.
    Log,
    /// A call of the service.
    Call,
    /// One that is published twice under its id.
    CallTwice,
    /// One that the service takes some time for.
    CallSlow,
    /// One that the service never does, and asks to be tried again.
    CallInVain,
    /// One that the service refuses.
    CallRefused,
    /// A command that no handler has.
    Unknown,
    /// What is no JSON.
    Garbage,
}

/// What must become of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A row of `events`.
    Stored,
    /// Nothing.
    Dropped,
    /// A row of `commands` that has succeeded.
    Succeeded,
    /// A row of `commands` that has failed, and a dead letter for this reason.
    Failed(&'static str),
    /// A dead letter for this reason alone.
    Buried(&'static str),
}

impl Kind {
    /// What the task with this number is.
    pub fn of(number: u64) -> Self {
        match number % 20 {
            0..=8 => Self::Event,
            9 => Self::EventTwice,
            10 => Self::EventOfMessage,
            11 => Self::Omitted,
            12 => Self::Log,
            13 | 14 => Self::Call,
            15 => Self::CallTwice,
            16 | 17 => Self::CallSlow,
            18 => Self::Unknown,
            _ => match number / 20 % 3 {
                0 => Self::CallInVain,
                1 => Self::CallRefused,
                _ => Self::Garbage,
            },
        }
    }

    /// What must become of it.
    pub fn end(self) -> End {
        match self {
            Self::Event | Self::EventTwice | Self::EventOfMessage => End::Stored,
            Self::Omitted => End::Dropped,
            Self::Log | Self::Call | Self::CallTwice | Self::CallSlow => End::Succeeded,
            Self::CallInVain => End::Failed("attempts_exhausted"),
            Self::CallRefused => End::Failed("rejected_by_handler"),
            Self::Unknown => End::Failed("unknown_command"),
            Self::Garbage => End::Buried("invalid_json"),
        }
    }

    /// Where the service is called, if it is.
    pub fn path(self) -> Option<&'static str> {
        match self {
            Self::Call | Self::CallTwice => Some("well"),
            Self::CallSlow => Some("slow"),
            Self::CallInVain => Some("vain"),
            Self::CallRefused => Some("refused"),
            _ => None,
        }
    }

    /// The task with this number and id, which calls the service at this address if it calls one.
    pub fn parcel(self, number: u64, id: Uuid, service: SocketAddr) -> Parcel {
        let (kind, name) = match self {
            Self::Event | Self::EventTwice | Self::EventOfMessage => (TaskKind::Event, "chaos"),
            Self::Garbage => (TaskKind::Event, ""),
            Self::Omitted => (TaskKind::Event, OMITTED),
            Self::Log => (TaskKind::Command, "log"),
            Self::Unknown => (TaskKind::Command, "fly"),
            Self::Call
            | Self::CallTwice
            | Self::CallSlow
            | Self::CallInVain
            | Self::CallRefused => (TaskKind::Command, "http.request"),
        };
        let payload = match self.path() {
            Some(path) => {
                let url = format!("http://{service}/{path}/{number}");
                json!({"url": url, "body": {"number": number}})
            }
            None => json!({"number": number}),
        };
        let mut task = json!({"kind": kind.as_str(), "name": name, "id": id, "payload": payload});
        if self == Self::EventOfMessage
            && let Some(task) = task.as_object_mut()
        {
            task.remove("id");
        }
        let body = match self {
            Self::Garbage => format!("{GARBAGE}{number}"),
            _ => task.to_string(),
        };
        let again = matches!(self, Self::EventTwice | Self::CallTwice);
        Parcel { lane: Lane::task(kind.as_str(), kind), body, again }
    }
}

/// The number of the task with this body.
pub fn number_of(body: &str) -> Option<u64> {
    match body.trim_end().strip_prefix(GARBAGE) {
        Some(number) => number.parse().ok(),
        None => {
            let payload = &serde_json::from_str::<Value>(body).ok()?["payload"];
            payload["number"].as_u64().or(payload["body"]["number"].as_u64())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_body_tells_its_number_and_every_kind_occurs() {
        let service = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut kinds = BTreeSet::new();
        for number in 0..60 {
            let kind = Kind::of(number);
            kinds.insert(kind);
            let body = kind.parcel(number, Uuid::now_v7(), service).body;
            assert_eq!(number_of(&body), Some(number), "{body}");
        }
        assert_eq!(kinds.len(), 12);
        assert_eq!(number_of("garbage"), None);
    }
}
