//! `ops`: what an operator sees of a service, and how it ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};

/// What an operator sees of a service, and how it ends.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpsConfig {
    /// Address of `/healthz`, `/readyz` and `/metrics`; without it, the service's own default.
    pub listen: Option<SocketAddr>,
    /// How long a service may take to finish what is in flight when it is asked to end.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

/// `ops.listen` of a gateway that is not told otherwise. Each service has a port of its own, so that
/// all can run on one machine.
pub const GATEWAY_OPS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9101);
/// `ops.listen` of a worker that is not told otherwise.
pub const WORKER_OPS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9102);
/// `ops.listen` of a server of topics and queues that is not told otherwise.
pub const MOM_OPS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9104);
/// `ops.listen` of an aggregator that is not told otherwise.
pub const AGGREGATOR_OPS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9105);

impl Default for OpsConfig {
    fn default() -> Self {
        Self { listen: None, drain_timeout: Duration::from_secs(10) }
    }
}

pub(crate) const NAME: &str = "ops";

pub(crate) const KEYS: &[Key] = &[
    Key::new("listen", Kind::Address).optional(),
    Key::new("drain_timeout", Kind::Span { min: Duration::ZERO, max: Duration::from_secs(3_600) }),
];

impl OpsConfig {
    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        schema::check_section(NAME, KEYS, self, problems);
    }
}
