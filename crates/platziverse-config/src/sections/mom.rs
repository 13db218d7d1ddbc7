//! `mom`: topics and queues for applications, over HTTP and gRPC.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};

/// Topics and queues for applications, over HTTP and gRPC.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MomConfig {
    /// Address and port of the HTTP listener.
    pub listen: SocketAddr,
    /// Address and port of the gRPC listener.
    pub grpc_listen: SocketAddr,
}

impl Default for MomConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 8080).into(),
            grpc_listen: (Ipv4Addr::UNSPECIFIED, 50_052).into(),
        }
    }
}

pub(crate) const NAME: &str = "mom";

pub(crate) const KEYS: &[Key] =
    &[Key::new("listen", Kind::Address), Key::new("grpc_listen", Kind::Address)];

impl MomConfig {
    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        schema::check_section(NAME, KEYS, self, problems);
        if self.listen == self.grpc_listen && self.listen.port() != 0 {
            let found = self.grpc_listen.to_string();
            problems.wrong("mom.grpc_listen", found, "another address or port than mom.listen");
        }
    }
}
