//! `aggregator`: one WebSocket between a client and the services behind the broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};
use crate::secret::Secret;
use crate::sections::gateway::Anonymous;

/// What becomes of a client that does not read what it is sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The oldest messages are dropped, and the client is told how many.
    #[default]
    DropOldest,
    /// It is disconnected, and can come back.
    Close,
}

/// A client that is known by a token.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientToken {
    /// The client's id.
    pub client: String,
    /// What it shows.
    pub token: Secret,
}

/// One WebSocket between a client and the services behind the broker.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AggregatorConfig {
    /// Address and port of the WebSocket listener.
    pub listen: SocketAddr,
    /// The channels, in lower case: each has its queue `IN_…` and its stream `OUT_…` in upper case.
    pub channels: Vec<String>,
    /// Who may connect without a token, under an id that it chooses.
    pub anonymous: Anonymous,
    /// Clients with a token each.
    pub tokens: Vec<ClientToken>,
    /// What JWTs are signed with (HS256); the claim `sub` is the client's id.
    pub jwt_secret: Option<Secret>,
    /// The public key, as PEM, of those who sign JWTs with EdDSA.
    pub jwt_public_key: Option<String>,
    /// What resume tokens are signed with; the same for all replicas. Without it, a session goes on
    /// at the same process only.
    pub session_secret: Option<Secret>,
    /// Pages whose scripts may connect (`https://host`), or `*` for all.
    pub origins: Vec<String>,
    /// How long what is sent to a client that is gone is kept for its return.
    #[serde(with = "humantime_serde")]
    pub resume_window: Duration,
    /// How long a request is known by its id, so that it is not sent twice.
    #[serde(with = "humantime_serde")]
    pub request_window: Duration,
    /// WebSockets at a time; more are refused.
    pub sockets_max: usize,
    /// WebSockets of one client.
    pub sockets_per_client: usize,
    /// WebSockets from one address.
    pub sockets_per_address: usize,
    /// Bytes of a packet.
    pub packet_bytes_max: usize,
    /// Packets a second of one WebSocket, and as many at once. One to several channels or clients
    /// counts for each of them.
    pub packets_per_second: u32,
    /// Bytes of packets a second of one WebSocket, and as many at once.
    pub bytes_per_second: u32,
    /// Messages that wait for one client.
    pub outbox_messages: usize,
    /// Bytes of messages that wait for one client.
    pub outbox_bytes: usize,
    /// What happens when there is no room for them.
    pub when_full: WhenFull,
    /// Bytes of the latest messages of each channel that are kept in memory for those who come back.
    pub recent_bytes: usize,
    /// Bytes of each stream in RabbitMQ.
    pub stream_bytes_max: u64,
}

impl Default for AggregatorConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 8081).into(),
            channels: ["voice", "chat", "tickets"].map(str::to_owned).to_vec(),
            anonymous: Anonymous::Loopback,
            tokens: Vec::new(),
            jwt_secret: None,
            jwt_public_key: None,
            session_secret: None,
            origins: Vec::new(),
            resume_window: Duration::from_secs(120),
            request_window: Duration::from_secs(300),
            sockets_max: 20_000,
            sockets_per_client: 16,
            sockets_per_address: 10_000,
            packet_bytes_max: 65_536,
            packets_per_second: 200,
            bytes_per_second: 1_048_576,
            outbox_messages: 1_000,
            outbox_bytes: 1_048_576,
            when_full: WhenFull::DropOldest,
            recent_bytes: 16_777_216,
            stream_bytes_max: 1_073_741_824,
        }
    }
}

pub(crate) const NAME: &str = "aggregator";

const TOKEN: &[Key] = &[
    Key::new("client", Kind::Text { min: 1, max: 100 }),
    Key::new("token", Kind::Text { min: 16, max: 1_000 }).secret(),
];

pub(crate) const KEYS: &[Key] = &[
    Key::new("listen", Kind::Address),
    Key::new("channels", Kind::List { min: 1, item: &Kind::Text { min: 1, max: 100 } }),
    Key::new("anonymous", Kind::Choice(&["loopback", "always", "never"])),
    Key::new("tokens", Kind::Rows(TOKEN)),
    Key::new("jwt_secret", Kind::Text { min: 32, max: 10_000 }).secret().optional(),
    Key::new("jwt_public_key", Kind::Text { min: 1, max: 10_000 }).optional(),
    Key::new("session_secret", Kind::Text { min: 32, max: 10_000 }).secret().optional(),
    Key::new("origins", Kind::List { min: 0, item: &Kind::Text { min: 1, max: 1_000 } }),
    Key::new(
        "resume_window",
        Kind::Span { min: Duration::from_secs(1), max: Duration::from_secs(86_400) },
    ),
    Key::new(
        "request_window",
        Kind::Span { min: Duration::from_secs(10), max: Duration::from_secs(86_400) },
    ),
    Key::new("sockets_max", Kind::Whole { min: 1, max: 10_000_000 }),
    Key::new("sockets_per_client", Kind::Whole { min: 1, max: 10_000 }),
    Key::new("sockets_per_address", Kind::Whole { min: 1, max: 10_000_000 }),
    // RabbitMQ 4 takes messages of 16 MiB.
    Key::new("packet_bytes_max", Kind::Whole { min: 1_024, max: 8_388_608 }),
    Key::new("packets_per_second", Kind::Whole { min: 1, max: 1_000_000 }),
    Key::new("bytes_per_second", Kind::Whole { min: 1_024, max: 1_073_741_824 }),
    Key::new("outbox_messages", Kind::Whole { min: 1, max: 1_000_000 }),
    Key::new("outbox_bytes", Kind::Whole { min: 1_024, max: 1_073_741_824 }),
    Key::new("when_full", Kind::Choice(&["drop_oldest", "close"])),
    Key::new("recent_bytes", Kind::Whole { min: 65_536, max: 17_179_869_184 }),
    // At least a few files of a stream.
    Key::new("stream_bytes_max", Kind::Whole { min: 67_108_864, max: 1_099_511_627_776 }),
];

/// Channels that there can be.
const CHANNELS_MAX: usize = 64;

impl AggregatorConfig {
    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        const ALLOWED: &str = "lower-case letters, digits and _; each channel once";
        schema::check_section(NAME, KEYS, self, problems);
        if self.channels.len() > CHANNELS_MAX {
            let found = format!("{} channels", self.channels.len());
            problems.wrong("aggregator.channels", found, format!("at most {CHANNELS_MAX}"));
        }
        for (index, channel) in self.channels.iter().enumerate() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !channel.chars().all(plain) || self.channels[..index].contains(channel) {
                let at = format!("aggregator.channels[{index}]");
                problems.wrong(at, format!("{channel:?}"), ALLOWED);
            }
        }
        // A message that fits into a packet must fit into an outbox.
        let needed = self.packet_bytes_max.saturating_mul(2);
        if self.outbox_bytes < needed {
            problems.wrong(
                "aggregator.outbox_bytes",
                self.outbox_bytes,
                format!("at least {needed}, twice aggregator.packet_bytes_max"),
            );
        }
    }
}
