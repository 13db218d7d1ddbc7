//! `aggregator`: one WebSocket between a client and the services behind the broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};

/// One WebSocket between a client and the services behind the broker.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AggregatorConfig {
    /// Address and port of the WebSocket listener.
    pub listen: SocketAddr,
    /// The channels, in lower case: each has its queues `IN_…` and `OUT_…` in upper case.
    pub channels: Vec<String>,
    /// How long what is sent to a client that is gone is kept for its return.
    #[serde(with = "humantime_serde")]
    pub resume_window: Duration,
}

impl Default for AggregatorConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 8081).into(),
            channels: ["voice", "chat", "tickets"].map(str::to_owned).to_vec(),
            resume_window: Duration::from_secs(120),
        }
    }
}

pub(crate) const NAME: &str = "aggregator";

pub(crate) const KEYS: &[Key] = &[
    Key::new("listen", Kind::Address),
    Key::new("channels", Kind::List { min: 1, item: &Kind::Text { min: 1, max: 100 } }),
    Key::new(
        "resume_window",
        Kind::Span { min: Duration::from_secs(1), max: Duration::from_secs(86_400) },
    ),
];

impl AggregatorConfig {
    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        const ALLOWED: &str = "lower-case letters, digits and _; each channel once";
        schema::check_section(NAME, KEYS, self, problems);
        for (index, channel) in self.channels.iter().enumerate() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !channel.chars().all(plain) || self.channels[..index].contains(channel) {
                let at = format!("aggregator.channels[{index}]");
                problems.wrong(at, format!("{channel:?}"), ALLOWED);
            }
        }
    }
}
