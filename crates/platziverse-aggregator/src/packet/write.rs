//! What an aggregator says, as JSON text.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

/// What is wrong, as programs read it. The words are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The packet does not say what it should.
    InvalidPacket,
    /// The packet is longer than allowed.
    TooLarge,
    /// There is no channel of that name.
    UnknownChannel,
    /// That cannot be published to, or consumed from.
    UnknownTarget,
    /// More requests than may wait at a time.
    TooMany,
    /// The client reads too slowly: some messages are gone.
    Dropped,
    /// The reply did not come in time.
    Timeout,
    /// The server has failed at the request.
    Failed,
    /// What is needed does not answer now.
    Unavailable,
}

impl Code {
    /// Every code.
    pub const ALL: &[Self] = &[
        Self::InvalidPacket,
        Self::TooLarge,
        Self::UnknownChannel,
        Self::UnknownTarget,
        Self::TooMany,
        Self::Dropped,
        Self::Timeout,
        Self::Failed,
        Self::Unavailable,
    ];
}

/// What is wrong, for programs and people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// For programs.
    pub code: Code,
    /// For people: what to change.
    pub text: String,
}

impl Reason {
    /// A reason.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The packet that says so, of the packet of that id if there is one.
    pub fn packet(&self, id: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Error<'a> {
            packet_action: &'static str,
            code: Code,
            text: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<&'a str>,
        }
        text(&Error { packet_action: "error", code: self.code, text: &self.text, id })
    }
}

/// The first packet of a session.
#[derive(Clone, Debug, Serialize)]
pub struct Welcome<'a> {
    /// Who the client is.
    pub client: &'a str,
    /// What to show for going on with this session later.
    pub resume_token: &'a str,
    /// Whether it goes on with the session of the token that was shown.
    pub resumed: bool,
    /// What the client has missed and cannot be sent: empty if nothing.
    pub missed: BTreeMap<&'a str, Missed>,
    /// What the session is subscribed to.
    pub channels: Vec<&'a str>,
    /// How long the session is kept after the client has gone, in milliseconds.
    pub resume_window_ms: u64,
    /// Bytes of a packet.
    pub packet_bytes_max: usize,
}

/// Messages of a source that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Missed {
    /// The first offset that is gone.
    pub from: u64,
    /// The first offset after it that is there.
    pub to: u64,
}

impl Welcome<'_> {
    /// The packet.
    pub fn packet(&self) -> String {
        tagged("welcome", self)
    }
}

/// Whether there is a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Existence {
    /// It is connected, or away for less than the resume window.
    Known,
    /// No aggregator knows it. If it comes back within the resume window, it gets the message.
    Unknown,
}

/// That a packet was carried out: what it published is stored.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Receipt<'a> {
    /// The packet's id.
    pub id: &'a str,
    /// Which of the clients there are, for a direct message.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub clients: BTreeMap<&'a str, Existence>,
    /// What to show from now on for going on with this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_token: Option<&'a str>,
}

impl Receipt<'_> {
    /// The packet.
    pub fn packet(&self) -> String {
        tagged("receipt", self)
    }
}

/// A message for clients.
#[derive(Clone, Debug, Serialize)]
pub struct MessageFrame<'a> {
    /// The channel it came in.
    pub channel: &'a str,
    /// The source it is from.
    pub source: &'a str,
    /// Its place there: what to `ack`, and what to drop repeats by.
    pub offset: u64,
    /// Who sent it, if that was a client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<&'a str>,
    /// What a reply is to name, if it asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    /// What was sent.
    pub message: &'a RawValue,
}

impl MessageFrame<'_> {
    /// The packet.
    pub fn packet(&self) -> String {
        tagged("message", self)
    }
}

/// Serializes a struct with its `packet_action`.
fn tagged(action: &'static str, packet: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Tagged<'a, P> {
        packet_action: &'static str,
        #[serde(flatten)]
        packet: &'a P,
    }
    text(&Tagged { packet_action: action, packet })
}

fn text(packet: &impl Serialize) -> String {
    // Structs of texts and numbers are always JSON.
    serde_json::to_string(packet).unwrap_or_default()
}

/// The answer to a ping.
pub fn pong(id: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Pong<'a> {
        packet_action: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    }
    text(&Pong { packet_action: "pong", id })
}

/// The answer to a request: the packet of that id ends with it. It says which client it is from, if
/// it is from one.
pub fn reply(id: &str, from: Option<&str>, message: &RawValue) -> String {
    #[derive(Serialize)]
    struct Reply<'a> {
        packet_action: &'static str,
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<&'a str>,
        message: &'a RawValue,
    }
    text(&Reply { packet_action: "reply", id, from, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_json() {
        let message = RawValue::from_string("{\"a\": 1}".to_owned()).unwrap();
        let frame = MessageFrame {
            channel: "chat",
            source: "OUT_CHAT",
            offset: u64::MAX,
            from: None,
            request_id: Some("7"),
            message: &message,
        };
        assert_eq!(
            frame.packet(),
            "{\"packet_action\":\"message\",\"channel\":\"chat\",\"source\":\"OUT_CHAT\",\
             \"offset\":18446744073709551615,\"request_id\":\"7\",\"message\":{\"a\": 1}}"
        );
        assert_eq!(
            Reason::new(Code::Timeout, "too late").packet(Some("7")),
            "{\"packet_action\":\"error\",\"code\":\"timeout\",\"text\":\"too late\",\"id\":\"7\"}"
        );
        let clients = [("ana", Existence::Known), ("bob", Existence::Unknown)].into();
        assert_eq!(
            Receipt { id: "1", clients, resume_token: None }.packet(),
            "{\"packet_action\":\"receipt\",\"id\":\"1\",\
             \"clients\":{\"ana\":\"known\",\"bob\":\"unknown\"}}"
        );
        assert_eq!(
            reply("7", None, &message),
            "{\"packet_action\":\"reply\",\"id\":\"7\",\"message\":{\"a\": 1}}"
        );
    }
}
