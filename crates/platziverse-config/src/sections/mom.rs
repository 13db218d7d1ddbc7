//! `mom`: topics and queues for applications, over HTTP and gRPC.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};
use crate::secret::Secret;

/// Topics and queues for applications, over HTTP and gRPC.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MomConfig {
    /// Address and port of the HTTP listener.
    pub listen: SocketAddr,
    /// Address and port of the gRPC listener.
    pub grpc_listen: SocketAddr,
    /// Whether clients of the older system are served: form posts on `listen`, and its gRPC services
    /// on `older_grpc_listen`.
    pub older_wire: bool,
    /// Address and port of the older system's gRPC services.
    pub older_grpc_listen: SocketAddr,
    /// Whether anybody may become a user.
    pub open_registration: bool,
    /// New users a minute from one address, at one server; 0 for any number.
    pub registrations_per_address: u32,
    /// Requests a second with one key, at one server; 0 for any number.
    pub rate_per_key: u32,
    /// Connections at a time of each listener, and calls at a time over gRPC; more are refused at
    /// once.
    pub connections_max: usize,
    /// Bytes of a message's body.
    pub body_bytes_max: usize,
    /// How long a consumer may wait for a message.
    #[serde(with = "humantime_serde")]
    pub wait_max: Duration,
    /// How long a message is lent to a consumer that does not say how long.
    #[serde(with = "humantime_serde")]
    pub lease_default: Duration,
    /// Subscribers of one topic or queue.
    pub subscribers_max: u32,
    /// Messages in a queue, or in a subscriber's part of a topic, unless its creator asks for fewer.
    pub queue_length_max: u64,
    /// Bytes in a queue, or in a subscriber's part of a topic.
    pub queue_bytes_max: u64,
    /// How often a message may come back to its queue; once more, and it becomes a dead letter. Unless
    /// the creator says another number.
    pub delivery_limit: u32,
    /// How long a publish is known by its idempotency key.
    #[serde(with = "humantime_serde")]
    pub idempotency_window: Duration,
    /// Of clients: where the gRPC listener is, `http://host:50052`, or `https://` behind a TLS terminator.
    pub url: Option<String>,
    /// Of clients: the key that they show.
    pub key: Option<Secret>,
}

impl Default for MomConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 8080).into(),
            grpc_listen: (Ipv4Addr::UNSPECIFIED, 50_052).into(),
            older_wire: true,
            older_grpc_listen: (Ipv4Addr::UNSPECIFIED, 50_051).into(),
            open_registration: true,
            registrations_per_address: 60,
            rate_per_key: 20_000,
            connections_max: 10_000,
            body_bytes_max: 1_048_576,
            wait_max: Duration::from_secs(60),
            lease_default: Duration::from_secs(30),
            subscribers_max: 1_000,
            queue_length_max: 1_000_000,
            queue_bytes_max: 1_073_741_824,
            delivery_limit: 100,
            idempotency_window: Duration::from_secs(86_400),
            url: None,
            key: None,
        }
    }
}

pub(crate) const NAME: &str = "mom";

pub(crate) const KEYS: &[Key] = &[
    Key::new("listen", Kind::Address),
    Key::new("grpc_listen", Kind::Address),
    Key::new("older_wire", Kind::Flag),
    Key::new("older_grpc_listen", Kind::Address),
    Key::new("open_registration", Kind::Flag),
    Key::new("registrations_per_address", Kind::Whole { min: 0, max: 1_000_000 }),
    Key::new("rate_per_key", Kind::Whole { min: 0, max: 1_000_000 }),
    Key::new("connections_max", Kind::Whole { min: 1, max: 10_000_000 }),
    // RabbitMQ 4 takes messages of 16 MiB.
    Key::new("body_bytes_max", Kind::Whole { min: 1_024, max: 8_388_608 }),
    Key::new("wait_max", Kind::Span { min: Duration::from_secs(1), max: Duration::from_secs(600) }),
    // RabbitMQ takes back what is held for longer than its `consumer_timeout`, 30 minutes.
    Key::new(
        "lease_default",
        Kind::Span { min: Duration::from_secs(1), max: Duration::from_secs(1_500) },
    ),
    // One message names the queues of all of them.
    Key::new("subscribers_max", Kind::Whole { min: 1, max: 1_000 }),
    Key::new("queue_length_max", Kind::Whole { min: 1, max: 4_294_967_295 }),
    Key::new("queue_bytes_max", Kind::Whole { min: 1_048_576, max: 1_099_511_627_776 }),
    Key::new("delivery_limit", Kind::Whole { min: 1, max: 1_000_000 }),
    Key::new(
        "idempotency_window",
        Kind::Span { min: Duration::from_secs(60), max: Duration::from_secs(30 * 86_400) },
    ),
    Key::new("url", Kind::Url(URL)).optional(),
    Key::new("key", Kind::Text { min: 1, max: 255 }).secret().optional(),
];

/// What `mom.url` looks like.
const URL: &str = "http://host:50052";

impl MomConfig {
    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        schema::check_section(NAME, KEYS, self, problems);
        let is_url = |url: &String| {
            let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            rest.is_some_and(|rest| !rest.is_empty())
        };
        if self.url.as_ref().is_some_and(|url| !is_url(url)) {
            problems.wrong("mom.url", "something else", format!("a URL such as {URL}"));
        }
        let own = [
            ("listen", self.listen),
            ("grpc_listen", self.grpc_listen),
            ("older_grpc_listen", self.older_grpc_listen),
        ];
        for (index, (name, address)) in own.iter().enumerate() {
            let before = own[..index].iter().find(|(_, other)| other == address);
            if let Some((other, _)) = before.filter(|_| address.port() != 0) {
                let allowed = format!("another address or port than mom.{other}");
                problems.wrong(format!("mom.{name}"), address.to_string(), allowed);
            }
        }
    }
}
