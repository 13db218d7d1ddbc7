//! What an agent sends.

use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The time `ago`, in milliseconds since 1970.
pub fn millis_ago(ago: Duration) -> i64 {
    let (seconds, nanos) =
        Uuid::now_v7().get_timestamp().expect("a UUIDv7 carries the time").to_unix();
    let now = Duration::new(seconds, nanos);
    i64::try_from(now.saturating_sub(ago).as_millis()).expect("milliseconds fit into 63 bits")
}

/// A payload of `agent/message`.
#[derive(Clone, Debug)]
pub struct Message {
    agent: Value,
    metrics: Vec<Value>,
    more: Map<String, Value>,
}

impl Message {
    /// The message of the manual: agent `yyy`, two metrics.
    pub fn example() -> Self {
        Self::of("yyy").metric("memory", json!("1001")).metric("temp", json!("33"))
    }

    /// A message about the agent `uuid`, without metrics.
    pub fn of(uuid: &str) -> Self {
        let agent = json!({
            "uuid": uuid, "name": "platzi", "username": "platzi", "pid": 10,
            "hostname": "platzibogota",
        });
        Self { agent, metrics: Vec::new(), more: Map::new() }
    }

    /// The same message from the agent `uuid`.
    pub fn from_agent(mut self, uuid: &str) -> Self {
        self.agent["uuid"] = uuid.into();
        self
    }

    /// With another value of a field of the agent.
    pub fn with_agent(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.agent[field] = value.into();
        self
    }

    /// With one more metric.
    pub fn metric(mut self, kind: &str, value: impl Into<Value>) -> Self {
        self.metrics.push(json!({"type": kind, "value": value.into()}));
        self
    }

    /// With an id of the sender's.
    pub fn id(mut self, id: Uuid) -> Self {
        self.more.insert("id".into(), id.to_string().into());
        self
    }

    /// With the time of the measurement, in milliseconds since 1970.
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.more.insert("timestamp".into(), millis.into());
        self
    }

    /// The payload.
    pub fn json(&self) -> String {
        let mut message = self.more.clone();
        message.insert("agent".into(), self.agent.clone());
        message.insert("metrics".into(), self.metrics.clone().into());
        Value::Object(message).to_string()
    }
}
