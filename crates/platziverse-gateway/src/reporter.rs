//! The session of one accepted client: who it is, and the agents that it reports for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use platziverse_protocol::agent::{Agent, AgentUuid};
use platziverse_protocol::event::{connected_payload, disconnected_payload};
use platziverse_protocol::presence::SessionId;
use platziverse_protocol::record::{Payload, Record};
use platziverse_protocol::time::Timestamp;
use platziverse_protocol::topic::{AGENT_CONNECTED, AGENT_DISCONNECTED};
use uuid::Uuid;

use crate::auth::Permissions;
use crate::packet::Text;

/// The most agents that one connection reports for.
pub(crate) const AGENTS_MAX: usize = 1_000;

/// An accepted client.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) client: Text,
    pub(crate) session: SessionId,
    pub(crate) permissions: Permissions,
    agents: HashMap<AgentUuid<'static>, Attributes>,
}

#[derive(Debug)]
struct Attributes {
    username: Box<str>,
    name: Box<str>,
    hostname: Box<str>,
    pid: i32,
}

/// What binding an agent to the session comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// It is the session's first message for the agent, which is to be announced.
    New,
    /// The agent was bound before.
    Known,
    /// The session reports for as many agents as it may.
    Full,
}

/// A line to publish, with the agent that it is about.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) id: Uuid,
    pub(crate) topic: &'static str,
    pub(crate) uuid: AgentUuid<'static>,
    pub(crate) line: Bytes,
}

impl Reporter {
    pub(crate) fn new(client: Text, session: SessionId, permissions: Permissions) -> Self {
        Self { client, session, permissions, agents: HashMap::new() }
    }

    /// Binds the session to an agent.
    pub(crate) fn bind(&mut self, agent: &Agent<'_>) -> Binding {
        if self.agents.contains_key(&agent.uuid) {
            return Binding::Known;
        }
        if self.agents.len() >= AGENTS_MAX {
            return Binding::Full;
        }
        match self.agents.entry(agent.uuid.clone().into_owned()) {
            Entry::Occupied(_) => Binding::Known,
            Entry::Vacant(entry) => {
                entry.insert(Attributes {
                    username: agent.username.as_ref().into(),
                    name: agent.name.as_ref().into(),
                    hostname: agent.hostname.as_ref().into(),
                    pid: agent.pid,
                });
                Binding::New
            }
        }
    }

    /// Whether the session reports for any agent.
    pub(crate) fn is_bound(&self) -> bool {
        !self.agents.is_empty()
    }

    /// `agent/connected` for one agent.
    pub(crate) fn connected(&self, agent: &Agent<'_>, now: Timestamp) -> Line {
        let uuid = agent.uuid.clone().into_owned();
        self.line(AGENT_CONNECTED, uuid, &connected_payload(agent, self.session), now)
    }

    /// `agent/connected` for each agent that is bound.
    pub(crate) fn all_connected(&self, now: Timestamp) -> Vec<Line> {
        let agent = |(uuid, attributes): (&AgentUuid<'static>, &Attributes)| {
            let agent = Agent {
                uuid: uuid.clone(),
                username: (&*attributes.username).into(),
                name: (&*attributes.name).into(),
                hostname: (&*attributes.hostname).into(),
                pid: attributes.pid,
            };
            self.connected(&agent, now)
        };
        self.agents.iter().map(agent).collect()
    }

    /// `agent/disconnected` for each agent that is bound.
    pub(crate) fn all_disconnected(&self, now: Timestamp) -> Vec<Line> {
        let line = |uuid: &AgentUuid<'static>| {
            let payload = disconnected_payload(uuid, self.session);
            self.line(AGENT_DISCONNECTED, uuid.clone(), &payload, now)
        };
        self.agents.keys().map(line).collect()
    }

    fn line(
        &self,
        topic: &'static str,
        uuid: AgentUuid<'static>,
        payload: &str,
        now: Timestamp,
    ) -> Line {
        let id = Uuid::now_v7();
        let mut line = Vec::new();
        Record {
            id,
            topic: topic.into(),
            client: (&*self.client).into(),
            session: self.session,
            received: now,
            qos: 1,
            properties: None,
            payload: Payload::of_json(payload),
        }
        .encode_line(&mut line);
        Line { id, topic, uuid, line: Bytes::from(line) }
    }
}
