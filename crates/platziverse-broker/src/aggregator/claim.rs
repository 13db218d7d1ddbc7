//! Claims to requests. Whoever is to send a request to servers first writes in the stream of requests
//! that it will: of several aggregators that are asked for the same one, that whose claim comes first
//! there sends it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Tells a claim from all others.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ClaimId {
    /// The aggregator whose it is.
    pub owner: Uuid,
    /// Which one of its claims.
    pub number: u64,
}

impl ClaimId {
    /// The key of `platziverse.clients` under which its owner has a binding, while it is there and
    /// connected. No client is called so.
    pub fn owner_key(owner: Uuid) -> String {
        format!("aggregator.{owner}")
    }
}

/// What has become of a claim.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    /// Its owner is about to send the request.
    #[default]
    Made,
    /// The request has been sent.
    Sent,
    /// Its owner does not send it.
    Void,
}

/// What an aggregator is about to send.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Claim {
    /// Which claim it is.
    pub id: ClaimId,
    /// Whose request.
    pub client: String,
    /// Its id.
    pub request: String,
    /// What has become of it.
    #[serde(default)]
    pub state: ClaimState,
    /// The claim that has come to nothing, in whose place this one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<ClaimId>,
}
