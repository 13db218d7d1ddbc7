//! `gateway`: the MQTT edge.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use platziverse_protocol::topic::TopicFilter;
use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};
use crate::secret::Secret;

/// Who may connect without a user name.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Anonymous {
    /// Clients on the same machine.
    #[default]
    Loopback,
    /// Everybody.
    Always,
    /// Nobody.
    Never,
}

/// A user of the gateway.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The CONNECT packet's user name.
    pub username: String,
    /// argon2 hash of the password as a PHC string (`$argon2id$v=19$…`).
    pub password_hash: Secret,
    /// Topic filters that the user may publish to.
    #[serde(default = "every_topic")]
    pub publish: Vec<TopicFilter>,
    /// Topic filters that the user may subscribe to, narrower ones included.
    #[serde(default = "every_topic")]
    pub subscribe: Vec<TopicFilter>,
}

/// Topics that are kept in a queue besides being delivered to subscribers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Topic filter. If it has wildcards, the queue gets more: every topic of more than 255 bytes,
    /// because their routing keys are cut, and topics that begin with `$`. Who consumes the queue
    /// matches the topic of each record again.
    pub filter: TopicFilter,
    /// Name of the queue in RabbitMQ, at most 237 bytes; none of Platziverse's own.
    pub queue: String,
}

/// The MQTT edge.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address of the MQTT listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may connect without a user name.
    pub anonymous: Anonymous,
    /// Topic filters that clients without a user name may publish to.
    pub anonymous_publish: Vec<TopicFilter>,
    /// Topic filters that clients without a user name may subscribe to.
    pub anonymous_subscribe: Vec<TopicFilter>,
    /// Who may connect with a user name.
    pub users: Vec<User>,
    /// Topics that are kept in a queue too.
    pub routes: Vec<Route>,
    /// Connections at a time; more are closed at once.
    pub max_connections: usize,
    /// Bytes of a whole MQTT packet (MQTT 5: 3.2.2.3.6).
    pub max_packet_size: u32,
    /// QoS 1 and 2 publishes of one client that may await their answer (MQTT 5: 3.2.2.3.3).
    pub receive_maximum: u16,
    /// How long a new connection may take to send CONNECT and to be let in.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Messages buffered for one subscriber.
    pub outbound_queue: usize,
    /// Records that share one AMQP message at most.
    pub batch_records: usize,
    /// Bytes of records that share one AMQP message at most; a larger record goes alone.
    pub batch_bytes: usize,
    /// AMQP messages that may await their confirm.
    pub publish_window: usize,
    /// Bytes of records that await RabbitMQ on their way to storage, and as many on their way to
    /// subscribers and routes; beyond, clients are not read. Dead letters have a quarter of it, or
    /// 16 MiB if that is more.
    pub publish_buffer_bytes: usize,
    /// Filters bound one by one to the live queue; beyond it, `#` is bound.
    pub bound_filters_max: usize,
    /// Messages in the live queue; beyond it, the oldest are dropped.
    pub live_queue_length: u32,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1883)),
            anonymous: Anonymous::Loopback,
            anonymous_publish: every_topic(),
            anonymous_subscribe: every_topic(),
            users: Vec::new(),
            routes: Vec::new(),
            max_connections: 50_000,
            max_packet_size: 1_048_576,
            receive_maximum: 256,
            connect_timeout: Duration::from_secs(5),
            outbound_queue: 1_000,
            batch_records: 256,
            batch_bytes: 131_072,
            publish_window: 4,
            publish_buffer_bytes: 67_108_864,
            bound_filters_max: 1_000,
            live_queue_length: 100_000,
        }
    }
}

fn every_topic() -> Vec<TopicFilter> {
    vec![TopicFilter::every_topic()]
}

pub(crate) const NAME: &str = "gateway";

const FILTERS: Kind = Kind::List { min: 0, item: &Kind::Filter };

const USER: &[Key] = &[
    // MQTT strings have at most 65,535 bytes (1.5.4).
    Key::new("username", Kind::Text { min: 1, max: 65_535 }),
    Key::new("password_hash", Kind::PasswordHash).secret(),
    Key::new("publish", FILTERS).optional(),
    Key::new("subscribe", FILTERS).optional(),
];

const ROUTE: &[Key] = &[
    Key::new("filter", Kind::Filter),
    // The exchange before the queue has its name after `platziverse.route.`, in 255 bytes.
    Key::new("queue", Kind::Queue { max: 237, ours: &[] }),
];

pub(crate) const KEYS: &[Key] = &[
    Key::new("listen", Kind::Address),
    Key::new("anonymous", Kind::Choice(&["loopback", "always", "never"])),
    Key::new("anonymous_publish", FILTERS),
    Key::new("anonymous_subscribe", FILTERS),
    Key::new("users", Kind::Rows(USER)),
    Key::new("routes", Kind::Rows(ROUTE)),
    Key::new("max_connections", Kind::Whole { min: 1, max: 10_000_000 }),
    // A payload of 256 KiB with its topic, id and properties must fit; MQTT's own limit (2.1.4).
    Key::new("max_packet_size", Kind::Whole { min: 270_336, max: 8_388_608 }),
    Key::new("receive_maximum", Kind::Whole { min: 1, max: 65_535 }),
    Key::new(
        "connect_timeout",
        Kind::Span { min: Duration::from_millis(100), max: Duration::from_secs(300) },
    ),
    Key::new("outbound_queue", Kind::Whole { min: 1, max: 1_000_000 }),
    Key::new("batch_records", Kind::Whole { min: 1, max: 100_000 }),
    Key::new("batch_bytes", Kind::Whole { min: 1_024, max: 16_777_216 }),
    Key::new("publish_window", Kind::Whole { min: 1, max: 10_000 }),
    Key::new("publish_buffer_bytes", Kind::Whole { min: 1_048_576, max: 4_294_967_295 }),
    Key::new("bound_filters_max", Kind::Whole { min: 0, max: 1_000_000 }),
    Key::new("live_queue_length", Kind::Whole { min: 1, max: 4_294_967_295 }),
];

impl GatewayConfig {
    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        schema::check_section(NAME, KEYS, self, problems);
        self.validate_users(problems);
        // Otherwise one large message could wait for room that never comes.
        let needed = u64::from(self.max_packet_size) * 2;
        if (self.publish_buffer_bytes as u64) < needed {
            problems.wrong(
                "gateway.publish_buffer_bytes",
                self.publish_buffer_bytes,
                format!("at least {needed}, twice gateway.max_packet_size"),
            );
        }
    }

    fn validate_users(&self, problems: &mut Problems) {
        let mut names = HashSet::new();
        for (index, user) in self.users.iter().enumerate() {
            if !names.insert(&user.username) {
                problems.wrong(
                    format!("gateway.users[{index}].username"),
                    format!("{:?}", user.username),
                    "a name that no other user has",
                );
            }
        }
    }
}
