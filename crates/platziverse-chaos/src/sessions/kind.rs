//! What clients send. Pure.

use serde_json::{Value, json};

/// The channel that has servers.
pub const CHAT: &str = "chat";
/// The channel without any.
pub const VOICE: &str = "voice";
/// What clients receive from.
pub const SOURCES: [&str; 2] = ["OUT_CHAT", "OUT_VOICE"];
/// How many clients there are.
pub const CLIENTS: usize = 6;
/// Longer than anything is away: no request of a round may end by it.
const DEADLINE_MS: u64 = 60_000;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For everybody in the channel of that name.
    Broadcast(&'static str),
    /// For one client.
    Direct,
    /// For two clients.
    Multicast,
    /// For a server, which tells everybody.
    Say,
    /// For a server, which answers.
    Request,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Request,
        Self::Broadcast(CHAT),
        Self::Direct,
        Self::Request,
        Self::Say,
        Self::Broadcast(VOICE),
        Self::Multicast,
        Self::Request,
    ];

    /// Each in its turn.
    pub fn of(number: u64) -> Self {
        let turn = usize::try_from(number).unwrap_or_default();
        Self::ALL[turn % Self::ALL.len()]
    }

    /// The packet with this id, and for these clients if it is for some.
    pub fn packet(self, id: &str, clients: &[String]) -> Value {
        let publish = |channel: &str, distribution: Value, to: Value| {
            json!({
                "packet_action": "publish", "channel": {channel: true}, "distribution": distribution,
                "message": {"id": id, "to": to},
            })
        };
        match self {
            Self::Broadcast(channel) => publish(channel, json!({"broadcast": true}), json!([])),
            Self::Direct => {
                let one = &clients[..clients.len().min(1)];
                publish(CHAT, json!({"direct": one}), json!(one))
            }
            Self::Multicast => publish(CHAT, json!({"multicast": clients}), json!(clients)),
            Self::Say => json!({
                "packet_action": "publish", "channel": {CHAT: true}, "message": {"say": id},
            }),
            Self::Request => json!({
                "packet_action": "request", "channel": {CHAT: true}, "message": {"ask": id},
                "deadline_ms": DEADLINE_MS,
            }),
        }
    }
}

/// The name of the client at this place.
pub fn name(place: usize) -> String {
    format!("client-{place}")
}
